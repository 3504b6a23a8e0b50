//! A TAP port: the switch owns the descriptor end, somebody else has the interface end.
//!
//! Owns the device from its creation to its end: queues, offloads, name, addresses, namespace.
//! [`Tap`] belongs to the control thread; its [queues](TapQueue) go to the workers, by value.
//! Never holds a namespace (but see [`Tap::is_adopted`]): everything that must happen inside one opens what it needs
//! there, for one operation, and finds the way through the device itself (`TUNGETDEVNETNS`), so that it also works
//! after somebody has moved or renamed the interface.

mod error;
mod negotiate;
mod open;
mod queue;

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
};

use ipnet::IpNet;
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
};

pub use crate::netns::Netns;
pub use error::TapError;
pub use negotiate::{Features, batcher, words as offload_words};
pub use queue::TapQueue;
pub(super) use queue::WORTH_A_RING;

use crate::{
    frame::Caps,
    netlink::{Link, NetlinkError, Socket},
    sys::{
        netns::{self, NetnsId},
        tun,
    },
    wire::MacAddr,
};

/// What a TAP port is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapOptions {
    /// Name of the interface; the kernel chooses tap0, tap1 … where there is none.
    pub ifname: Option<String>,
    /// Where the interface is to appear; the daemon's own namespace where there is none.
    pub netns: Option<Netns>,
    /// Addresses of the interface.
    pub addresses: Vec<IpNet>,
    /// Ethernet address of the interface; random where there is none.
    pub mac: Option<MacAddr>,
    /// MTU of the interface; 1500 where there is none.
    pub mtu: Option<u32>,
    /// How many queues: one a worker.
    pub queues: usize,
    /// Whether the interface outlives the daemon.
    pub persist: bool,
    /// Whether frames carry a virtio header and offloads are negotiated.
    pub offload: bool,
    /// Whether super-frames in UDP tunnels are negotiated too, with the longer virtio header that describes them.
    pub uplink: bool,
}

impl Default for TapOptions {
    fn default() -> Self {
        Self {
            ifname: None,
            netns: None,
            addresses: Vec::new(),
            mac: None,
            mtu: None,
            queues: 1,
            persist: false,
            offload: true,
            uplink: false,
        }
    }
}

/// How a TAP is, seen from outside the packet path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// In its place, under its name, administratively up.
    Up,
    /// The device does not exist any more; the port is to be deleted.
    Gone(GoneReason),
    /// The interface was moved to another namespace.
    MovedNetns,
    /// The interface has another name now.
    Renamed(String),
    /// The interface is administratively down.
    InterfaceDown,
}

/// Why a device does not exist any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoneReason {
    /// Its namespace cannot be found any more, so it ended with it.
    NetnsEnded,
    /// Somebody deleted it.
    Deleted,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("up"),
            Self::Gone(GoneReason::NetnsEnded) => f.write_str("its network namespace ended"),
            Self::Gone(GoneReason::Deleted) => f.write_str("the interface was deleted"),
            Self::MovedNetns => f.write_str("the interface was moved to another network namespace"),
            Self::Renamed(name) => write!(f, "the interface was renamed to {name}"),
            Self::InterfaceDown => f.write_str("the interface is down"),
        }
    }
}

/// An open TAP.
///
/// Dropping it and all its queues closes the device: one that does not persist is deleted by the kernel, one that
/// does stays for the next daemon. See [`destroy`](Self::destroy) for the end of a port.
#[derive(Debug)]
pub struct Tap {
    /// The first queue's descriptor once more: asks and changes what belongs to the device. Never read from.
    control: OwnedFd,
    queues: Vec<OwnedFd>,
    caps: Caps,
    ifname: String,
    ifindex: u32,
    mac: MacAddr,
    mtu: u32,
    addresses: Vec<IpNet>,
    netns: Option<Netns>,
    home: NetnsId,
    adopted: bool,
    persist: bool,
}

impl Tap {
    /// Makes the TAP, or adopts it where a persistent one of its name exists and nobody has it open.
    /// On an error nothing is left of it, and an adopted one is as it was.
    ///
    /// Takes about 1 ms, and some 30 ms where the interface moves to another namespace: the kernel waits for grace
    /// periods. For the control thread alone.
    pub fn open(options: &TapOptions) -> Result<Self, TapError> {
        open::open(options)
    }

    /// The queues, to be handed to the workers; the second call gives none.
    pub fn take_queues(&mut self) -> Vec<TapQueue> {
        std::mem::take(&mut self.queues).into_iter().map(|fd| TapQueue::new(fd, self.caps)).collect()
    }

    /// What the interface end takes, as negotiated.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// The negotiated offloads in words: "csum", "tso4", "tso6", "tso_ecn", "uso"; of an uplink also "udp_tunnel", "udp_tunnel_csum".
    pub fn offloads(&self) -> Vec<&'static str> {
        negotiate::words(&self.caps)
    }

    /// Octets of the virtio header before each frame: 12, 24 where it describes tunnels, or 0 for a plain port.
    pub fn vnet_header_len(&self) -> usize {
        self.caps.vnet_header_len()
    }

    /// The name the interface was given.
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    /// The number of the interface in the namespace it was put in.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The interface's address, as last set or found.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// The interface's MTU, as last set or found.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The addresses this port has put on the interface.
    pub fn addresses(&self) -> &[IpNet] {
        &self.addresses
    }

    /// The namespace it was put in; `None` is the daemon's own.
    pub fn netns(&self) -> Option<&Netns> {
        self.netns.as_ref()
    }

    /// Whether the interface existed before. Its descriptors had to be opened inside its namespace and keep that
    /// namespace alive as long as the port; and [`destroy`](Self::destroy) leaves it.
    pub fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// The name the interface has now.
    pub fn current_name(&self) -> Result<String, TapError> {
        let (name, _) = tun::interface(self.control.as_fd()).map_err(self.failed("read the name of"))?;
        Ok(name)
    }

    /// Sets the interface's MTU.
    pub fn set_mtu(&mut self, mtu: u32) -> Result<(), TapError> {
        let (mut socket, link) = self.interface_end()?;
        socket.set_link_mtu(&link, mtu)?;
        self.mtu = mtu;
        Ok(())
    }

    /// Sets the interface's Ethernet address. A TAP takes it while up (`IFF_LIVE_ADDR_CHANGE`).
    pub fn set_mac(&mut self, mac: MacAddr) -> Result<(), TapError> {
        let (mut socket, link) = self.interface_end()?;
        socket.set_link_mac(&link, mac)?;
        self.mac = mac;
        Ok(())
    }

    /// Sets the interface administratively up or down.
    pub fn set_admin(&self, up: bool) -> Result<(), TapError> {
        let (mut socket, link) = self.interface_end()?;
        Ok(socket.set_link_up(&link, up)?)
    }

    /// Makes `wanted` the addresses of this port: adds what is missing on the interface, removes what this port had
    /// put there. Addresses that others have added stay.
    /// On an error, what was done so far is remembered and the call can be repeated.
    pub fn set_addresses(&mut self, wanted: &[IpNet]) -> Result<(), TapError> {
        let (mut socket, link) = self.interface_end()?;
        let present: Vec<IpNet> = socket.addresses(&link)?.into_iter().map(|a| a.net).collect();
        for &net in wanted {
            if !present.contains(&net) {
                match socket.add_address(&link, net) {
                    Ok(()) | Err(NetlinkError { errno: Errno::EXIST, .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if !self.addresses.contains(&net) {
                self.addresses.push(net);
            }
        }
        while let Some(at) = self.addresses.iter().position(|net| !wanted.contains(net)) {
            socket.delete_address(&link, self.addresses[at])?;
            self.addresses.swap_remove(at);
        }
        Ok(())
    }

    /// How the port is. Three system calls where all is well, and no thread: it may be asked often.
    pub fn health(&self) -> Result<Health, TapError> {
        let name = match tun::interface(self.control.as_fd()) {
            Ok((name, _)) => name,
            Err(e) if Errno::from_io_error(&e) == Some(Errno::BADFD) => {
                return Ok(Health::Gone(self.gone_reason()));
            }
            Err(source) => return Err(self.failed("read the name of")(source)),
        };
        let Some(place) = self.place()? else { return Ok(Health::Gone(self.gone_reason())) };
        let place = netns::id(&place).map_err(self.failed("find the namespace of"))?;
        if place != self.home {
            return Ok(Health::MovedNetns);
        }
        if name != self.ifname {
            return Ok(Health::Renamed(name));
        }
        // The descriptor is writable only while the interface is up (`tun_sock_writeable`): a cheap hint, confirmed
        // where it says no, because a full send buffer looks the same.
        let mut poll = [PollFd::new(&self.control, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut poll, Some(&now)) {
            Ok(_) if poll[0].revents().contains(PollFlags::OUT) => return Ok(Health::Up),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(self.failed("poll")(errno.into())),
        }
        match self.interface_end() {
            Ok((_, link)) if link.up => Ok(Health::Up),
            Ok(_) => Ok(Health::InterfaceDown),
            Err(TapError::Gone { .. }) => Ok(Health::Gone(self.gone_reason())),
            Err(error) => Err(error),
        }
    }

    /// The namespace and the number of the interface, where it ends with this port's last descriptor.
    pub fn own_interface(&self) -> Option<(OwnedFd, u32)> {
        if self.persist || self.adopted {
            return None;
        }
        let (_, link) = self.interface_end().ok()?;
        Some((self.place().ok()??, link.index))
    }

    /// Ends the port for good: a persistent interface that this port made disappears with the last queue, instead of
    /// staying for the next daemon. An adopted one stays, as its owner made it before us.
    pub fn destroy(self) -> Result<(), TapError> {
        if !self.persist || self.adopted {
            return Ok(());
        }
        match tun::set_persist(self.control.as_fd(), false) {
            Err(e) if Errno::from_io_error(&e) == Some(Errno::BADFD) => Ok(()), // gone already
            result => result.map_err(self.failed("end the persistence of")),
        }
    }

    /// Whether the namespace the device was put in can still be found where it was.
    fn gone_reason(&self) -> GoneReason {
        match self.netns.as_ref().map(|netns| netns.open().and_then(netns::id)) {
            Some(Ok(place)) if place != self.home => GoneReason::NetnsEnded,
            Some(Err(_)) => GoneReason::NetnsEnded,
            _ => GoneReason::Deleted,
        }
    }

    /// The namespace the device is in now; `None` where there is no device any more. A namespace that has lost its
    /// last user but is not taken down yet cannot be opened (EINVAL, `get_net_ns`): its devices are as good as deleted.
    fn place(&self) -> Result<Option<OwnedFd>, TapError> {
        match tun::device_netns(self.control.as_fd()) {
            Ok(place) => Ok(Some(place)),
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::BADFD | Errno::INVAL)) => Ok(None),
            Err(source) => Err(self.failed("find the namespace of")(source)),
        }
    }

    /// The interface end, wherever it is now, with a socket in that namespace. Neither may be kept.
    pub(super) fn interface_end(&self) -> Result<(Socket, Link), TapError> {
        let place = self.place()?.ok_or_else(|| TapError::Gone { name: self.ifname.clone() })?;
        let mut socket = Socket::open_in(place.as_fd()).map_err(self.failed("enter the namespace of"))?;
        let name = self.current_name()?;
        match socket.link_by_name(&name)? {
            Some(link) => Ok((socket, link)),
            None => Err(TapError::Gone { name }), // between the two questions it was renamed, moved or deleted
        }
    }

    fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> TapError {
        let name = self.ifname.clone();
        move |source| match Errno::from_io_error(&source) {
            Some(Errno::BADFD) => TapError::Gone { name: name.clone() },
            _ => TapError::Device { operation, name: name.clone(), source },
        }
    }
}
