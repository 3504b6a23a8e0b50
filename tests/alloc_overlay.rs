//! The path through tunnels allocates nothing once it has been used, and what networks and remotes cost in memory.
//!
//! On the way out, a batch of frames comes in by a queue as a TAP has it, is forwarded and encapsulated, and stands in the outbox; where
//! sockets would be there are none, since what the kernel does is not counted. On the way in, what a receive left in the batch is
//! decapsulated, merged, forwarded, and sent by such a queue.

mod counting;

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
    sync::Arc,
};

use counting::{allocations, octets};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use tapway_dataplane::{
    bridge::{Member, Members, VlanMode},
    counters::{DropReason, PortCounters, PortStats},
    fdb::Fdb,
    forward::{Env, Scratch, Silent, TxPlan, forward},
    frame::{BATCH, Batch, Caps, Datagram, Offload},
    index::{BridgeIdx, PortIdx, RemoteIdx, TxSetIdx, VtepIdx},
    offload::{Limits, merge},
    overlay::{
        Arrivals, Decapsulator, Encap, Entrance, Fragmentation, Inherit, RemoteCache, Remotes, Segment,
        Tunnel, Via, Vtep, decap::Rules,
    },
    port::{Encapsulator, Exits, Queue, Received, TapQueue, Transmitter, UnderlayTx, UplinkExit},
    snapshot::{Bridge, Port, Snapshot},
    tick::Tick,
    wire::{Vid, Vni, Vxlan, virtio_net, vxlan},
};

const TAP: PortIdx = PortIdx(0);
const TUNNEL: PortIdx = PortIdx(1);
const NOW: Tick = Tick::from_secs(1);
/// Rounds before one is measured.
const WARM_UP: usize = 3;
const REMOTES: u16 = 20;

fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

fn remote_ip(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xc633_6500 + n).into()
}

/// Ways out that end before the kernel.
struct Nowhere<'a>(&'a Snapshot);

impl Exits for Nowhere<'_> {
    fn tunnel(&self, port: PortIdx) -> Option<(&Tunnel, &PortCounters)> {
        let port = self.0.port(port)?;
        Some((port.tunnel.as_deref()?, port.stats.of(0)))
    }

    fn remotes(&self) -> &Remotes {
        &self.0.remotes
    }

    fn sockets(&self, _: TxSetIdx) -> Option<&UnderlayTx> {
        None
    }

    fn uplink(&self, _: PortIdx) -> Option<UplinkExit<'_>> {
        None
    }
}

/// A TAP and a tunnel, and what a worker keeps from batch to batch.
struct Rig {
    snapshot: Snapshot,
    vtep: Vtep,
    queue: Queue,
    far: OwnedFd,
    batch: Batch,
    datagrams: Vec<Datagram>,
    decapsulator: Decapsulator,
    scratch: Scratch,
    plan: TxPlan,
    transmitter: Transmitter,
    encapsulator: Encapsulator,
}

impl Rig {
    fn new(tap: VlanMode) -> Self {
        let remotes = Remotes::default();
        let flood: Box<[RemoteIdx]> =
            (0..REMOTES).map(|n| remotes.pin(VtepIdx(0), remote_ip(n.into())).unwrap()).collect();
        let tunnel = Tunnel {
            vtep: VtepIdx(0),
            via: Via::Sockets { fragmenting: TxSetIdx(0), whole: TxSetIdx(1) },
            v6: false,
            src_ports: 49152..=65535,
            dst_port: vxlan::PORT,
            encap: Encap::Vxlan { gbp: None },
            vni: Some(vni(7)),
            vlan_vni: [(10, vni(1010))].into(),
            flood,
            ttl: Inherit::Inherit,
            tos: Inherit::Inherit,
            df: Fragmentation::AsInner,
            udp_csum: true,
            underlay_mtu: 1500,
        };
        let mapped = VlanMode::Mapped { vlans: Arc::new("10".parse().unwrap()), rest: true };
        let plain = Port::new(BridgeIdx(0), 1);
        let through = Port {
            tunnel: Some(Arc::new(tunnel)),
            caps: Caps::NONE,
            vlan: mapped,
            ..Port::new(BridgeIdx(0), 1)
        };
        let ports = vec![Port { vlan: tap, ..plain }, through];
        let indexed: Vec<(usize, &Port)> = ports.iter().enumerate().collect();
        let members = Members::new(&indexed, ports.iter().flat_map(|p| p.vlan.named()), |(n, p), vlan| {
            let (port, tagged) = (PortIdx(*n as u16), p.vlan.tags(vlan)?);
            Some(Member { port, tagged, classes: Member::classes(true, true, true), isolated: false })
        });
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        for end in [&near, &far] {
            sockopt::set_socket_send_buffer_size(end, 2 << 20).unwrap();
        }
        let entrance = Entrance {
            port: TUNNEL,
            rules: Rules::Vxlan(vxlan::Rules::default()),
            known: None,
            stats: Arc::clone(&ports[1].stats),
        };
        let segments = [
            (vni(7), Segment { entrance: 0, vlan: None }),
            (vni(1010), Segment { entrance: 0, vlan: Vid::new(10) }),
        ];
        let vtep = Vtep {
            idx: VtepIdx(0),
            local: Ipv4Addr::new(198, 51, 100, 1).into(),
            zero_csum6: false,
            segments: segments.into_iter().collect(),
            entrances: [entrance].into(),
            stats: Arc::new(PortStats::new(1)),
        };
        let bridge =
            Arc::new(Bridge { fdb: Arc::new(Fdb::new(4096).unwrap()), members, neighbours: Arc::default() });
        let snapshot = Snapshot {
            generation: 1,
            bridges: vec![Some(bridge)],
            ports: ports.into_iter().map(Some).collect(),
            remotes: Arc::new(remotes),
            ..Snapshot::default()
        };
        Self {
            snapshot,
            vtep,
            queue: Queue::Tap(TapQueue::new(near, Caps::ALL)),
            far,
            batch: Batch::new(),
            datagrams: Vec::with_capacity(BATCH),
            decapsulator: Decapsulator::default(),
            scratch: Scratch::default(),
            plan: TxPlan::default(),
            transmitter: Transmitter::default(),
            encapsulator: Encapsulator::default(),
        }
    }

    fn env(snapshot: &Snapshot) -> Env<'_> {
        Env { snapshot, worker: 0, now: NOW }
    }

    /// Frames of the TAP, each with its virtio header, into the tunnel: the allocations, and the datagrams that were ready to be sent.
    fn out(&mut self, frames: &[Vec<u8>]) -> (u64, u64) {
        for frame in frames {
            assert_eq!(rustix::io::write(&self.far, frame), Ok(frame.len()));
        }
        let Self { snapshot, queue, batch, scratch, plan, encapsulator, .. } = self;
        let gone = || snapshot.port(TUNNEL).unwrap().stats.total().dropped(DropReason::EgressDown);
        let before = gone();
        let spent = allocations(|| {
            batch.clear();
            let received = queue.recv(batch, snapshot.port(TAP).unwrap().stats.of(0), None);
            assert!(!matches!(received, Received::Gone(_)));
            plan.clear();
            forward(&Self::env(snapshot), TAP, batch, scratch, plan, &mut Silent);
            encapsulator.send_all(plan.frames(), batch, &Nowhere(snapshot), |_| ());
        });
        assert_eq!(batch.len(), frames.len(), "one batch takes them all");
        (spent, gone() - before)
    }

    /// Datagrams, each with its stride and who sent it, to the TAP: the allocations, and the frames that arrived there.
    fn arrive(&mut self, datagrams: &[(Vec<u8>, u32, u32)]) -> (u64, usize) {
        let Self { snapshot, vtep, queue, batch, decapsulator, scratch, plan, transmitter, .. } = self;
        self.datagrams.clear();
        for (slot, (octets, stride, from)) in datagrams.iter().enumerate() {
            let at = Batch::slot_at(slot);
            batch.memory_mut()[at..at + octets.len()].copy_from_slice(octets);
            let (at, len, from) = (at as u32, octets.len() as u32, remote_ip(*from));
            self.datagrams.push(Datagram { at, len, stride: *stride, from, tos: 0, offload: Offload::NONE });
        }
        let arrivals = Arrivals { vtep, remotes: &snapshot.remotes, worker: 0, now: NOW };
        let spent = allocations(|| {
            decapsulator.begin();
            while let Some(ingress) = decapsulator.next(&arrivals, &self.datagrams, batch) {
                merge(batch, &Limits { mtu: 1450, udp: true });
                plan.clear();
                transmitter.next_batch();
                forward(&Self::env(snapshot), ingress, batch, scratch, plan, &mut Silent);
                let egress = |port| Some((&*queue, snapshot.port(port)?.stats.of(0)));
                transmitter.send_all(plan.frames(), batch, None, egress, |port| panic!("{port:?} is there"));
            }
        });
        let (mut arrived, mut buffer) = (0, [0; 70_000]);
        while rustix::io::read(&self.far, &mut buffer[..]).is_ok() {
            arrived += 1;
        }
        (spent, arrived)
    }
}

fn rounds<T: PartialEq + std::fmt::Debug>(expected: T, mut round: impl FnMut(usize) -> (u64, T)) {
    for n in 0..2 * WARM_UP {
        let (spent, came) = round(n);
        assert_eq!(came, expected, "round {n}");
        assert!(n < WARM_UP || spent == 0, "{spent} allocations in round {n}");
    }
}

const BROADCAST: [u8; 6] = [0xff; 6];

fn station(side: u8, n: usize) -> [u8; 6] {
    let [.., a, b] = n.to_be_bytes();
    [2, 0, 0, side, a, b]
}

fn plain(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb5], &[0xaa; 46]].concat()
}

/// With a virtio header that asks for nothing.
fn vnet(frame: Vec<u8>) -> Vec<u8> {
    [&[0; virtio_net::LEN][..], &frame].concat()
}

/// An IPv4 TCP frame of `payload` octets with a partial checksum; a super-frame where `size` is not 0.
fn tcp(to: [u8; 6], from: [u8; 6], payload: usize, size: u16) -> Vec<u8> {
    let gso = if size > 0 { virtio_net::GSO_TCPV4 } else { virtio_net::GSO_NONE };
    let header = [&[virtio_net::F_NEEDS_CSUM, gso, 54, 0][..], &size.to_le_bytes(), &[34, 0, 16, 0, 0, 0]];
    [header.concat(), segment(to, from, 1, payload)].concat()
}

/// An IPv4 TCP frame, without checksums.
fn segment(to: [u8; 6], from: [u8; 6], sequence: u32, payload: usize) -> Vec<u8> {
    let ip = [
        &[0x45, 0][..],
        &(40 + payload as u16).to_be_bytes(),
        &[0, 1, 0x40, 0, 64, 6, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2, 0x10, 0, 0x10, 1],
        &sequence.to_be_bytes(),
        &[0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0],
    ];
    [&to[..], &from, &[8, 0], &ip.concat(), &vec![7; payload]].concat()
}

fn sum(octets: &[u8]) -> u16 {
    let sum: u32 =
        octets.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The same with checksums, as it comes over a wire.
fn sent(mut frame: Vec<u8>) -> Vec<u8> {
    let header = !sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    let len = (frame.len() - 34) as u16;
    let checksum = !sum(&[&frame[26..34], &[0, 6], &len.to_be_bytes(), &frame[34..]].concat());
    frame[50..52].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn tunnelled(network: u32, frame: &[u8]) -> Vec<u8> {
    [&Vxlan { vni: vni(network), gbp: None }.to_bytes(), frame].concat()
}

#[test]
fn unicast_into_a_tunnel_allocates_nothing() {
    let mut rig = Rig::new(VlanMode::Transparent);
    // Who is to be known speaks first, each from another remote.
    let speak: Vec<_> = (0..BATCH)
        .map(|n| (tunnelled(7, &plain(BROADCAST, station(1, n))), 0, n as u32 % u32::from(REMOTES)))
        .collect();
    assert_eq!(rig.arrive(&speak).1, BATCH);
    let frames: Vec<_> = (0..BATCH).map(|n| vnet(plain(station(1, n), station(0, n)))).collect();
    rounds(BATCH as u64, |_| rig.out(&frames));
}

#[test]
fn a_flood_into_a_tunnel_allocates_nothing() {
    let mut rig = Rig::new(VlanMode::Transparent);
    let frames: Vec<_> = (0..BATCH).map(|n| vnet(plain(BROADCAST, station(0, n)))).collect();
    rounds(BATCH as u64 * u64::from(REMOTES), |_| rig.out(&frames));
}

#[test]
fn a_super_frame_into_a_tunnel_that_takes_its_tag_off_allocates_nothing() {
    let mut rig = Rig::new(VlanMode::Access(Vid::new(10).unwrap()));
    let frames: Vec<_> = (0..4).map(|n| tcp(BROADCAST, station(0, n), 30_000, 1000)).collect();
    rounds(4 * 30 * u64::from(REMOTES), |_| rig.out(&frames));
}

#[test]
fn finishing_a_checksum_on_the_way_into_a_tunnel_allocates_nothing() {
    let mut rig = Rig::new(VlanMode::Transparent);
    let frames: Vec<_> = (0..32).map(|n| tcp(BROADCAST, station(0, n), 500, 0)).collect();
    rounds(32 * u64::from(REMOTES), |_| rig.out(&frames));
}

#[test]
fn being_told_of_a_narrow_path_allocates_nothing() {
    let mut rig = Rig::new(VlanMode::Transparent);
    let frames: Vec<_> = (0..8).map(|n| vnet(sent(segment(station(9, 9), station(0, n), 1, 1450)))).collect();
    rounds(0, |_| rig.out(&frames));
    let told = rig.snapshot.port(TUNNEL).unwrap().stats.total().dropped(DropReason::TunnelMtuExceeded);
    assert_eq!(told, 2 * WARM_UP as u64 * 8 * u64::from(REMOTES));
}

#[test]
fn frames_out_of_a_tunnel_allocate_nothing_whoever_sent_them() {
    let mut rig = Rig::new(VlanMode::Transparent);
    let datagrams: Vec<_> = (0..BATCH)
        .map(|n| {
            let network = if n % 5 == 0 { 9 } else { 7 }; // a network of nobody
            (tunnelled(network, &plain(BROADCAST, station(1, n))), 0, n as u32 % u32::from(REMOTES))
        })
        .collect();
    rounds(51, |_| rig.arrive(&datagrams));
}

#[test]
fn a_train_that_is_merged_allocates_nothing() {
    let mut rig = Rig::new(VlanMode::Transparent);
    let train: Vec<u8> = (0..40)
        .flat_map(|n| tunnelled(7, &sent(segment(BROADCAST, station(1, 1), 1 + n * 1000, 1000))))
        .collect();
    let stride = (train.len() / 40) as u32;
    // The second train is in two batches: 40 and 24 frames, and 16.
    rounds(3, |_| rig.arrive(&[(train.clone(), stride, 1), (train.clone(), stride, 1)]));
}

/// Octets that are allocated for each network and each remote; `cargo test -- --nocapture` prints them.
#[test]
fn networks_and_remotes_cost_little_memory() {
    let segment = |n: u32| (vni(n), Segment { entrance: 0, vlan: Vid::new(1 + n as u16 % 4094) });
    let (networks, network) = octets(|| {
        let mut vtep = Rig::new(VlanMode::Transparent).vtep;
        vtep.segments = (0..10_000).map(segment).collect();
        vtep
    });
    assert_eq!(networks.segments.len(), 10_000);
    let network = network / 10_000;
    let remotes = Remotes::default();
    let ((), remote) = octets(|| {
        for n in 0..1000 {
            remotes.find_or_add(VtepIdx(0), remote_ip(n), NOW).unwrap();
        }
    });
    let mut cache = RemoteCache::default();
    let ((), cached) = octets(|| {
        for n in 0..1000 {
            cache.index(&remotes, VtepIdx(0), remote_ip(n), NOW).unwrap();
        }
    });
    let (remote, cached) = (remote / 1000, cached / 1000);
    println!("octets: {network} a network, {remote} a remote and {cached} more in each worker that hears it");
    assert!((1..=64).contains(&network), "{network} octets a network");
    assert!((1..=160).contains(&remote), "{remote} octets a remote");
    assert!((1..=100).contains(&cached), "{cached} octets a remote and worker");
}
