//! Making a TAP, or adopting one: everything from the options to a port that is up.
//!
//! A new device is created in the daemon's own namespace and then moved by netlink, never by opening
//! `/dev/net/tun` inside the target: the descriptor's socket holds the namespace it was opened in (`tun_chr_open`:
//! `sk_alloc(net, …)`), so a container could never be freed while its port exists. A device that was moved holds
//! nothing: its namespace ends, takes the device with it, and the queues report EBADFD.
//!
//! Until the last step a new device is not persistent. So undoing is dropping the descriptors: the kernel deletes the device.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use ipnet::IpNet;
use rustix::io::Errno;

use super::{Tap, TapError, TapOptions, negotiate::negotiate};
use crate::{
    frame::Caps,
    netlink::{Link, NetlinkError, Socket},
    sys::{
        netns,
        tun::{self, EXCLUSIVE, MULTI_QUEUE, NO_PI, PERSIST, TAP, VNET_HDR},
    },
    wire::virtio_net,
};

/// Asks the kernel for the first free name of this form.
const ANY_NAME: &str = "tap%d";
/// Temporary names tried before giving up; one is taken only after a crash or by another daemon with our process id.
const TEMPORARY_NAMES: usize = 16;
/// Keeps a temporary name within 15 octets: "tw-4194304-9999".
const TEMPORARY_NUMBERS: u32 = 10_000;

pub(super) fn open(options: &TapOptions) -> Result<Tap, TapError> {
    check(options)?;
    let netns_error = |source| match &options.netns {
        Some(netns) => TapError::Netns { netns: netns.clone(), source },
        None => TapError::Device { operation: "find the namespace of", name: label(options), source },
    };
    let own = netns::current().map_err(netns_error)?;
    let own_id = netns::id(&own).map_err(netns_error)?;
    let target = match &options.netns {
        Some(netns) => netns.open().map_err(netns_error)?,
        None => own,
    };
    let elsewhere = (netns::id(&target).map_err(netns_error)? != own_id).then_some(target.as_fd());

    let mut socket = Socket::open_in(target.as_fd()).map_err(netns_error)?;
    let existing = match &options.ifname {
        Some(name) => socket.link_by_name(name)?,
        None => None,
    };
    let (queues, name, adopted) = match &existing {
        Some(link) => (adopt(options, link, elsewhere)?, link.name.clone(), true),
        None => {
            let (queues, name) = create(options, elsewhere)?;
            (queues, name, false)
        }
    };
    let device = |operation| {
        let name = name.clone();
        move |source| TapError::Device { operation, name, source }
    };
    // A device that vanishes while it is being made is an error of the next step, whichever that is.
    let control = queues[0].try_clone().map_err(device("duplicate the descriptor of"))?;
    let caps = set_up_header(&control, options.offload, options.uplink)
        .map_err(device("negotiate offloads with"))?;
    if let (None, Some(target)) = (&existing, elsewhere) {
        move_in(&control, target, options)?;
    }
    let (name, _) = tun::interface(control.as_fd()).map_err(device("read the name of"))?;
    // Asked of the device, so that a kernel that cannot answer (before 5.2) is found out here and not by a health check.
    let home =
        tun::device_netns(control.as_fd()).and_then(netns::id).map_err(device("find the namespace of"))?;
    let link = socket.link_by_name(&name)?.ok_or_else(|| TapError::Gone { name: name.clone() })?;
    if adopted && options.queues > 1 && link.tun.is_some_and(|tun| tun.queues as usize != options.queues) {
        return Err(TapError::InUse { name }); // somebody attached beside us
    }
    let mut added = Vec::new();
    let configured = configure(&mut socket, &link, options, &mut added).and_then(|()| {
        socket.link_by_index(link.index)?.ok_or_else(|| TapError::Gone { name: name.clone() })
    });
    let configured = configured.and_then(|link| {
        if options.persist && !adopted {
            tun::set_persist(control.as_fd(), true).map_err(device("make persistent"))?;
        }
        Ok(link)
    });
    match configured {
        Ok(now) => Ok(Tap {
            control,
            queues,
            caps,
            mac: now.mac.unwrap_or(crate::wire::MacAddr::ZERO),
            mtu: now.mtu,
            ifindex: now.index,
            ifname: now.name,
            addresses: options.addresses.clone(),
            netns: options.netns.clone(),
            home,
            adopted,
            persist: options.persist,
        }),
        Err(error) => {
            if adopted {
                restore(&mut socket, &link, &added);
            }
            Err(error)
        }
    }
}

fn label(options: &TapOptions) -> String {
    options.ifname.clone().unwrap_or_else(|| ANY_NAME.to_owned())
}

/// Refuses what the kernel would refuse later, or worse, understand differently (`dev_valid_name`, and `%d` as a number to be chosen).
fn check(options: &TapOptions) -> Result<(), TapError> {
    if options.queues == 0 || options.queues > tun::QUEUES_MAX {
        return Err(TapError::Queues { queues: options.queues });
    }
    let Some(name) = &options.ifname else { return Ok(()) };
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > tun::NAME_MAX {
        "it is longer than 15 octets"
    } else if name == "." || name == ".." {
        "it is a directory"
    } else if name == "all" || name == "default" {
        "the kernel keeps its settings for all interfaces under it (sysctl_dev_name_is_allowed)"
    } else if name.bytes().any(|b| matches!(b, b'/' | b':' | b'%') || b.is_ascii_whitespace() || b == 0) {
        "it contains one of / : % or white space"
    } else {
        return Ok(());
    };
    Err(TapError::NameInvalid { name: name.clone(), reason })
}

/// What a device of these options is opened with.
fn flags(options: &TapOptions) -> u16 {
    let vnet_hdr = if options.offload { VNET_HDR } else { 0 };
    let multi_queue = if options.queues > 1 { MULTI_QUEUE } else { 0 };
    TAP | NO_PI | vnet_hdr | multi_queue
}

/// Opens every queue of the device `name` in the calling thread's namespace; answers with the name the kernel chose.
/// `extra` are flags for the first queue alone.
fn attach(options: &TapOptions, name: &str, extra: u16) -> io::Result<(Vec<OwnedFd>, String)> {
    if !options.offload && options.queues == 1 {
        let queue = tun::attach_plain(name)?;
        let (name, flags) = tun::interface(queue.as_fd())?;
        if extra & EXCLUSIVE != 0 && flags & PERSIST != 0 {
            // tun-tap cannot ask for EXCLUSIVE; a device of ours is not persistent yet, so this one is somebody else's.
            return Err(Errno::BUSY.into());
        }
        return Ok((vec![queue], name));
    }
    let first = tun::open()?;
    let name = tun::attach(first.as_fd(), name, flags(options) | extra)?;
    let mut queues = vec![first];
    while queues.len() < options.queues {
        let queue = tun::open()?;
        tun::attach(queue.as_fd(), &name, flags(options))?;
        queues.push(queue);
    }
    Ok((queues, name))
}

/// Makes a new device: under its own name where it is to stay here, under a temporary one where it is to be moved.
fn create(
    options: &TapOptions,
    elsewhere: Option<BorrowedFd<'_>>,
) -> Result<(Vec<OwnedFd>, String), TapError> {
    let is_busy = |e: &io::Error| Errno::from_io_error(e) == Some(Errno::BUSY);
    if elsewhere.is_none() {
        let name = label(options);
        return attach(options, &name, EXCLUSIVE).map_err(|source| match is_busy(&source) {
            true => TapError::NameTaken { name },
            false => TapError::Device { operation: "create", name, source },
        });
    }
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut attempts = 1;
    loop {
        let name = format!("tw-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed) % TEMPORARY_NUMBERS);
        match attach(options, &name, EXCLUSIVE) {
            Err(e) if is_busy(&e) && attempts < TEMPORARY_NAMES => attempts += 1,
            Err(source) => {
                return Err(TapError::Device { operation: "create", name: label(options), source });
            }
            Ok(made) => return Ok(made),
        }
    }
}

/// Attaches to a persistent TAP that is there. The descriptors must be opened inside its namespace, and hold it:
/// the namespace of an adopted port lives at least as long as the port.
fn adopt(
    options: &TapOptions,
    link: &Link,
    elsewhere: Option<BorrowedFd<'_>>,
) -> Result<Vec<OwnedFd>, TapError> {
    let name = label(options);
    let Some(tun) = link.tun.filter(|tun| tun.tap && link.name == name) else {
        return Err(TapError::NameTaken { name });
    };
    if !tun.persist || tun.queues > 0 {
        return Err(TapError::InUse { name }); // one that does not persist is held by whoever has it open
    }
    if tun.multi_queue != (options.queues > 1) {
        return Err(TapError::QueueKind { name, multi_queue: tun.multi_queue });
    }
    let attached = match elsewhere {
        Some(netns) => netns::within(netns, || attach(options, &name, 0)).and_then(|attached| attached),
        None => attach(options, &name, 0),
    };
    match attached {
        Ok((queues, _)) => Ok(queues),
        Err(e) if Errno::from_io_error(&e) == Some(Errno::BUSY) => Err(TapError::InUse { name }),
        Err(source) => Err(TapError::Device { operation: "attach to", name, source }),
    }
}

/// Agrees on the virtio header and the offloads. Both belong to the device, not to the descriptor, and survive on a
/// persistent one: they are always set, also to nothing.
fn set_up_header(control: &OwnedFd, offload: bool, uplink: bool) -> io::Result<Caps> {
    let fd = control.as_fd();
    if !offload {
        tun::set_offload(fd, 0)?;
        return Ok(Caps::NONE);
    }
    // The length stands before the offloads are asked for: those of tunnels need the longer header.
    let len = if uplink { virtio_net::TUNNEL_LEN } else { virtio_net::LEN };
    tun::set_vnet_header_len(fd, len)?;
    tun::set_vnet_little_endian(fd)?;
    let caps = negotiate(uplink, |mask| tun::set_offload(fd, mask))?;
    if uplink && !caps.tunnel {
        tun::set_vnet_header_len(fd, virtio_net::LEN)?;
    }
    Ok(caps)
}

/// Moves a new device to where it belongs and gives it its name, in one request.
fn move_in(control: &OwnedFd, target: BorrowedFd<'_>, options: &TapOptions) -> Result<(), TapError> {
    let name = label(options);
    let device = |operation| {
        let name = name.clone();
        move |source| TapError::Device { operation, name, source }
    };
    let (temporary, _) = tun::interface(control.as_fd()).map_err(device("read the name of"))?;
    let mut here = Socket::open().map_err(device("open a netlink socket for"))?;
    let link = here.link_by_name(&temporary)?.ok_or_else(|| TapError::Gone { name: temporary.clone() })?;
    match here.move_link(&link, target, &name) {
        Err(e) if e.errno == Errno::EXIST => Err(TapError::NameTaken { name }),
        result => Ok(result?),
    }
}

/// Gives the interface end its addresses and sets it up: last, so that nothing sees it half configured.
/// `added` gets the addresses that were not there before.
fn configure(
    socket: &mut Socket,
    link: &Link,
    options: &TapOptions,
    added: &mut Vec<IpNet>,
) -> Result<(), TapError> {
    if let Some(mac) = options.mac.filter(|&mac| link.mac != Some(mac)) {
        socket.set_link_mac(link, mac)?;
    }
    if let Some(mtu) = options.mtu.filter(|&mtu| link.mtu != mtu) {
        socket.set_link_mtu(link, mtu)?;
    }
    for &net in &options.addresses {
        match socket.add_address(link, net) {
            Ok(()) => added.push(net),
            Err(NetlinkError { errno: Errno::EXIST, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(socket.set_link_up(link, true)?)
}

/// Puts an adopted interface back to how it was found. What the kernel refuses here it also refused before; the first error is the one to report.
fn restore(socket: &mut Socket, before: &Link, added: &[IpNet]) {
    for &net in added {
        let _ = socket.delete_address(before, net);
    }
    if let Some(mac) = before.mac {
        let _ = socket.set_link_mac(before, mac);
    }
    let _ = socket.set_link_mtu(before, before.mtu);
    let _ = socket.set_link_up(before, before.up);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_no_interface_can_have_is_refused_before_anything_is_made() {
        for name in ["", ".", "..", "all", "default", "sixteen-octets-x", "a/b", "a b", "a:b", "tap%d", "a\0"]
        {
            let options = TapOptions { ifname: Some(name.into()), ..TapOptions::default() };
            assert!(matches!(check(&options), Err(TapError::NameInvalid { .. })), "{name:?}");
        }
        let options = TapOptions { ifname: Some("fifteen-octets-".into()), ..TapOptions::default() };
        assert!(check(&options).is_ok());
    }

    #[test]
    fn a_temporary_name_is_never_too_long() {
        // The largest process id there can be (PID_MAX_LIMIT).
        assert!(format!("tw-{}-{}", 4 * 1024 * 1024, TEMPORARY_NUMBERS - 1).len() <= tun::NAME_MAX);
    }
}
