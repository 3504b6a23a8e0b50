//! The kernel, one safe function a system call.
//!
//! The only module of the crate that may say `unsafe`. One file a kernel object; descriptors are `OwnedFd` and
//! `BorrowedFd`, buffers are slices.
//! It never decides: no retry, no fallback, no log line. What rustix already wraps safely (read, write, writev,
//! poll, setns) is called there and not repeated here.

pub mod netns;
pub mod packet;
pub mod signal;
pub mod tun;
pub mod udp;
pub mod uring;
