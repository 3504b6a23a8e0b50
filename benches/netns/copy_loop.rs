//! The floor: a loop that copies frames between two TAPs and does nothing else.
//!
//! Two system calls and four copies a frame, with vnet header and all offloads, level-triggered epoll, one thread. It
//! looks at no byte: no address, no VLAN, no length. What a switch costs above this is the price of being a switch.
//! It stands in for the least code that could work, so it must stay that; it is not tuned.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use rustix::event::epoll;
use rustix::io::Errno;

/// A 64 KiB super-frame with Ethernet and vnet header fits.
const BUFFER: usize = 70_000;
/// Reads of one TAP before the other gets its turn.
const BATCH: usize = 64;

/// Copies between two new TAPs until killed.
pub(crate) fn main(names: [&str; 2]) -> Result<()> {
    let open = |name| crate::sys::vnet_tap(name).with_context(|| format!("creating the TAP {name}"));
    let taps: [OwnedFd; 2] = [open(names[0])?, open(names[1])?];
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (index, tap) in (0u64..).zip(&taps) {
        epoll::add(&poll, tap, epoll::EventData::new_u64(index), epoll::EventFlags::IN)?;
    }
    let mut buffer = vec![0; BUFFER];
    let mut events = Vec::with_capacity(taps.len());
    loop {
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting"),
        }
        for event in &events {
            let (from, to) = if event.data.u64() == 0 { (&taps[0], &taps[1]) } else { (&taps[1], &taps[0]) };
            for _ in 0..BATCH {
                // EAGAIN: drained. EIO: the interface is not up yet.
                let Ok(length) = rustix::io::read(from, &mut buffer) else { break };
                match rustix::io::write(to, &buffer[..length]) {
                    Ok(_) | Err(Errno::AGAIN) => {}
                    Err(error) => eprintln!("write: {error}"),
                }
            }
        }
    }
}
