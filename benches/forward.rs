//! The packet path in memory: what one frame costs between receive and send.
//!
//! Names are `forward/case/FDB entries`; throughput is in frames.

use std::{hint::black_box, sync::Arc};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tapway_dataplane::{
    bridge::{Member, Members, VlanMode},
    fdb::{Dest, EntryKind, Fdb, FdbKey},
    forward::{Env, Scratch, Silent, TxPlan, forward},
    frame::{BATCH, Batch, Offload},
    index::{BridgeIdx, PortIdx},
    snapshot::{Bridge, Port, Snapshot},
    tick::Tick,
    wire::{MacAddr, Vid},
};

fn port(vlan: VlanMode) -> Port {
    Port { vlan, ..Port::new(BridgeIdx(0), 1) }
}

fn station(side: u8, n: usize) -> MacAddr {
    let [.., a, b, c, d] = n.to_be_bytes();
    MacAddr::from_octets([2, side, a, b, c, d])
}

/// A bridge that knows `entries` stations, half behind port 0, half behind port 1.
fn switch(vlans: Vec<VlanMode>, vlan: u16, entries: usize) -> Snapshot {
    let ports: Vec<Port> = vlans.into_iter().map(port).collect();
    let indexed: Vec<(usize, &Port)> = ports.iter().enumerate().collect();
    let members = Members::new(&indexed, ports.iter().flat_map(|p| p.vlan.named()), |(n, p), vlan| {
        let tagged = p.vlan.tags(vlan)?;
        let classes = Member::classes(true, true, true);
        Some(Member { port: PortIdx(*n as u16), tagged, classes, isolated: false })
    });
    let fdb = Fdb::new(entries as u32 + 1024).expect("memory");
    for n in 0..entries / 2 {
        for side in [0, 1] {
            let dest = Dest::port(PortIdx(side));
            let key = FdbKey::new(vlan, station(side as u8, n));
            fdb.insert(key, dest, EntryKind::Dynamic, Tick::from_secs(1)).expect("room");
        }
    }
    let bridge = Arc::new(Bridge { fdb: Arc::new(fdb), members, neighbours: Arc::default() });
    Snapshot {
        generation: 1,
        bridges: vec![Some(bridge)],
        ports: ports.into_iter().map(Some).collect(),
        ..Snapshot::default()
    }
}

/// Batches of frames from stations of port 0 to stations of port 1, all different, in no order that a cache could learn.
fn batches(entries: usize, broadcast: bool) -> Vec<Batch> {
    let mut n = 1usize;
    let mut next = || {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (n >> 33) % (entries / 2)
    };
    (0..32)
        .map(|_| {
            let mut batch = Batch::new();
            for _ in 0..BATCH {
                let to = if broadcast { MacAddr::BROADCAST } else { station(1, next()) };
                let frame = [&to.octets()[..], &station(0, next()).octets(), &[8, 0], &[0; 46]].concat();
                assert!(batch.append(&frame, Offload::NONE));
            }
            batch
        })
        .collect()
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward");
    group.throughput(Throughput::Elements(BATCH as u64));
    let access = || VlanMode::Access(Vid::new(10).expect("10 is a VLAN"));
    let trunk = || VlanMode::Trunk { tagged: Arc::new("1-100".parse().expect("a list")), native: None };
    let cases = [
        ("transparent", vec![VlanMode::Transparent, VlanMode::Transparent], 0, 10_000, false),
        ("access-to-trunk", vec![access(), trunk()], 10, 10_000, false),
        ("access-to-trunk", vec![access(), trunk()], 10, 1_000_000, false),
        ("flood-8", vec![VlanMode::Transparent; 9], 0, 10_000, true),
    ];
    for (name, ports, vlan, entries, broadcast) in cases {
        let snapshot = switch(ports, vlan, entries);
        let mut batches = batches(entries, broadcast);
        let (mut scratch, mut plan) = (Scratch::default(), TxPlan::default());
        let env = Env { snapshot: &snapshot, worker: 0, now: Tick::from_secs(1) };
        let mut at = 0;
        group.bench_function(BenchmarkId::new(name, entries), |b| {
            b.iter(|| {
                plan.clear();
                at = (at + 1) % batches.len();
                forward(&env, PortIdx(0), &mut batches[at], &mut scratch, &mut plan, &mut Silent);
                black_box(plan.frames().len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
