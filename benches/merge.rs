//! What receiving costs behind a tunnel: verifying segments, and merging them into super-frames.
//!
//! Names are stage/case/size, size being frames and octets of payload of each; throughput is in frames.
//! Before each run the frames are written anew, as a receive does, so they are where it leaves them in the caches.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tapway_dataplane::{
    frame::{BATCH, Batch, Checksum, Gso, GsoKind, Offload},
    offload::{Limits, MAX_HEADERS, Split, merge, verify},
};

#[path = "frames/mod.rs"]
mod frames;

const LIMITS: Limits = Limits { mtu: 1500, udp: true };
/// Octets in front of each frame of a datagram: the header of VXLAN.
const TUNNEL_HEADER: usize = 8;

/// A super-frame of UDP over IPv4.
fn udp4(ports: u16, segments: usize, size: usize) -> (Vec<u8>, Offload) {
    let payload = segments * size;
    let mut frame = frames::tcp4(&[], 0);
    frame.truncate(34);
    frame[16..18].copy_from_slice(&(28 + payload as u16).to_be_bytes());
    frame[23] = 17;
    for word in [ports, 4000, 8 + payload as u16, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend((0..payload).map(|n| (n * 7) as u8));
    let csum = Checksum::Partial { start: 34, offset: 6 };
    let gso = Gso { kind: GsoKind::Udp, size: size as u16, hdr_len: 42, ecn: false };
    (frame, Offload { csum, gso: Some(gso) })
}

fn segments((frame, offload): &(Vec<u8>, Offload)) -> Vec<Vec<u8>> {
    let split = Split::plan(frame, offload).expect("a super-frame");
    let mut header = [0; MAX_HEADERS];
    (0..split.count())
        .map(|n| {
            let payload = split.segment(n, &mut header);
            [&header[..split.header_len()], &frame[payload]].concat()
        })
        .collect()
}

/// The frames as receives leave them that bring `together` at a time: those in one slot, each behind a header of the tunnel.
fn receive(batch: &mut Batch, frames: &[Vec<u8>], together: usize) {
    batch.clear();
    for (slot, frames) in frames.chunks(together).enumerate() {
        let mut at = Batch::slot_at(slot);
        for frame in frames {
            at += TUNNEL_HEADER;
            let range = at..at + frame.len();
            batch.memory_mut()[range.clone()].copy_from_slice(frame);
            at = range.end;
            batch.push_at(range, Offload::NONE, None);
        }
    }
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    let tcp4 = segments(&(frames::tcp4(&[], 45 * 1448), frames::super_frame(GsoKind::TcpV4, 1448)));
    let tcp6 = segments(&(frames::tcp6(&[], 45 * 1428), frames::super_frame(GsoKind::TcpV6, 1428)));
    let udp = segments(&udp4(5000, BATCH, 64));
    let flows: Vec<_> = (0..BATCH).flat_map(|n| segments(&udp4(5000 + n as u16, 1, 64))).collect();
    let turns: Vec<_> =
        (0..BATCH).map(|n| segments(&udp4(5000 + n as u16 % 8, 8, 64)).remove(n / 8)).collect();
    for (case, frames, together, left) in [
        ("tcp/45x1448", &tcp4, BATCH, 1),
        ("tcp6/45x1428", &tcp6, BATCH, 1),
        ("tcp-alone/45x1448", &tcp4, 1, 1),
        ("udp/64x64", &udp, BATCH, 1),
        ("udp-8-flows-alone/64x64", &turns, 1, 8),
        ("none/64x64", &flows, BATCH, BATCH),
    ] {
        let mut batch = Batch::new();
        receive(&mut batch, frames, together);
        merge(&mut batch, &LIMITS);
        assert_eq!(batch.len(), left, "{case}");
        group.throughput(Throughput::Elements(frames.len() as u64));
        group.bench_function(case, |b| {
            b.iter_custom(|runs| {
                (0..runs).fold(Duration::ZERO, |total, _| {
                    receive(&mut batch, frames, together);
                    let start = Instant::now();
                    merge(black_box(&mut batch), black_box(&LIMITS));
                    total + start.elapsed()
                })
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("merge/verify");
    for (case, frame) in [("tcp/1448", &tcp4[0]), ("tcp6/1428", &tcp6[0]), ("udp/64", &udp[0])] {
        assert_eq!(verify(frame, None, &LIMITS).csum, Checksum::Good, "{case}");
        group.bench_function(case, |b| b.iter(|| verify(black_box(frame), None, &LIMITS)));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
