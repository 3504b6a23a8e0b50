//! Frames of 64 octets into tunnels and out of them, in batches of 64: what a tunnel costs beside bridging, and what many networks and
//! remotes cost beside one.
//!
//! Nothing is sent and nothing received: the way out ends where the kernel would be handed the datagrams, the way in begins where it
//! has handed them over. `path/bridging` is the same frames from port to port: what a tunnel costs is the difference.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use criterion::{Criterion, Throughput};
use tapway_dataplane::{
    bridge::{Member, Members},
    counters::{PortCounters, PortStats},
    fdb::{Dest, EntryKind, Fdb, FdbKey},
    forward::{Env, Scratch, Silent, TxPlan, forward},
    frame::{BATCH, Batch, Caps, Datagram, Offload},
    index::{BridgeIdx, PortIdx, RemoteIdx, TxSetIdx, VtepIdx},
    offload::{Limits, checksum, merge},
    overlay::{
        Arrivals, Decapsulator, Encap, Entrance, Fragmentation, Inherit, Remotes, Segment, Tunnel, Via, Vtep,
        decap::Rules,
    },
    port::{Encapsulator, Exits, UnderlayTx, UplinkExit},
    snapshot::{Bridge, Port, Snapshot},
    tick::Tick,
    wire::{GeneveOption, MacAddr, Vni, geneve, vxlan},
};

const HOSTS: PortIdx = PortIdx(0);
const OTHERS: PortIdx = PortIdx(1);
const TUNNEL: PortIdx = PortIdx(2);
/// Stations behind each port.
const STATIONS: usize = 8192;
const NOW: Tick = Tick::from_secs(1);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// Numbers in no order that a cache could learn.
struct Dice(usize);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn station(port: PortIdx, n: usize) -> MacAddr {
    let [.., a, b] = n.to_be_bytes();
    MacAddr::from_octets([2, 0, 0, port.0 as u8, a, b])
}

fn remote_ip(n: usize) -> IpAddr {
    Ipv4Addr::from_bits(0xc633_6500 + n as u32).into()
}

fn vni(n: usize) -> Vni {
    Vni::new(1000 + n as u32).expect("small")
}

/// A UDP packet of 18 octets of payload in a frame: 64 octets with the FCS. Each flow has other ports.
fn frame(to: MacAddr, from: MacAddr, flow: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2];
    let header = !checksum::sum(&packet);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    let mut datagram = [&(1024 + flow as u16).to_be_bytes()[..], &[0x10, 0, 0, 26, 0, 0], &[7; 18]].concat();
    let pseudo = [&packet[12..20], &[0, 17, 0, 26]].concat();
    let sum = !checksum::sum(&[&pseudo[..], &datagram].concat());
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    [&to.octets()[..], &from.octets(), &[8, 0], &packet, &datagram].concat()
}

fn geneve_options() -> Box<[u8]> {
    let list: Vec<GeneveOption> = vec!["0102:80:00001111".parse().expect("an option")];
    geneve::options(&list).expect("few")
}

/// Two ports and a tunnel with so many remotes, behind which its stations are.
fn switch(encap: Encap, remotes: usize) -> Snapshot {
    let all = Remotes::default();
    let flood: Vec<RemoteIdx> =
        (0..remotes).map(|n| all.pin(VtepIdx(0), remote_ip(n)).expect("room")).collect();
    let tunnel = Tunnel {
        vtep: VtepIdx(0),
        via: Via::Sockets { fragmenting: TxSetIdx(0), whole: TxSetIdx(1) },
        v6: false,
        src_ports: 49152..=65535,
        dst_port: vxlan::PORT,
        encap,
        vni: Some(vni(0)),
        vlan_vni: [].into(),
        flood: flood.clone().into(),
        ttl: Inherit::Fixed(64),
        tos: Inherit::Inherit,
        df: Fragmentation::Forbidden,
        udp_csum: true,
        underlay_mtu: 1500,
    };
    let plain = || Port::new(BridgeIdx(0), 1);
    let through = Port { tunnel: Some(Arc::new(tunnel)), caps: Caps::NONE, ..plain() };
    let ports = vec![plain(), plain(), through];
    let indexed: Vec<(usize, &Port)> = ports.iter().enumerate().collect();
    let members = Members::new(&indexed, [].into_iter(), |(n, _), vlan| {
        let classes = Member::classes(true, true, true);
        Some(Member { port: PortIdx(*n as u16), tagged: vlan != 0, classes, isolated: false })
    });
    let fdb = Fdb::new(4 * STATIONS as u32).expect("memory");
    for n in 0..STATIONS {
        for (dest, port) in [
            (Dest::port(HOSTS), HOSTS),
            (Dest::port(OTHERS), OTHERS),
            (Dest { port: TUNNEL, remote: Some(flood[n % remotes]) }, TUNNEL),
        ] {
            let key = FdbKey::new(0, station(port, n));
            fdb.insert(key, dest, EntryKind::Dynamic, NOW).expect("room");
        }
    }
    let bridge = Arc::new(Bridge { fdb: Arc::new(fdb), members, neighbours: Arc::default() });
    Snapshot {
        generation: 1,
        bridges: vec![Some(bridge)],
        ports: ports.into_iter().map(Some).collect(),
        remotes: Arc::new(all),
        ..Snapshot::default()
    }
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

/// A batch of frames from hosts to stations behind a port, where a receive puts them.
fn hosts_send(to: PortIdx) -> Batch {
    let mut dice = Dice(1);
    let mut batch = Batch::new();
    for flow in 0..BATCH {
        let from = station(HOSTS, dice.below(STATIONS));
        assert!(batch.append(&frame(station(to, dice.below(STATIONS)), from, flow), Offload::NONE));
    }
    batch
}

fn outward(c: &mut Criterion, case: &str, to: PortIdx, encap: Encap, remotes: usize) {
    let snapshot = switch(encap, remotes);
    let mut batch = hosts_send(to);
    let (mut scratch, mut plan, mut encapsulator) =
        (Scratch::default(), TxPlan::default(), Encapsulator::default());
    let env = Env { snapshot: &snapshot, worker: 0, now: NOW };
    let mut group = c.benchmark_group("path");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(case, |b| {
        b.iter(|| {
            plan.clear();
            forward(&env, HOSTS, &mut batch, &mut scratch, &mut plan, &mut Silent);
            encapsulator.send_all(plan.frames(), &batch, &Nowhere(&snapshot), |_| ());
            assert_eq!(plan.frames().len(), BATCH);
        });
    });
    group.finish();
}

/// An endpoint of so many networks, all of them one port's.
fn vtep(rules: Rules, vnis: usize) -> Vtep {
    let entrance = Entrance { port: TUNNEL, rules, known: None, stats: Arc::new(PortStats::new(1)) };
    Vtep {
        idx: VtepIdx(0),
        local: LOCAL,
        zero_csum6: false,
        segments: (0..vnis).map(|n| (vni(n), Segment { entrance: 0, vlan: None })).collect(),
        entrances: [entrance].into(),
        stats: Arc::new(PortStats::new(1)),
    }
}

/// `count` receives of a batch of datagrams each, of any of these networks and from any of these remotes. One receive is where the
/// kernel puts it; several are packed close, so that it is the networks and remotes that fill the caches.
fn receives(
    memory: &mut Batch,
    count: usize,
    encap: &Encap,
    vnis: usize,
    remotes: usize,
) -> Vec<Vec<Datagram>> {
    let mut dice = Dice(1);
    let mut at = Batch::slot_at(0);
    let mut one = |flow| {
        let mut header = [0; 64];
        let vni = vni(dice.below(vnis));
        let len = match encap {
            Encap::Vxlan { gbp } => {
                header[..8].copy_from_slice(&vxlan::Vxlan { vni, gbp: *gbp }.to_bytes());
                8
            }
            Encap::Geneve { options } => geneve::Geneve::emit(vni, options, &mut header).expect("room"),
        };
        let to = station(HOSTS, dice.below(STATIONS));
        let frame = frame(to, station(TUNNEL, dice.below(STATIONS)), flow);
        let octets = [&header[..len], &frame].concat();
        memory.memory_mut()[at..at + octets.len()].copy_from_slice(&octets);
        let from = remote_ip(dice.below(remotes));
        let datagram = Datagram {
            at: at as u32,
            len: octets.len() as u32,
            stride: 0,
            from,
            tos: 0,
            offload: Offload::NONE,
        };
        at +=
            if count == 1 { Batch::slot_at(1) - Batch::slot_at(0) } else { octets.len().next_multiple_of(8) };
        datagram
    };
    (0..count).map(|_| (0..BATCH).map(&mut one).collect()).collect()
}

/// How far frames out of a tunnel are followed.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    Decapsulated,
    /// Forwarded as they came.
    Planned,
    /// Verified and merged before.
    Merged,
}

/// What comes out of a tunnel.
fn inward(
    c: &mut Criterion,
    case: &str,
    encap: Encap,
    rules: Rules,
    (vnis, remotes): (usize, usize),
    until: Until,
) {
    let snapshot = switch(encap.clone(), remotes);
    let vtep = vtep(rules, vnis);
    let mut batch = Batch::new();
    let receives =
        receives(&mut batch, if until == Until::Decapsulated { 64 } else { 1 }, &encap, vnis, remotes);
    let (mut decapsulator, mut scratch, mut plan) =
        (Decapsulator::default(), Scratch::default(), TxPlan::default());
    let arrivals = Arrivals { vtep: &vtep, remotes: &snapshot.remotes, worker: 0, now: NOW };
    let env = Env { snapshot: &snapshot, worker: 0, now: NOW };
    let mut at = 0;
    let mut group = c.benchmark_group("path");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(case, |b| {
        b.iter(|| {
            at = (at + 1) % receives.len();
            decapsulator.begin();
            while let Some(ingress) = decapsulator.next(&arrivals, &receives[at], &mut batch) {
                assert_eq!(batch.len(), BATCH);
                if until == Until::Merged {
                    merge(&mut batch, &Limits { mtu: 1450, udp: true });
                }
                if until != Until::Decapsulated {
                    plan.clear();
                    forward(&env, ingress, &mut batch, &mut scratch, &mut plan, &mut Silent);
                    assert_eq!(plan.frames().len(), BATCH);
                }
                black_box(&batch);
            }
        });
    });
    group.finish();
}

/// The path, into tunnels and out of them.
pub(crate) fn path(c: &mut Criterion) {
    let vxlan = || Encap::Vxlan { gbp: None };
    let geneve = || Encap::Geneve { options: geneve_options() };
    let vxlan_rules = || Rules::Vxlan(vxlan::Rules::default());
    let geneve_rules = || Rules::Geneve([(0x0102, 0x80)].into());
    outward(c, "bridging/64B", OTHERS, vxlan(), 1);
    outward(c, "encap/vxlan/64B", TUNNEL, vxlan(), 1);
    outward(c, "encap/geneve/64B", TUNNEL, geneve(), 1);
    outward(c, "encap/remotes/1", TUNNEL, vxlan(), 1);
    outward(c, "encap/remotes/1000", TUNNEL, vxlan(), 1000);
    inward(c, "decap/unmerged/64B", vxlan(), vxlan_rules(), (1, 1), Until::Planned);
    inward(c, "decap/vxlan/64B", vxlan(), vxlan_rules(), (1, 1), Until::Merged);
    inward(c, "decap/geneve/64B", geneve(), geneve_rules(), (1, 1), Until::Merged);
    for vnis in [1, 10_000] {
        inward(c, &format!("decap/vnis/{vnis}"), vxlan(), vxlan_rules(), (vnis, 1), Until::Decapsulated);
    }
    for remotes in [1, 1000] {
        inward(
            c,
            &format!("decap/remotes/{remotes}"),
            vxlan(),
            vxlan_rules(),
            (1, remotes),
            Until::Decapsulated,
        );
    }
}
