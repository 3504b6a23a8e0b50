//! The packet path allocates nothing: receive, forward and send, with every allocation of the thread counted.
//!
//! The ports are queues as a TAP has them, over pairs of sockets that keep the borders of frames. A round puts frames in at one far end,
//! carries them through, and takes out what arrived at the others: a batch that goes nowhere would prove nothing.

mod counting;

use std::{os::fd::OwnedFd, sync::Arc};

use counting::allocations;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use tapway_dataplane::{
    bridge::{Member, Members, VlanMode},
    fdb::Fdb,
    forward::{Env, Scratch, Silent, TxPlan, forward},
    frame::{BATCH, Batch, Caps},
    index::{BridgeIdx, PortIdx},
    port::{Queue, Received, StreamQueue, TapQueue, Transmitter, stream::Connection},
    snapshot::{Bridge, Port, Snapshot},
    sys::uring::Batcher,
    tick::Tick,
    wire::{Vid, stream, virtio_net},
};

/// Rounds before one is measured: tables have found their size, and a queue has seen that reading several at once pays.
const WARM_UP: usize = 3;

/// A switch of socket pairs, and what a worker keeps from batch to batch.
struct Rig {
    snapshot: Snapshot,
    queues: Vec<Queue>,
    far: Vec<OwnedFd>,
    batch: Batch,
    scratch: Scratch,
    plan: TxPlan,
    transmitter: Transmitter,
    ring: Option<Batcher>,
    buffer: Vec<u8>,
}

impl Rig {
    fn new(ports: &[(VlanMode, Caps)], ring: Option<Batcher>) -> Self {
        let port = |(vlan, caps): &(VlanMode, Caps)| Port {
            vlan: vlan.clone(),
            caps: *caps,
            ..Port::new(BridgeIdx(0), 1)
        };
        let ports: Vec<Port> = ports.iter().map(port).collect();
        let indexed: Vec<(usize, &Port)> = ports.iter().enumerate().collect();
        let members = Members::new(&indexed, ports.iter().flat_map(|p| p.vlan.named()), |(n, p), vlan| {
            let (port, tagged) = (PortIdx(*n as u16), p.vlan.tags(vlan)?);
            Some(Member { port, tagged, classes: Member::classes(true, true, true), isolated: false })
        });
        let (mut queues, mut far) = (Vec::new(), Vec::new());
        for port in &ports {
            let (near, end) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
            for end in [&near, &end] {
                sockopt::set_socket_send_buffer_size(end, 2 << 20).unwrap();
            }
            queues.push(Queue::Tap(TapQueue::new(near, port.caps)));
            far.push(end);
        }
        let bridge =
            Arc::new(Bridge { fdb: Arc::new(Fdb::new(4096).unwrap()), members, neighbours: Arc::default() });
        let ports = ports.into_iter().map(Some).collect();
        Self {
            snapshot: Snapshot { generation: 1, bridges: vec![Some(bridge)], ports, ..Snapshot::default() },
            queues,
            far,
            batch: Batch::new(),
            scratch: Scratch::default(),
            plan: TxPlan::default(),
            transmitter: Transmitter::default(),
            ring,
            buffer: vec![0; 70_000],
        }
    }

    /// One batch of `frames`, each with its virtio header where the port has one: the allocations it took, and the frames that arrived.
    fn round(&mut self, ingress: u16, frames: &[Vec<u8>]) -> (u64, usize) {
        let from = PortIdx(ingress);
        for frame in frames {
            assert_eq!(rustix::io::write(&self.far[from.at()], frame), Ok(frame.len()));
        }
        let spent = allocations(|| {
            self.batch.clear();
            let counters = self.snapshot.port(from).unwrap().stats.of(0);
            let received = self.queues[from.at()].recv(&mut self.batch, counters, self.ring.as_mut());
            assert!(!matches!(received, Received::Gone(_)));
            self.plan.clear();
            self.transmitter.next_batch();
            let env = Env { snapshot: &self.snapshot, worker: 0, now: Tick::from_secs(1) };
            forward(&env, from, &mut self.batch, &mut self.scratch, &mut self.plan, &mut Silent);
            let (snapshot, queues) = (&self.snapshot, &self.queues);
            let egress = |port: PortIdx| Some((queues.get(port.at())?, snapshot.port(port)?.stats.of(0)));
            let lost = |port| panic!("{port:?} is there");
            self.transmitter.send_all(self.plan.frames(), &mut self.batch, self.ring.as_mut(), egress, lost);
        });
        assert_eq!(self.batch.len(), frames.len(), "one batch takes them all");
        let mut arrived = 0;
        for far in &self.far {
            while rustix::io::read(far, &mut self.buffer[..]).is_ok() {
                arrived += 1;
            }
        }
        (spent, arrived)
    }
}

/// Runs a case without a ring and, where the kernel has one, with it. `frames` are those of a round, which come from the port beside
/// them; `arrive` is how many leave for each round.
fn case(
    ports: &[(VlanMode, Caps)],
    arrive: usize,
    prepare: impl Fn(&mut Rig),
    frames: impl Fn(usize) -> (u16, Vec<Vec<u8>>),
) {
    let mut rings = vec![None];
    match Batcher::new() {
        Ok(ring) => rings.push(Some(ring)),
        Err(e) => println!("without a ring only: {e}"),
    }
    for ring in rings {
        let with = if ring.is_some() { "with a ring" } else { "without a ring" };
        let mut rig = Rig::new(ports, ring);
        prepare(&mut rig);
        for round in 0..2 * WARM_UP {
            let (ingress, frames) = frames(round);
            let (spent, arrived) = rig.round(ingress, &frames);
            assert_eq!(arrived, arrive, "round {round} {with}");
            assert!(round < WARM_UP || spent == 0, "{spent} allocations in round {round} {with}");
        }
    }
}

/// Has these stations speak on this port, which brings them into the forwarding database.
fn speak(rig: &mut Rig, port: u16, stations: std::ops::Range<u16>, wrap: impl Fn(Vec<u8>) -> Vec<u8>) {
    let frames: Vec<_> = stations.map(|n| wrap(ethernet(BROADCAST, station(1, n)))).collect();
    rig.round(port, &frames);
}

const BROADCAST: [u8; 6] = [0xff; 6];

fn station(side: u8, n: u16) -> [u8; 6] {
    let [a, b] = n.to_be_bytes();
    [2, 0, 0, side, a, b]
}

fn ethernet(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb5], &[0xaa; 46]].concat()
}

/// With a virtio header that asks for nothing.
fn vnet(frame: Vec<u8>) -> Vec<u8> {
    [&[0; virtio_net::LEN][..], &frame].concat()
}

fn tagged(vid: u8, frame: Vec<u8>) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, vid], &frame[12..]].concat()
}

/// An IPv4 TCP frame of `payload` octets with a partial checksum; a super-frame where `size` is not 0.
fn tcp(to: [u8; 6], from: [u8; 6], payload: usize, size: u16) -> Vec<u8> {
    let gso = if size > 0 { virtio_net::GSO_TCPV4 } else { virtio_net::GSO_NONE };
    let header = [&[virtio_net::F_NEEDS_CSUM, gso, 54, 0][..], &size.to_le_bytes(), &[34, 0, 16, 0, 0, 0]];
    let ip = [
        &[0x45, 0][..],
        &(40 + payload as u16).to_be_bytes(),
        &[0, 1, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2],
        &[0x10, 0, 0x10, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0],
    ];
    [&header.concat()[..], &to, &from, &[8, 0], &ip.concat(), &vec![7; payload]].concat()
}

fn access(vid: u16) -> VlanMode {
    VlanMode::Access(Vid::new(vid).unwrap())
}

fn trunk() -> VlanMode {
    VlanMode::Trunk { tagged: Arc::new("1-100".parse().unwrap()), native: None }
}

const FRAMES: u16 = BATCH as u16;

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8, 2]))), 1);
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![0u8; 100]))), 1);
    let mut grows = Vec::with_capacity(1);
    assert_eq!(allocations(|| grows.extend_from_slice(std::hint::black_box(&[1u8; 9000]))), 1);
    assert_eq!(allocations(|| ()), 0);
}

#[test]
fn known_unicast_allocates_nothing() {
    let open = (VlanMode::Transparent, Caps::ALL);
    case(
        &[open.clone(), open],
        BATCH,
        |rig| speak(rig, 1, 0..FRAMES, vnet),
        |_| (0, (0..FRAMES).map(|n| vnet(ethernet(station(1, n), station(0, n)))).collect()),
    );
}

#[test]
fn a_flood_allocates_nothing() {
    let open = (VlanMode::Transparent, Caps::ALL);
    let frames = |_| (0, (0..FRAMES).map(|n| vnet(ethernet(BROADCAST, station(0, n)))).collect());
    case(&vec![open; 9], 8 * BATCH, |_| (), frames);
}

#[test]
fn putting_tags_in_and_taking_them_out_allocates_nothing() {
    let ports = [(access(10), Caps::ALL), (trunk(), Caps::ALL), (access(10), Caps::NONE)];
    // Towards the trunk a tag is put in, towards the plain port nothing changes.
    let push = |_| (0, (0..FRAMES).map(|n| vnet(ethernet(BROADCAST, station(0, n)))).collect());
    case(&ports, 2 * BATCH, |_| (), push);
    let pop = |_| (1, (0..FRAMES).map(|n| vnet(tagged(10, ethernet(BROADCAST, station(0, n))))).collect());
    case(&ports, 2 * BATCH, |_| (), pop);
}

#[test]
fn learning_allocates_nothing_whether_the_station_is_known_or_new() {
    let open = (VlanMode::Transparent, Caps::ALL);
    let ports = [open.clone(), open];
    let known = |_| (0, vec![vnet(ethernet(BROADCAST, station(0, 1))); BATCH]);
    case(&ports, BATCH, |_| (), known);
    let new = |round| {
        let first = round as u16 * FRAMES;
        let frame = |n| vnet(ethernet(BROADCAST, station(0, first + n)));
        (0, (0..FRAMES).map(frame).collect())
    };
    case(&ports, BATCH, |_| (), new);
}

#[test]
fn a_station_that_moves_allocates_nothing() {
    let open = (VlanMode::Transparent, Caps::ALL);
    let moves = |round| {
        let frame = |n| vnet(ethernet(BROADCAST, station(0, n)));
        ((round % 2) as u16, (0..FRAMES).map(frame).collect())
    };
    case(&[open.clone(), open], BATCH, |_| (), moves);
}

#[test]
fn splitting_for_a_plain_port_allocates_nothing() {
    let ports = [(access(10), Caps::ALL), (access(10), Caps::NONE), (trunk(), Caps::NONE)];
    let frames = |_| (0, (0..8).map(|n| tcp(BROADCAST, station(0, n), 5000, 1000)).collect());
    case(&ports, 2 * 8 * 5, |_| (), frames);
}

#[test]
fn finishing_a_checksum_allocates_nothing() {
    let open = |caps| (VlanMode::Transparent, caps);
    let ports = [open(Caps::ALL), open(Caps::NONE), open(Caps { vnet_hdr: true, ..Caps::NONE })];
    let frames = |_| (0, (0..32).map(|n| tcp(BROADCAST, station(0, n), 500, 0)).collect());
    case(&ports, 2 * 32, |_| (), frames);
}

#[test]
fn a_drop_allocates_nothing() {
    let ports = [(access(10), Caps::ALL), (access(20), Caps::ALL)];
    let frames = |_| {
        let mut frames: Vec<_> = (0..32).map(|n| vnet(ethernet(BROADCAST, station(0, n)))).collect();
        frames.extend((0..32).map(|n| vnet(tagged(20, ethernet(BROADCAST, station(0, n))))));
        (0, frames)
    };
    case(&ports, 0, |_| (), frames);
}

#[test]
fn streams_allocate_nothing_and_what_leaves_by_one_is_written_at_once() {
    let streams = |rig: &mut Rig| {
        for (queue, far) in rig.queues.iter_mut().zip(&mut rig.far) {
            let (near, end) =
                socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
            *queue = Queue::Stream(StreamQueue::new(Connection::new(near).unwrap()));
            *far = end;
        }
    };
    let framed = |frame: Vec<u8>| [&stream::prefix(frame.len())[..], &frame].concat();
    let frames = |_| (0, (0..FRAMES).map(|n| framed(ethernet(BROADCAST, station(0, n)))).collect());
    let plain = (VlanMode::Transparent, Caps::NONE);
    case(&[plain.clone(), plain.clone(), plain], 2, streams, frames);
}
