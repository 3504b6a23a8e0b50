//! A namespace that is open: the daemon's own, or one that has a name.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::io::Errno;

use super::DeviceError;
use crate::{netlink::Socket, netns::Netns, sys::netns};

/// A network namespace for the time of one operation; holding it keeps it alive.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) netns: OwnedFd,
    /// As somebody named it; `None` for the daemon's own.
    pub(super) name: Option<Netns>,
    id: netns::NetnsId,
    /// The calling thread is in it.
    pub(super) here: bool,
}

impl Place {
    /// Opens the namespace; `device` is who asks, for the error.
    pub(super) fn open(device: &str, name: Option<&Netns>) -> Result<Self, DeviceError> {
        Self::try_open(name).map_err(|source| match name {
            Some(netns) => DeviceError::Netns { device: device.to_owned(), netns: netns.clone(), source },
            None => DeviceError::Socket { device: device.to_owned(), source },
        })
    }

    fn try_open(name: Option<&Netns>) -> io::Result<Self> {
        let here = netns::id(netns::current()?)?;
        let netns = match name {
            None => netns::current()?,
            Some(name) => name.open()?,
        };
        let id = netns::id(&netns)?;
        Ok(Self { netns, name: name.cloned(), id, here: id == here })
    }

    /// Whether both are the same namespace.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Whether the name still leads to this namespace.
    pub(super) fn check(&self, device: &str) -> Result<(), DeviceError> {
        let Some(name) = &self.name else { return Ok(()) };
        if Self::open(device, Some(name))?.is(self) {
            return Ok(());
        }
        let source = io::Error::from(Errno::NOENT);
        Err(DeviceError::Netns { device: device.to_owned(), netns: name.clone(), source })
    }

    /// A netlink socket in it.
    pub(super) fn socket(&self, device: &str) -> Result<Socket, DeviceError> {
        let socket = if self.here { Socket::open() } else { Socket::open_in(self.netns.as_fd()) };
        socket.map_err(|source| DeviceError::Socket { device: device.to_owned(), source })
    }

    /// Runs `f` on a thread inside.
    pub(super) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        if self.here { Ok(f()) } else { netns::within(self.netns.as_fd(), f) }
    }
}
