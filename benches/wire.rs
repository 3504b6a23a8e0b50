//! Reading headers: how long it takes to find the layers of a frame.
//!
//! Names are stage/case/size; a case without a size does not depend on it.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tapway_dataplane::{bridge::secure::Secure, wire::Layers};

#[path = "frames/mod.rs"]
mod frames;

fn layers(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/layers");
    for (case, frame) in [
        ("arp", frames::arp()),
        ("tcp4", frames::tcp4(&[], 100)),
        ("tcp4-qinq", frames::tcp4(&[[0x88a8, 7], [0x8100, 9]], 100)),
        ("tcp6", frames::tcp6(&[], 100)),
        ("tcp6-options", frames::tcp6(&[60, 43], 100)),
    ] {
        assert!(Layers::parse(&frame).is_ok());
        group.bench_function(case, |b| b.iter(|| Layers::parse(black_box(&frame))));
    }
    group.finish();
}

fn secure(c: &mut Criterion) {
    let mut group = c.benchmark_group("bridge/secure");
    let secure =
        Secure { mac: frames::SOURCE, ips: [frames::SOURCE_V4.into(), frames::SOURCE_V6.into()].into() };
    for (case, frame) in
        [("arp", frames::arp()), ("tcp4", frames::tcp4(&[], 100)), ("tcp6", frames::tcp6(&[], 100))]
    {
        assert_eq!(secure.check(&frame, 12), Ok(()));
        group.bench_function(case, |b| b.iter(|| secure.check(black_box(&frame), 12)));
    }
    group.finish();
}

criterion_group!(benches, layers, secure);
criterion_main!(benches);
