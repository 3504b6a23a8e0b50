//! Network namespaces.
//!
//! A namespace is a property of a thread. Code that must run in another one runs on a thread that enters it and
//! then ends: no thread ever has to find its way back, and no failure can leave one in the wrong place.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    panic, thread,
};

use rustix::{
    fs::{Mode, OFlags},
    thread::{LinkNameSpaceType, UnshareFlags},
};

/// Which namespace a descriptor refers to: device and inode of its file. A number is used again once its namespace has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

/// The identity of the namespace that `netns` refers to.
pub fn id(netns: impl AsFd) -> io::Result<NetnsId> {
    let stat = rustix::fs::fstat(netns)?;
    Ok(NetnsId { device: stat.st_dev, inode: stat.st_ino })
}

/// The calling thread's namespace.
pub fn current() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())?)
}

/// Whether `fd` refers to a network namespace (`NS_GET_NSTYPE`); ENOTTY where it refers to no namespace at all.
pub fn is_network(fd: impl AsFd) -> io::Result<bool> {
    let fd = fd.as_fd();
    // SAFETY: NS_GET_NSTYPE takes no argument.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind == libc::CLONE_NEWNET) }
}

/// Moves the calling thread into a new, empty namespace. Only for threads that are never to come back.
pub fn unshare() -> io::Result<()> {
    // SAFETY: the contract is about `UnshareFlags::FILES`, which is not among the flags.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?)
}

/// Runs `f` on a new thread inside the namespace, and waits for it.
pub fn within<T: Send>(netns: BorrowedFd<'_>, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
            rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
            Ok(f())
        })?;
        inside.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}
