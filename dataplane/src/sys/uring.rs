//! io_uring as a batcher of system calls: many reads, or many writes, in one.
//!
//! Nothing is left in flight: each call submits its operations, none of which may wait (`RWF_NOWAIT`), and returns when all have
//! completed. So no buffer outlives the call that lends it, and the caller sees nothing but results in order.

use std::{
    fmt,
    io::{self, IoSlice},
    os::fd::{AsRawFd, BorrowedFd},
    process,
};

use io_uring::{IoUring, opcode, squeue, types};

/// The most operations of one call.
pub const MAX_OPS: usize = 64;

/// A ring that belongs to one thread.
pub struct Batcher {
    ring: IoUring,
}

impl fmt::Debug for Batcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batcher")
    }
}

/// What each operation of a call returned: octets, or a negated errno.
pub type Results = [i32; MAX_OPS];

impl Batcher {
    /// A ring for the thread that calls (`IORING_SETUP_SINGLE_ISSUER`), which must be the one that uses it.
    ///
    /// # Errors
    /// Where the kernel has no io_uring, or too old a one (Linux 6.1), or somebody has switched it off.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(MAX_OPS as u32)?;
        Ok(Self { ring })
    }

    /// Fails where the kernel takes no `RWF_NOWAIT` for a file of this kind, so that each read and write of it would come back as
    /// `EOPNOTSUPP` (`kiocb_set_rw_flags`: the file has no `FMODE_NOWAIT`). What a read of the file finds is not looked at.
    ///
    /// # Errors
    /// `EOPNOTSUPP`.
    pub fn check(&mut self, file: BorrowedFd<'_>) -> io::Result<()> {
        let (mut octet, mut results) = ([0], [0; MAX_OPS]);
        self.read(file, [&mut octet[..]].into_iter(), &mut results);
        if results[0] == -libc::EOPNOTSUPP {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        Ok(())
    }

    /// Reads once into each buffer. Says how many results there are: one a buffer, at most [`MAX_OPS`].
    pub fn read<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a mut [u8]>,
        results: &mut Results,
    ) -> usize {
        let fd = types::Fd(fd.as_raw_fd());
        let mut count = 0;
        for (n, buffer) in buffers.take(MAX_OPS).enumerate() {
            let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            let read = opcode::Read::new(fd, buffer.as_mut_ptr(), len).rw_flags(libc::RWF_NOWAIT);
            // SAFETY: the buffer is borrowed for 'a, which outlives this call, and `complete` returns only when the kernel has
            // finished with it. The descriptor is borrowed for as long.
            unsafe { self.push(&read.build().user_data(n as u64)) };
            count = n + 1;
        }
        self.complete(count, results);
        count
    }

    /// Writes each vector to its descriptor, in order. Says how many results there are: one a vector, at most [`MAX_OPS`].
    pub fn write<'a, 'v: 'a>(
        &mut self,
        vectors: impl Iterator<Item = (BorrowedFd<'a>, &'a [IoSlice<'v>])>,
        results: &mut Results,
    ) -> usize {
        let mut count = 0;
        for (n, (fd, parts)) in vectors.take(MAX_OPS).enumerate() {
            let fd = types::Fd(fd.as_raw_fd());
            let entry = match parts {
                [one] => {
                    let len = u32::try_from(one.len()).unwrap_or(u32::MAX);
                    opcode::Write::new(fd, one.as_ptr(), len).rw_flags(libc::RWF_NOWAIT).build()
                }
                // IoSlice is guaranteed to have the layout of iovec.
                _ => opcode::Writev::new(fd, parts.as_ptr().cast(), parts.len() as u32)
                    .rw_flags(libc::RWF_NOWAIT)
                    .build(),
            };
            // SAFETY: the vector and what it points to are borrowed for 'a, which outlives this call, and `complete` returns only
            // when the kernel has finished with them. The descriptor is borrowed for as long.
            unsafe { self.push(&entry.user_data(n as u64)) };
            count = n + 1;
        }
        self.complete(count, results);
        count
    }

    /// # Safety
    /// What the entry points to must stay valid until `complete` has returned.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise. The queue has room: it is as long as the longest call and empty between calls.
        let pushed = unsafe { self.ring.submission().push(entry) };
        debug_assert!(pushed.is_ok());
    }

    /// Submits what was pushed and waits until all of it has completed.
    fn complete(&mut self, count: usize, results: &mut Results) {
        let mut done = 0;
        while done < count {
            match self.ring.submit_and_wait(count - done) {
                Ok(_) => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(error) => {
                    // The kernel may or may not hold the buffers; nothing after this point could be relied on.
                    tracing::error!(%error, "io_uring_enter failed in a way that it does not document");
                    process::abort();
                }
            }
            for completion in self.ring.completion() {
                results[completion.user_data() as usize % MAX_OPS] = completion.result();
                done += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_file_that_may_have_to_wait_is_found_out() {
        let Ok(mut ring) = Batcher::new() else {
            println!("skipped: no io_uring here");
            return;
        };
        // A file of procfs has no FMODE_NOWAIT, a pipe has.
        let file = std::fs::File::open("/proc/self/comm").unwrap();
        assert_eq!(ring.check(file.as_fd()).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        let (reader, _writer) = std::io::pipe().unwrap();
        ring.check(reader.as_fd()).unwrap();
    }

    #[test]
    fn vectors_leave_in_order_and_arrive_one_a_buffer() {
        let Ok(mut ring) = Batcher::new() else {
            println!("skipped: no io_uring here");
            return;
        };
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        let (one, two) = ([IoSlice::new(b"one")], [IoSlice::new(b"tw"), IoSlice::new(b"o")]);
        let mut results = [0; MAX_OPS];
        assert_eq!(ring.write([(a.as_fd(), &one[..]), (a.as_fd(), &two[..])].into_iter(), &mut results), 2);
        assert_eq!(results[..2], [3, 3]);
        let mut memory = [[0u8; 8]; 3];
        let buffers = memory.iter_mut().map(|m| &mut m[..]);
        assert_eq!(ring.read(b.as_fd(), buffers, &mut results), 3);
        assert_eq!(results[..3], [3, 3, -libc::EAGAIN]);
        assert_eq!((&memory[0][..3], &memory[1][..3]), (&b"one"[..], &b"two"[..]));
    }
}
