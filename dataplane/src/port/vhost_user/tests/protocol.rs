//! The protocol, spoken by the front end of the vhost crate.

use std::{
    io::{Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use vhost::{
    VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{
        Frontend, VhostUserFrontend as _,
        message::{VhostUserHeaderFlag, VhostUserProtocolFeatures},
    },
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    super::{VhostUser, VhostUserOptions, features},
    guest::{DriverRing, ENTRIES, FEATURES, GUEST, Guest, MEMORY, NEXT, SECOND, USER},
    octets,
};
use crate::{
    frame::Caps,
    port::{Received, SendResult},
    wire::VirtioNetHdr,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A port that is tended by a thread of its own, as by the control thread.
struct Port {
    port: Arc<Mutex<VhostUser>>,
    ended: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Port {
    fn open(path: &Path, server: bool, pairs: u16) -> Self {
        let options = VhostUserOptions { path: path.to_owned(), server, pairs, offload: true };
        let port = Arc::new(Mutex::new(VhostUser::open(options).unwrap()));
        let ended = Arc::new(AtomicBool::new(false));
        let (tended, end) = (Arc::clone(&port), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            while !end.load(Relaxed) {
                let _ = tended.lock().unwrap().tend();
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { port, ended, thread: Some(thread) }
    }

    fn get(&self) -> MutexGuard<'_, VhostUser> {
        self.port.lock().unwrap()
    }

    /// Waits until the port says that it is so.
    fn until(&self, health: Result<(), &str>) {
        let (start, expected) = (Instant::now(), health.map_err(str::to_owned));
        while self.get().health() != expected {
            assert!(start.elapsed() < PATIENCE, "{:?}, not {expected:?}", self.get().health());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A guest's monitor.
struct Monitor {
    front: Frontend,
    kicks: Vec<EventFd>,
    calls: Vec<EventFd>,
    errs: Vec<EventFd>,
}

fn region(guest: &Guest, at: u64, len: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST + at,
        memory_size: len,
        userspace_addr: USER + at,
        mmap_offset: at,
        mmap_handle: guest.file.as_raw_fd(),
    }
}

impl Monitor {
    fn new(front: Frontend) -> Self {
        Self { front, kicks: Vec::new(), calls: Vec::new(), errs: Vec::new() }
    }

    fn connect(path: &Path, guest: &Guest, accepted: u64) -> Self {
        let mut monitor = Self::new(Frontend::connect(path, 8).unwrap());
        monitor.set_up(guest, accepted);
        monitor
    }

    /// Everything but the rings, each message answered.
    fn set_up(&mut self, guest: &Guest, accepted: u64) {
        let front = &mut self.front;
        front.set_owner().unwrap();
        let offered = front.get_features().unwrap();
        assert_eq!(offered & accepted, accepted);
        let protocol = front.get_protocol_features().unwrap();
        assert!(
            protocol.contains(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
        );
        front.set_protocol_features(protocol).unwrap();
        front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        front.set_features(accepted | features::PROTOCOL_FEATURES).unwrap();
        front.set_mem_table(&[region(guest, 0, SECOND), region(guest, SECOND, MEMORY - SECOND)]).unwrap();
    }

    /// Starts a ring, not enabled yet.
    fn start(&mut self, index: usize, ring: &DriverRing, base: u16) {
        let eventfd = || EventFd::new(EFD_NONBLOCK).unwrap();
        let layout = ring.layout(FEATURES);
        self.front.set_vring_num(index, ENTRIES).unwrap();
        self.front.set_vring_base(index, base).unwrap();
        let place = VringConfigData {
            queue_max_size: ENTRIES,
            queue_size: ENTRIES,
            flags: 0,
            desc_table_addr: layout.descriptors,
            used_ring_addr: layout.used,
            avail_ring_addr: layout.available,
            log_addr: None,
        };
        self.front.set_vring_addr(index, &place).unwrap();
        let (kick, call, err) = (eventfd(), eventfd(), eventfd());
        self.front.set_vring_call(index, &call).unwrap();
        self.front.set_vring_err(index, &err).unwrap();
        self.front.set_vring_kick(index, &kick).unwrap();
        self.kicks.push(kick);
        self.calls.push(call);
        self.errs.push(err);
    }

    fn start_pair(&mut self, guest: &Guest) {
        self.start(0, &guest.receive, 0);
        self.start(1, &guest.transmit, 0);
        self.front.set_vring_enable(0, true).unwrap();
        self.front.set_vring_enable(1, true).unwrap();
    }
}

/// A port, and a guest whose one pair of rings runs on it.
fn running() -> (TempDir, Port, Guest, Monitor) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("vm1");
    let port = Port::open(&path, true, 2);
    port.until(Err("no front end is connected"));
    let mut guest = Guest::new(FEATURES);
    let mut monitor = Monitor::connect(&path, &guest, FEATURES);
    port.until(Err("the guest's driver has not started its rings"));
    monitor.start_pair(&guest);
    port.until(Ok(()));
    guest.queue = port.get().queues().pop().unwrap();
    (directory, port, guest, monitor)
}

fn passes(guest: &mut Guest) {
    guest.transmit(5, &VirtioNetHdr::default(), &octets(600));
    assert_eq!(guest.recv(), Received::Drained);
    assert_eq!(guest.frames()[0].0, octets(600));
    assert_eq!(guest.used_transmit(), [(5, 0)]);
    guest.buffers(1, 2048);
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(700)), SendResult::Held);
    guest.queue.flush(&guest.counters);
    let used = guest.used_receive();
    assert_eq!(guest.receive(&used).1, octets(700));
}

#[test]
fn a_front_end_sets_up_a_pair_of_rings_and_frames_pass() {
    let (_directory, port, mut guest, mut monitor) = running();
    assert_eq!(port.get().caps(), Caps { tso6: false, tso_ecn: false, uso: false, ..Caps::ALL });
    assert_eq!(monitor.front.get_queue_num().unwrap(), 2);
    passes(&mut guest);
    assert_eq!(monitor.calls[1].read().unwrap(), 2, "once when it could be told first, once for the frame");
}

#[test]
fn a_ring_that_is_stopped_says_how_far_it_came_and_goes_on_from_there() {
    let (_directory, port, mut guest, mut monitor) = running();
    passes(&mut guest);
    passes(&mut guest);
    let bases = [0, 1].map(|n| monitor.front.get_vring_base(n).unwrap() as u16);
    assert_eq!(bases, [2, 2]);
    port.until(Err("the guest's driver has not started its rings"));
    guest.transmit(1, &VirtioNetHdr::default(), &octets(60));
    assert_eq!(guest.recv(), Received::Drained);
    assert!(guest.frames().is_empty(), "who still has the queue gets nothing");
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(60)), SendResult::Down);
    for (n, ring) in [guest.receive, guest.transmit].iter().enumerate() {
        monitor.start(n, ring, bases[n]);
    }
    port.until(Ok(()));
    guest.queue = port.get().queues().pop().unwrap();
    assert_eq!(guest.recv(), Received::Drained);
    assert_eq!(guest.frames().len(), 1, "what was made available meanwhile");
    guest.used_transmit();
    passes(&mut guest);
}

#[test]
fn a_switch_that_was_killed_goes_on_where_the_used_index_says() {
    let (_directory, port, mut guest, monitor) = running();
    passes(&mut guest);
    passes(&mut guest);
    drop((port, monitor)); // nobody asked for the base
    guest.transmit(1, &VirtioNetHdr::default(), &octets(60));
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("vm1");
    let port = Port::open(&path, true, 1);
    let mut monitor = Monitor::connect(&path, &guest, FEATURES);
    monitor.start_pair(&guest); // says base 0
    port.until(Ok(()));
    guest.queue = port.get().queues().pop().unwrap();
    assert_eq!((guest.recv(), guest.frames().len()), (Received::Drained, 1));
    assert_eq!(guest.used_transmit(), [(1, 0)]);
    passes(&mut guest);
}

#[test]
fn memory_comes_and_goes_under_rings_that_run() {
    let (_directory, port, mut guest, mut monitor) = running();
    assert!(monitor.front.get_max_mem_slots().unwrap() > 8);
    let upper = region(&guest, SECOND, MEMORY - SECOND);
    let kicked = |monitor: &Monitor| monitor.kicks[1].read().is_ok();
    kicked(&monitor);
    monitor.front.remove_mem_region(&upper).unwrap();
    assert!(kicked(&monitor), "the worker is told to look again");
    assert!(monitor.front.remove_mem_region(&upper).is_err(), "it is not there any more");
    port.until(Err("the front end was sent away: invalid parameters"));

    let (_directory, port, mut other, mut monitor) = running();
    monitor.front.remove_mem_region(&upper).unwrap_or_else(|_| panic!("{:?}", port.get().health()));
    let upper = region(&other, SECOND, MEMORY - SECOND);
    for _ in 0..2 {
        monitor.front.add_mem_region(&upper).unwrap(); // QEMU does so for each pair
    }
    monitor.front.remove_mem_region(&upper).unwrap();
    passes(&mut other);
    assert!(monitor.front.add_mem_region(&region(&other, SECOND, 4096)).is_err(), "it overlaps");
    guest.used_transmit();
}

#[test]
fn a_pair_that_is_disabled_is_no_queue() {
    let (_directory, port, _, mut monitor) = running();
    monitor.front.set_vring_enable(0, false).unwrap();
    port.until(Err("the guest's driver has not started its rings"));
    assert!(port.get().queues().is_empty());
    monitor.front.set_vring_enable(0, true).unwrap();
    port.until(Ok(()));
}

#[test]
fn a_second_pair_is_a_second_queue() {
    let (_directory, port, _, mut monitor) = running();
    monitor.start(2, &DriverRing::new(0x6_0000), 0);
    monitor.start(3, &DriverRing::new(0x7_0000), 0);
    monitor.front.set_vring_enable(2, true).unwrap();
    assert_eq!(port.get().queues().len(), 1);
    monitor.front.set_vring_enable(3, true).unwrap();
    assert_eq!(port.get().queues().len(), 2);
}

#[test]
fn a_ring_that_makes_no_sense_stops_its_port_with_the_reason_until_the_driver_starts_it_again() {
    let (_directory, port, mut guest, mut monitor) = running();
    let (_other_directory, other_port, mut other, _other_monitor) = running();
    guest.describe(guest.transmit.table(), 0, GUEST, 60, NEXT, 0);
    guest.offer_transmit(0);
    assert!(matches!(guest.recv(), Received::Gone(_)));
    port.until(Err("transmit ring 0 of the guest: descriptor loop"));
    assert!(port.get().queues().is_empty());
    let start = Instant::now();
    while monitor.errs[1].read().is_err() {
        assert!(start.elapsed() < PATIENCE, "the front end is told");
    }
    passes(&mut other);
    other_port.until(Ok(()));
    monitor.front.set_features(FEATURES | features::PROTOCOL_FEATURES).unwrap();
    port.until(Err("transmit ring 0 of the guest: descriptor loop"));
    let base = monitor.front.get_vring_base(1).unwrap() as u16;
    guest.describe(guest.transmit.table(), 0, GUEST + 0x4_0000, 90, 0, 0);
    let ring = guest.transmit;
    monitor.start(1, &ring, base);
    port.until(Ok(()));
    guest.queue = port.get().queues().pop().unwrap();
    assert_eq!((guest.recv(), guest.frames().len()), (Received::Drained, 1));
}

#[test]
fn a_front_end_that_leaves_is_followed_by_another() {
    let (directory, port, mut guest, monitor) = running();
    drop(monitor);
    port.until(Err("the front end has left"));
    guest.transmit(0, &VirtioNetHdr::default(), &octets(60));
    assert_eq!(guest.recv(), Received::Drained);
    assert!(guest.frames().is_empty());
    let mut next = Guest::new(FEATURES);
    let mut monitor = Monitor::connect(&directory.path().join("vm1"), &next, FEATURES);
    monitor.start_pair(&next);
    port.until(Ok(()));
    next.queue = port.get().queues().pop().unwrap();
    passes(&mut next);
    let mut second = UnixStream::connect(directory.path().join("vm1")).unwrap();
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0, "there is one already");
    port.until(Ok(()));
}

#[test]
fn half_a_message_holds_up_nobody_and_nonsense_ends_the_connection() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("vm1");
    let port = Port::open(&path, true, 1);
    let mut front = UnixStream::connect(&path).unwrap();
    front.set_read_timeout(Some(PATIENCE)).unwrap();
    // SET_FEATURES of half a body, after half a header.
    let whole: Vec<u8> = [[2u32, 1, 8, 0, 1].map(u32::to_ne_bytes).concat()].concat();
    for part in [&whole[..5], &whole[5..14]] {
        front.write_all(part).unwrap();
        for _ in 0..20 {
            let start = Instant::now();
            let _ = port.get().tend();
            assert!(start.elapsed() < Duration::from_millis(50));
        }
    }
    front.write_all(&whole[14..]).unwrap();
    front.write_all(&[1u32, 1, 0].map(u32::to_ne_bytes).concat()).unwrap();
    let mut reply = [0; 20];
    front.read_exact(&mut reply).unwrap();
    assert_eq!(u64::from_ne_bytes(reply[12..].try_into().unwrap()), features::offered(1, true));
    front.write_all(&[0xffu8; 12]).unwrap();
    port.until(Err("the front end was sent away: invalid message"));
    assert_eq!(front.read(&mut reply).unwrap_or(0), 0);
    for nonsense in
        [[18u32, 1, 8, 0, 7].as_slice(), &[18, 1, 8, 9000, 1], &[2, 1, 8, u32::MAX, 1], &[5, 1, 4096]]
    {
        let mut front = UnixStream::connect(&path).unwrap();
        front.write_all(&nonsense.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>()).unwrap();
        drop(front);
    }
    let guest = Guest::new(FEATURES);
    let start = Instant::now();
    loop {
        // The one before may not be over yet.
        let front = Frontend::from_stream(UnixStream::connect(&path).unwrap(), 2);
        if front.set_owner().and_then(|()| front.get_features()).is_ok() {
            let mut monitor = Monitor::new(front);
            monitor.set_up(&guest, FEATURES);
            monitor.start_pair(&guest);
            port.until(Ok(()));
            break;
        }
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn a_client_connects_when_the_front_end_is_there_and_again_when_it_comes_back() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("vm1");
    let port = Port::open(&path, false, 1);
    port.until(Err(&format!("cannot connect to {}: No such file or directory (os error 2)", path.display())));
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let (stream, _) = listener.accept().unwrap();
        let mut guest = Guest::new(FEATURES);
        let mut monitor = Monitor::new(Frontend::from_stream(stream, 2));
        monitor.set_up(&guest, FEATURES);
        monitor.start_pair(&guest);
        port.until(Ok(()));
        guest.queue = port.get().queues().pop().unwrap();
        passes(&mut guest);
    }
}

#[test]
fn a_socket_that_nobody_answers_on_is_replaced_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("vm1");
    let options = VhostUserOptions { path: path.clone(), server: true, pairs: 1, offload: true };
    let open = || VhostUser::open(options.clone()).map_err(|error| error.to_string());
    drop(UnixListener::bind(&path).unwrap());
    let port = open().unwrap();
    assert!(open().unwrap_err().starts_with(&format!("cannot listen on {}: ", path.display())));
    drop(port);
    assert!(!path.exists(), "its file goes with it");
    std::fs::write(&path, "notes").unwrap();
    assert!(open().unwrap_err().ends_with("it exists and is no socket"));
    assert_eq!(std::fs::read(&path).unwrap(), b"notes");
}
