//! Frames into tunnels and out of them: who gets a copy, in which network, and who is told where none fits.

use super::*;
use crate::{
    bridge::Neighbours,
    index::{RemoteIdx, TxSetIdx, VtepIdx},
    offload::checksum::sum,
    overlay::{Encap, Fragmentation, Hop, Inherit, Tunnel, Via},
    wire::{
        Vni,
        sample::{self, ethernet, ipv4, ipv6},
    },
};

fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

/// A VXLAN tunnel over IPv4 with VNI 7 and this many remotes.
pub(super) fn tunnel(remotes: u16) -> Tunnel {
    Tunnel {
        vtep: VtepIdx(0),
        via: Via::Sockets { fragmenting: TxSetIdx(0), whole: TxSetIdx(1) },
        v6: false,
        src_ports: 49152..=65535,
        dst_port: 4789,
        encap: Encap::Vxlan { gbp: None },
        vni: Some(vni(7)),
        vlan_vni: [].into(),
        flood: (0..remotes).map(RemoteIdx).collect(),
        ttl: Inherit::Fixed(64),
        tos: Inherit::Fixed(0),
        df: Fragmentation::Forbidden,
        udp_csum: true,
        underlay_mtu: 1500,
    }
}

/// A port that leads into it.
pub(super) fn behind(tunnel: Tunnel) -> Port {
    Port { tunnel: Some(Arc::new(tunnel)), caps: Caps::NONE, mtu: 9000, ..port() }
}

/// Maps VLAN 10 to 1010 and VLAN 20 to 2020, and with `rest` all others to VNI 7.
fn mapped(remotes: u16, rest: bool) -> Port {
    let vlan_vni = [(10, vni(1010)), (20, vni(2020))].into();
    let tunnel = Tunnel { vlan_vni, vni: rest.then(|| vni(7)), ..tunnel(remotes) };
    Port { vlan: VlanMode::Mapped { vlans: Arc::new("10,20".parse().unwrap()), rest }, ..behind(tunnel) }
}

/// One entry of a plan: port, remote and VNI, and the octets that are for there.
type Copy = (u16, Option<(u16, u32)>, Vec<u8>);

impl Switch {
    /// The remotes that its tunnels name.
    fn remotes(self, count: u16) -> Self {
        for n in 0..u32::from(count) {
            let ip = std::net::Ipv4Addr::from_bits(0xc633_6402 + n).into();
            assert_eq!(self.snapshot.remotes.pin(VtepIdx(0), ip), Some(RemoteIdx(n as u16)));
        }
        self
    }

    fn answers_for(mut self, vlan: u16, ip: &str, n: u8) -> Self {
        let neighbours = Neighbours::new();
        neighbours.insert_static(vlan, ip.parse().unwrap(), station(n), self.now).unwrap();
        let bridge = Bridge {
            neighbours: Arc::new(neighbours),
            ..(**self.snapshot.bridges[0].as_ref().unwrap()).clone()
        };
        self.snapshot.bridges = vec![Some(Arc::new(bridge))];
        self
    }

    /// The plan for a batch.
    fn plan(&self, ingress: impl Into<Ingress>, rx: &mut Batch) -> Vec<Copy> {
        let mut tx = TxPlan::default();
        let env = Env { snapshot: &self.snapshot, worker: 0, now: self.now };
        forward(&env, ingress, rx, &mut Scratch::default(), &mut tx, &mut Silent);
        let octets = |out: &TxFrame| {
            let f = rx.bytes(out.slot.into());
            let tag = out.rewrite.push.map(Tag::to_bytes);
            [&f[..12], tag.as_ref().map_or(&[][..], |t| t), &f[12 + usize::from(out.rewrite.pop)..]].concat()
        };
        let hop = |hop: Hop| (hop.remote.0, hop.vni.get());
        tx.frames().iter().map(|out| (out.port.0, out.hop.map(hop), octets(out))).collect()
    }

    /// The plan for a frame from a plain port.
    fn copies(&self, from: u16, frame: &[u8]) -> Vec<Copy> {
        let mut rx = Batch::new();
        assert!(rx.append(frame, Offload::NONE));
        self.plan(PortIdx(from), &mut rx)
    }

    /// The plan for a frame that comes through a tunnel, by the VNI of `vlan` or that of the rest.
    fn arrives(&self, port: u16, vlan: Option<u16>, remote: u16, frame: &[u8]) -> Vec<Copy> {
        let mut rx = Batch::new();
        assert!(rx.append(frame, Offload::NONE));
        rx.frame_mut(0).remote = Some(RemoteIdx(remote));
        let vlan = vlan.and_then(Vid::new);
        self.plan(Ingress { port: PortIdx(port), vlan, learn: true }, &mut rx)
    }
}

/// Where the copies go.
fn places(copies: &[Copy]) -> Vec<(u16, Option<(u16, u32)>)> {
    copies.iter().map(|(port, hop, _)| (*port, *hop)).collect()
}

#[test]
fn known_unicast_goes_to_the_remote_behind_which_the_station_was_heard() {
    let s = Switch::new(vec![port(), behind(tunnel(5)), port()]).remotes(5);
    assert_eq!(places(&s.arrives(1, None, 3, &frame(BROADCAST, 9))), [(0, None), (2, None)]);
    assert_eq!(s.copies(0, &frame(9, 1)), [(1, Some((3, 7)), frame(9, 1))]);
    // It moves to another site, and then to a port.
    s.arrives(1, None, 4, &frame(BROADCAST, 9));
    assert_eq!(places(&s.copies(0, &frame(9, 1))), [(1, Some((4, 7)))]);
    s.copies(2, &frame(BROADCAST, 9));
    assert_eq!(places(&s.copies(0, &frame(9, 1))), [(2, None)]);
    assert_eq!((s.fdb().stats().moved, s.all_drops()), (2, 0));
}

#[test]
fn what_must_not_be_learned_is_forwarded_all_the_same() {
    let s = Switch::new(vec![port(), behind(tunnel(2))]).remotes(2);
    let mut rx = Batch::new();
    rx.append(&frame(BROADCAST, 9), Offload::NONE);
    let plan = s.plan(Ingress { port: PortIdx(1), vlan: None, learn: false }, &mut rx);
    assert_eq!((places(&plan), s.fdb().len()), (vec![(0, None)], 0));
}

#[test]
fn a_flooded_frame_goes_to_every_remote_exactly_once() {
    let s = Switch::new(vec![port(), behind(tunnel(100)), port(), behind(tunnel(3))]).remotes(100);
    for to in [BROADCAST, 9] {
        let mut expected: Vec<_> = (0..100).map(|n| (1, Some((n, 7)))).collect();
        expected.push((2, None));
        expected.extend((0..3).map(|n| (3, Some((n, 7)))));
        assert_eq!(places(&s.copies(0, &frame(to, 1))), expected);
    }
    assert_eq!(s.all_drops(), 0);
}

/// Head-end replication gives every site its own copy: one that was passed on would come twice.
#[test]
fn nothing_that_came_from_a_tunnel_goes_into_one() {
    let hairpin = || Port { hairpin: true, ..behind(tunnel(3)) };
    for second in [behind(tunnel(3)), hairpin()] {
        let s = Switch::new(vec![port(), hairpin(), second]).remotes(3);
        assert_eq!(places(&s.arrives(1, None, 0, &frame(BROADCAST, 8))), [(0, None)]);
        assert_eq!(places(&s.arrives(2, None, 1, &frame(BROADCAST, 9))), [(0, None)]);
        assert_eq!(s.all_drops(), 0, "a copy that was never to be is no drop");
        assert_eq!(s.arrives(1, None, 0, &frame(9, 8)), [], "known behind the other tunnel");
        assert_eq!(s.arrives(1, None, 2, &frame(8, 7)), [], "known behind the same, though it may reflect");
        assert_eq!((s.dropped(1, DropReason::SplitHorizon), s.all_drops()), (2, 2));
    }
    let s = Switch::new(vec![behind(tunnel(3))]).remotes(3);
    assert_eq!(s.arrives(0, None, 0, &frame(BROADCAST, 8)), []);
    assert_eq!(s.dropped(0, DropReason::NoMember), 1, "nobody else was there");
}

#[test]
fn a_vlan_travels_in_its_vni_without_a_tag_and_the_rest_in_theirs_with_one() {
    let trunk = || trunk("10,20,30", None);
    let s = Switch::new(vec![trunk(), mapped(2, true)]).remotes(2);
    let f = frame(BROADCAST, 1);
    for (vlan, vni) in [(10, 1010), (20, 2020)] {
        let out = s.copies(0, &tagged(vlan, f.clone()));
        assert_eq!(out, [(1, Some((0, vni)), f.clone()), (1, Some((1, vni)), f.clone())]);
        assert_eq!(s.arrives(1, Some(vlan), 0, &f), [(0, None, tagged(vlan, f.clone()))]);
    }
    let rest = tagged(30, f.clone());
    assert_eq!(s.copies(0, &rest), [(1, Some((0, 7)), rest.clone()), (1, Some((1, 7)), rest.clone())]);
    assert_eq!(s.arrives(1, None, 0, &rest), [(0, None, rest.clone())]);
    assert_eq!(s.all_drops(), 0);
    // The VNI of the rest is no other way into a VLAN that has its own, nor is a tag inside its own.
    assert_eq!(s.arrives(1, None, 0, &tagged(10, f.clone())), []);
    assert_eq!(s.arrives(1, Some(10), 0, &tagged(20, f.clone())), []);
    assert_eq!((s.dropped(1, DropReason::VlanNotMember), s.all_drops()), (2, 2));

    let only = Switch::new(vec![trunk(), mapped(1, false)]).remotes(1);
    assert_eq!(only.copies(0, &rest), []);
    assert_eq!(only.dropped(0, DropReason::NoMember), 1);
    assert_eq!(places(&only.copies(0, &tagged(20, f))), [(1, Some((0, 2020)))]);
}

#[test]
fn stations_of_two_networks_are_kept_apart_also_with_the_same_address() {
    let s = Switch::new(vec![access(10), access(20), mapped(2, false)]).remotes(2);
    s.arrives(2, Some(10), 0, &frame(BROADCAST, 9));
    s.arrives(2, Some(20), 1, &frame(BROADCAST, 9));
    assert_eq!(places(&s.copies(0, &frame(9, 1))), [(2, Some((0, 1010)))]);
    assert_eq!(places(&s.copies(1, &frame(9, 1))), [(2, Some((1, 2020)))]);
}

#[test]
fn an_entry_that_names_no_remote_sends_to_all_of_them() {
    let s = Switch::new(vec![port(), behind(tunnel(3)), port()]).remotes(3);
    s.fdb().insert(FdbKey::new(0, station(9)), Dest::port(PortIdx(1)), EntryKind::Static, s.now).unwrap();
    assert_eq!(places(&s.copies(0, &frame(9, 1))), [(1, Some((0, 7))), (1, Some((1, 7))), (1, Some((2, 7)))]);
}

#[test]
fn a_tunnel_that_cannot_take_a_frame_counts_it_once() {
    let down = || Port { oper_up: false, ..behind(tunnel(3)) };
    for (egress, reason) in [
        (down(), DropReason::EgressDown),
        (behind(tunnel(0)), DropReason::NoRemote),
        (Port { mtu: 40, ..behind(tunnel(3)) }, DropReason::MtuExceeded),
        (
            Port { vlan: VlanMode::Transparent, ..behind(Tunnel { vni: None, ..tunnel(3) }) },
            DropReason::DestinationNotMember,
        ),
    ] {
        let s = Switch::new(vec![port(), egress]).remotes(3);
        s.fdb().insert(FdbKey::new(0, station(9)), Dest::port(PortIdx(1)), EntryKind::Static, s.now).unwrap();
        assert_eq!(s.copies(0, &frame(9, 1)), [], "{reason}");
        assert_eq!((s.dropped(1, reason), s.all_drops()), (1, 1), "{reason}");
    }
    // A flood finds a tunnel that is down no member.
    let s = Switch::new(vec![port(), down(), port()]).remotes(3);
    assert_eq!((places(&s.copies(0, &frame(BROADCAST, 1))), s.all_drops()), (vec![(2, None)], 0));
    let s = Switch::new(vec![port(), behind(tunnel(0)), port()]);
    assert_eq!(places(&s.copies(0, &frame(BROADCAST, 1))), [(2, None)]);
    assert_eq!((s.dropped(1, DropReason::NoRemote), s.all_drops()), (1, 1));
}

#[test]
fn the_limit_of_a_tunnel_is_about_flooded_frames_and_counts_a_frame_not_its_copies() {
    let limited = Port { bum: Some(Arc::new(Storm::new(10))), ..behind(tunnel(50)) };
    let s = Switch::new(vec![port(), limited, port()]).remotes(50);
    assert_eq!(s.copies(0, &frame(BROADCAST, 1)).len(), 51);
    assert_eq!(places(&s.copies(0, &frame(BROADCAST, 1))), [(2, None)], "other members are not limited");
    assert_eq!((s.dropped(1, DropReason::BumLimit), s.all_drops()), (1, 1));
    s.arrives(1, None, 3, &frame(BROADCAST, 9));
    assert_eq!(places(&s.copies(0, &frame(9, 1))), [(1, Some((3, 7)))], "known unicast is not");
    // A dry run neither asks nor counts.
    let mut rx = Batch::new();
    rx.append(&frame(BROADCAST, 1), Offload::NONE);
    let env = Env { snapshot: &s.snapshot, worker: 0, now: s.now };
    let mut plan = TxPlan::default();
    forward(&env, PortIdx(0), &mut rx, &mut Scratch::default(), &mut plan, &mut Vec::new());
    assert_eq!((plan.frames().len(), s.all_drops()), (51, 1));
}

/// An IPv4 or IPv6 packet of `len` octets from station 1, UDP in it.
fn packet(to: u8, tags: &[[u16; 2]], v6: bool, df: bool, len: usize) -> Vec<u8> {
    let mut f = if v6 {
        ethernet(tags, EtherType::IPV6, &ipv6(17, &sample::udp(1, 2, &vec![0; len - 48])))
    } else {
        let mut packet = ipv4(17, &sample::udp(1, 2, &vec![0; len - 28]));
        packet[6] = if df { 0x40 } else { 0 };
        packet[10..12].fill(0);
        let header = !sample::naive_sum(&packet[..20]);
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        ethernet(tags, EtherType::IPV4, &packet)
    };
    f[..6].copy_from_slice(&if to == BROADCAST { [0xff; 6] } else { station(to).octets() });
    f
}

/// The MTU that an ICMP message about station 1's packet tells, if it is one.
fn told(message: &[u8], tags: usize) -> u32 {
    assert_eq!(message[..6], station(1).octets());
    let at = 14 + 4 * tags;
    match message[at] >> 4 {
        4 => {
            assert_eq!(
                (message[at + 9], &message[at + 20..at + 22]),
                (1, &[3, 4][..]),
                "fragmentation needed"
            );
            assert_eq!((sum(&message[at..at + 20]), sum(&message[at + 20..])), (0xffff, 0xffff));
            u16::from_be_bytes([message[at + 26], message[at + 27]]).into()
        }
        _ => {
            assert_eq!((message[at + 6], &message[at + 40..at + 42]), (58, &[2, 0][..]), "packet too big");
            u32::from_be_bytes(message[at + 44..at + 48].try_into().unwrap())
        }
    }
}

#[test]
fn who_sends_what_no_remote_can_be_sent_is_told_once_and_every_copy_is_counted() {
    let s = Switch::new(vec![port(), behind(tunnel(100))]).remotes(100);
    for v6 in [false, true] {
        assert_eq!(s.copies(0, &packet(9, &[], v6, true, 1450)).len(), 100, "exactly what fits");
        let before = s.dropped(1, DropReason::TunnelMtuExceeded);
        let [(0, None, message)] = &s.copies(0, &packet(9, &[], v6, true, 1451))[..] else {
            panic!("one message, to the port that the packet came from")
        };
        assert_eq!(told(message, 0), 1450);
        assert_eq!(s.dropped(1, DropReason::TunnelMtuExceeded) - before, 100);
    }
    assert_eq!(s.all_drops(), 200, "nothing was counted under another name");
}

#[test]
fn tags_inside_the_tunnel_count_against_its_mtu_and_stand_in_the_message() {
    let s = Switch::new(vec![port(), behind(tunnel(1))]).remotes(1);
    let tags = [[0x8100, 5]];
    assert_eq!(s.copies(0, &packet(9, &tags, false, true, 1446)).len(), 1);
    let [(0, None, message)] = &s.copies(0, &packet(9, &tags, false, true, 1447))[..] else { panic!() };
    assert_eq!((&message[12..16], told(message, 1)), (&[0x81, 0, 0, 5][..], 1446));
    // Where the VNI stands for the VLAN there is no tag in the tunnel.
    let s = Switch::new(vec![trunk("10", None), mapped(1, false)]).remotes(1);
    let tags = [[0x8100, 10]];
    assert_eq!(s.copies(0, &packet(9, &tags, true, true, 1450)).len(), 1);
    let [(0, None, message)] = &s.copies(0, &packet(9, &tags, true, true, 1451))[..] else { panic!() };
    assert_eq!((&message[12..16], told(message, 1)), (&[0x81, 0, 0, 10][..], 1450));
}

#[test]
fn each_remote_has_its_own_path() {
    let s = Switch::new(vec![port(), behind(tunnel(3))]).remotes(3);
    s.snapshot.remotes.set_path_mtu(RemoteIdx(1), 1400);
    assert_eq!(s.copies(0, &packet(9, &[], false, true, 1350)).len(), 3);
    let out = s.copies(0, &packet(9, &[], false, true, 1400));
    assert_eq!(places(&out), [(1, Some((0, 7))), (0, None), (1, Some((2, 7)))]);
    assert_eq!((told(&out[1].2, 0), s.dropped(1, DropReason::TunnelMtuExceeded)), (1350, 1));
    // One that is wider than the others takes more than they do.
    s.snapshot.remotes.set_path_mtu(RemoteIdx(1), 9000);
    let out = s.copies(0, &packet(9, &[], false, true, 8950));
    assert_eq!(places(&out), [(0, None), (1, Some((1, 7)))]);
}

#[test]
fn who_sends_more_than_an_operator_allows_is_told_and_fragments_do_not_help() {
    let s = Switch::new(vec![port(), Port { mtu: 1000, ..behind(tunnel(2)) }]).remotes(2);
    let [(0, None, message)] = &s.copies(0, &packet(9, &[], false, true, 1001))[..] else { panic!() };
    assert_eq!((told(message, 0), s.dropped(1, DropReason::MtuExceeded)), (1000, 1));
    assert_eq!(s.copies(0, &packet(9, &[], false, false, 1001)), [], "it may be fragmented, but not by us");
    assert_eq!((s.dropped(1, DropReason::MtuExceeded), s.all_drops()), (2, 2));
    assert_eq!(s.copies(0, &packet(9, &[], false, true, 1000)).len(), 2);
}

#[test]
fn nobody_is_told_about_groups_errors_and_later_fragments_but_all_are_counted() {
    let s = Switch::new(vec![port(), behind(tunnel(2))]).remotes(2);
    let mut later = packet(9, &[], false, true, 1500);
    later[21] = 1;
    let mut error = packet(9, &[], false, true, 1500);
    error[23] = 1; // ICMP
    error[34..36].copy_from_slice(&[3, 1]);
    let group = packet(BROADCAST, &[], false, true, 1500);
    let mut not_ip = frame(9, 1);
    not_ip.resize(1500, 0);
    for (what, f) in [("fragment", later), ("error", error), ("group", group), ("no packet", not_ip)] {
        let before = s.dropped(1, DropReason::TunnelMtuExceeded);
        assert_eq!(s.copies(0, &f), [], "{what}");
        assert_eq!(s.dropped(1, DropReason::TunnelMtuExceeded), before + 2, "{what}");
    }
    // Whoever lets routers fragment is not told either (RFC 1191 §4 is about DF); without leave to fragment outside it goes nowhere.
    assert_eq!(s.copies(0, &packet(9, &[], false, false, 1500)), []);
}

#[test]
fn what_may_be_fragmented_outside_passes_where_its_sender_cannot_be_told() {
    for df in [Fragmentation::Allowed, Fragmentation::AsInner] {
        let s = Switch::new(vec![port(), behind(Tunnel { df, ..tunnel(2) })]).remotes(2);
        assert_eq!(s.copies(0, &packet(9, &[], false, false, 1500)).len(), 2);
        assert_eq!(s.all_drops(), 0);
        // Who can be told is told: fragments cost more than a smaller packet.
        let [(0, None, message)] = &s.copies(0, &packet(9, &[], false, true, 1500))[..] else { panic!() };
        assert_eq!(told(message, 0), 1450);
        // A frame without an IP packet has no sender to tell, nor leave of its own to be fragmented.
        let mut not_ip = frame(9, 1);
        not_ip.resize(1500, 0);
        assert_eq!(s.copies(0, &not_ip).len(), if df == Fragmentation::Allowed { 2 } else { 0 });
    }
}

#[test]
fn the_segments_of_a_super_frame_are_what_must_fit() {
    let s = Switch::new(vec![port(), behind(tunnel(2))]).remotes(2);
    let (mut f, offload) = superframe(5000);
    f[..6].copy_from_slice(&station(9).octets());
    let sized = |size| Offload { gso: offload.gso.map(|gso| Gso { size, ..gso }), ..offload };
    let send = |size| {
        let mut rx = Batch::new();
        rx.append(&f, sized(size));
        s.plan(PortIdx(0), &mut rx)
    };
    assert_eq!(places(&send(1410)), [(1, Some((0, 7))), (1, Some((1, 7)))]);
    let [(0, None, message)] = &send(1411)[..] else { panic!("one message") };
    assert_eq!(told(message, 0), 1450);
    assert_eq!(s.dropped(1, DropReason::TunnelMtuExceeded), 2);
}

#[test]
fn a_message_about_a_packet_from_a_tunnel_would_go_back_through_it() {
    // Not from the tunnel itself (split horizon), but its answers take the same way.
    let s = Switch::new(vec![access(10), mapped(3, false)]).remotes(3).answers_for(10, "198.51.100.7", 7);
    let [(1, Some((2, 1010)), reply)] = &s.arrives(1, Some(10), 2, &question("198.51.100.7"))[..] else {
        panic!("one answer")
    };
    assert_eq!(reply[6..14], [2, 0, 0, 0, 0, 7, 8, 6]);
    assert_eq!(s.all_drops(), 0);
}

/// An ARP request of station 1 at 198.51.100.1.
fn question(ip: &str) -> Vec<u8> {
    let target = ip.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let message = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &station(1).octets(), &[198, 51, 100, 1], &[0; 6], &target];
    let mut f = ethernet(&[], EtherType(0x0806), &message.concat());
    f[..6].fill(0xff);
    f
}

/// A neighbour solicitation of station 1 at 2001:db8::1 for 2001:db8::7.
fn solicitation() -> Vec<u8> {
    let target = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target, &[1, 1], &station(1).octets()].concat();
    let mut packet = ipv6(58, &message);
    packet[7] = 255;
    packet[24..40].copy_from_slice(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 7]);
    let pseudo = sample::pseudo_sum(&packet, message.len());
    let checksum = !sample::naive_sum(&[&pseudo.to_be_bytes(), &message[..]].concat());
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet.truncate(40);
    packet.extend(message);
    let mut f = ethernet(&[], EtherType::IPV6, &packet);
    f[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 7]);
    f
}

#[test]
fn a_question_about_a_known_neighbour_is_answered_and_not_flooded() {
    for (ip, question, at) in
        [("198.51.100.7", question("198.51.100.7"), 22), ("2001:db8::7", solicitation(), 80)]
    {
        let s = Switch::new(vec![port(), behind(tunnel(3)), port()]).remotes(3).answers_for(0, ip, 7);
        let [(0, None, reply)] = &s.copies(0, &question)[..] else { panic!("{ip}: one answer") };
        assert_eq!((&reply[..6], &reply[6..12]), (&station(1).octets()[..], &station(7).octets()[..]));
        assert_eq!(reply[at..at + 6], station(7).octets(), "{ip}");
        assert_eq!(s.fdb().len(), 1, "who asks is learned");
        // From a tunnel the answer goes to who asked, in the network it came by.
        let [(1, Some((2, 7)), reply)] = &s.arrives(1, None, 2, &question)[..] else {
            panic!("{ip}: one answer")
        };
        assert_eq!(reply[at..at + 6], station(7).octets(), "{ip}");
        assert_eq!(s.all_drops(), 0);
        // Behind the very port that asks, the neighbour hears the question itself.
        s.copies(2, &frame(BROADCAST, 7));
        assert_eq!(s.copies(2, &question).len(), 4);
        assert_eq!(s.copies(0, &question).len(), 1);
    }
}

#[test]
fn questions_about_others_probes_and_announcements_are_flooded() {
    let s = Switch::new(vec![port(), behind(tunnel(3))]).remotes(3).answers_for(0, "198.51.100.7", 7);
    let mut probe = question("198.51.100.7");
    probe[28..32].fill(0);
    let announcement = question("198.51.100.1");
    for f in [question("198.51.100.8"), probe, announcement] {
        assert_eq!(s.copies(0, &f).len(), 3);
    }
}

#[test]
fn a_dry_run_shows_the_answer() {
    let s = Switch::new(vec![port(), behind(tunnel(3))]).remotes(3).answers_for(0, "198.51.100.7", 7);
    let mut rx = Batch::new();
    rx.append(&question("198.51.100.7"), Offload::NONE);
    let env = Env { snapshot: &s.snapshot, worker: 0, now: s.now };
    let mut seen = Vec::new();
    forward(&env, PortIdx(0), &mut rx, &mut Scratch::default(), &mut TxPlan::default(), &mut seen);
    assert!(
        matches!(seen[..], [Step::Admitted(_), Step::Learned(_), Step::Answered { neighbour }] if neighbour == station(7)),
        "{seen:?}"
    );
    assert!(s.fdb().is_empty());
}

#[test]
fn a_partial_checksum_is_completed_once_before_a_hundred_copies() {
    let s = Switch::new(vec![port(), behind(tunnel(100)), port()]).remotes(100);
    let (f, offload) = superframe(500);
    let mut rx = Batch::new();
    rx.append(&f, Offload { gso: None, ..offload });
    let out = s.plan(PortIdx(0), &mut rx);
    assert_eq!((out.len(), rx.frame(0).offload.csum), (101, Checksum::Good));
    assert_eq!(sum(&out[0].2[34..]), 0xffff, "no pseudo-header was in it");
    assert!(out.iter().all(|(_, _, octets)| *octets == out[0].2));
}

#[test]
fn a_super_frame_is_split_while_it_is_sent_and_stays_whole_for_ports() {
    let s = Switch::new(vec![port(), behind(tunnel(2)), port()]).remotes(2);
    let (f, offload) = superframe(5000);
    let mut rx = Batch::new();
    rx.append(&f, offload);
    let mut tx = TxPlan::default();
    let env = Env { snapshot: &s.snapshot, worker: 0, now: s.now };
    forward(&env, PortIdx(0), &mut rx, &mut Scratch::default(), &mut tx, &mut Silent);
    assert_eq!(
        tx.frames().iter().map(|out| (out.port.0, out.split)).collect::<Vec<_>>(),
        [(1, true), (1, true), (2, false)]
    );
    assert_eq!((rx.frame(0).offload, rx.bytes(0)), (offload, &f[..]));
}
