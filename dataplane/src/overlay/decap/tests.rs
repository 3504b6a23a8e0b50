//! Datagrams in, frames and counted drops out: vectors for what the RFCs say, and for what the kernel does with trains.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::{
    frame::Checksum,
    overlay::ecn::Ecn,
    wire::{
        sample::{self, ethernet, ipv4, ipv6, udp},
        vxlan::Reserved,
    },
};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

/// The drop reasons that decapsulation gives; the tables below have a datagram for each.
pub(crate) const REASONS: &[DropReason] = &[
    DropReason::VxlanMalformed,
    DropReason::VxlanReservedBits,
    DropReason::GeneveMalformed,
    DropReason::GeneveVersion,
    DropReason::GeneveControl,
    DropReason::GeneveCriticalOption,
    DropReason::GeneveProtocol,
    DropReason::VniUnknown,
    DropReason::RemoteUnknown,
    DropReason::RemoteIsSelf,
    DropReason::EcnInvalid,
];

/// An endpoint, and what a worker has beside it.
struct Rig {
    vtep: Vtep,
    remotes: Remotes,
    decapsulator: Decapsulator,
    batch: Batch,
    datagrams: Vec<Datagram>,
}

/// Drop reasons that have counted, with their numbers.
type Drops = Vec<(DropReason, u64)>;

/// A frame as it came out.
#[derive(Clone, Debug, PartialEq)]
struct Out {
    octets: Vec<u8>,
    offload: Offload,
    from: Option<IpAddr>,
}

impl Rig {
    /// An endpoint with an entrance for each of `rules`, port 0, 1 …; `vnis` are VNI, entrance and VLAN.
    fn new(rules: Vec<Rules>, vnis: &[(u32, u16, Option<u16>)]) -> Self {
        let entrance = |(n, rules)| Entrance {
            port: PortIdx(n as u16),
            rules,
            known: None,
            stats: Arc::new(PortStats::new(1)),
        };
        let segment = |&(vni, entrance, vlan): &(u32, u16, Option<u16>)| {
            (Vni::new(vni).unwrap(), Segment { entrance, vlan: vlan.and_then(Vid::new) })
        };
        let vtep = Vtep {
            idx: VtepIdx(3),
            local: LOCAL,
            zero_csum6: false,
            segments: vnis.iter().map(segment).collect(),
            entrances: rules.into_iter().enumerate().map(entrance).collect(),
            stats: Arc::new(PortStats::new(1)),
        };
        Self {
            vtep,
            remotes: Remotes::default(),
            decapsulator: Decapsulator::default(),
            batch: Batch::new(),
            datagrams: Vec::new(),
        }
    }

    /// One VXLAN port with VNI 1010, as RFC 7348 has it.
    fn vxlan() -> Self {
        Self::new(vec![Rules::Vxlan(vxlan::Rules::default())], &[(1010, 0, None)])
    }

    /// A message is received: `octets` behind the UDP header, `stride` in the control message.
    fn put_from(&mut self, octets: &[u8], stride: usize, from: IpAddr, tos: u8) {
        let at = Batch::slot_at(self.datagrams.len());
        // What was there before must not matter.
        self.batch.memory_mut()[at..at + octets.len() + 64].fill(0x08);
        self.batch.memory_mut()[at..at + octets.len()].copy_from_slice(octets);
        let (at, len) = (at as u32, octets.len() as u32);
        let stride = stride as u32;
        self.datagrams.push(Datagram { at, len, stride, from, tos, offload: Offload::NONE });
    }

    fn put(&mut self, octets: &[u8], stride: usize) {
        self.put_from(octets, stride, FAR, 0);
    }

    /// All runs of what was received.
    fn runs(&mut self) -> Vec<(Ingress, Vec<Out>)> {
        let env = Arrivals { vtep: &self.vtep, remotes: &self.remotes, worker: 0, now: Tick::from_secs(1) };
        self.decapsulator.begin();
        let mut runs = Vec::new();
        while let Some(ingress) = self.decapsulator.next(&env, &self.datagrams, &mut self.batch) {
            let batch = &self.batch;
            assert!(!batch.is_empty(), "a run has frames");
            let out = |n| Out {
                octets: batch.bytes(n).to_vec(),
                offload: batch.frame(n).offload,
                from: batch.frame(n).remote.and_then(|remote| self.remotes.address(remote)),
            };
            runs.push((ingress, (0..batch.len()).map(out).collect()));
        }
        self.datagrams.clear();
        runs
    }

    /// The octets of all frames of what was received.
    fn frames(&mut self) -> Vec<Vec<u8>> {
        self.runs().into_iter().flat_map(|(_, frames)| frames).map(|frame| frame.octets).collect()
    }

    /// The drops of the ports, and those of the endpoint.
    fn drops(&self) -> (Drops, Drops) {
        let ports = self.vtep.entrances.iter().flat_map(|e| e.stats.total().drops().collect::<Vec<_>>());
        (ports.collect(), self.vtep.stats.total().drops().collect())
    }
}

/// A VXLAN header as an honest endpoint writes it.
fn header(vni: u32) -> [u8; 8] {
    let [_, a, b, c] = vni.to_be_bytes();
    [0x08, 0, 0, 0, a, b, c, 0]
}

fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&header(vni), frame].concat()
}

/// A frame of 60 octets that can be told from others.
fn frame(n: u8) -> Vec<u8> {
    ethernet(&[], EtherType(0x88b5), &[n; 46])
}

/// A UDP packet in a frame, with tags; its lengths are `more` octets longer than it is.
fn datagram(tags: &[[u16; 2]], v6: bool, payload: &[u8], more: u16) -> Vec<u8> {
    let mut transport = udp(5000, 6000, payload);
    let len = be16(&transport, 4).unwrap() + more;
    transport[4..6].copy_from_slice(&len.to_be_bytes());
    let (ethertype, mut packet, at) = if v6 {
        (EtherType::IPV6, ipv6(UDP, &transport), 4)
    } else {
        (EtherType::IPV4, ipv4(UDP, &transport), 2)
    };
    let len = be16(&packet, at).unwrap() + more;
    packet[at..at + 2].copy_from_slice(&len.to_be_bytes());
    ethernet(tags, ethertype, &packet)
}

#[test]
fn a_frame_is_what_stands_behind_the_header_and_knows_its_sender() {
    let mut rig = Rig::vxlan();
    rig.put(&[&[0x08, 0, 0, 0, 0, 0x03, 0xf2, 0][..], &frame(1)].concat(), 0);
    let ingress = Ingress { port: PortIdx(0), vlan: None, learn: true };
    let out = Out { octets: frame(1), offload: Offload::NONE, from: Some(FAR) };
    assert_eq!(rig.runs(), [(ingress, vec![out])]);
    let counted = rig.vtep.entrances[0].stats.total();
    assert_eq!((counted.rx_frames, counted.rx_bytes), (1, 60));
    assert_eq!(rig.drops(), (vec![], vec![]));
}

#[test]
fn vxlan_headers_are_taken_by_the_rules_of_rfc_7348_or_those_of_linux() {
    let rules = |reserved, gbp| vxlan::Rules { reserved, gbp };
    let (rfc, linux) = (rules(Reserved::Ignore, false), rules(Reserved::Refuse, false));
    let gbp = rules(Reserved::Refuse, true);
    let malformed = Some((DropReason::VxlanMalformed, true));
    let reserved = Some((DropReason::VxlanReservedBits, true));
    for (what, header, rules, expected) in [
        ("as it should be", &[0x08, 0, 0, 0, 0, 3, 0xf2, 0][..], rfc, None),
        // "The I flag MUST be set to 1 for a valid VXLAN Network ID (VNI)" (RFC 7348 §5).
        ("no I flag", &[0x00, 0, 0, 0, 0, 3, 0xf2, 0], rfc, malformed),
        ("all flags but I", &[0xf7, 0, 0, 0, 0, 3, 0xf2, 0], rfc, malformed),
        // "reserved fields and MUST be set to zero on transmission and ignored on receipt" (RFC 7348 §5).
        ("reserved bits", &[0xff, 0xff, 0xff, 0xff, 0, 3, 0xf2, 0xff], rfc, None),
        ("a reserved flag", &[0x18, 0, 0, 0, 0, 3, 0xf2, 0], linux, reserved),
        ("the last octet", &[0x08, 0, 0, 0, 0, 3, 0xf2, 1], linux, reserved),
        ("a group, unasked for", &[0x88, 0, 0, 7, 0, 3, 0xf2, 0], linux, reserved),
        ("a group", &[0x88, 0, 0, 7, 0, 3, 0xf2, 0], gbp, None),
        (
            "the end inside the header",
            &[0x08, 0, 0, 0, 0, 3, 0xf2],
            rfc,
            Some((DropReason::VxlanMalformed, false)),
        ),
        ("nothing", &[], rfc, Some((DropReason::VxlanMalformed, false))),
        ("a VNI of nobody", &[0x08, 0, 0, 0, 0, 3, 0xf3, 0], rfc, Some((DropReason::VniUnknown, false))),
    ] {
        let mut rig = Rig::new(vec![Rules::Vxlan(rules)], &[(1010, 0, None)]);
        let whole = if header.len() == 8 { [header, &frame(1)].concat() } else { header.to_vec() };
        rig.put(&whole, 0);
        let frames = rig.frames();
        let (ports, endpoint) = rig.drops();
        match expected {
            None => assert_eq!((frames, ports, endpoint), (vec![frame(1)], vec![], vec![]), "{what}"),
            Some((reason, on_port)) => {
                let drop = vec![(reason, 1)];
                let drops = if on_port { (drop, vec![]) } else { (vec![], drop) };
                assert_eq!((frames, (ports, endpoint)), (vec![], drops), "{what}");
                let received = rig.vtep.entrances[0].stats.total().rx_frames;
                assert_eq!(received, u64::from(on_port), "{what}: what a port drops it has received");
            }
        }
    }
}

#[test]
fn geneve_headers_are_taken_by_the_rules_of_rfc_8926() {
    let base = [0, 0, 0x65, 0x58, 0, 3, 0xf2, 0];
    let with = |changes: &[(usize, u8)], options: &[u8]| {
        let mut header = base;
        header[0] = (options.len() / 4) as u8;
        changes.iter().for_each(|&(at, octet)| header[at] = octet);
        [&header[..], options, &frame(1)].concat()
    };
    use DropReason as R;
    for (what, octets, expected) in [
        ("as it should be", with(&[], &[]), None),
        // "Packets received by a tunnel endpoint with an unknown version MUST be dropped" (RFC 8926 §3.4).
        ("version 1", with(&[(0, 0x40)], &[]), Some(R::GeneveVersion)),
        // "Tunnel endpoints MUST NOT forward the payload, and transit devices MUST NOT attempt to interpret it" (the O bit, §3.4).
        ("a control packet", with(&[(1, 0x80)], &[]), Some(R::GeneveControl)),
        ("reserved bits", with(&[(1, 0x3f), (7, 0xff)], &[]), None),
        ("an IPv4 packet", with(&[(2, 0x08), (3, 0)], &[]), Some(R::GeneveProtocol)),
        ("an unknown option", with(&[], &[1, 2, 0x03, 1, 0, 0, 0, 0]), None),
        // "If the receiving tunnel endpoint does not recognize the option and this bit is set, then the packet MUST be dropped" (§3.5).
        ("an unknown critical option", with(&[(1, 0x40)], &[1, 2, 0x83, 0]), Some(R::GeneveCriticalOption)),
        ("a known critical option", with(&[(1, 0x40)], &[1, 2, 0x80, 0]), None),
        ("the C bit and no critical option", with(&[(1, 0x40)], &[1, 2, 0x03, 0]), None),
        // "Packets in which the total length of all options is not equal to the 'Opt Len' in the base header are invalid and MUST be
        // silently dropped" (§3.5).
        ("an option beyond the options", with(&[], &[1, 2, 3, 2, 0, 0, 0, 0]), Some(R::GeneveMalformed)),
        ("options beyond the end", with(&[(0, 0x3f)], &[]), Some(R::GeneveMalformed)),
    ] {
        let mut rig = Rig::new(vec![Rules::Geneve([(0x0102, 0x80)].into())], &[(1010, 0, None)]);
        rig.put(&octets, 0);
        let (frames, drops) = (rig.frames(), rig.drops());
        match expected {
            None => assert_eq!((frames, drops), (vec![frame(1)], (vec![], vec![])), "{what}"),
            Some(reason) => assert_eq!((frames, drops), (vec![], (vec![(reason, 1)], vec![])), "{what}"),
        }
    }
    let mut rig = Rig::new(vec![Rules::Geneve([].into())], &[(1010, 0, None)]);
    rig.put(&base[..7], 0);
    rig.put(&[], 0);
    assert_eq!((rig.frames(), rig.drops()), (vec![], (vec![], vec![(R::GeneveMalformed, 2)])));
}

#[test]
fn what_was_decided_about_one_geneve_packet_is_not_taken_for_the_next() {
    let mut rig = Rig::new(vec![Rules::Geneve([].into())], &[(1010, 0, None)]);
    for n in 0..6 {
        let options: &[u8] = if n % 2 == 0 { &[1, 2, 0x03, 0] } else { &[1, 2, 0x83, 0] };
        rig.put(&[&[1, 0, 0x65, 0x58, 0, 3, 0xf2, 0], options, &frame(n)].concat(), 0);
    }
    assert_eq!(rig.frames(), [frame(0), frame(2), frame(4)]);
    assert_eq!(rig.drops().0, [(DropReason::GeneveCriticalOption, 3)]);
}

#[test]
fn a_header_and_nothing_more_is_a_frame_of_no_octets_that_the_path_counts() {
    let mut rig = Rig::vxlan();
    rig.put(&header(1010), 0);
    assert_eq!(rig.frames(), [Vec::<u8>::new()]);
}

#[test]
fn each_part_of_a_train_is_a_frame_and_the_last_may_be_shorter() {
    let mut rig = Rig::vxlan();
    let train: Vec<u8> = (0..5).flat_map(|n| vxlan(1010, &frame(n))).collect();
    rig.put(&train[..train.len() - 10], 68);
    rig.put(&vxlan(1010, &frame(9)), 0);
    let frames = rig.frames();
    assert_eq!(frames[..4], [frame(0), frame(1), frame(2), frame(3)]);
    assert_eq!(frames[4..], [frame(4)[..50].to_vec(), frame(9)]);
    assert_eq!(rig.vtep.entrances[0].stats.total().rx_frames, 6);
}

#[test]
fn every_part_of_a_train_is_judged_by_its_own_header() {
    let mut rig = Rig::vxlan();
    let mut train: Vec<u8> = (0..5).flat_map(|n| vxlan(1010, &frame(n))).collect();
    train[68] = 0; // no I flag
    train[3 * 68 + 5] = 9; // another VNI
    rig.put(&train, 68);
    assert_eq!(rig.frames(), [frame(0), frame(2), frame(4)]);
    assert_eq!(rig.drops(), (vec![(DropReason::VxlanMalformed, 1)], vec![(DropReason::VniUnknown, 1)]));
}

#[test]
fn a_part_too_short_for_its_header_gets_nothing_from_the_next_part() {
    for stride in 1..8 {
        let mut rig = Rig::vxlan();
        rig.put(&[header(1010), header(1010)].concat()[..2 * stride], stride);
        assert_eq!(rig.frames(), Vec::<Vec<u8>>::new());
        let (ports, endpoint) = rig.drops();
        assert_eq!(ports.iter().chain(&endpoint).map(|(_, n)| n).sum::<u64>(), 2, "{stride}");
    }
    let option = [1, 2, 3, 1, 0, 0, 0, 0];
    let one = [&[2, 0, 0x65, 0x58, 0, 3, 0xf2, 0][..], &option].concat();
    let mut rig = Rig::new(vec![Rules::Geneve([].into())], &[(1010, 0, None)]);
    rig.put(&[&one[..12], &one[..12], &one].concat(), 12);
    assert_eq!(rig.frames(), Vec::<Vec<u8>>::new());
    assert_eq!(rig.drops().0.iter().map(|(_, n)| n).sum::<u64>() + rig.drops().1.len() as u64, 4);
}

/// docs/design/underlay.md: "the `UDP_GRO` control message then carries the inner segment size, not the stride of outer datagrams".
#[test]
fn a_super_frame_that_the_kernel_left_whole_is_one_frame_whatever_the_control_message_says() {
    for (tags, v6) in
        [(&[][..], false), (&[], true), (&[[0x8100, 7]], false), (&[[0x88a8, 7], [0x8100, 8]], true)]
    {
        // Segments shorter than the headers in front of them as well.
        for size in [20, 100, 1200] {
            let whole = datagram(tags, v6, &[0x5a; 5000], 0);
            let mut rig = Rig::vxlan();
            rig.put(&vxlan(1010, &whole), size);
            rig.put(&vxlan(1010, &frame(1)), 0);
            let [(_, frames)] = &rig.runs()[..] else { panic!("one run") };
            let gso = Gso { kind: GsoKind::Udp, size: size as u16, hdr_len: 0, ecn: false };
            let hint = Offload { csum: Checksum::Unknown, gso: Some(gso) };
            let first = Out { octets: whole, offload: hint, from: Some(FAR) };
            let second = Out { octets: frame(1), offload: Offload::NONE, from: Some(FAR) };
            assert_eq!(*frames, [first, second]);
        }
    }
}

#[test]
fn a_frame_that_lies_about_its_length_gets_nothing_of_the_train_behind_it() {
    // It claims all that the train has, so that the whole would be one frame of its network; the rest is of another.
    let rules = || Rules::Vxlan(vxlan::Rules::default());
    let mut rig = Rig::new(vec![rules(), rules()], &[(1010, 0, None), (2020, 1, None)]);
    let others: Vec<u8> = (0..3).flat_map(|n| vxlan(2020, &datagram(&[], false, &[n; 100], 0))).collect();
    let liar = vxlan(1010, &datagram(&[], false, &[0xee; 100], others.len() as u16));
    rig.put(&[&liar[..], &others].concat(), liar.len());
    assert_eq!(rig.frames(), Vec::<Vec<u8>>::new());
    assert_eq!(rig.drops(), (vec![(DropReason::GsoMalformed, 1)], vec![]));
    // Any other lie leaves a train a train, and frames travel as they are.
    for more in [1, 50, others.len() as u16 - 1, others.len() as u16 + 1] {
        let liar = datagram(&[], false, &[0xee; 100], more);
        rig.put(&[&vxlan(1010, &liar), &others[..]].concat(), liar.len() + 8);
        let frames = rig.frames();
        assert_eq!((frames.len(), &frames[0]), (4, &liar), "{more}");
    }
}

#[test]
fn a_super_frame_with_tunnel_headers_in_its_payload_puts_nothing_into_another_network() {
    let rules = || Rules::Vxlan(vxlan::Rules::default());
    let mut rig = Rig::new(vec![rules(), rules()], &[(1010, 0, None), (2020, 1, None)]);
    // With segments of 142 octets, these headers stand where those of a train would.
    let inject = vxlan(2020, &frame(0xee));
    let mut payload = vec![0; 1000];
    payload[142 - 50..][..inject.len()].copy_from_slice(&inject);
    rig.put(&vxlan(1010, &datagram(&[], false, &payload, 0)), 142);
    assert_eq!(rig.frames(), Vec::<Vec<u8>>::new());
    assert_eq!(rig.drops(), (vec![(DropReason::GsoMalformed, 1)], vec![]));
    // A VNI that is nobody's here tells nothing.
    payload[142 - 50 + 5] = 0xff;
    rig.put(&vxlan(1010, &datagram(&[], false, &payload, 0)), 142);
    assert_eq!(rig.frames().len(), 1);
}

#[test]
fn a_run_ends_where_another_port_vlan_or_learning_begins() {
    let gbp = || Rules::Vxlan(vxlan::Rules { gbp: true, ..vxlan::Rules::default() });
    let vnis = [(1, 0, None), (2, 1, None), (3, 1, Some(30)), (4, 1, Some(40))];
    let mut rig = Rig::new(vec![gbp(), gbp()], &vnis);
    let dont_learn = |n| [&[0x88, 0x40, 0, 7, 0, 0, 1, 0][..], &frame(n)].concat();
    let train = [vxlan(1, &frame(0)), vxlan(1, &frame(1)), dont_learn(2), vxlan(2, &frame(3))].concat();
    rig.put(&train, 68);
    rig.put(&vxlan(3, &frame(4)), 0);
    rig.put(&vxlan(3, &frame(5)), 0);
    rig.put(&vxlan(9, &frame(6)), 0);
    rig.put(&vxlan(3, &frame(7)), 0);
    rig.put(&vxlan(4, &frame(8)), 0);
    let runs: Vec<_> = rig
        .runs()
        .into_iter()
        .map(|(at, frames)| {
            let marks: Vec<u8> = frames.iter().map(|frame| frame.octets[59]).collect();
            (at.port.0, at.vlan.map(Vid::get), at.learn, marks)
        })
        .collect();
    assert_eq!(
        runs,
        [
            (0, None, true, vec![0, 1]),
            // "The egress VTEP MUST NOT learn the source address of the encapsulated frame" (the D bit).
            (0, None, false, vec![2]),
            (1, None, true, vec![3]),
            (1, Some(30), true, vec![4, 5, 7]),
            (1, Some(40), true, vec![8]),
        ]
    );
    assert_eq!(rig.drops(), (vec![], vec![(DropReason::VniUnknown, 1)]));
}

#[test]
fn more_frames_than_a_batch_holds_come_in_several_runs_and_in_order() {
    let mut rig = Rig::vxlan();
    let train: Vec<u8> = (0..100).flat_map(|n| vxlan(1010, &frame(n))).collect();
    rig.put(&train, 68);
    rig.put(&vxlan(1010, &frame(100)), 0);
    rig.put(&train, 68);
    let runs = rig.runs();
    assert_eq!(runs.iter().map(|(_, frames)| frames.len()).collect::<Vec<_>>(), [64, 64, 64, 9]);
    let marks: Vec<u8> = runs.iter().flat_map(|(_, f)| f.iter().map(|f| f.octets[59])).collect();
    assert_eq!(marks, (0..=100).chain(0..100).collect::<Vec<u8>>());
}

#[test]
fn only_remotes_enter_where_they_are_checked_and_a_stranger_takes_no_place_among_them() {
    let mut rig = Rig::vxlan();
    rig.put_from(&vxlan(1010, &frame(1)), 0, STRANGER, 0);
    assert_eq!(rig.runs()[0].1[0].from, Some(STRANGER), "not checked: anybody");
    let mut rig = Rig::vxlan();
    rig.vtep.entrances[0].known = Some([FAR].into_iter().collect());
    for from in [FAR, STRANGER, "2001:db8::9".parse().unwrap(), FAR] {
        rig.put_from(&vxlan(1010, &frame(1)), 0, from, 0);
    }
    let [(_, frames)] = &rig.runs()[..] else { panic!("one run") };
    assert_eq!(frames.iter().map(|f| f.from).collect::<Vec<_>>(), [Some(FAR), Some(FAR)]);
    assert_eq!(rig.drops(), (vec![(DropReason::RemoteUnknown, 2)], vec![]));
    assert_eq!(rig.remotes.len(), 1, "whoever can write a source address could fill the table");
}

#[test]
fn what_carries_our_own_address_is_dropped() {
    let mut rig = Rig::vxlan();
    rig.put_from(&vxlan(1010, &frame(1)), 0, LOCAL, 0);
    assert_eq!(rig.frames(), Vec::<Vec<u8>>::new());
    assert_eq!(rig.drops(), (vec![(DropReason::RemoteIsSelf, 1)], vec![]));
    assert!(rig.remotes.is_empty());
}

/// "A compliant tunnel egress MUST set the outgoing ECN field to the codepoint at the intersection of the appropriate arriving inner
/// header (row) and outer header (column) in Figure 4" (RFC 6040 §4.2).
#[test]
fn congestion_marks_come_in_by_the_table_of_rfc_6040_and_checksums_stay_right() {
    use Ecn::{Ce, Ect0, Ect1, NotEct};
    let outers = [NotEct, Ect0, Ect1, Ce];
    let table = [
        (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
        (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
        (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
        (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
    ];
    for (tags, v6) in [(&[][..], false), (&[], true), (&[[0x8100, 5]], false)] {
        for (inner, row) in table {
            for (outer, expected) in outers.into_iter().zip(row) {
                let mut sent = datagram(tags, v6, &[1; 40], 0);
                ecn::mark(&mut sent, inner);
                let mut rig = Rig::vxlan();
                // DSCP of the outer header stays outside.
                rig.put_from(&vxlan(1010, &sent), 0, FAR, outer.in_tos(0xb8));
                let frames = rig.frames();
                let Some(ecn) = expected else {
                    assert_eq!((frames, rig.drops().0), (vec![], vec![(DropReason::EcnInvalid, 1)]));
                    continue;
                };
                ecn::mark(&mut sent, ecn);
                assert_eq!(frames, [sent.clone()], "{inner:?} in {outer:?}");
                assert!(v6 || sample::naive_sum(&sent[14 + 4 * tags.len()..][..20]) == 0xffff);
            }
        }
    }
    let mut rig = Rig::vxlan();
    rig.put_from(&vxlan(1010, &frame(1)), 0, FAR, 3);
    assert_eq!(rig.frames(), [frame(1)], "what is no IP packet has no mark");
}

/// Octets behind a UDP header: noise, or a header that opens a network before noise or a packet.
fn any_part() -> impl Strategy<Value = Vec<u8>> {
    let noise = || prop::collection::vec(any::<u8>(), 0..100);
    let vni = prop::sample::select(vec![1u32, 2, 3, 9]);
    let packet = (any::<bool>(), 0usize..60, 0u16..400)
        .prop_map(|(v6, len, more)| datagram(&[], v6, &vec![1; len], more));
    prop_oneof![
        noise(),
        (vni.clone(), noise()).prop_map(|(vni, noise)| vxlan(vni, &noise)),
        (vni, packet).prop_map(|(vni, packet)| vxlan(vni, &packet)),
    ]
}

proptest! {
    #[test]
    fn whatever_arrives_every_part_of_it_is_a_frame_or_a_counted_drop(
        messages in prop::collection::vec(
            (prop::collection::vec(any_part(), 1..6), 0usize..150, 0u8..4, any::<bool>()),
            1..20,
        ),
        geneve in any::<bool>(),
    ) {
        let rules = || match geneve {
            true => Rules::Geneve([(1, 0x81)].into()),
            false => Rules::Vxlan(vxlan::Rules { gbp: true, ..vxlan::Rules::default() }),
        };
        let mut rig = Rig::new(vec![rules(), rules()], &[(1, 0, None), (2, 1, None), (3, 1, Some(30))]);
        rig.vtep.entrances[1].known = Some([FAR].into_iter().collect());
        let mut parts = 0;
        for (octets, stride, tos, known) in messages {
            let octets = octets.concat();
            let train = if stride == 0 { 1 } else { octets.len().div_ceil(stride).max(1) };
            // One frame as long as all that came is the other reading.
            let opens = octets.get(8..).is_some_and(fills) && stride < octets.len();
            prop_assume!(!(opens && stride > 0));
            parts += train as u64;
            rig.put_from(&octets, stride, if known { FAR } else { STRANGER }, tos);
        }
        let frames = rig.frames().len() as u64;
        let (ports, endpoint) = rig.drops();
        let sum = |drops: &[(DropReason, u64)]| drops.iter().map(|(_, n)| n).sum::<u64>();
        prop_assert_eq!(frames + sum(&ports) + sum(&endpoint), parts);
        let received: u64 = rig.vtep.entrances.iter().map(|e| e.stats.total().rx_frames).sum();
        prop_assert_eq!(received, frames + sum(&ports));
    }
}
