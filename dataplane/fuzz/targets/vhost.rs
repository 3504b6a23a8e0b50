//! Any octets in the rings of a guest: nothing panics, a receive takes no more than a batch, and the next guest finds the port as it was.
//!
//! The input is written over both rings after they were started, so its descriptors, indices and used entries are all the guest's.

use std::{
    cell::RefCell,
    fs::File,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::FileExt as _, net::UnixStream},
    },
    path::PathBuf,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, ftruncate, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use tapway_dataplane::{
    counters::PortCounters,
    frame::{BATCH, Batch},
    port::{
        Received, VhostQueue,
        vhost_user::{VhostUser, VhostUserOptions},
    },
    wire::virtio_net,
};

/// Octets of the guest's memory, which begins at 0: any two octets are an address in it.
const MEMORY: u64 = 1 << 16;
/// Where it is in the front end.
const USER: u64 = 1 << 40;
/// Entries of a ring.
const ENTRIES: u32 = 16;
/// Where the receive ring and the transmit ring begin; each has its available ring behind 0x100 octets and its used ring behind 0x200.
const RINGS: [u64; 2] = [0x400, 0];
/// Octets of both rings, which the input is written to.
const HOSTILE: usize = 0x800;

thread_local! {
    static PORT: RefCell<Port> = RefCell::new(Port::new());
}

pub fn run(input: &[u8]) {
    let _ = health(input);
}

/// What becomes of the port: the reason why it is down, or nothing.
#[allow(dead_code, reason = "asked for by the test of the corpus")]
pub fn health(input: &[u8]) -> String {
    PORT.with_borrow_mut(|port| port.meet(input))
}

struct Port {
    port: VhostUser,
    path: PathBuf,
    batch: Batch,
}

impl Port {
    fn new() -> Self {
        let thread = format!("{:?}", std::thread::current().id());
        let number: String = thread.chars().filter(char::is_ascii_digit).collect();
        let path = std::env::temp_dir().join(format!("tapway-vhost-{}-{number}.sock", std::process::id()));
        let options = VhostUserOptions { path: path.clone(), server: true, pairs: 1, offload: true };
        Self { port: VhostUser::open(options).expect("a socket"), path, batch: Batch::new() }
    }

    fn meet(&mut self, input: &[u8]) -> String {
        let Some((&first, rest)) = input.split_first() else { return String::new() };
        let memory: File = memfd_create("guest", MemfdFlags::CLOEXEC).expect("memory").into();
        ftruncate(&memory, MEMORY).expect("memory");
        let stream = self.set_up(&memory, first);
        let mut queue = self.port.queues().pop().expect("its rings run");
        memory.write_all_at(&rest[..rest.len().min(HOSTILE)], 0).expect("memory");
        self.work(&mut queue);
        let health = self.port.health().err().unwrap_or_default();
        drop(stream);
        let _ = self.port.tend();
        assert!(self.port.queues().is_empty() && self.port.health().is_err(), "it has left");
        self.batch.clear();
        assert_eq!(queue.recv(&mut self.batch, &PortCounters::default()), Received::Drained);
        health
    }

    fn work(&mut self, queue: &mut VhostQueue) {
        let (counters, header, frame) = (PortCounters::default(), [0; virtio_net::LEN], [7; 3000]);
        for _ in 0..3 {
            let before = counters.rx_frames.get();
            self.batch.clear();
            let _ = queue.recv(&mut self.batch, &counters);
            let taken = counters.rx_frames.get() - before;
            assert!(taken <= BATCH as u64 && self.batch.len() as u64 <= taken);
            for len in [60, 1514, 3000] {
                let _ = queue.send(&[IoSlice::new(&header), IoSlice::new(&frame[..len])]);
            }
            let _ = queue.flush(&counters);
        }
        let _ = self.port.tend();
    }

    /// A front end that starts both rings, with as many features as the bits of `choice` say.
    fn set_up(&mut self, memory: &File, choice: u8) -> UnixStream {
        let _ = self.port.tend();
        let stream = UnixStream::connect(&self.path).expect("the port listens");
        let bit = |n: u8, feature: u32| u64::from(choice >> n & 1) << feature;
        // Version 1, mergeable buffers, indirect descriptors, event index.
        let features = bit(0, 32) | bit(1, 15) | bit(2, 28) | bit(3, 29);
        say(&stream, 2, &[features], None);
        say(&stream, 5, &[1, 0, MEMORY, USER, 0], Some(memory.as_fd()));
        for (n, at) in (0..).zip(RINGS) {
            let at = USER + at;
            say(&stream, 8, &[n | u64::from(ENTRIES) << 32], None);
            say(&stream, 9, &[n, at, at + 0x200, at + 0x100, 0], None);
            let kick = eventfd(0, EventfdFlags::NONBLOCK).expect("a descriptor");
            say(&stream, 12, &[n], Some(kick.as_fd()));
        }
        let _ = self.port.tend();
        let _ = self.port.tend();
        stream
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // the port has done so
    }
}

/// Sends a message: a request of the protocol's, and its body in words of 64 bits.
fn say(stream: &UnixStream, request: u32, body: &[u64], fd: Option<BorrowedFd<'_>>) {
    let header = [request, 1, 8 * body.len() as u32].into_iter().flat_map(u32::to_ne_bytes);
    let message: Vec<u8> = header.chain(body.iter().flat_map(|word| word.to_ne_bytes())).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    sendmsg(stream, &[IoSlice::new(&message)], &mut ancillary, SendFlags::empty()).expect("it listens");
}
