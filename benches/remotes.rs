//! The remote table: what a worker pays to turn the outer source of a frame into an index, by the number of remotes it hears in turn.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tapway_dataplane::{
    index::VtepIdx,
    overlay::remotes::{RemoteCache, Remotes},
    tick::Tick,
};

fn hit(c: &mut Criterion) {
    let mut group = c.benchmark_group("remotes/hit");
    group.throughput(Throughput::Elements(1));
    for count in [1u32, 1000] {
        let remotes = Remotes::default();
        let mut cache = RemoteCache::default();
        // 198.18.0.0/15 is for benchmarks (RFC 2544).
        let mut heard: Vec<IpAddr> =
            (0..count).map(|n| Ipv4Addr::from_bits(0xc612_0000 + n).into()).collect();
        heard.sort_by_key(|ip| match ip {
            IpAddr::V4(ip) => ip.to_bits().wrapping_mul(0x9e37_79b9),
            IpAddr::V6(_) => 0,
        });
        let mut next = heard.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                let ip = next.next().copied()?;
                cache.index(&remotes, VtepIdx(0), black_box(ip), Tick::default())
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = hit
}
criterion_main!(benches);
