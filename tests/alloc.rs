//! The path of a frame allocates nothing: receive, decide, send, whatever has to be done to the frame.
//!
//! Ports are queues over pairs of sockets, so that the reads and writes are those of a TAP; the test is both ends.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    os::fd::OwnedFd,
    sync::Arc,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt::set_socket_send_buffer_size};
use tapway_dataplane::{
    bridge::{Member, Members, VlanMode},
    counters::{PortCounters, PortStats, Totals},
    fdb::Fdb,
    forward::{Env, Scratch, Silent, TxPlan, forward},
    frame::{Batch, Caps},
    index::{BridgeIdx, PortIdx},
    port::{Outcome, Queue, Received, TapQueue, Transmitter},
    snapshot::{Bridge, Port, Snapshot},
    tick::Tick,
    wire::Vid,
};

/// The system's allocator, and a count of what this thread asks of it.
struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

fn note() {
    ASKED.with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: every call is handed on to the system's allocator as it came, which keeps the contract; counting touches a
// thread-local cell without destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller got `ptr` from this allocator, and so from the system's.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` asks for memory.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ASKED.get();
    work();
    ASKED.get() - before
}

/// A worker without its thread, and the far ends of its ports.
struct Switch {
    snapshot: Snapshot,
    queues: Vec<Queue>,
    far: Vec<OwnedFd>,
    batch: Batch,
    scratch: Scratch,
    plan: TxPlan,
    transmitter: Transmitter,
    buffer: Vec<u8>,
    left: usize,
}

impl Switch {
    fn new(ports: Vec<(VlanMode, Caps)>) -> Self {
        let (mut queues, mut far) = (Vec::new(), Vec::new());
        for (_, caps) in &ports {
            let (near, end) =
                socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::NONBLOCK, None).unwrap();
            for socket in [&near, &end] {
                set_socket_send_buffer_size(socket, 400_000).unwrap();
            }
            queues.push(Queue::Tap(TapQueue::new(near, *caps)));
            far.push(end);
        }
        let ports: Vec<Port> = ports.into_iter().map(|(vlan, caps)| port(vlan, caps)).collect();
        let indexed: Vec<(usize, &Port)> = ports.iter().enumerate().collect();
        let members = Members::new(&indexed, ports.iter().flat_map(|p| p.vlan.named()), |(n, p), vlan| {
            let classes = Member::classes(true, true, true);
            Some(Member { port: PortIdx(*n as u16), tagged: p.vlan.tags(vlan)?, classes, isolated: false })
        });
        let bridge = Arc::new(Bridge { fdb: Arc::new(Fdb::new(1024).unwrap()), members });
        let ports = ports.into_iter().map(Some).collect();
        Self {
            snapshot: Snapshot { generation: 1, bridges: vec![Some(bridge)], ports },
            queues,
            far,
            batch: Batch::new(),
            scratch: Scratch::default(),
            plan: TxPlan::default(),
            transmitter: Transmitter::default(),
            buffer: vec![0; 70_000],
            left: 0,
        }
    }

    /// What a host puts on the wire: a virtio header where the port has one, and the frame.
    fn put(&self, port: usize, bytes: &[u8]) {
        assert_eq!(rustix::io::write(&self.far[port], bytes), Ok(bytes.len()));
    }

    /// Receives what waits at a port, forwards and sends it; the far ends are read as fast as they fill.
    fn serve(&mut self, port: usize, second: u64) {
        self.batch.clear();
        self.plan.clear();
        self.transmitter.next_batch();
        let stats = |snapshot: &Snapshot, n: usize| Arc::clone(&snapshot.ports[n].as_ref().unwrap().stats);
        let counters = stats(&self.snapshot, port);
        assert_eq!(self.queues[port].recv(&mut self.batch, counters.of(0)), Received::Drained);
        let env = Env { snapshot: &self.snapshot, worker: 0, now: Tick::from_secs(second) };
        forward(&env, PortIdx(port as u16), &mut self.batch, &mut self.scratch, &mut self.plan, &mut Silent);
        for out in self.plan.frames() {
            let egress = usize::from(out.port.0);
            let counters = stats(&self.snapshot, egress);
            let counters: &PortCounters = counters.of(0);
            let sent = self.transmitter.send(out, &mut self.batch, &mut self.queues[egress], counters);
            assert_eq!(sent, Outcome::Done);
            while rustix::io::read(&self.far[egress], &mut self.buffer[..]).is_ok() {
                self.left += 1;
            }
        }
    }

    /// The counters of all ports together.
    fn totals(&self, port: usize) -> Totals {
        self.snapshot.ports[port].as_ref().unwrap().stats.total()
    }
}

fn port(vlan: VlanMode, caps: Caps) -> Port {
    Port {
        bridge: BridgeIdx(0),
        vlan,
        admin_up: true,
        oper_up: true,
        learning: true,
        hairpin: false,
        isolated: false,
        locked: false,
        mac_limit: 0,
        mtu: 1500,
        caps,
        storm: None,
        secure: None,
        stats: Arc::new(PortStats::new(1)),
    }
}

const PLAIN: VlanMode = VlanMode::Transparent;

fn access(vlan: u16) -> VlanMode {
    VlanMode::Access(Vid::new(vlan).unwrap())
}

fn trunk(list: &str) -> VlanMode {
    VlanMode::Trunk { tagged: Arc::new(list.parse().unwrap()), native: None }
}

/// A frame between stations behind a virtio header that says nothing.
fn frame(to: u8, from: u8) -> Vec<u8> {
    let to = if to == 0xff { [0xff; 6] } else { [2, 0, 0, 0, 0, to] };
    [&[0; 12][..], &to, &[2, 0, 0, 0, 0, from], &[0x88, 0xb5], &[0xaa; 46]].concat()
}

fn tagged(vlan: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..24], &[0x81, 0], &vlan.to_be_bytes(), &frame[24..]].concat()
}

/// A TCP packet of IPv4 whose checksum is partial; in segments of 1000 octets where it has more.
fn tcp(payload: usize) -> Vec<u8> {
    let gso = u8::from(payload > 1000);
    let [size_low, size_high] = if gso == 1 { 1000u16.to_le_bytes() } else { [0, 0] };
    let mut bytes = vec![1, gso, 54, 0, size_low, size_high, 34, 0, 16, 0, 0, 0];
    bytes.extend(&frame(0xff, 1)[12..24]);
    bytes.extend([8, 0, 0x45, 0]);
    bytes.extend((40 + payload as u16).to_be_bytes());
    bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2]);
    bytes.extend([0x10, 0, 0x10, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    bytes.resize(12 + 54 + payload, 7);
    bytes
}

/// Puts `inputs` on the wire again and again; nothing is allocated once the first rounds are over, and `out` frames leave in each.
fn allocates_nothing(what: &str, switch: &mut Switch, inputs: &[(usize, Vec<u8>)], out: usize) {
    let mut round = |second: u64| {
        let before = switch.left;
        for (port, bytes) in inputs {
            switch.put(*port, bytes);
            switch.serve(*port, second);
        }
        switch.left - before
    };
    for second in 1..4 {
        assert_eq!(round(second), out, "{what}, warming up");
    }
    let mut sent = 0;
    let asked = allocations(|| sent = (4..104).map(&mut round).sum());
    assert_eq!((asked, sent), (0, 100 * out), "{what}: allocations and frames of a hundred rounds");
}

#[test]
fn the_count_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| ()), 0);
    let mut list = Vec::with_capacity(1);
    assert_eq!(allocations(|| list.extend([1, 2, 3])), 1, "growing counts too");
}

#[test]
fn known_unicast_allocates_nothing() {
    let mut s = Switch::new(vec![(PLAIN, Caps::ALL), (PLAIN, Caps::ALL)]);
    allocates_nothing("both ways", &mut s, &[(0, frame(2, 1)), (1, frame(1, 2))], 2);
    assert_eq!(s.totals(0).drops().count(), 0);
}

#[test]
fn a_flood_allocates_nothing() {
    let mut s = Switch::new((0..9).map(|_| (PLAIN, Caps::ALL)).collect());
    allocates_nothing("to eight ports", &mut s, &[(0, frame(0xff, 1))], 8);
}

#[test]
fn putting_tags_in_and_taking_them_out_allocates_nothing() {
    let mut s =
        Switch::new(vec![(access(10), Caps::ALL), (trunk("10,20"), Caps::ALL), (access(20), Caps::ALL)]);
    let inputs = [
        (0, frame(0xff, 1)),
        (1, tagged(10, &frame(0xff, 2))),
        (1, tagged(20, &frame(0xff, 2))),
        (2, frame(2, 3)),
    ];
    allocates_nothing("access and trunk", &mut s, &inputs, 4);
}

#[test]
fn learning_and_moving_and_forgetting_nothing_allocates_nothing() {
    let mut s = Switch::new(vec![(PLAIN, Caps::ALL), (PLAIN, Caps::ALL), (PLAIN, Caps::ALL)]);
    let inputs = [(0, frame(0xff, 1)), (1, frame(0xff, 1)), (2, frame(1, 3))];
    allocates_nothing("a station that moves all the time", &mut s, &inputs, 5);
    assert!(s.snapshot.bridge(BridgeIdx(0)).unwrap().fdb.stats().moved >= 200);
}

#[test]
fn learning_new_stations_allocates_nothing() {
    let mut s = Switch::new(vec![(PLAIN, Caps::ALL), (PLAIN, Caps::ALL)]);
    s.put(0, &frame(0xff, 1));
    s.serve(0, 1);
    let frames: Vec<_> = (2..250).map(|n| frame(0xff, n)).collect();
    let asked = allocations(|| {
        for f in &frames {
            s.put(0, f);
            s.serve(0, 1);
        }
    });
    assert_eq!((asked, s.snapshot.bridge(BridgeIdx(0)).unwrap().fdb.len()), (0, 249));
}

#[test]
fn splitting_a_super_frame_allocates_nothing() {
    let mut s =
        Switch::new(vec![(access(10), Caps::ALL), (access(10), Caps::NONE), (trunk("10"), Caps::NONE)]);
    allocates_nothing("to two plain ports", &mut s, &[(0, tcp(4500))], 10);
}

#[test]
fn finishing_a_checksum_allocates_nothing() {
    let mut s = Switch::new(vec![(PLAIN, Caps::ALL), (PLAIN, Caps::NONE), (PLAIN, Caps::ALL)]);
    allocates_nothing("for a plain port", &mut s, &[(0, tcp(900))], 2);
}

#[test]
fn a_frame_that_is_dropped_allocates_nothing() {
    let mut s = Switch::new(vec![(access(10), Caps::ALL), (access(20), Caps::ALL)]);
    let inputs = [(0, frame(0xff, 1)), (0, tagged(10, &frame(2, 1))), (0, vec![0; 20]), (0, vec![77; 90])];
    allocates_nothing("for four reasons", &mut s, &inputs, 0);
    assert_eq!(s.totals(0).drops().map(|(_, n)| n).sum::<u64>(), 4 * 103);
}
