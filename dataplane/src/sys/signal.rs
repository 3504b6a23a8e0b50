//! Signals that end the daemon, as a descriptor that a poll can watch.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{FromRawFd, OwnedFd},
    ptr,
};

/// Blocks SIGTERM, SIGINT and SIGHUP in this thread and those it starts, and gives a descriptor that is readable when one came.
/// Call it before any thread is started.
///
/// # Errors
/// The kernel's, for want of descriptors.
pub fn termination() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initialises the set it is given and cannot fail with a valid pointer.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset has initialised it just now.
    let mut set = unsafe { set.assume_init() };
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: the set is initialised and the signal number one of the system's own.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: the set lives for the call; the old mask is not asked for.
    let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    // SAFETY: -1 asks for a new descriptor, and the set lives for the call.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
