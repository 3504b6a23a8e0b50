//! A VM monitor in the test's process: what QEMU does for `-netdev stream` and `-netdev dgram`, with a host in the place of the guest.
//!
//! ```text
//!   host: eth0 (a TAP without offloads) ── thread of the monitor ── Unix socket ── port of the switch
//! ```
//! Written without the switch's own framing, as a second reading of the format. The machine is switched off with the value: the
//! socket is closed and the interface is gone.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tapway_dataplane::sys::tun;

use super::{Host, wait_until};

/// How often the monitor looks whether it is to read again.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// What is between the monitor and the switch.
#[derive(Debug)]
pub(crate) enum Wire {
    Stream {
        socket: UnixStream,
        /// What has come of frames that are not complete.
        read: Vec<u8>,
    },
    Dgram {
        socket: UnixDatagram,
        /// Where the switch is.
        peer: PathBuf,
    },
}

impl Wire {
    /// `-netdev stream,server=off,addr.path=PATH`: goes to a switch that listens.
    #[track_caller]
    pub(crate) fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// `-netdev stream,server=on`: waits for the switch to come.
    #[track_caller]
    pub(crate) fn accept(listener: &UnixListener) -> Self {
        listener.set_nonblocking(true).expect("a mode");
        let mut socket = None;
        wait_until("the switch connects", Duration::from_secs(5), || {
            socket = listener.accept().ok();
            socket.is_some()
        });
        let (socket, _) = socket.expect("a connection");
        socket.set_nonblocking(false).expect("a mode");
        Self::over(socket)
    }

    pub(crate) fn over(socket: UnixStream) -> Self {
        Self::Stream { socket, read: Vec::new() }
    }

    /// `-netdev dgram,local.path=PATH,remote.path=PEER` of a machine in `host`, whose sysctl says how many datagrams can wait there.
    #[track_caller]
    pub(crate) fn dgram(host: &Host, path: &Path, peer: &Path) -> Self {
        let _ = std::fs::remove_file(path);
        let socket =
            host.run(|| UnixDatagram::bind(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self::Dgram { socket, peer: peer.to_owned() }
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream { socket, .. } => {
                (&mut &*socket).write_all(&[&(frame.len() as u32).to_be_bytes()[..], frame].concat())
            }
            Self::Dgram { socket, peer } => socket.send_to(frame, peer).map(drop),
        }
    }

    /// Reads once, and gives every frame that is complete; an error where the switch has closed the stream.
    fn receive(&mut self, mut frame: impl FnMut(&[u8])) -> io::Result<()> {
        let mut octets = vec![0; 1 << 17];
        match self {
            Self::Stream { socket, read } => {
                let len = socket.read(&mut octets)?;
                if len == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                read.extend_from_slice(&octets[..len]);
                let mut at = 0;
                while let Some(prefix) = read.get(at..at + 4) {
                    let len = u32::from_be_bytes(prefix.try_into().expect("four octets")) as usize;
                    let Some(octets) = read.get(at + 4..at + 4 + len) else { break };
                    frame(octets);
                    at += 4 + len;
                }
                read.drain(..at);
            }
            Self::Dgram { socket, .. } => {
                let len = socket.recv(&mut octets)?;
                frame(&octets[..len]);
            }
        }
        Ok(())
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream { socket, .. } => socket.as_fd(),
            Self::Dgram { socket, .. } => socket.as_fd(),
        }
    }
}

/// A machine that runs.
#[derive(Debug)]
pub(crate) struct Monitor {
    off: Option<UnixStream>,
    paused: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Switches a machine on: `host` gets an interface eth0 with this address and MTU.
    #[track_caller]
    pub(crate) fn start(host: &Host, cidr: &str, mtu: u32, wire: Wire) -> Self {
        let tap = host.run(|| -> io::Result<OwnedFd> {
            let fd = tun::open()?;
            tun::attach(fd.as_fd(), "eth0", tun::TAP | tun::NO_PI)?;
            Ok(fd)
        });
        let tap = tap.unwrap_or_else(|e| panic!("host {}: no TAP: {e}", host.name()));
        // A machine has the address that it was given, each time it is switched on.
        let mac = cidr.bytes().fold(0, |sum: u8, octet| sum.wrapping_mul(31).wrapping_add(octet));
        host.ip(&format!("link set dev eth0 address 52:54:00:00:00:{mac:02x} mtu {mtu} up"));
        host.address("eth0", cidr);
        let (off, watched) = UnixStream::pair().expect("a pair of sockets");
        let paused = Arc::<AtomicBool>::default();
        let thread = thread::spawn({
            let paused = Arc::clone(&paused);
            move || pump(wire, &tap, &watched, &paused)
        });
        Self { off: Some(off), paused, thread: Some(thread) }
    }

    /// Reads nothing of what the switch sends any more, or reads again.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Relaxed);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.off.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Carries frames both ways until the machine is switched off or the switch has gone.
fn pump(mut wire: Wire, tap: &OwnedFd, off: &UnixStream, paused: &AtomicBool) {
    let mut frame = vec![0; 1 << 17];
    loop {
        let is_paused = paused.load(Relaxed);
        let [from_guest, from_switch] = {
            let from_switch = if is_paused { PollFlags::empty() } else { PollFlags::IN };
            let mut fds = [
                PollFd::new(off, PollFlags::IN),
                PollFd::new(tap, PollFlags::IN),
                PollFd::new(&wire, from_switch),
            ];
            if poll(&mut fds, Some(&LOOK)).is_err() || !fds[0].revents().is_empty() {
                return;
            }
            [&fds[1], &fds[2]].map(|fd| !fd.revents().is_empty())
        };
        // A monitor drops what the switch does not take.
        if from_guest && let Ok(len) = rustix::io::read(tap, &mut frame) {
            let _ = wire.send(&frame[..len]);
        }
        let to_guest = |frame: &[u8]| {
            let _ = rustix::io::write(tap, frame);
        };
        if from_switch && !is_paused && wire.receive(to_guest).is_err() {
            return;
        }
    }
}
