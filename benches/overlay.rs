//! What a tunnel costs a frame: headers read and written, the hash of its flow, congestion marks, the outer headers of an uplink; and the
//! whole path of small frames into tunnels and out of them.
//!
//! Names are stage/case/size; a case without a size does not depend on it.

use std::{
    hint::black_box,
    net::{Ipv4Addr, Ipv6Addr},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tapway_dataplane::{
    overlay::{
        Ecn, Outer, ecn, flow_hash,
        outer::{self, Addresses, Df, Fields, MAX_LEN, UdpChecksum},
    },
    wire::{
        Geneve, MacAddr, Vni, Vxlan, geneve,
        vxlan::{self, Gbp, Reserved, Rules},
    },
};

#[path = "frames/mod.rs"]
mod frames;
#[path = "overlay/path.rs"]
mod path;

const VNI: Vni = Vni::new(1010).unwrap();

fn vxlan_header(c: &mut Criterion) {
    let gbp = Some(Gbp { group: 7, ..Gbp::default() });
    let mut group = c.benchmark_group("wire/vxlan");
    for (case, rules, header) in [
        ("plain", Rules::default(), Vxlan { vni: VNI, gbp: None }),
        ("gbp-strict", Rules { reserved: Reserved::Refuse, gbp: true }, Vxlan { vni: VNI, gbp }),
    ] {
        let bytes = header.to_bytes();
        assert_eq!(Vxlan::parse(&bytes, rules), Ok(header));
        // As one number: a bench that stores what was read, part by part, waits for its own stores.
        group.bench_function(format!("parse/{case}"), |b| {
            b.iter(|| {
                let header = Vxlan::parse(black_box(&bytes), rules);
                header.map_or(0, |h| h.vni.get() ^ h.gbp.map_or(0, |g| u32::from(g.group) << 8))
            });
        });
        group.bench_function(format!("emit/{case}"), |b| b.iter(|| black_box(header).to_bytes()));
    }
    group.finish();
}

fn geneve_header(c: &mut Criterion) {
    let known = [(0x0102, 0x80), (0x0102, 0x81)];
    let mut group = c.benchmark_group("wire/geneve");
    for (case, words) in [
        ("no-options", &[][..]),
        ("one-option", &["0102:80:00001111"]),
        ("four-options", &["0102:80:00001111", "0102:81:0000000000000001", "0103:02:", "0104:03:0a0b0c0d"]),
    ] {
        let list: Vec<_> = words.iter().map(|w| w.parse().unwrap()).collect();
        let options = geneve::options(&list).unwrap();
        let mut out = [0; 64];
        assert!(Geneve::emit(VNI, &options, &mut out).is_some() && Geneve::parse(&out, &known).is_ok());
        let bytes = out;
        group.bench_function(format!("parse/{case}"), |b| {
            b.iter(|| {
                Geneve::parse(black_box(&bytes), black_box(&known)).map(|h| (h.vni.get(), h.header_len))
            });
        });
        group.bench_function(format!("emit/{case}"), |b| {
            b.iter(|| Geneve::emit(black_box(VNI), black_box(&options), black_box(&mut out)));
        });
    }
    group.finish();
}

fn flow(c: &mut Criterion) {
    let mut group = c.benchmark_group("overlay/flow_hash");
    for (case, frame) in [
        ("arp", frames::arp()),
        ("tcp4", frames::tcp4(&[], 100)),
        ("tcp4-tagged", frames::tcp4(&[[0x8100, 7]], 100)),
        ("tcp6", frames::tcp6(&[], 100)),
        ("tcp6-options", frames::tcp6(&[60, 43], 100)),
    ] {
        group.bench_function(case, |b| b.iter(|| flow_hash(black_box(&frame))));
    }
    group.finish();
}

fn marks(c: &mut Criterion) {
    let mut group = c.benchmark_group("overlay/ecn");
    for (case, frame) in [("tcp4", frames::tcp4(&[], 100)), ("tcp6", frames::tcp6(&[], 100))] {
        assert!(ecn::of(&frame).is_some());
        group.bench_function(format!("of/{case}"), |b| b.iter(|| ecn::of(black_box(&frame))));
        let mut marked = frame;
        let mut turn = [Ecn::Ce, Ecn::Ect0].into_iter().cycle();
        group.bench_function(format!("mark/{case}"), |b| {
            b.iter(|| ecn::mark(black_box(&mut marked), turn.next().unwrap_or_default()));
        });
    }
    group.finish();
}

fn outer_headers(c: &mut Criterion) {
    let v4 = Addresses::V4 { source: frames::SOURCE_V4, destination: Ipv4Addr::new(203, 0, 113, 2) };
    let v6 = Addresses::V6 {
        source: frames::SOURCE_V6,
        destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2),
    };
    let fields = Fields { source_port: 50000, tos: 0, ttl: 64, df: Df::Set };
    let payload = [7; 1500];
    let mut group = c.benchmark_group("overlay/outer");
    for (case, addresses) in [("ipv4", v4), ("ipv6", v6)] {
        let outer = Outer::new(frames::SOURCE, MacAddr::BROADCAST, addresses, vxlan::PORT);
        let mut out = [0; MAX_LEN];
        for (checksum, name) in [(UdpChecksum::Zero, "zero"), (UdpChecksum::Partial, "partial")] {
            group.bench_function(format!("write-{name}/{case}"), |b| {
                b.iter(|| outer.write(black_box(&fields), black_box(1500), checksum, black_box(&mut out)));
            });
        }
        let len = outer.write(&fields, 1500, UdpChecksum::Complete(&[&payload]), &mut out).unwrap();
        let frame = [&out[..len], &payload].concat();
        let inbound = outer::parse(&frame, false).unwrap();
        assert!(outer::verify(&frame, &inbound));
        group.bench_function(format!("parse/{case}"), |b| {
            b.iter(|| outer::parse(black_box(&frame), false).map(|i| (i.source_port, i.payload.start)))
        });
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(format!("write-complete/{case}/1500"), |b| {
            b.iter(|| {
                let checksum = UdpChecksum::Complete(&[black_box(&payload)]);
                outer.write(black_box(&fields), payload.len(), checksum, black_box(&mut out))
            });
        });
        group.bench_function(format!("verify/{case}/1500"), |b| {
            b.iter(|| outer::verify(black_box(&frame), black_box(&inbound)));
        });
    }
    group.finish();
}

criterion_group!(benches, vxlan_header, geneve_header, flow, marks, outer_headers, path::path);
criterion_main!(benches);
