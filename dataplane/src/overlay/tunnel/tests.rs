use super::*;
use crate::wire::{
    geneve::options,
    sample::{ethernet, ipv4, ipv6},
};

fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

fn vxlan() -> Tunnel {
    Tunnel {
        vtep: VtepIdx(0),
        via: Via::Sockets { fragmenting: TxSetIdx(0), whole: TxSetIdx(1) },
        v6: false,
        src_ports: 49152..=65535,
        dst_port: vxlan::PORT,
        encap: Encap::Vxlan { gbp: None },
        vni: Some(vni(1)),
        vlan_vni: [(10, vni(1010)), (20, vni(2020))].into(),
        flood: [RemoteIdx(0)].into(),
        ttl: Inherit::Fixed(64),
        tos: Inherit::Fixed(0),
        df: Fragmentation::Forbidden,
        udp_csum: true,
        underlay_mtu: 1500,
    }
}

fn geneve(words: &[&str]) -> Tunnel {
    let list: Vec<_> = words.iter().map(|word| word.parse().unwrap()).collect();
    Tunnel { encap: Encap::Geneve { options: options(&list).unwrap() }, ..vxlan() }
}

#[test]
fn a_vlan_has_its_own_vni_or_that_of_the_rest() {
    let tunnel = vxlan();
    let with_rest = [0, 9, 10, 11, 20, 4094].map(|vlan| tunnel.vni_of(vlan).map(Vni::get));
    assert_eq!(with_rest, [Some(1), Some(1), Some(1010), Some(1), Some(2020), Some(1)]);
    let mapped_only = Tunnel { vni: None, ..vxlan() };
    let without = [0, 10, 11, 20].map(|vlan| mapped_only.vni_of(vlan).map(Vni::get));
    assert_eq!(without, [None, Some(1010), None, Some(2020)]);
}

#[test]
fn the_inner_mtu_is_what_the_outer_headers_leave() {
    let six = |tunnel| Tunnel { v6: true, ..tunnel };
    for (what, tunnel, overhead) in [
        ("VXLAN over IPv4", vxlan(), 20 + 8 + 8),
        ("VXLAN over IPv6", six(vxlan()), 40 + 8 + 8),
        ("Geneve without options", geneve(&[]), 20 + 8 + 8),
        ("Geneve with an option of 4 octets", six(geneve(&["0102:80:00001111"])), 40 + 8 + 8 + 8),
    ] {
        assert_eq!(tunnel.overhead(), overhead, "{what}");
        assert_eq!(tunnel.inner_mtu(), 1500 - overhead - 14, "{what}");
        assert_eq!(tunnel.header_len() as u32, overhead - 8 - if tunnel.v6 { 40 } else { 20 }, "{what}");
    }
    assert_eq!(vxlan().inner_mtu(), 1450, "the number everybody knows");
}

#[test]
fn the_path_limits_a_frame_or_the_underlay_where_none_is_known() {
    let tunnel = vxlan();
    for (path, limit) in [(0, 1464), (1500, 1464), (1400, 1364), (9000, 8964), (36, 0), (35, 0), (1, 0)] {
        assert_eq!(tunnel.frame_limit(path), limit, "{path}");
    }
    let narrow = Tunnel { underlay_mtu: 40, ..vxlan() };
    assert_eq!((narrow.frame_limit(0), narrow.inner_mtu()), (4, 0));
}

#[test]
fn the_header_is_what_stands_on_the_wire() {
    let mut out = [0xee; MAX_HEADER];
    assert_eq!(vxlan().write_header(vni(0x0a_0b_0c), &mut out), 8);
    assert_eq!(out[..9], [8, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0, 0xee]);
    let gbp = vxlan::Gbp { group: 0x1234, ..vxlan::Gbp::default() };
    let grouped = Tunnel { encap: Encap::Vxlan { gbp: Some(gbp) }, ..vxlan() };
    assert_eq!(grouped.write_header(vni(1), &mut out), 8);
    assert_eq!(out[..8], [0x88, 0, 0x12, 0x34, 0, 0, 1, 0]);
    assert_eq!(geneve(&["0102:80:00001111"]).write_header(vni(1010), &mut out), 16);
    assert_eq!(out[..16], [2, 0x40, 0x65, 0x58, 0, 3, 0xf2, 0, 1, 2, 0x80, 1, 0, 0, 0x11, 0x11]);
}

/// A packet with a type of service (or traffic class) and a TTL (or hop limit).
fn marked(v6: bool, tags: &[[u16; 2]], tos: u8, ttl: u8) -> Vec<u8> {
    if v6 {
        let mut packet = ipv6(59, &[0; 20]);
        (packet[0], packet[1], packet[7]) = (0x60 | tos >> 4, tos << 4, ttl);
        return ethernet(tags, EtherType::IPV6, &packet);
    }
    let mut packet = ipv4(253, &[0; 20]);
    (packet[1], packet[8]) = (tos, ttl);
    ethernet(tags, EtherType::IPV4, &packet)
}

/// "In normal mode the encapsulator copies the inner ECN field" whatever the DSCP beside it is (RFC 6040 §4.1).
#[test]
fn the_outer_header_inherits_what_it_is_told_to_and_the_congestion_field_always() {
    use Inherit::{Fixed, Inherit as Inner};
    let arp = ethernet(&[], EtherType(0x0806), &[0; 46]);
    for v6 in [false, true] {
        for tags in [&[][..], &[[0x8100, 7]]] {
            for ecn in 0..4 {
                let frame = marked(v6, tags, 0xb8 | ecn, 3);
                for (tos, ttl, expected) in [
                    (Fixed(0), Fixed(64), (ecn, 64)),
                    (Fixed(0x28), Fixed(1), (0x28 | ecn, 1)),
                    (Fixed(0x2b), Fixed(1), (0x28 | ecn, 1)),
                    (Inner, Inner, (0xb8 | ecn, 3)),
                ] {
                    let OuterFields { tos, ttl } = Tunnel { tos, ttl, ..vxlan() }.outer_fields(&frame);
                    assert_eq!((tos, ttl), expected, "ECN {ecn}");
                }
            }
        }
    }
    let inherited = Tunnel { tos: Inner, ttl: Inner, ..vxlan() };
    assert_eq!(inherited.outer_fields(&arp), OuterFields { tos: 0, ttl: DEFAULT_TTL });
    assert_eq!(
        inherited.outer_fields(&arp[..13]),
        OuterFields { tos: 0, ttl: DEFAULT_TTL },
        "a broken frame"
    );
}

#[test]
fn an_outer_packet_may_be_fragmented_where_the_tunnel_or_the_inner_packet_says_so() {
    let packet = |df| {
        let mut packet = ipv4(253, &[0; 20]);
        packet[6] = df;
        packet
    };
    let tags = [[0x88a8, 5], [0x8100, 7]];
    for (what, frame, as_inner) in [
        ("DF", ethernet(&[], EtherType::IPV4, &packet(0x40)), false),
        ("no DF", ethernet(&[], EtherType::IPV4, &packet(0)), true),
        ("no DF behind tags", ethernet(&tags, EtherType::IPV4, &packet(0)), true),
        ("DF behind tags", ethernet(&tags, EtherType::IPV4, &packet(0x40)), false),
        ("more fragments", ethernet(&[], EtherType::IPV4, &packet(0x20)), true),
        ("IPv6, that routers never fragment", ethernet(&[], EtherType::IPV6, &ipv6(59, &[])), false),
        ("no packet", ethernet(&[], EtherType(0x88b5), &[0; 46]), false),
        ("a cut header", ethernet(&[], EtherType::IPV4, &packet(0)[..6]), false),
    ] {
        let asked = |df| Tunnel { df, ..vxlan() }.may_fragment(&frame, 12);
        let all = [Fragmentation::Allowed, Fragmentation::Forbidden, Fragmentation::AsInner].map(asked);
        assert_eq!(all, [true, false, as_inner], "{what}");
    }
}
