//! A frame of any octets at a bridge with neighbours, and before a tunnel that it does not fit: what is written in answer goes to
//! its sender, is believed by who receives it, and draws no further answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tapway_dataplane::{
    bridge::{
        Neighbours,
        neigh::{MAX_ANSWER, Snoop, concerns},
    },
    offload::checksum,
    overlay::too_big,
    tick::Tick,
    wire::{
        Layers, MacAddr,
        layers::{Ip, Version},
    },
};

const MAC: MacAddr = MacAddr::from_octets([2, 0, 0, 0, 0, 7]);
const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

pub fn run(frame: &[u8]) {
    for type_at in [12, 16] {
        answer_and_snoop(frame, type_at);
        for mtu in [575, 1400, 70_000] {
            too_big(frame, type_at, mtu);
        }
    }
}

fn answer_and_snoop(frame: &[u8], type_at: usize) {
    let now = Tick::from_secs(1);
    let neighbours = Neighbours::new();
    for ip in [V4, V6] {
        neighbours.insert_static(0, ip, MAC, now).expect("two are below the limit");
    }
    neighbours.set_snooping(true);
    let mut reply = [0; MAX_ANSWER];
    let answer = neighbours.answer(0, frame, type_at, &mut reply);
    let snoop = neighbours.snoop(0, frame, type_at, now);
    let concerned = answer.is_some() || snoop != Snoop::Nothing;
    assert!(concerns(frame, type_at) || !concerned, "the cheap test misses a message");
    for neighbour in neighbours.list() {
        assert!(neighbour.mac.is_station() && !neighbour.ip.is_multicast() && !neighbour.ip.is_unspecified());
    }
    let Some(answer) = answer else { return };
    let reply = &reply[..answer.len];
    assert_eq!((&reply[..6], &reply[6..12]), (&frame[6..12], &MAC.octets()[..]));
    assert_eq!(reply[12..type_at], frame[12..type_at]);
    // Whoever hears it learns the neighbour of it, checksum and all.
    assert_eq!(neighbours.snoop(0, reply, type_at, now), Snoop::Known);
    assert_eq!(neighbours.answer(0, reply, type_at, &mut [0; MAX_ANSWER]), None);
}

fn too_big(frame: &[u8], type_at: usize, mtu: u32) {
    let mut out = [0; too_big::MAX_REPLY];
    let Some(len) = too_big::reply(frame, type_at, mtu, &mut out) else { return };
    let reply = &out[..len];
    assert_eq!((&reply[..6], &reply[6..12]), (&frame[6..12], &frame[..6]));
    let layers = Layers::parse_at(reply, type_at).expect("a message parses");
    let Some(Ip { version, l4, end, .. }) = layers.ip else { panic!("a message is an IP packet") };
    assert_eq!(end, len);
    let sum = match version {
        Version::V4 => {
            assert_eq!(checksum::sum(&reply[layers.l3..l4]), 0xffff);
            checksum::sum(&reply[l4..])
        }
        Version::V6 => {
            let pseudo =
                [&reply[layers.l3 + 8..layers.l3 + 40], &((len - l4) as u32).to_be_bytes(), &[0, 0, 0, 58]];
            checksum::sum(&[&pseudo.concat()[..], &reply[l4..]].concat())
        }
    };
    assert_eq!(sum, 0xffff);
    assert_eq!(too_big::reply(reply, type_at, mtu, &mut [0; too_big::MAX_REPLY]), None);
}
