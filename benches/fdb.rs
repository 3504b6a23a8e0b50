//! The forwarding database: lookups, learning and sweeping by the number of entries, with one thread.
//!
//! Every case but `learn-new` is one call on a full table, with the keys in random order, so that a large
//! table misses the caches as it would in use; `learn-new` and `sweep` say what one entry of the whole costs.

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tapway_dataplane::{
    fdb::{Dest, Fdb, FdbKey, Hashed, Learn},
    index::PortIdx,
    tick::Tick,
    wire::ethernet::MacAddr,
};

const SIZES: [(&str, u32); 4] = [("1k", 1_000), ("10k", 10_000), ("64k", 65_536), ("1M", 1_000_000)];
/// Keys that are looked up ahead of the one that is needed.
const BATCH: usize = 64;

fn key(n: u64) -> FdbKey {
    FdbKey::new(1, MacAddr::from_bits(0x0200_0000_0000 | n))
}

fn dest(n: u64) -> Dest {
    Dest::port(PortIdx((n % 16) as u16))
}

/// The numbers from `base` on, `size` of them, in a random order (a multiplicative shuffle, the same every run).
fn shuffled(base: u64, size: u32) -> Vec<u64> {
    let mut order: Vec<_> = (0..u64::from(size)).map(|n| base + n).collect();
    order.sort_by_key(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
    order
}

fn full(size: u32) -> Fdb {
    let fdb = Fdb::new(size).expect("memory for the table");
    for n in 0..u64::from(size) {
        assert_eq!(fdb.learn(key(n), dest(n), 0, Tick::default()), Learn::New);
    }
    fdb
}

fn hit_and_miss(c: &mut Criterion) {
    for (case, base) in [("hit", 0), ("miss", 1 << 32)] {
        let mut group = c.benchmark_group(format!("fdb/{case}"));
        group.throughput(Throughput::Elements(1));
        for (name, size) in SIZES {
            let fdb = full(size);
            let keys = shuffled(base, size);
            let mut next = keys.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter(|| next.next().map(|&n| fdb.lookup(black_box(key(n)))));
            });
        }
    }
}

/// What `warm` is for: the loads of a batch run side by side.
fn hit_warmed(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb/hit-warmed");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, size) in SIZES {
        let fdb = full(size);
        let keys = shuffled(0, size);
        let mut batches = keys.chunks_exact(BATCH).cycle();
        let mut hashed: Vec<Hashed> = Vec::with_capacity(BATCH);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                hashed.clear();
                hashed.extend(batches.next().into_iter().flatten().map(|&n| fdb.prepare(key(n))));
                black_box(hashed.iter().fold(0, |sum, h| sum ^ fdb.warm(h)));
                hashed.iter().filter(|h| black_box(fdb.lookup_hashed(h)).is_some()).count()
            });
        });
    }
}

fn learn_known(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb/learn-known");
    group.throughput(Throughput::Elements(1));
    for (name, size) in SIZES {
        let fdb = full(size);
        let keys = shuffled(0, size);
        let mut next = keys.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| next.next().map(|&n| fdb.learn(black_box(key(n)), dest(n), 0, Tick::default())));
        });
    }
}

fn learn_new(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb/learn-new");
    for (name, size) in SIZES {
        let keys = shuffled(0, size);
        group.throughput(Throughput::Elements(u64::from(size)));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_batched(
                || Fdb::new(size).expect("memory for the table"),
                |fdb| {
                    for &n in &keys {
                        black_box(fdb.learn(key(n), dest(n), 0, Tick::default()));
                    }
                    fdb
                },
                BatchSize::PerIteration,
            );
        });
    }
}

fn sweep(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb/sweep");
    for (name, size) in SIZES {
        let fdb = full(size);
        group.throughput(Throughput::Elements(u64::from(size)));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| while !fdb.sweep(Tick::from_secs(1), Duration::from_secs(300), 4096).done {});
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = hit_and_miss, hit_warmed, learn_known, learn_new, sweep
}
criterion_main!(benches);
