//! A vhost-user port allocates nothing once it runs: frames out of a guest's ring and into it, with every allocation of the thread counted.

mod counting;

use std::{
    fs::File,
    io::IoSlice,
    os::fd::AsRawFd as _,
    os::unix::fs::FileExt as _,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use counting::allocations;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use tapway_dataplane::{
    counters::PortCounters,
    frame::Batch,
    port::{
        Queue, Received, SendResult,
        vhost_user::{VhostUser, VhostUserOptions},
    },
    wire::virtio_net,
};
use tempfile::TempDir;
use vhost::{
    VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{Frontend, VhostUserFrontend as _},
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const MEMORY: u64 = 4 << 20;
const USER: u64 = 0x7f00_0000_0000;
const ENTRIES: u16 = 64;
/// Frames of a round.
const FRAMES: u16 = 48;
/// Version 1, mergeable buffers, indirect descriptors, protocol features.
const FEATURES: u64 = 1 << 32 | 1 << 15 | 1 << 28 | 1 << 30;

/// Where the parts of ring `n` and its buffers begin.
const fn table(n: u16) -> u64 {
    0x1_0000 * (n as u64 + 1)
}

const fn buffer(n: u16, entry: u16) -> u64 {
    0x10_0000 * (n as u64 + 1) + entry as u64 * 0x1000
}

/// A port, its guest's memory, and its one queue.
struct Rig {
    file: File,
    queue: Queue,
    made: [u16; 2],
    _kept: (TempDir, Vec<EventFd>),
    end: mpsc::Sender<()>,
}

impl Rig {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("vm1");
        let options = VhostUserOptions { path: path.clone(), server: true, pairs: 1, offload: true };
        let (queues, given) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        // Tends the port as the control thread does, and gives the queue away when there is one.
        thread::spawn(move || {
            let mut port = VhostUser::open(options).unwrap();
            while ended.recv_timeout(Duration::from_millis(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = port.tend();
                for queue in port.queues() {
                    let _ = queues.send(queue);
                }
            }
        });
        let file: File = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap().into();
        ftruncate(&file, MEMORY).unwrap();
        let start = Instant::now();
        while !path.exists() {
            assert!(start.elapsed() < Duration::from_secs(10));
        }
        let mut front = Frontend::connect(&path, 2).unwrap();
        front.set_owner().unwrap();
        front.get_features().unwrap();
        let protocol = front.get_protocol_features().unwrap();
        front.set_protocol_features(protocol).unwrap();
        front.set_features(FEATURES).unwrap();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        };
        front.set_mem_table(&[region]).unwrap();
        let mut descriptors = Vec::new();
        for n in 0..2 {
            let at = USER + table(n);
            let place = VringConfigData {
                queue_max_size: ENTRIES,
                queue_size: ENTRIES,
                flags: 0,
                desc_table_addr: at,
                avail_ring_addr: at + 0x1000,
                used_ring_addr: at + 0x2000,
                log_addr: None,
            };
            let (kick, call) = (EventFd::new(EFD_NONBLOCK).unwrap(), EventFd::new(EFD_NONBLOCK).unwrap());
            front.set_vring_num(n.into(), ENTRIES).unwrap();
            front.set_vring_addr(n.into(), &place).unwrap();
            front.set_vring_call(n.into(), &call).unwrap();
            front.set_vring_kick(n.into(), &kick).unwrap();
            front.set_vring_enable(n.into(), true).unwrap();
            descriptors.extend([kick, call]);
        }
        let queue = Queue::Vhost(given.recv_timeout(Duration::from_secs(10)).expect("a queue"));
        std::mem::forget(front); // the rings run as long as it is connected: until the test has ended
        Self { file, queue, made: [0; 2], _kept: (directory, descriptors), end }
    }

    /// Makes the next entry of ring `n` available.
    fn offer(&mut self, n: u16, len: u32, flags: u16) {
        let entry = self.made[usize::from(n)] % ENTRIES;
        let mut descriptor = buffer(n, entry).to_le_bytes().to_vec();
        descriptor.extend(len.to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend([0; 2]);
        self.file.write_all_at(&descriptor, table(n) + 16 * u64::from(entry)).unwrap();
        self.file.write_all_at(&entry.to_le_bytes(), table(n) + 0x1004 + 2 * u64::from(entry)).unwrap();
        self.made[usize::from(n)] += 1;
        self.file.write_all_at(&self.made[usize::from(n)].to_le_bytes(), table(n) + 0x1002).unwrap();
    }

    fn used(&self, n: u16) -> u16 {
        let mut index = [0; 2];
        self.file.read_exact_at(&mut index, table(n) + 0x2002).unwrap();
        u16::from_le_bytes(index)
    }
}

#[test]
fn frames_of_a_guest_and_to_a_guest_cost_no_allocation() {
    let mut rig = Rig::new();
    let other = rig.queue.share().unwrap();
    let (mut batch, counters) = (Batch::new(), PortCounters::default());
    let header = [0; virtio_net::LEN];
    for round in 1..=20 {
        for _ in 0..FRAMES {
            rig.offer(1, 12 + 1000, 0);
            rig.offer(0, 600, 2); // a frame takes two of them
        }
        let spent = allocations(|| {
            batch.clear();
            assert_eq!(rig.queue.recv(&mut batch, &counters, None), Received::Drained);
            for n in 0..usize::from(FRAMES) / 2 {
                let (a, b) = batch.bytes(n).split_at(12);
                let parts = [IoSlice::new(&header), IoSlice::new(a), IoSlice::new(b)];
                let by = if n % 2 == 0 { &rig.queue } else { &other };
                assert_eq!(by.send(&parts), SendResult::Held);
            }
            rig.queue.flush(&counters);
            other.flush(&counters);
        });
        assert_eq!(spent, 0, "round {round}");
        assert_eq!((batch.len(), rig.used(1)), (FRAMES.into(), round * FRAMES));
        assert_eq!(rig.used(0), round * FRAMES);
    }
    assert_eq!(counters.tx_frames.get(), 20 * u64::from(FRAMES) / 2);
    drop(rig.end);
}
