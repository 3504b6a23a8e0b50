//! What goes in at one end of a tunnel comes out at the other: frames through an underlay in memory, for every kind of header.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::{
    bridge::Rewrite,
    counters::PortStats,
    frame::{Caps, Checksum, Datagram, Gso, GsoKind, Offload},
    index::VtepIdx,
    offload::{Limits, checksum, merge},
    overlay::{
        Arrivals, Decapsulator, Encap, Entrance, Fragmentation, Host, Inherit, Segment, Uplink, Vtep,
        decap::Rules,
    },
    port::{
        Queue, memory,
        underlay::{MemoryNet, MemoryRx},
    },
    tick::Tick,
    wire::{
        EtherType, Layers, MacAddr, Tag, Tci, Vni,
        geneve::options,
        layers::Version,
        sample::{ethernet, ipv4, ipv6, naive_sum, pseudo_sum, tcp, udp},
        vxlan,
    },
};

/// The drop reasons that only a send through a tunnel gives.
pub(crate) const REASONS: &[DropReason] = &[DropReason::UnderlayUnreachable, DropReason::UplinkUnresolved];

const FAR_PORT: u16 = 4789;

fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

/// A tunnel with one remote, and all that a worker has to send through it.
struct Near {
    tunnel: Tunnel,
    counters: PortCounters,
    remotes: Remotes,
    remote: RemoteIdx,
    tx: Option<UnderlayTx>,
    encapsulator: Encapsulator,
    narrow: Vec<RemoteIdx>,
}

struct Ways<'a>(&'a Tunnel, &'a PortCounters, &'a Remotes, Option<&'a UnderlayTx>);

impl Exits for Ways<'_> {
    fn tunnel(&self, _: PortIdx) -> Option<(&Tunnel, &PortCounters)> {
        Some((self.0, self.1))
    }

    fn remotes(&self) -> &Remotes {
        self.2
    }

    fn sockets(&self, _: TxSetIdx) -> Option<&UnderlayTx> {
        self.3
    }

    fn uplink(&self, _: PortIdx) -> Option<UplinkExit<'_>> {
        None
    }
}

/// The two ends' addresses.
fn ends(v6: bool) -> [IpAddr; 2] {
    if v6 {
        [1, 2].map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into())
    } else {
        [1, 2].map(|n| Ipv4Addr::new(203, 0, 113, n).into())
    }
}

impl Near {
    fn new(net: &MemoryNet, v6: bool, encap: Encap) -> Self {
        let [here, there] = ends(v6);
        let remotes = Remotes::default();
        let remote = remotes.pin(VtepIdx(0), there).unwrap();
        let tunnel = Tunnel {
            vtep: VtepIdx(0),
            via: Via::Sockets { fragmenting: TxSetIdx(0), whole: TxSetIdx(1) },
            v6,
            src_ports: 49152..=65535,
            dst_port: FAR_PORT,
            encap,
            vni: Some(vni(7)),
            vlan_vni: [].into(),
            flood: [remote].into(),
            ttl: Inherit::Inherit,
            tos: Inherit::Inherit,
            df: Fragmentation::AsInner,
            udp_csum: true,
            underlay_mtu: 1500,
        };
        Self {
            tunnel,
            counters: PortCounters::default(),
            remotes,
            remote,
            tx: Some(UnderlayTx::Memory(net.tx(here))),
            encapsulator: Encapsulator::default(),
            narrow: Vec::new(),
        }
    }

    /// Sends all frames of a batch with the same rewrite.
    fn send(&mut self, batch: &Batch, rewrite: Rewrite) {
        let plan: Vec<_> = (0..batch.len())
            .map(|slot| TxFrame {
                slot: slot as u8,
                split: batch.frame(slot).offload.gso.is_some(),
                port: PortIdx(5),
                rewrite,
                hop: Some(Hop { remote: self.remote, vni: vni(7) }),
            })
            .collect();
        let ways = Ways(&self.tunnel, &self.counters, &self.remotes, self.tx.as_ref());
        self.encapsulator.send_all(&plan, batch, &ways, |remote| self.narrow.push(remote));
    }
}

/// Where a tunnel ends.
struct Far {
    rx: MemoryRx,
    vtep: Vtep,
    remotes: Remotes,
    decapsulator: Decapsulator,
    batch: Batch,
}

impl Far {
    fn new(net: &MemoryNet, v6: bool, rules: Rules) -> Self {
        let [_, there] = ends(v6);
        let entrance = Entrance { port: PortIdx(9), rules, known: None, stats: Arc::new(PortStats::new(1)) };
        let vtep = Vtep {
            idx: VtepIdx(0),
            local: there,
            zero_csum6: false,
            segments: [(vni(7), Segment { entrance: 0, vlan: None })].into_iter().collect(),
            entrances: [entrance].into(),
            stats: Arc::new(PortStats::new(1)),
        };
        Self {
            rx: net.bind(SocketAddr::new(there, FAR_PORT)),
            vtep,
            remotes: Remotes::default(),
            decapsulator: Decapsulator::default(),
            batch: Batch::new(),
        }
    }

    /// Every frame that has come, as it came, or split again after it was merged; and the outer type of service of the last datagram.
    fn receive(&mut self, merging: bool) -> (Vec<Vec<u8>>, Option<u8>) {
        let (mut frames, mut datagrams, mut tos) = (Vec::new(), Vec::<Datagram>::new(), None);
        loop {
            self.batch.clear();
            datagrams.clear();
            self.rx.recv(&mut self.batch, &mut datagrams, self.vtep.stats.of(0));
            let Some(last) = datagrams.last() else { return (frames, tos) };
            tos = Some(last.tos);
            self.decapsulator.begin();
            let env =
                Arrivals { vtep: &self.vtep, remotes: &self.remotes, worker: 0, now: Tick::from_secs(1) };
            while let Some(ingress) = self.decapsulator.next(&env, &datagrams, &mut self.batch) {
                assert_eq!(ingress.port, PortIdx(9));
                if merging {
                    merge(&mut self.batch, &Limits { mtu: 1450, udp: true });
                }
                frames.extend(
                    (0..self.batch.len())
                        .flat_map(|n| segments(self.batch.bytes(n), &self.batch.frame(n).offload)),
                );
            }
        }
    }
}

/// The frames that a frame in this state is on a wire.
fn segments(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    if offload.gso.is_some() {
        let split = Split::plan(frame, offload).unwrap();
        let mut header = [0; MAX_HEADERS];
        let one = |n| {
            let payload = split.segment(n, &mut header);
            [&header[..split.header_len()], &frame[payload]].concat()
        };
        return (0..split.count()).map(one).collect();
    }
    let mut frame = frame.to_vec();
    if let Checksum::Partial { start, offset } = offload.csum {
        checksum::complete(&mut frame, start.into(), offset.into()).unwrap();
    }
    vec![frame]
}

/// What a receiver checks of a frame that is an IP packet.
fn assert_checksums(frame: &[u8]) {
    let Ok(Layers { l3, ip: Some(ip), .. }) = Layers::parse(frame) else { return };
    assert_eq!(ip.end, frame.len());
    if ip.version == Version::V4 {
        assert_eq!(naive_sum(&frame[l3..ip.l4]), 0xffff);
    }
    let transport = &frame[ip.l4..];
    let pseudo = pseudo_sum(&frame[l3..], transport.len());
    assert_eq!(naive_sum(&[&pseudo.to_be_bytes(), transport].concat()), 0xffff);
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Noise,
    Tcp,
    Udp,
}

/// A frame as a port hands it over: with a partial checksum, and a super-frame where it has more than `size` octets of payload.
fn handed_over(kind: Kind, v6: bool, tags: &[[u16; 2]], len: usize, size: u16) -> (Vec<u8>, Offload) {
    let payload: Vec<u8> = (0..len).map(|n| (n * 7 + n / 251) as u8).collect();
    let (protocol, mut transport, offset, gso, header_len) = match kind {
        Kind::Noise => return (ethernet(tags, EtherType(0x88b5), &payload), Offload::NONE),
        Kind::Tcp => {
            let kind = if v6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
            (6, tcp(1, 0x10, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &payload), 16, kind, 32)
        }
        Kind::Udp => (17, udp(5000, 6000, &payload), 6, GsoKind::Udp, 8),
    };
    let packet = if v6 { ipv6(protocol, &transport) } else { ipv4(protocol, &transport) };
    let pseudo = pseudo_sum(&packet, transport.len()).to_be_bytes();
    transport[offset..offset + 2].copy_from_slice(&pseudo);
    let (ethertype, packet) = if v6 {
        (EtherType::IPV6, ipv6(protocol, &transport))
    } else {
        (EtherType::IPV4, ipv4(protocol, &transport))
    };
    let start = (14 + 4 * tags.len() + packet.len() - transport.len()) as u16;
    let gso =
        (len > usize::from(size)).then_some(Gso { kind: gso, size, hdr_len: start + header_len, ecn: false });
    let csum = Checksum::Partial { start, offset: offset as u16 };
    (ethernet(tags, ethertype, &packet), Offload { csum, gso })
}

/// Gives an IPv4 packet another identification: where all have one, a merge counts them up (see `offload::merge`).
fn number(frame: &mut [u8], n: u16) {
    let Ok(Layers { l3, ip: Some(ip), .. }) = Layers::parse(frame) else { return };
    if ip.version == Version::V4 {
        let header = &mut frame[l3..ip.l4];
        header[4..6].copy_from_slice(&n.to_be_bytes());
        header[10..12].fill(0);
        let sum = !naive_sum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

fn any_encap() -> impl Strategy<Value = (Encap, Rules)> {
    let gbp = prop::option::of(any::<u16>()).prop_map(|group| {
        let gbp = group.map(|group| vxlan::Gbp { group, ..vxlan::Gbp::default() });
        let rules = vxlan::Rules { reserved: vxlan::Reserved::Refuse, gbp: gbp.is_some() };
        (Encap::Vxlan { gbp }, Rules::Vxlan(rules))
    });
    let word = prop::sample::select(vec![
        "0102:80:00001111",
        "0102:81:0000000000000001",
        "0103:02:",
        "0104:03:0a0b0c0d",
    ]);
    let geneve = prop::collection::vec(word, 0..12).prop_map(|words| {
        let list: Vec<_> = words.iter().map(|word| word.parse().unwrap()).collect();
        let known = vec![(0x0102, 0x80), (0x0102, 0x81)].into();
        (Encap::Geneve { options: options(&list).unwrap() }, Rules::Geneve(known))
    });
    prop_oneof![gbp, geneve]
}

/// The tags that a frame comes with, and what is done to the outermost on the way out.
fn any_tags() -> impl Strategy<Value = (Vec<[u16; 2]>, Rewrite)> {
    let tag = |vid| Tag { tpid: EtherType::VLAN, tci: Tci(vid) };
    let one = vec![[0x8100, 0x2005]];
    let two = vec![[0x88a8, 100], [0x8100, 7]];
    prop::sample::select(vec![
        (vec![], Rewrite::KEEP),
        (one.clone(), Rewrite::KEEP),
        (two.clone(), Rewrite::KEEP),
        (vec![], Rewrite { pop: 0, push: Some(tag(9)) }),
        (one.clone(), Rewrite { pop: 4, push: None }),
        (two, Rewrite { pop: 4, push: None }),
        (one, Rewrite { pop: 4, push: Some(tag(9)) }),
    ])
}

/// How many frames, and what they are.
type Flow = (usize, Kind, bool, usize, u16);

fn any_flow() -> impl Strategy<Value = Flow> {
    let kind = prop::sample::select(vec![Kind::Noise, Kind::Tcp, Kind::Udp]);
    let len = prop_oneof![0usize..300, 1000usize..1500, 3000usize..9000, 60_000usize..65_000];
    (1usize..5, kind, any::<bool>(), len, 500u16..1400).prop_map(|(count, kind, v6, len, size)| {
        // What is no packet is not longer than a wire carries.
        let len = if matches!(kind, Kind::Noise) { len % 1400 } else { len };
        (count, kind, v6, len, size)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encapsulated_is_what_is_decapsulated(
        underlay_v6 in any::<bool>(),
        (encap, rules) in any_encap(),
        (tags, rewrite) in any_tags(),
        flows in prop::collection::vec(any_flow(), 1..5),
        trains in any::<bool>(),
        merging in any::<bool>(),
    ) {
        let net = MemoryNet::new();
        net.deliver_trains(trains);
        let mut near = Near::new(&net, underlay_v6, encap);
        let mut far = Far::new(&net, underlay_v6, rules);
        let (mut batch, mut expected) = (Batch::new(), Vec::new());
        for (count, kind, v6, len, size) in flows {
            let (mut frame, offload) = handed_over(kind, v6, &tags, len, size);
            for _ in 0..count {
                number(&mut frame, expected.len() as u16);
                // What the path does before it plans: a checksum is only left partial where the frame is split.
                let (whole, left) = match offload.gso {
                    Some(_) => (frame.clone(), offload),
                    None => (segments(&frame, &offload).remove(0), Offload { csum: Checksum::Good, gso: None }),
                };
                prop_assert!(batch.append(&whole, left));
                expected.extend(segments(&frame, &offload).into_iter().map(|f| {
                    let tag = rewrite.push.map(Tag::to_bytes);
                    [&f[..12], tag.as_ref().map_or(&[][..], |t| t), &f[12 + usize::from(rewrite.pop)..]].concat()
                }));
            }
        }
        near.send(&batch, rewrite);
        let (mut received, _) = far.receive(merging);
        received.iter().for_each(|frame| assert_checksums(frame));
        let octets: usize = expected.iter().map(Vec::len).sum();
        prop_assert_eq!(near.counters.tx_frames.get(), expected.len() as u64);
        prop_assert_eq!(near.counters.tx_bytes.get(), octets as u64);
        let arrived = far.vtep.entrances[0].stats.total();
        prop_assert_eq!((arrived.rx_frames, arrived.rx_bytes), (expected.len() as u64, octets as u64));
        prop_assert_eq!(arrived.drops().count() + far.vtep.stats.total().drops().count(), 0);
        // Flows may pass each other, and merging brings a flow's segments together.
        received.sort();
        expected.sort();
        prop_assert!(received == expected, "{} frames, {} expected", received.len(), expected.len());
    }
}

#[test]
fn a_flow_keeps_its_order_and_its_source_port_and_flows_have_several() {
    let net = MemoryNet::new();
    let mut near = Near::new(&net, false, Encap::Vxlan { gbp: None });
    let mut far = Far::new(&net, false, Rules::Vxlan(vxlan::Rules::default()));
    let from = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&from);
    net.set_loss(move |parcel| {
        seen.lock().unwrap().push(parcel.from.port());
        false
    });
    let mut batch = Batch::new();
    for n in 0..64u16 {
        let mut transport = udp(5000 + n % 8, 6000, &n.to_be_bytes());
        transport[6] = 0;
        assert!(batch.append(&ethernet(&[], EtherType::IPV4, &ipv4(17, &transport)), Offload::NONE));
    }
    near.send(&batch, Rewrite::KEEP);
    let (frames, _) = far.receive(false);
    let number = |frame: &Vec<u8>| u16::from_be_bytes([frame[42], frame[43]]);
    for flow in 0..8 {
        let of_flow: Vec<_> = frames.iter().map(number).filter(|n| n % 8 == flow).collect();
        assert_eq!(of_flow, (0..8).map(|n| 8 * n + flow).collect::<Vec<_>>());
    }
    let mut ports = from.lock().unwrap().clone();
    ports.sort_unstable();
    ports.dedup();
    assert!((2..=8).contains(&ports.len()), "{ports:?}");
}

#[test]
fn the_outer_header_says_what_the_tunnel_says() {
    let net = MemoryNet::new();
    let mut near = Near::new(&net, false, Encap::Vxlan { gbp: None });
    let mut far = Far::new(&net, false, Rules::Vxlan(vxlan::Rules::default()));
    let mut packet = ipv4(17, &udp(1, 2, &[0; 20]));
    packet[1] = 0xba;
    let mut batch = Batch::new();
    batch.append(&ethernet(&[], EtherType::IPV4, &packet), Offload::NONE);
    near.send(&batch, Rewrite::KEEP);
    assert_eq!(far.receive(false).1, Some(0xba));
    near.tunnel.tos = Inherit::Fixed(0x28);
    near.send(&batch, Rewrite::KEEP);
    assert_eq!(far.receive(false).1, Some(0x2a), "congestion is the inner packet's own");
}

#[test]
fn what_is_longer_than_the_path_is_counted_and_the_remote_named() {
    let net = MemoryNet::new();
    net.set_mtu(1000);
    let mut near = Near::new(&net, false, Encap::Vxlan { gbp: None });
    let mut batch = Batch::new();
    let (frame, offload) = handed_over(Kind::Tcp, false, &[], 4000, 1400);
    assert!(batch.append(&frame, offload));
    near.send(&batch, Rewrite::KEEP);
    // Two of the segments, and one that would have passed, had it not been of their message.
    assert_eq!(near.counters.dropped(DropReason::TunnelMtuExceeded), 3);
    assert_eq!((near.counters.tx_frames.get(), near.narrow[0]), (0, near.remote));
}

#[test]
fn a_frame_for_nobody_or_by_no_sockets_is_counted() {
    let net = MemoryNet::new();
    let mut near = Near::new(&net, false, Encap::Vxlan { gbp: None });
    let mut batch = Batch::new();
    batch.append(&ethernet(&[], EtherType(0x88b5), &[0; 46]), Offload::NONE);
    near.tx = None;
    near.send(&batch, Rewrite::KEEP);
    assert_eq!(near.counters.dropped(DropReason::EgressDown), 1);
    near.remote = RemoteIdx(77);
    near.send(&batch, Rewrite::KEEP);
    assert_eq!(near.counters.dropped(DropReason::NoRemote), 1);
}

/// A tunnel whose way out is an uplink.
struct ByUplink<'a>(Ways<'a>, UplinkExit<'a>);

impl Exits for ByUplink<'_> {
    fn tunnel(&self, port: PortIdx) -> Option<(&Tunnel, &PortCounters)> {
        self.0.tunnel(port)
    }

    fn remotes(&self) -> &Remotes {
        self.0.remotes()
    }

    fn sockets(&self, _: TxSetIdx) -> Option<&UnderlayTx> {
        None
    }

    fn uplink(&self, _: PortIdx) -> Option<UplinkExit<'_>> {
        Some(self.1)
    }
}

#[test]
fn a_frame_whose_next_hop_is_silent_is_counted_and_the_next_hop_asked() {
    let [here, there] = ends(false);
    let mut near = Near::new(&MemoryNet::new(), false, Encap::Vxlan { gbp: None });
    near.tunnel.via = Via::Uplink(PortIdx(6));
    let (mac, interface) = (MacAddr::from_bits(2), MacAddr::from_bits(4));
    let gateway = Some(Ipv4Addr::new(203, 0, 113, 254).into());
    let host = Arc::new(Host::new(IpNet::new(here, 24).unwrap(), mac, gateway, interface));
    let uplink = Uplink { address: here, mac, caps: Caps::NONE, mtu: 1500, host: Arc::clone(&host) };
    let (queue, peer) = memory::pair(Caps::NONE);
    let (queue, counters) = (Queue::Memory(queue), PortCounters::default());
    let exit = UplinkExit { queue: &queue, uplink: &uplink, counters: &counters, now: Tick::from_secs(1) };
    let mut batch = Batch::new();
    batch.append(&ethernet(&[], EtherType(0x88b5), &[0; 46]), Offload::NONE);
    let hop = Some(Hop { remote: near.remote, vni: vni(7) });
    let out = TxFrame { slot: 0, split: false, port: PortIdx(5), rewrite: Rewrite::KEEP, hop };
    let mut send = || {
        let ways = Ways(&near.tunnel, &near.counters, &near.remotes, None);
        near.encapsulator.send_all(&[out], &batch, &ByUplink(ways, exit), |_| ());
        let sent: Vec<_> = peer.drain().into_iter().map(|(frame, _)| frame).collect();
        (near.counters.dropped(DropReason::UplinkUnresolved), sent)
    };
    let (drops, sent) = send();
    assert_eq!((drops, sent.len()), (1, 1));
    assert_eq!(sent[0][12..14], EtherType::ARP.0.to_be_bytes(), "the frame is lost, and a question leaves");
    // He answers: 203.0.113.2 is at 02:00:00:00:00:09.
    let mut answer = sent[0].clone();
    answer[20..22].copy_from_slice(&[0, 2]);
    answer[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    answer[28..32].copy_from_slice(&[203, 0, 113, 2]);
    answer[32..38].copy_from_slice(&mac.octets());
    answer[38..42].copy_from_slice(&[203, 0, 113, 1]);
    host.handle(&answer, Tick::from_secs(1), &mut []);
    let (drops, sent) = send();
    assert_eq!((drops, sent.len()), (1, 1), "{there} is known now");
    assert_eq!(sent[0][..6], [2, 0, 0, 0, 0, 9]);
}

#[test]
fn every_end_of_a_send_is_counted_under_its_own_name() {
    let net = MemoryNet::new();
    let near = Near::new(&net, false, Encap::Vxlan { gbp: None });
    for (delivery, reason) in [
        (Delivery::Full, DropReason::EgressFull),
        (Delivery::TooBig, DropReason::TunnelMtuExceeded),
        (Delivery::Unreachable, DropReason::UnderlayUnreachable),
        (Delivery::Gone, DropReason::EgressDown),
        (Delivery::Refused(Errno::INVAL), DropReason::EgressRefused),
    ] {
        let counters = PortCounters::default();
        let sent = Sent { datagrams: 3, octets: 300, delivery, fallback: false };
        let mut narrow = Vec::new();
        let who = Who { port: PortIdx(5), remote: near.remote };
        account(who, sent, &near.tunnel, &counters, &mut |remote| narrow.push(remote));
        assert_eq!((counters.dropped(reason), counters.tx_frames.get()), (3, 0), "{reason}");
        assert_eq!(narrow.len(), usize::from(delivery == Delivery::TooBig));
    }
    let counters = PortCounters::default();
    let sent = Sent { datagrams: 3, octets: 300, delivery: Delivery::Sent, fallback: true };
    account(Who { port: PortIdx(5), remote: near.remote }, sent, &near.tunnel, &counters, &mut |_| ());
    assert_eq!((counters.tx_frames.get(), counters.tx_bytes.get()), (3, 300 - 3 * 8));
    assert_eq!(counters.offload_fallbacks.get(), 1);
}

/// The longest tunnel header, a tag and the longest headers of a segment, wherever in the scratch memory they come to stand.
#[test]
fn the_longest_heads_find_room_however_full_it_is() {
    let net = MemoryNet::new();
    let list: Vec<_> = (0..3).map(|_| format!("0104:03:{}", "ab".repeat(80)).parse().unwrap()).collect();
    let encap = Encap::Geneve { options: options(&list).unwrap() };
    let mut near = Near::new(&net, false, encap);
    let (long, offload) = behind_options();
    let push = Rewrite { pop: 0, push: Some(Tag { tpid: EtherType::VLAN, tci: Tci(9) }) };
    let mut batch = Batch::new();
    // A segment takes 774 octets, and as far do small frames in front of them move it.
    for mut fill in (0..774).step_by(2) {
        batch.clear();
        for _ in 0..5 {
            let len = fill.min(190);
            batch.append(&ethernet(&[], EtherType(0x88b5), &vec![0; len]), Offload::NONE);
            fill -= len;
        }
        while batch.append(&long, offload) && batch.len() < 50 {}
        near.send(&batch, push);
    }
    assert_eq!(near.counters.tx_frames.get(), 387 * (5 + 45 * 4));
    drop(net);
}

/// A UDP super-frame whose headers are as long as a split takes.
fn behind_options() -> (Vec<u8>, Offload) {
    let options_len = MAX_HEADERS - 14 - 40 - 8;
    let options_len = options_len - options_len % 8;
    let mut transport = udp(5000, 6000, &[7; 1024]);
    let pseudo = pseudo_sum(&ipv6(17, &transport), transport.len());
    transport[6..8].copy_from_slice(&pseudo.to_be_bytes());
    let behind = [crate::wire::sample::ext(17, options_len), transport].concat();
    let frame = ethernet(&[], EtherType::IPV6, &ipv6(60, &behind));
    let start = (14 + 40 + options_len) as u16;
    let gso = Gso { kind: GsoKind::Udp, size: 256, hdr_len: start + 8, ecn: false };
    (frame, Offload { csum: Checksum::Partial { start, offset: 6 }, gso: Some(gso) })
}
