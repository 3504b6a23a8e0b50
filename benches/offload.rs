//! What software has to do where an egress lacks an offload.
//!
//! Names are stage/case/size; a case without a size does not depend on it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tapway_dataplane::{
    frame::GsoKind,
    offload::{MAX_HEADERS, Split, checksum, validate},
};

#[path = "frames/mod.rs"]
mod frames;

/// The payload of the longest super-frame that Linux makes of an MTU of 1500: 45 segments.
const LONGEST: usize = 45 * 1448;

fn sum(c: &mut Criterion) {
    let mut group = c.benchmark_group("offload/checksum");
    for size in [20, 64, 1460, 65536] {
        let bytes: Vec<u8> = (0..size).map(|n| (n * 7) as u8).collect();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(size.to_string(), |b| b.iter(|| checksum::sum(black_box(&bytes))));
        // The reason for a sum of our own.
        group.bench_function(format!("smoltcp/{size}"), |b| {
            b.iter(|| smoltcp::wire::checksum::data(black_box(&bytes)));
        });
    }
    group.finish();
}

fn complete(c: &mut Criterion) {
    let mut group = c.benchmark_group("offload/complete");
    for size in [66, 1514] {
        let mut frame = frames::tcp4(&[], size - 66);
        group.bench_function(format!("tcp4/{size}"), |b| {
            b.iter(|| checksum::complete(black_box(&mut frame), 34, 16));
        });
    }
    group.finish();
}

fn split(c: &mut Criterion) {
    let mut group = c.benchmark_group("offload/split");
    for (case, frame, kind, size) in [
        ("tcp4/64k", frames::tcp4(&[], LONGEST), GsoKind::TcpV4, 1448),
        ("tcp6/64k", frames::tcp6(&[], LONGEST), GsoKind::TcpV6, 1428),
        ("tcp4/64k-mtu9000", frames::tcp4(&[], LONGEST), GsoKind::TcpV4, 8948),
    ] {
        let offload = frames::super_frame(kind, size);
        assert!(Split::plan(&frame, &offload).is_ok());
        group.throughput(Throughput::Bytes(frame.len() as u64));
        let mut header = [0; MAX_HEADERS];
        group.bench_function(case, |b| {
            b.iter(|| {
                let split = Split::plan(black_box(&frame), &offload).unwrap();
                for n in 0..split.count() {
                    black_box(split.segment(n, black_box(&mut header)));
                }
            });
        });
    }
    group.finish();
    let (frame, offload) = (frames::tcp4(&[], LONGEST), frames::super_frame(GsoKind::TcpV4, 1448));
    c.bench_function("offload/plan/tcp4", |b| {
        b.iter(|| Split::plan(black_box(&frame), black_box(&offload)).map(|s| s.count()));
    });
}

fn validation(c: &mut Criterion) {
    let mut group = c.benchmark_group("offload/validate");
    for (case, frame, kind) in [
        ("tcp4", frames::tcp4(&[], LONGEST), GsoKind::TcpV4),
        ("tcp6", frames::tcp6(&[], LONGEST), GsoKind::TcpV6),
    ] {
        let offload = frames::super_frame(kind, 1428);
        assert!(validate(&frame, &offload).is_ok());
        group.bench_function(case, |b| b.iter(|| validate(black_box(&frame), black_box(&offload))));
    }
    group.finish();
}

criterion_group!(benches, sum, complete, split, validation);
criterion_main!(benches);
