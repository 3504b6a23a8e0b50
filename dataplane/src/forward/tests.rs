//! The path as a table: frames in, plan and drops out. No queue, no clock, no privilege.

use std::sync::Arc;

use super::*;
use crate::{
    bridge::{Members, Secure, Storm, VlanMode},
    fdb::{Damping, EntryKind, Fdb},
    frame::{Caps, Gso, GsoKind, Offload},
    index::BridgeIdx,
    wire::{Vid, dot1q::Tag},
};

mod tunnel;

/// A bridge of ports that differ in one thing each.
struct Switch {
    snapshot: Snapshot,
    now: Tick,
}

fn port() -> Port {
    Port::new(BridgeIdx(0), 1)
}

fn access(vid: u16) -> Port {
    Port { vlan: VlanMode::Access(Vid::new(vid).unwrap()), ..port() }
}

fn trunk(list: &str, native: Option<u16>) -> Port {
    Port {
        vlan: VlanMode::Trunk { tagged: Arc::new(list.parse().unwrap()), native: native.and_then(Vid::new) },
        ..port()
    }
}

impl Switch {
    fn new(ports: Vec<Port>) -> Self {
        Self::with_classes(ports, |_| Member::classes(true, true, true))
    }

    fn with_classes(ports: Vec<Port>, classes: impl Fn(usize) -> u8) -> Self {
        let indexed: Vec<(usize, &Port)> = ports.iter().enumerate().collect();
        let members = Members::new(&indexed, ports.iter().flat_map(|p| p.vlan.named()), |(n, p), vlan| {
            let tagged = p.vlan.tags(vlan).filter(|_| p.is_up())?;
            Some(Member { port: PortIdx(*n as u16), tagged, classes: classes(*n), isolated: p.isolated })
        });
        let bridge = Bridge { fdb: Arc::new(Fdb::new(1024).unwrap()), members, neighbours: Arc::default() };
        let ports = ports.into_iter().map(Some).collect();
        Self {
            snapshot: Snapshot {
                generation: 1,
                bridges: vec![Some(Arc::new(bridge))],
                ports,
                ..Snapshot::default()
            },
            now: Tick::from_secs(1),
        }
    }

    fn fdb(&self) -> &Fdb {
        &self.snapshot.bridge(BridgeIdx(0)).unwrap().fdb
    }

    /// What leaves for one frame: port, octets, and whether it is split.
    fn send(&self, from: u16, frame: &[u8], offload: Offload) -> Vec<(u16, Vec<u8>, bool)> {
        let mut rx = Batch::new();
        assert!(rx.append(frame, offload));
        self.send_batch(from, &mut rx)
    }

    fn send_batch(&self, from: u16, rx: &mut Batch) -> Vec<(u16, Vec<u8>, bool)> {
        let mut tx = TxPlan::default();
        let env = Env { snapshot: &self.snapshot, worker: 0, now: self.now };
        forward(&env, PortIdx(from), rx, &mut Scratch::default(), &mut tx, &mut Silent);
        let octets = |out: &TxFrame| {
            let f = rx.bytes(out.slot.into());
            let tag = out.rewrite.push.map(Tag::to_bytes);
            [&f[..12], tag.as_ref().map_or(&[][..], |t| t), &f[12 + usize::from(out.rewrite.pop)..]].concat()
        };
        tx.frames().iter().map(|out| (out.port.0, octets(out), out.split)).collect()
    }

    /// The ports that a plain frame leaves by.
    fn outputs(&self, from: u16, frame: &[u8]) -> Vec<u16> {
        self.send(from, frame, Offload::NONE).into_iter().map(|(port, ..)| port).collect()
    }

    fn dropped(&self, port: u16, reason: DropReason) -> u64 {
        self.snapshot.port(PortIdx(port)).unwrap().stats.total().dropped(reason)
    }

    fn all_drops(&self) -> u64 {
        self.snapshot
            .ports
            .iter()
            .flatten()
            .flat_map(|p| p.stats.total().drops().map(|(_, n)| n).collect::<Vec<_>>())
            .sum()
    }
}

const BROADCAST: u8 = 0xff;

/// A frame between stations 02:00:00:00:00:`to` and `from`; [`BROADCAST`] stands for the broadcast address.
fn frame(to: u8, from: u8) -> Vec<u8> {
    let to = if to == BROADCAST { [0xff; 6] } else { [2, 0, 0, 0, 0, to] };
    [&to[..], &[2, 0, 0, 0, 0, from], &[0x88, 0xb5], &[0xaa; 46]].concat()
}

fn tagged(vid: u16, frame: Vec<u8>) -> Vec<u8> {
    let [a, b] = vid.to_be_bytes();
    [&frame[..12], &[0x81, 0, a, b], &frame[12..]].concat()
}

fn station(n: u8) -> MacAddr {
    MacAddr::from_octets([2, 0, 0, 0, 0, n])
}

#[test]
fn unknown_unicast_and_broadcast_are_flooded_once_per_member_and_never_back() {
    let s = Switch::new(vec![port(), port(), port()]);
    assert_eq!(s.outputs(0, &frame(9, 1)), [1, 2]);
    assert_eq!(s.outputs(1, &frame(BROADCAST, 2)), [0, 2]);
    assert_eq!(s.all_drops(), 0);
}

#[test]
fn known_unicast_leaves_by_one_port() {
    let s = Switch::new(vec![port(), port(), port()]);
    s.outputs(2, &frame(BROADCAST, 3));
    assert_eq!(s.outputs(0, &frame(3, 1)), [2]);
}

#[test]
fn a_lookup_sees_what_the_whole_batch_has_learned() {
    let s = Switch::new(vec![port(), port(), port()]);
    let mut rx = Batch::new();
    // Station 2 hides behind the port that the batch comes from, and speaks after it was spoken to.
    rx.append(&frame(2, 1), Offload::NONE);
    rx.append(&frame(1, 2), Offload::NONE);
    assert_eq!(s.send_batch(0, &mut rx), []);
    assert_eq!(s.dropped(0, DropReason::SamePort), 2);
}

#[test]
fn a_moved_station_is_followed() {
    let s = Switch::new(vec![port(), port(), port()]);
    s.outputs(1, &frame(BROADCAST, 7));
    s.outputs(2, &frame(BROADCAST, 7));
    assert_eq!(s.outputs(0, &frame(7, 1)), [2]);
    assert_eq!(s.fdb().stats().moved, 1);
}

#[test]
fn hairpin_reflects_and_nothing_else_does() {
    let s = Switch::new(vec![port(), Port { hairpin: true, ..port() }]);
    for p in [0, 1] {
        s.outputs(p, &frame(BROADCAST, 10 + p as u8));
        s.outputs(p, &frame(BROADCAST, 20 + p as u8));
    }
    assert_eq!(s.outputs(0, &frame(10, 20)), [] as [u16; 0]);
    assert_eq!(s.dropped(0, DropReason::SamePort), 1);
    assert_eq!(s.outputs(1, &frame(11, 21)), [1]);
    assert_eq!(s.outputs(1, &frame(BROADCAST, 21)), [0, 1]);
}

#[test]
fn vlans_keep_stations_apart_also_with_the_same_address() {
    let s = Switch::new(vec![access(10), access(10), access(20), access(20), trunk("10,20", None)]);
    s.outputs(1, &frame(BROADCAST, 9));
    s.outputs(3, &frame(BROADCAST, 9));
    assert_eq!(s.outputs(0, &frame(9, 1)), [1]);
    assert_eq!(s.outputs(2, &frame(9, 2)), [3]);
    let untagged = frame(BROADCAST, 1);
    assert_eq!(
        s.send(0, &untagged, Offload::NONE),
        [(1, untagged.clone(), false), (4, tagged(10, untagged.clone()), false)]
    );
    assert_eq!(s.send(4, &tagged(20, frame(2, 5)), Offload::NONE), [(2, frame(2, 5), false)]);
}

#[test]
fn a_transparent_port_carries_every_vlan_as_it_is() {
    let s = Switch::new(vec![port(), port(), access(10), trunk("20", Some(30))]);
    let t = tagged(10, frame(BROADCAST, 1));
    assert_eq!(s.send(0, &t, Offload::NONE), [(1, t.clone(), false), (2, frame(BROADCAST, 1), false)]);
    let t = tagged(30, frame(BROADCAST, 1));
    assert_eq!(s.send(0, &t, Offload::NONE), [(1, t.clone(), false), (3, frame(BROADCAST, 1), false)]);
    assert_eq!(s.outputs(0, &frame(BROADCAST, 1)), [1], "untagged frames are a VLAN of their own");
    assert_eq!(s.outputs(0, &tagged(999, frame(BROADCAST, 1))), [1]);
}

#[test]
fn service_tags_go_on_at_the_qinq_port_and_off_at_the_other_side() {
    let qinq = || Port { vlan: VlanMode::Qinq(Vid::new(100).unwrap()), ..port() };
    let s = Switch::new(vec![qinq(), trunk("100", None), qinq()]);
    let customer = tagged(7, frame(BROADCAST, 1));
    let service = [&customer[..12], &[0x88, 0xa8, 0, 100], &customer[12..]].concat();
    assert_eq!(
        s.send(0, &customer, Offload::NONE),
        [(1, service.clone(), false), (2, customer.clone(), false)]
    );
    assert_eq!(s.send(1, &service, Offload::NONE), [(0, customer.clone(), false), (2, customer, false)]);
}

#[test]
fn flooding_respects_the_classes_of_each_member() {
    let classes = |n| {
        [
            Member::classes(true, true, true),
            Member::classes(false, true, true),
            Member::classes(true, false, true),
            Member::classes(true, true, false),
        ][n]
    };
    let s = Switch::with_classes(vec![port(), port(), port(), port()], classes);
    let mut multicast = frame(1, 1);
    multicast[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]);
    assert_eq!(s.outputs(0, &frame(BROADCAST, 1)), [2, 3]);
    assert_eq!(s.outputs(0, &multicast), [1, 3]);
    assert_eq!(s.outputs(0, &frame(99, 1)), [1, 2]);
}

#[test]
fn isolated_ports_reach_only_ports_that_are_not() {
    let isolated = || Port { isolated: true, ..port() };
    let s = Switch::new(vec![isolated(), isolated(), port()]);
    s.outputs(1, &frame(BROADCAST, 2));
    assert_eq!(s.outputs(0, &frame(BROADCAST, 1)), [2]);
    assert_eq!(s.outputs(0, &frame(2, 1)), [] as [u16; 0]);
    assert_eq!(s.dropped(0, DropReason::Isolated), 1);
    assert_eq!(s.outputs(2, &frame(2, 3)), [1]);
}

#[test]
fn a_port_that_does_not_learn_leaves_the_table_alone() {
    let s = Switch::new(vec![Port { learning: false, ..port() }, port()]);
    s.outputs(0, &frame(BROADCAST, 1));
    assert!(s.fdb().is_empty());
}

#[test]
fn a_refused_learn_still_forwards() {
    let s = Switch::new(vec![Port { mac_limit: 1, ..port() }, port()]);
    assert_eq!(s.outputs(0, &frame(BROADCAST, 1)), [1]);
    assert_eq!(s.outputs(0, &frame(BROADCAST, 2)), [1]);
    assert_eq!((s.fdb().len(), s.all_drops()), (1, 0));
}

#[test]
fn a_locked_port_lets_in_whom_it_knows() {
    let s = Switch::new(vec![Port { locked: true, ..port() }, port()]);
    s.fdb().insert(FdbKey::new(0, station(1)), Dest::port(PortIdx(0)), EntryKind::Static, s.now).unwrap();
    assert_eq!(s.outputs(0, &frame(BROADCAST, 1)), [1]);
    assert_eq!(s.outputs(0, &frame(BROADCAST, 2)), [] as [u16; 0]);
    s.outputs(1, &frame(BROADCAST, 3));
    assert_eq!(s.outputs(0, &frame(BROADCAST, 3)), [] as [u16; 0], "known elsewhere is not known here");
    assert_eq!(s.dropped(0, DropReason::Locked), 2);
}

/// An IPv4 TCP super-frame of `payload` octets, its checksum partial.
fn superframe(payload: usize) -> (Vec<u8>, Offload) {
    let mut f = [&frame(BROADCAST, 1)[..12], &[8, 0]].concat();
    let total = (40 + payload) as u16;
    f.extend([0x45, 0]);
    f.extend(total.to_be_bytes());
    f.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2]);
    f.extend([0x10, 0, 0x10, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    f.resize(54 + payload, 7);
    let gso = Gso { kind: GsoKind::TcpV4, size: 1000, hdr_len: 54, ecn: false };
    (f, Offload { csum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso) })
}

#[test]
fn a_super_frame_stays_whole_where_it_can_and_is_split_where_it_must() {
    let s = Switch::new(vec![port(), port(), Port { caps: Caps::NONE, ..port() }]);
    let (f, offload) = superframe(5000);
    let out: Vec<(u16, bool)> = s.send(0, &f, offload).into_iter().map(|(p, _, split)| (p, split)).collect();
    assert_eq!(out, [(1, false), (2, true)]);
    assert_eq!(s.all_drops(), 0);
}

#[test]
fn a_partial_checksum_is_completed_once_for_all_when_one_egress_needs_it() {
    let s = Switch::new(vec![port(), port(), Port { caps: Caps::NONE, ..port() }]);
    let (f, offload) = superframe(500);
    let mut rx = Batch::new();
    rx.append(&f, Offload { gso: None, ..offload });
    let out = s.send_batch(0, &mut rx);
    assert_eq!(rx.frame(0).offload.csum, Checksum::Good);
    assert_ne!(rx.bytes(0)[50..52], [0, 0]);
    assert_eq!(out[0].1, out[1].1);
}

#[test]
fn the_mtu_counts_the_packet_and_not_its_tag() {
    let s = Switch::new(vec![port(), Port { mtu: 1400, ..port() }, port()]);
    let mut f = frame(BROADCAST, 1);
    f.resize(14 + 1400, 0);
    assert_eq!(s.outputs(0, &f), [1, 2]);
    assert_eq!(s.outputs(0, &tagged(5, f.clone())), [1, 2]);
    f.push(0);
    assert_eq!(s.outputs(0, &f), [2], "one copy too long, the other not");
    assert_eq!(s.dropped(1, DropReason::MtuExceeded), 1);
    let (f, offload) = superframe(5000);
    let small = Switch::new(vec![port(), Port { mtu: 1039, ..port() }, Port { mtu: 1040, ..port() }]);
    assert_eq!(
        small.send(0, &f, offload).iter().map(|o| o.0).collect::<Vec<_>>(),
        [2],
        "each segment is a packet of 1040"
    );
}

#[test]
fn a_dry_run_changes_and_counts_nothing() {
    let s = Switch::new(vec![access(10), access(10), access(20)]);
    let mut rx = Batch::new();
    rx.append(&frame(9, 1), Offload::NONE);
    let mut seen = Vec::new();
    let env = Env { snapshot: &s.snapshot, worker: 0, now: s.now };
    forward(&env, PortIdx(0), &mut rx, &mut Scratch::default(), &mut TxPlan::default(), &mut seen);
    assert!(s.fdb().is_empty());
    assert!(matches!(
        seen[..],
        [
            Step::Admitted(_),
            Step::Learned(Learn::New),
            Step::Flooded(Class::UnknownUnicast),
            Step::Planned { vlan: 10, tagged: false, .. }
        ]
    ));
    rx.clear();
    rx.append(&tagged(20, frame(9, 1)), Offload::NONE);
    seen.clear();
    forward(&env, PortIdx(0), &mut rx, &mut Scratch::default(), &mut TxPlan::default(), &mut seen);
    assert_eq!(seen, [Step::Dropped { reason: DropReason::VlanNotMember, port: PortIdx(0) }]);
    assert_eq!(s.all_drops(), 0);
}

/// An IPv4 UDP packet from 198.51.100.1 in a frame from station 1.
fn datagram() -> Vec<u8> {
    let ip = [0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2];
    [&frame(BROADCAST, 1)[..12], &[8, 0], &ip, &[0x10, 0, 0x10, 1, 0, 16, 0, 0], &[7; 8]].concat()
}

#[test]
fn a_checksum_to_be_finished_does_not_change_what_a_secured_port_has_checked() {
    let secured = || Port {
        secure: Some(Arc::new(Secure {
            mac: station(1),
            ips: ["198.51.100.1"].map(|ip| ip.parse().unwrap()).into(),
        })),
        ..port()
    };
    for caps in [Caps::ALL, Caps::NONE] {
        let s = Switch::new(vec![secured(), Port { caps, ..port() }]);
        let send = |start, offset| {
            let csum = Checksum::Partial { start, offset };
            s.send(0, &datagram(), Offload { csum, gso: None })
        };
        assert_eq!(send(20, 6), [], "onto the source address, before the transport header");
        assert_eq!(s.dropped(0, DropReason::SecureIp), 1);
        assert_eq!(send(34, 6).len(), 1, "where UDP has it");
        assert_eq!(send(42, 2).len(), 1, "in the payload, as of a packet in a tunnel");
        assert_eq!(s.all_drops(), 1);
    }
    let s = Switch::new(vec![secured(), port()]);
    let mut rx = Batch::new();
    let usual = Checksum::Partial { start: 34, offset: 6 };
    rx.append(&datagram(), Offload { csum: usual, gso: None });
    assert_eq!(s.send_batch(0, &mut rx).len(), 1);
    assert_eq!(rx.frame(0).offload.csum, usual, "the usual one is left to who can do it");
}

/// For each reason that the path itself gives, a switch and a frame that meet it.
#[test]
fn every_drop_reason_of_the_path_can_happen_and_is_counted_once() {
    let plain = |ports| Switch::new(ports);
    let sticky = |s: Switch, on: u16| {
        s.fdb()
            .insert(FdbKey::new(0, station(1)), Dest::port(PortIdx(on)), EntryKind::Sticky, s.now)
            .unwrap();
        s
    };
    let known = |s: Switch, vlan, n, on: u16| {
        s.fdb()
            .insert(FdbKey::new(vlan, station(n)), Dest::port(PortIdx(on)), EntryKind::Static, s.now)
            .unwrap();
        s
    };
    let secure = |ip: &[&str]| Port {
        secure: Some(Arc::new(Secure {
            mac: station(1),
            ips: ip.iter().map(|i| i.parse().unwrap()).collect(),
        })),
        ..port()
    };
    let with_type =
        |ethertype: [u8; 2], payload: &[u8]| [&frame(BROADCAST, 1)[..12], &ethertype, payload].concat();
    let ipv4 = |src: u8, protocol: u8, rest: &[u8]| {
        let len = (20 + rest.len()) as u8;
        with_type(
            [8, 0],
            &[
                &[0x45, 0, 0, len, 0, 0, 0, 0, 64, protocol, 0, 0, 198, 51, 100, src, 255, 255, 255, 255],
                rest,
            ]
            .concat(),
        )
    };
    let ipv6 = |rest: &[u8]| {
        let head = [&[0x60, 0, 0, 0, 0, rest.len() as u8, 58, 255][..], &EUI64, &ALL_NODES].concat();
        with_type([0x86, 0xdd], &[&head[..], rest].concat())
    };
    /// The link-local address that belongs to station 1.
    const EUI64: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1];
    const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let two = || vec![port(), port()];
    let (lying, gso) = superframe(5000);
    let lying = [&lying[..14], &[0; 40], &lying[54..]].concat();
    let mut bpdu = frame(1, 1);
    bpdu[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0]);
    let mut zero_source = frame(2, 1);
    zero_source[6..12].fill(0);
    let mut pvst = frame(1, 1);
    pvst[..6].copy_from_slice(&[1, 0, 0x0c, 0xcc, 0xcc, 0xcd]);
    let arp = |spa: u8| {
        with_type(
            [8, 6],
            &[&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 51, 100, spa][..], &[0; 10]].concat(),
        )
    };
    let na = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]]
        .concat();
    let plain_frame = |f: Vec<u8>| (f, Offload::NONE);
    use DropReason as R;
    let cases: Vec<(R, Switch, (Vec<u8>, Offload))> = vec![
        (R::Runt, plain(two()), plain_frame(vec![2; 13])),
        (R::GsoMalformed, plain(two()), (lying, gso)),
        (
            R::PortDown,
            plain(vec![Port { admin_up: false, ..port() }, port()]),
            plain_frame(frame(BROADCAST, 1)),
        ),
        (R::VlanTruncated, plain(two()), plain_frame(with_type([0x81, 0], &[0, 1]))),
        (R::VlanReserved, plain(two()), plain_frame(tagged(4095, frame(2, 1)))),
        (R::VlanNotMember, plain(vec![access(1), port()]), plain_frame(tagged(1, frame(2, 1)))),
        (R::NoNativeVlan, plain(vec![trunk("1", None), port()]), plain_frame(frame(2, 1))),
        (R::SourceInvalid, plain(two()), plain_frame(zero_source)),
        (R::ReservedGroup, plain(two()), plain_frame(bpdu)),
        (
            R::StormLimit,
            {
                let s = plain(vec![Port { storm: Some(Arc::new(Storm::new(1))), ..port() }, port()]);
                assert_eq!(s.outputs(0, &frame(BROADCAST, 1)), [1]);
                s
            },
            plain_frame(frame(BROADCAST, 1)),
        ),
        (R::SecureMac, plain(vec![secure(&[]), port()]), plain_frame(frame(2, 9))),
        (R::SecureIp, plain(vec![secure(&["198.51.100.1"]), port()]), plain_frame(ipv4(2, 17, &[0; 8]))),
        (R::SecureArp, plain(vec![secure(&["198.51.100.1"]), port()]), plain_frame(arp(2))),
        (R::SecureNd, plain(vec![secure(&["2001:db8::1"]), port()]), plain_frame(ipv6(&na))),
        (
            R::SecureDhcpServer,
            plain(vec![secure(&[]), port()]),
            plain_frame(ipv4(1, 17, &[0, 67, 0, 68, 0, 8, 0, 0])),
        ),
        (
            R::SecureRa,
            plain(vec![secure(&[]), port()]),
            plain_frame(ipv6(&[134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        ),
        (R::SecureBpdu, plain(vec![secure(&[]), port()]), plain_frame(pvst)),
        (
            R::SecureMacLimit,
            {
                let s = plain(vec![Port { mac_limit: 1, ..secure(&[]) }, port()]);
                assert_eq!(s.outputs(0, &tagged(10, frame(BROADCAST, 1))), [1]);
                s
            },
            plain_frame(tagged(11, frame(BROADCAST, 1))),
        ),
        (R::SecureMalformed, plain(vec![secure(&[]), port()]), plain_frame(with_type([8, 0], &[0x45, 0, 0]))),
        (R::Locked, plain(vec![Port { locked: true, ..port() }, port()]), plain_frame(frame(BROADCAST, 1))),
        (R::StickyViolation, sticky(plain(two()), 1), plain_frame(frame(BROADCAST, 1))),
        (
            R::MacDamped,
            {
                let s = plain(two());
                s.fdb().set_damping(Damping::after(1));
                assert_eq!(s.outputs(1, &frame(BROADCAST, 1)), [0]);
                s
            },
            plain_frame(frame(BROADCAST, 1)),
        ),
        (R::SamePort, known(plain(two()), 0, 5, 0), plain_frame(frame(5, 1))),
        (
            R::Isolated,
            {
                let isolated = || Port { isolated: true, ..port() };
                known(plain(vec![isolated(), isolated()]), 0, 5, 1)
            },
            plain_frame(frame(5, 1)),
        ),
        (R::NoMember, plain(vec![port()]), plain_frame(frame(BROADCAST, 1))),
        (
            R::DestinationNotMember,
            known(plain(vec![access(1), access(2)]), 1, 5, 1),
            plain_frame(frame(5, 1)),
        ),
        (
            R::EgressDown,
            known(plain(vec![port(), Port { oper_up: false, ..port() }]), 0, 5, 1),
            plain_frame(frame(5, 1)),
        ),
        (R::MtuExceeded, known(plain(vec![port(), Port { mtu: 68, ..port() }]), 0, 5, 1), {
            let mut f = frame(5, 1);
            f.resize(14 + 69, 0);
            plain_frame(f)
        }),
        (
            R::SplitHorizon,
            known(plain(vec![tunnel::behind(tunnel::tunnel(1)), tunnel::behind(tunnel::tunnel(1))]), 0, 5, 1),
            plain_frame(frame(5, 1)),
        ),
        (
            R::BumLimit,
            {
                let bum = Some(Arc::new(Storm::new(1)));
                let s = plain(vec![port(), Port { bum, ..tunnel::behind(tunnel::tunnel(1)) }]);
                assert_eq!(s.outputs(0, &frame(BROADCAST, 1)), [1]);
                s
            },
            plain_frame(frame(BROADCAST, 1)),
        ),
        (
            R::NoRemote,
            plain(vec![port(), tunnel::behind(tunnel::tunnel(0))]),
            plain_frame(frame(BROADCAST, 1)),
        ),
        (R::TunnelMtuExceeded, plain(vec![port(), tunnel::behind(tunnel::tunnel(1))]), {
            let mut f = frame(BROADCAST, 1);
            f.resize(14 + 1451, 0);
            plain_frame(f)
        }),
    ];
    for (reason, switch, (f, offload)) in &cases {
        let before = switch.all_drops();
        assert_eq!(switch.send(0, f, *offload), [], "{reason}");
        let side = if reason.side() == crate::counters::Side::Ingress { 0 } else { 1 };
        assert_eq!((switch.dropped(side, *reason), switch.all_drops()), (1, before + 1), "{reason}");
    }
    // What remains is given by ports, by their receive and their send.
    // What waits too long for a worker is lost before it: `tests/sim_overlay.rs` and `tests/netns_netdev.rs` show that it is counted.
    let by_kernel = &[R::UnderlayOverflow, R::RxOverflow][..];
    let elsewhere = [
        by_kernel,
        crate::port::tests::REASONS,
        crate::port::vhost_user::tests::REASONS,
        crate::port::encap::tests::REASONS,
        crate::overlay::decap::tests::REASONS,
        crate::overlay::uplink::tests::REASONS,
        crate::worker::uplink::tests::REASONS,
    ]
    .concat();
    for reason in R::ALL {
        assert!(cases.iter().any(|c| c.0 == *reason) != elsewhere.contains(reason), "{reason} has a test");
    }
}
