//! Any octets as a packet from a tunnel, as its header alone, and as the frame inside: what is taken can be written again and is then the
//! same, nothing reaches beyond the end, and a mark changes nothing but the mark.

use tapway_dataplane::{
    offload::checksum,
    overlay::{
        Ecn, ecn, entropy, flow_hash,
        outer::{self, Addresses, Df, Fields, MAX_LEN, Outer, UdpChecksum},
    },
    wire::{
        Geneve, Layers, MacAddr, Vxlan,
        geneve::{self, GeneveOption, RawOptions},
        layers::Version,
        vxlan::{Reserved, Rules},
    },
};

pub fn run(input: &[u8]) {
    vxlan(input);
    geneve(input);
    inner(input);
    for super_frame in [false, true] {
        let Ok(inbound) = outer::parse(input, super_frame) else { continue };
        let payload = &input[inbound.payload.clone()];
        rewrite(input, &inbound);
        vxlan(payload);
        geneve(payload);
        inner(payload.get(8..).unwrap_or_default());
    }
}

fn vxlan(bytes: &[u8]) {
    for gbp in [false, true] {
        let loose = Vxlan::parse(bytes, Rules { reserved: Reserved::Ignore, gbp });
        let strict = Vxlan::parse(bytes, Rules { reserved: Reserved::Refuse, gbp });
        assert!(strict.is_err() || strict == loose, "fewer rules read something else");
        if let Ok(header) = loose {
            let again = Rules { reserved: Reserved::Refuse, gbp: true };
            assert_eq!(Vxlan::parse(&header.to_bytes(), again), Ok(header));
        }
    }
}

fn geneve(bytes: &[u8]) {
    for known in [&[][..], &[(0x0102, 0x80), (0, 0xff)]] {
        let Ok(header) = Geneve::parse(bytes, known) else { continue };
        assert_eq!(header.header_len, geneve::LEN + header.options.len());
        assert!(header.header_len <= bytes.len());
        let list: Vec<_> = RawOptions::new(header.options)
            .map(|o| o.expect("parse has walked them"))
            .map(|o| GeneveOption::new(o.class, o.kind, o.data).expect("what came in can go out"))
            .collect();
        let options = geneve::options(&list).expect("what came in one header fits one");
        let mut out = [0; geneve::LEN + geneve::MAX_OPTIONS];
        let len = Geneve::emit(header.vni, &options, &mut out).expect("there is room");
        let again = Geneve::parse(&out[..len], known).expect("what was taken is taken again");
        assert_eq!((again.vni, again.critical, again.header_len), (header.vni, header.critical, len));
        for option in list {
            assert_eq!(option.to_string().parse::<GeneveOption>(), Ok(option));
        }
    }
}

/// The frame as one that is about to be sent, or has been received.
fn inner(frame: &[u8]) {
    let hash = flow_hash(frame);
    assert!(entropy::DYNAMIC_PORTS.contains(&entropy::source_port(hash, &entropy::DYNAMIC_PORTS)));
    let before = ecn::of(frame);
    for mark in [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce] {
        let mut marked = frame.to_vec();
        ecn::mark(&mut marked, mark);
        assert_eq!(ecn::of(&marked), before.map(|(tos, ttl)| (mark.in_tos(tos), ttl)));
        assert_eq!(flow_hash(&marked), hash, "a mark moves no flow");
        let differ = frame.iter().zip(&marked).filter(|(a, b)| a != b).count();
        assert!(differ <= if before.is_some() { 3 } else { 0 });
        // A header whose checksum held still has one that holds.
        if let Ok(Layers { l3, ip: Some(ip), .. }) = Layers::parse(frame)
            && ip.version == Version::V4
        {
            let sum = |frame: &[u8]| checksum::sum(&frame[l3..l3 + 4 * usize::from(frame[l3] & 0xf)]);
            assert_eq!(sum(frame) == 0xffff, sum(&marked) == 0xffff);
        }
    }
}

/// What was read of a packet makes a packet of which the same is read.
fn rewrite(frame: &[u8], inbound: &outer::Inbound) {
    let addresses = match (inbound.source, inbound.destination) {
        (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
            Addresses::V4 { source, destination }
        }
        (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => {
            Addresses::V6 { source, destination }
        }
        _ => panic!("two families in one packet"),
    };
    let fields = Fields { source_port: inbound.source_port, tos: inbound.tos, ttl: inbound.ttl, df: Df::Set };
    let payload = &frame[inbound.payload.clone()];
    let outer = Outer::new(MacAddr::ZERO, MacAddr::BROADCAST, addresses, inbound.destination_port);
    let mut out = [0; MAX_LEN];
    let len = outer
        .write(&fields, payload.len(), UdpChecksum::Complete(&[payload]), &mut out)
        .expect("there is room");
    let again = [&out[..len], payload].concat();
    let read = outer::parse(&again, payload.len() > outer.max_payload()).expect("what was written is read");
    assert!(read.has_checksum && outer::verify(&again, &read));
    assert_eq!(&again[read.payload.clone()], payload);
    let expected = outer::Inbound { payload: read.payload.clone(), has_checksum: true, ..inbound.clone() };
    assert_eq!(read, expected);
    // Whether or not it holds, it can be asked.
    outer::verify(frame, inbound);
}
