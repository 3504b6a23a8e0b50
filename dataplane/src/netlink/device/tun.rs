//! TUNs and TAPs, which are made by ioctl on `/dev/net/tun` and not by netlink.
//!
//! A device is born with a descriptor and dies with it, until it is made persistent: so that is the last step, and a program that is
//! killed before it leaves nothing. One that is not to be persistent is held: by a queue that takes no packets, so that it is in nobody's way.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use super::{DeviceError, Kind, Tun, place::Place};
use crate::sys::tun;

/// A TUN or TAP that nobody made persistent yet.
#[derive(Debug)]
pub(super) struct Made {
    fd: OwnedFd,
}

fn refused(device: &str, operation: &'static str) -> impl Fn(io::Error) -> DeviceError {
    move |source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            DeviceError::Permission { device: device.to_owned(), operation: operation.to_owned() }
        }
        _ => DeviceError::Tun { device: device.to_owned(), operation, source },
    }
}

fn flags(tap: bool, options: Tun) -> u16 {
    let mut flags = tun::NO_PI | if tap { tun::TAP } else { tun::TUN };
    if options.multi_queue == Some(true) {
        flags |= tun::MULTI_QUEUE;
    }
    if options.vnet_hdr == Some(true) {
        flags |= tun::VNET_HDR;
    }
    flags
}

/// Makes the device in a namespace.
pub(super) fn make(device: &str, kind: &Kind, options: Tun, place: &Place) -> Result<Made, DeviceError> {
    let tap = matches!(kind, Kind::Tap(_));
    let fd = open(device, kind, place)?;
    tun::attach(fd.as_fd(), device, flags(tap, options) | tun::EXCLUSIVE)
        .map_err(refused(device, "make the device"))?;
    set_owner(device, &fd, options)?;
    Ok(Made { fd })
}

/// What a TUN or TAP lives by that is not persistent. It ends with the value, unless somebody else has it open.
#[derive(Debug)]
pub struct Held {
    _fd: OwnedFd,
}

impl Made {
    /// Makes it outlive its descriptor, or else the descriptor a queue that gets nothing.
    pub(super) fn keep(self, device: &str, options: Tun) -> Result<Option<Held>, DeviceError> {
        if options.persistent == Some(false) {
            let detached = tun::set_queue(self.fd.as_fd(), false);
            detached.map_err(refused(device, "leave its queues to others"))?;
            return Ok(Some(Held { _fd: self.fd }));
        }
        tun::set_persist(self.fd.as_fd(), true).map_err(refused(device, "make it persistent"))?;
        Ok(None)
    }
}

/// Changes owner, group and header of a device that exists. EBUSY says that somebody has it open.
pub(super) fn change(device: &str, kind: &Kind, options: Tun, place: &Place) -> Result<(), DeviceError> {
    let fd = open(device, kind, place)?;
    let tap = matches!(kind, Kind::Tap(_));
    tun::attach(fd.as_fd(), device, flags(tap, options)).map_err(refused(device, "attach to the device"))?;
    // Of a device with several queues the kernel sets the header for the first descriptor, and says nothing to the others.
    let (_, now) = tun::interface(fd.as_fd()).map_err(refused(device, "ask for its flags"))?;
    if options.vnet_hdr.is_some_and(|on| on != (now & tun::VNET_HDR != 0)) {
        return Err(refused(device, "change its header")(io::Error::from_raw_os_error(libc::EBUSY)));
    }
    set_owner(device, &fd, options)
}

fn open(device: &str, kind: &Kind, place: &Place) -> Result<OwnedFd, DeviceError> {
    place.run(tun::open).and_then(|fd| fd).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            DeviceError::NoSuchKind { device: device.to_owned(), kind: kind.name(), config: kind.config() }
        }
        _ => refused(device, "open /dev/net/tun")(source),
    })
}

fn set_owner(device: &str, fd: &OwnedFd, options: Tun) -> Result<(), DeviceError> {
    if let Some(owner) = options.owner {
        tun::set_owner(fd.as_fd(), owner).map_err(refused(device, "set its owner"))?;
    }
    if let Some(group) = options.group {
        tun::set_group(fd.as_fd(), group).map_err(refused(device, "set its group"))?;
    }
    Ok(())
}
