use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use proptest::prelude::*;

use super::{
    table::{MAX_REACH, REGION},
    *,
};
use crate::wire::ethernet::MacAddr;

fn key(n: u64) -> FdbKey {
    FdbKey::new(0, MacAddr::from_bits(0x0200_0000_0000 | n))
}

fn port(n: u16) -> Dest {
    Dest::port(PortIdx(n))
}

fn at(secs: u64) -> Tick {
    Tick::from_secs(secs)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn fdb(limit: u32) -> Fdb {
    Fdb::new(limit).unwrap()
}

fn dump(fdb: &Fdb) -> BTreeMap<FdbKey, Entry> {
    let mut out = Vec::new();
    assert_eq!(fdb.page(Cursor::default(), &mut out, usize::MAX), None);
    let listed = out.len();
    let map: BTreeMap<_, _> = out.into_iter().map(|e| (e.key, e)).collect();
    assert_eq!(map.len(), listed, "an entry was listed twice");
    map
}

fn check(fdb: &Fdb) {
    fdb.table.check();
    fdb.write().check(&fdb.table);
}

/// What a forwarding database is, without any of the care for speed.
struct Model {
    limit: usize,
    entries: BTreeMap<FdbKey, Entry>,
}

impl Model {
    fn port_len(&self, port: PortIdx) -> usize {
        self.entries.values().filter(|e| e.kind == EntryKind::Dynamic && e.dest.port == port).count()
    }

    fn pinned(&self) -> usize {
        self.entries.values().filter(|e| e.kind != EntryKind::Dynamic).count()
    }

    /// The fair share in a full table, once `dest` has an entry of `kind` more; `None` if it may not have it.
    fn share(&self, dest: Dest, kind: EntryKind) -> Option<usize> {
        let mut held: HashMap<PortIdx, usize> = HashMap::new();
        for e in self.entries.values().filter(|e| e.kind == EntryKind::Dynamic) {
            *held.entry(e.dest.port).or_default() += 1;
        }
        let places = self.limit - self.pinned();
        if kind == EntryKind::Dynamic {
            let own = *held.entry(dest.port).or_default();
            let share = (places / held.len()).max(1);
            (own < share && held.values().any(|&n| n > share)).then_some(share)
        } else {
            // Whatever the shares, an operator's entry finds room where there is a dynamic one.
            (!held.is_empty()).then(|| (places - 1) / held.len())
        }
    }

    /// Makes room as the table did: whichever it evicted must have been evictable.
    fn evict(&mut self, share: usize, after: &BTreeMap<FdbKey, Entry>) {
        let gone: Vec<_> = self.entries.keys().filter(|k| !after.contains_key(k)).copied().collect();
        assert_eq!(gone.len(), 1, "one in, one out");
        let gone = self.entries[&gone[0]];
        assert_eq!(gone.kind, EntryKind::Dynamic, "only dynamic entries are evicted");
        assert!(self.port_len(gone.dest.port) > share, "{gone:?} was within its port's share");
        self.entries.remove(&gone.key);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Learn { key: u64, dest: Dest, port_limit: u32 },
    Insert { key: u64, dest: Dest, kind: EntryKind },
    Remove { key: u64 },
    Flush(Flush),
    Sweep { ageing: u64, budget: usize },
    Wait { secs: u64 },
}

/// Few keys and ports, so that everything collides with everything.
fn any_key() -> impl Strategy<Value = u64> {
    0..40u64
}

fn model_key(n: u64) -> FdbKey {
    FdbKey::new((n % 3) as u16, MacAddr::from_bits(0x0200_0000_0000 | (n / 3)))
}

fn any_dest() -> impl Strategy<Value = Dest> {
    (0..5u16, prop::option::weighted(0.3, 0..2u16))
        .prop_map(|(p, r)| Dest { port: PortIdx(p), remote: r.map(RemoteIdx) })
}

fn any_flush() -> impl Strategy<Value = Flush> {
    (
        prop::option::of(0..5u16),
        prop::option::of(0..3u16),
        prop::option::weighted(0.3, 0..2u16),
        any::<bool>(),
    )
        .prop_map(|(port, vlan, remote, all)| Flush {
            port: port.map(PortIdx),
            vlan,
            remote: remote.map(RemoteIdx),
            kinds: if all { FlushKinds::All } else { FlushKinds::Dynamic },
        })
}

fn any_op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        1 => Just(EntryKind::Dynamic),
        2 => Just(EntryKind::Static),
        2 => Just(EntryKind::Sticky),
    ];
    prop_oneof![
        24 => (any_key(), any_dest(), prop_oneof![3 => Just(0), 1 => 1..6u32])
            .prop_map(|(key, dest, port_limit)| Op::Learn { key, dest, port_limit }),
        3 => (any_key(), any_dest(), kind).prop_map(|(key, dest, kind)| Op::Insert { key, dest, kind }),
        4 => any_key().prop_map(|key| Op::Remove { key }),
        1 => any_flush().prop_map(Op::Flush),
        3 => (0..6u64, 1..8usize).prop_map(|(ageing, budget)| Op::Sweep { ageing, budget }),
        3 => (1..4u64).prop_map(|secs| Op::Wait { secs }),
    ]
}

fn run(limit: u32, start: u64, ops: Vec<Op>) {
    let fdb = fdb(limit);
    let mut model = Model { limit: limit as usize, entries: BTreeMap::new() };
    let mut now = at(start);
    for op in ops {
        let stamp_secs = now.secs() & 0x0fff_ffff;
        match op.clone() {
            Op::Learn { key, dest, port_limit } => {
                let key = model_key(key);
                let over = port_limit != 0 && model.port_len(dest.port) >= port_limit as usize;
                let got = fdb.learn(key, dest, port_limit, now);
                let full = model.entries.len() == model.limit;
                let share = model.share(dest, EntryKind::Dynamic);
                let entry = Entry { key, dest, kind: EntryKind::Dynamic, stamp_secs, damped: false };
                let expected = match model.entries.get_mut(&key) {
                    Some(old) if old.dest == dest => {
                        old.stamp_secs = stamp_secs;
                        Learn::Known
                    }
                    Some(old) if old.kind == EntryKind::Sticky => Learn::Refused(LearnRefusal::Sticky),
                    Some(old) if over && old.kind == EntryKind::Dynamic && old.dest.port != dest.port => {
                        Learn::Refused(LearnRefusal::PortLimit)
                    }
                    Some(old) => {
                        let from = old.dest;
                        *old = Entry { kind: old.kind, ..entry };
                        Learn::Moved { from }
                    }
                    None if over => Learn::Refused(LearnRefusal::PortLimit),
                    None if full && share.is_none() => Learn::Refused(LearnRefusal::TableFull),
                    None => {
                        if full {
                            model.evict(share.unwrap(), &dump(&fdb));
                        }
                        model.entries.insert(key, entry);
                        Learn::New
                    }
                };
                assert_eq!(got, expected, "{op:?}");
            }
            Op::Insert { key, dest, kind } => {
                let key = model_key(key);
                let got = fdb.insert(key, dest, kind, now);
                let old = model.entries.get(&key).copied();
                let full = model.entries.len() == model.limit;
                let share = model.share(dest, kind);
                let expected = if old.is_none() && full && share.is_none() {
                    Err(TableFull)
                } else {
                    if old.is_none() && full {
                        model.evict(share.unwrap(), &dump(&fdb));
                    }
                    model.entries.insert(key, Entry { key, dest, kind, stamp_secs, damped: false });
                    Ok(old)
                };
                assert_eq!(got, expected, "{op:?}");
            }
            Op::Remove { key } => {
                let key = model_key(key);
                assert_eq!(fdb.remove(key), model.entries.remove(&key));
            }
            Op::Flush(f) => {
                let before = model.entries.len();
                model.entries.retain(|_, e| {
                    let matches = f.port.is_none_or(|p| p == e.dest.port)
                        && f.vlan.is_none_or(|v| v == e.key.vlan())
                        && f.remote.is_none_or(|r| Some(r) == e.dest.remote);
                    !(matches && (f.kinds == FlushKinds::All || e.kind == EntryKind::Dynamic))
                });
                assert_eq!(fdb.flush(&f), before - model.entries.len(), "{f:?}");
            }
            Op::Sweep { ageing, budget } => {
                // Finish the round that is under way with an ageing time that touches nothing, then do a whole one.
                while !fdb.sweep(now, Duration::MAX, budget).done {}
                let mut expired = 0;
                loop {
                    let swept = fdb.sweep(now, secs(ageing), budget);
                    assert!(swept.examined <= budget * SLOTS);
                    expired += swept.expired;
                    if swept.done {
                        break;
                    }
                }
                let before = model.entries.len();
                model
                    .entries
                    .retain(|_, e| e.kind != EntryKind::Dynamic || ageing != 0 && e.age(now) <= secs(ageing));
                assert_eq!(expired, before - model.entries.len(), "{op:?}");
            }
            Op::Wait { secs } => now = now.after(Duration::from_secs(secs)),
        }
        assert_eq!(dump(&fdb), model.entries, "after {op:?}");
        assert_eq!(fdb.len(), model.entries.len());
        for n in 0..40 {
            let key = model_key(n);
            assert_eq!(fdb.lookup(key), model.entries.get(&key).map(|e| e.dest));
            assert_eq!(fdb.get(key), model.entries.get(&key).copied());
        }
        for p in 0..5 {
            assert_eq!(fdb.port_len(PortIdx(p)), model.port_len(PortIdx(p)));
        }
        check(&fdb);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn any_operations_leave_what_the_model_has(
        limit in prop_oneof![4 => 1..32u32, 1 => Just(1000u32)],
        start in prop_oneof![Just(0u64), Just((1 << 28) - 20)],
        ops in prop::collection::vec(any_op(), 1..150),
    ) {
        run(limit, start, ops);
    }
}

#[test]
fn a_limit_out_of_range_is_refused() {
    assert_eq!(Fdb::new(0).unwrap_err(), FdbError::Limit(0));
    assert_eq!(Fdb::new(MAX_LIMIT + 1).unwrap_err(), FdbError::Limit(MAX_LIMIT + 1));
}

#[test]
fn a_full_table_costs_33_octets_an_entry_at_most_and_begins_on_a_page() {
    for limit in [65_536, 1_000_000] {
        let fdb = fdb(limit);
        assert!(fdb.bytes() <= 33 * limit as usize, "{} octets", fdb.bytes());
        assert!(fdb.table.is_aligned());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_empty_table_of_the_greatest_size_uses_no_memory() {
    let resident_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<i64>().unwrap()
    };
    let before = resident_kib();
    let fdb = fdb(MAX_LIMIT);
    assert_eq!(fdb.learn(key(1), port(1), 0, at(0)), Learn::New);
    assert_eq!(dump(&fdb).len(), 1);
    while !fdb.sweep(at(1), secs(300), 100).done {}
    assert_eq!(fdb.flush(&Flush::default()), 1);
    // It would be 512 MiB if anything walked it; other tests run beside this one.
    assert!(resident_kib() - before < 128 * 1024, "{} KiB more", resident_kib() - before);
}

#[test]
fn what_is_known_is_not_written_again_in_the_same_second() {
    let fdb = fdb(64);
    assert_eq!(fdb.learn(key(1), port(1), 0, at(5)), Learn::New);
    // With the lock held by somebody, which learning would wait for.
    let held = fdb.write();
    assert_eq!(fdb.learn(key(1), port(1), 0, at(5)), Learn::Known);
    assert_eq!(fdb.get(key(1)).unwrap().stamp_secs, 5);
    assert_eq!(fdb.learn(key(1), port(1), 0, at(7)), Learn::Known);
    assert_eq!(fdb.get(key(1)).unwrap().stamp_secs, 7);
    // A worker whose batch began earlier does not turn the stamp back.
    assert_eq!(fdb.learn(key(1), port(1), 0, at(6)), Learn::Known);
    assert_eq!(fdb.get(key(1)).unwrap().stamp_secs, 7);
    assert_eq!(fdb.lookup(key(1)), Some(port(1)));
    drop(held);
}

#[test]
fn a_static_entry_moves_and_stays_static_and_a_sticky_one_does_not_move() {
    let fdb = fdb(64);
    fdb.insert(key(1), port(1), EntryKind::Static, at(0)).unwrap();
    fdb.insert(key(2), port(1), EntryKind::Sticky, at(0)).unwrap();
    assert_eq!(fdb.learn(key(1), port(2), 0, at(1)), Learn::Moved { from: port(1) });
    assert_eq!(fdb.get(key(1)).unwrap().kind, EntryKind::Static);
    assert_eq!(fdb.learn(key(2), port(2), 0, at(1)), Learn::Refused(LearnRefusal::Sticky));
    assert_eq!(fdb.learn(key(2), port(1), 0, at(1)), Learn::Known);
    assert_eq!(fdb.lookup(key(2)), Some(port(1)));
    let stats = fdb.stats();
    assert_eq!((stats.moved, stats.refused_sticky, stats.learned), (1, 1, 0));
}

#[test]
fn a_station_does_not_move_to_a_port_at_its_limit() {
    let fdb = fdb(64);
    assert_eq!(fdb.learn(key(1), port(1), 1, at(0)), Learn::New);
    assert_eq!(fdb.learn(key(2), port(2), 1, at(0)), Learn::New);
    assert_eq!(fdb.learn(key(1), port(2), 1, at(0)), Learn::Refused(LearnRefusal::PortLimit));
    assert_eq!(fdb.lookup(key(1)), Some(port(1)));
    // To another remote behind the same port it does: the port holds no more than before.
    let remote = Dest::remote(PortIdx(1), RemoteIdx(3));
    assert_eq!(fdb.learn(key(1), remote, 1, at(0)), Learn::Moved { from: port(1) });
    assert_eq!(fdb.stats().refused_port_limit, 1);
}

#[test]
fn entries_age_out_only_after_more_than_the_ageing_time() {
    let fdb = fdb(64);
    fdb.learn(key(1), port(1), 0, at(100));
    fdb.insert(key(2), port(1), EntryKind::Static, at(100)).unwrap();
    assert_eq!(fdb.sweep(at(400), secs(300), 1000), Swept { examined: 2, expired: 0, done: true });
    assert_eq!(fdb.sweep(at(401), secs(300), 1000), Swept { examined: 2, expired: 1, done: true });
    assert_eq!(fdb.sweep(at(100_000), secs(300), 1000).expired, 0, "static entries do not age");
    fdb.learn(key(1), port(1), 0, at(100));
    // Part of a second counts as a whole one: nothing goes early.
    assert_eq!(fdb.sweep(at(103), Duration::from_millis(2500), 1000).expired, 0);
    assert_eq!(fdb.sweep(at(100_000_000), Duration::MAX, 1000).expired, 0);
    assert_eq!(fdb.sweep(at(100), Duration::ZERO, 1000).expired, 1);
    assert_eq!(fdb.stats().expired, 2);
}

#[test]
fn a_sweep_does_no_more_than_its_budget_and_goes_on_where_it_stopped() {
    let fdb = fdb(10_000);
    for n in 0..10_000 {
        assert_eq!(fdb.learn(key(n), port(1), 0, at(0)), Learn::New);
    }
    let mut calls = 0;
    loop {
        let swept = fdb.sweep(at(1000), secs(10), 100);
        assert!(swept.examined <= 100 * SLOTS);
        calls += 1;
        if swept.done {
            break;
        }
    }
    assert_eq!(calls, 5001usize.div_ceil(100));
    assert!(fdb.is_empty());
    check(&fdb);
    // Now that it is empty, the same round is one call.
    assert_eq!(fdb.sweep(at(1000), secs(10), 100), Swept { examined: 0, expired: 0, done: true });
}

/// The flooder fills the table alone, then ports come that want their share.
#[test]
fn a_port_that_floods_addresses_cannot_push_out_the_others() {
    const LIMIT: u64 = 4096;
    let fdb = fdb(LIMIT as u32);
    let (flooder, victim, late) = (port(1), port(2), port(3));
    for n in 0..1000 {
        assert_eq!(fdb.learn(key(n), victim, 0, at(0)), Learn::New);
    }
    // Static and sticky entries take room from everybody.
    for n in 0..96 {
        fdb.insert(key(5000 + n), victim, EntryKind::Sticky, at(0)).unwrap();
    }
    let mut refused = 0;
    for n in 0..20_000 {
        refused += u64::from(fdb.learn(key(1_000_000 + n), flooder, 0, at(1)) != Learn::New);
    }
    assert_eq!(refused, 20_000 - (LIMIT - 1096));
    assert_eq!(fdb.stats().refused_full, refused);
    assert_eq!(fdb.stats().evicted, 0);

    // A port that comes late gets its share of the 4000 places out of the flooder's.
    let share = 4000 / 3;
    for n in 0..share {
        assert_eq!(fdb.learn(key(10_000 + n), late, 0, at(2)), Learn::New, "entry {n}");
    }
    assert_eq!(fdb.learn(key(20_000), late, 0, at(2)), Learn::Refused(LearnRefusal::TableFull));
    // The flooder goes on, with new addresses and with old ones, and gets nobody's.
    for n in 0..20_000 {
        fdb.learn(key(2_000_000 + n), flooder, 0, at(3));
    }
    assert_eq!(fdb.stats().evicted, share);
    assert_eq!(fdb.port_len(PortIdx(2)), 1000);
    assert_eq!(fdb.port_len(PortIdx(3)), share as usize);
    assert_eq!(fdb.port_len(PortIdx(1)), 4000 - 1000 - share as usize);
    for n in 0..1000 {
        assert_eq!(fdb.lookup(key(n)), Some(victim));
    }
    for n in 0..share {
        assert_eq!(fdb.lookup(key(10_000 + n)), Some(late));
    }
    check(&fdb);
}

#[test]
fn the_oldest_of_the_entries_looked_at_is_evicted() {
    let fdb = fdb(8);
    for n in 0..8 {
        fdb.learn(key(n), port(1), 0, at(100 - n));
    }
    assert_eq!(fdb.learn(key(100), port(2), 0, at(100)), Learn::New);
    assert_eq!(fdb.lookup(key(7)), None);
    assert_eq!(fdb.len(), 8);
}

#[test]
fn a_static_entry_finds_room_unless_all_are_static() {
    let fdb = fdb(100);
    for n in 0..100 {
        fdb.learn(key(n), port(n as u16 / 50), 0, at(0));
    }
    for n in 0..100 {
        assert_eq!(fdb.insert(key(1000 + n), port(9), EntryKind::Static, at(1)), Ok(None));
    }
    assert_eq!(fdb.insert(key(2000), port(9), EntryKind::Static, at(1)), Err(TableFull));
    assert_eq!(fdb.learn(key(2000), port(9), 0, at(1)), Learn::Refused(LearnRefusal::TableFull));
    assert!(dump(&fdb).values().all(|e| e.kind == EntryKind::Static));
    assert_eq!(fdb.stats().evicted, 100);
}

/// Somebody who knew the hash could choose keys of one home bucket. They cost a bounded number of cache lines.
#[test]
fn keys_of_one_home_bucket_are_refused_beyond_the_reach_and_harm_nobody_else() {
    let fdb = fdb(2000);
    let home = 7;
    let colliding = |n: &u64| fdb.table.home_of(key(*n)) == home;
    let chosen: Vec<_> = (0..).filter(colliding).take(MAX_REACH * SLOTS + 20).collect();
    let mut learned = Vec::new();
    for &n in &chosen {
        match fdb.learn(key(n), port(1), 0, at(0)) {
            Learn::New => learned.push(n),
            other => assert_eq!(other, Learn::Refused(LearnRefusal::TableFull)),
        }
    }
    assert_eq!(learned.len(), MAX_REACH * SLOTS);
    check(&fdb);
    // A station whose home is in the middle of it, and one elsewhere, are learned as ever.
    let middle = (0..).find(|&n| fdb.table.home_of(key(n)) == home + MAX_REACH / 2).unwrap();
    assert_eq!(fdb.learn(key(middle), port(2), 0, at(0)), Learn::New);
    assert_eq!(fdb.lookup(key(middle)), Some(port(2)));
    check(&fdb);
    // Removing from the front leaves the rest findable, and the slots usable.
    for &n in &learned[..90] {
        assert!(fdb.remove(key(n)).is_some());
        check(&fdb);
    }
    for &n in &learned[90..] {
        assert_eq!(fdb.lookup(key(n)), Some(port(1)));
    }
    for &n in &learned[..90] {
        assert_eq!(fdb.learn(key(n), port(1), 0, at(0)), Learn::New);
    }
    check(&fdb);
    fdb.flush(&Flush::default());
    check(&fdb);
}

#[test]
fn chains_wrap_around_the_end_of_the_table() {
    let fdb = fdb(20);
    let last = fdb.table.buckets() - 1;
    let chosen: Vec<_> = (0..).filter(|n| fdb.table.home_of(key(*n)) == last).take(20).collect();
    for &n in &chosen {
        assert_eq!(fdb.learn(key(n), port(n as u16), 0, at(0)), Learn::New);
    }
    check(&fdb);
    for &n in &chosen {
        assert_eq!(fdb.lookup(key(n)), Some(port(n as u16)));
        assert_eq!(fdb.remove(key(n)).map(|e| e.dest), Some(port(n as u16)));
        check(&fdb);
    }
}

#[test]
fn random_keys_fill_a_table_to_its_limit_well_within_the_reach() {
    const LIMIT: u32 = 200_000;
    let fdb = fdb(LIMIT);
    for n in 0..u64::from(LIMIT) {
        assert_eq!(fdb.learn(key(n), port(1), 0, at(0)), Learn::New);
    }
    let entries = (0..fdb.table.buckets()).flat_map(|b| fdb.table.entries(b));
    let (sum, max) = entries.fold((0, 0), |(sum, max), found| {
        let d = fdb.table.distance(&found);
        (sum + d, max.max(d))
    });
    assert!(max <= MAX_REACH / 2, "a search looks at {max} buckets");
    let mean = f64::from(sum as u32) / f64::from(LIMIT);
    assert!(mean < 1.5, "a search looks at {mean} buckets on average");
}

#[test]
fn a_smaller_table_takes_static_entries_first_and_then_fair_shares() {
    let old = fdb(1000);
    for n in 0..900 {
        old.learn(key(n), port(1), 0, at(n));
    }
    for n in 0..20 {
        old.learn(key(2000 + n), port(2), 0, at(5));
        old.insert(key(3000 + n), port(3), EntryKind::Sticky, at(5)).unwrap();
    }
    let new = fdb(100);
    // What the new table has learned meanwhile is newer; what the operator set is not learned.
    new.learn(key(0), port(4), 0, at(1000));
    new.learn(key(3000), port(4), 0, at(1000));
    let copied = old.copy_into(&new, at(1000));
    assert_eq!(copied, Copied { copied: 99, superseded: 1, dropped: 840 });
    check(&new);
    assert_eq!(new.lookup(key(0)), Some(port(4)));
    for n in 0..20 {
        assert_eq!(new.get(key(2000 + n)), old.get(key(2000 + n)), "stamp and all");
        assert_eq!(new.get(key(3000 + n)), old.get(key(3000 + n)));
    }
    assert_eq!(new.len(), 100);

    let larger = fdb(5000);
    assert_eq!(old.copy_into(&larger, at(1000)), Copied { copied: 940, superseded: 0, dropped: 0 });
    assert_eq!(dump(&larger), dump(&old));
}

#[test]
fn pages_of_any_size_list_every_entry_once() {
    let fdb = fdb(1000);
    for n in 0..300 {
        fdb.learn(key(n), port(1), 0, at(0));
    }
    for max in [1, 2, 7, 299, 300, 301] {
        let mut all = Vec::new();
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            let before = all.len();
            cursor = fdb.page(from, &mut all, max);
            assert!(all.len() - before <= max);
            assert!(cursor.is_none() || all.len() - before == max);
        }
        all.sort_by_key(|e| e.key);
        assert_eq!(all, dump(&fdb).into_values().collect::<Vec<_>>());
    }
    let mut none = Vec::new();
    assert_eq!(fdb.page(Cursor(usize::MAX), &mut none, 1), None);
}

/// Two writers give keys to ports, each key only ever to ports that are congruent to it, remove them and reuse their
/// slots for others. A torn pair, or a slot read across its reuse, would show a destination of another key.
#[test]
fn readers_never_see_a_destination_that_was_never_stored_for_the_key() {
    const KEYS: u64 = 64;
    // A handful of buckets, so that slots change their key all the time.
    let fdb = fdb(24);
    let done = AtomicBool::new(false);
    let belongs = |key: FdbKey, dest: Dest| u64::from(dest.port.0) % KEYS == key.mac().bits() % KEYS;
    thread::scope(|scope| {
        let mut writers = Vec::new();
        for writer in 0..2u64 {
            let fdb = &fdb;
            writers.push(scope.spawn(move || {
                let mut random = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(writer + 1);
                for step in 0..300_000u64 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let n = (random >> 33) % KEYS;
                    let dest = port((n + KEYS * ((random >> 50) % 4)) as u16);
                    if step % 3 == 0 {
                        fdb.remove(key(n));
                    } else {
                        fdb.learn(key(n), dest, 0, at(step / 1000));
                    }
                }
            }));
        }
        let mut readers = Vec::new();
        for _ in 0..2 {
            readers.push(scope.spawn(|| {
                let (mut hits, mut listed) = (0u64, Vec::new());
                while !done.load(Relaxed) {
                    for n in 0..KEYS {
                        if let Some(dest) = fdb.lookup(key(n)) {
                            assert!(belongs(key(n), dest), "{:?} leads to {dest:?}", key(n));
                            hits += 1;
                        }
                    }
                    listed.clear();
                    assert_eq!(fdb.page(Cursor::default(), &mut listed, usize::MAX), None);
                    for entry in &listed {
                        assert!(belongs(entry.key, entry.dest), "{entry:?}");
                    }
                }
                hits
            }));
        }
        let results: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Relaxed);
        assert!(results.iter().all(Result::is_ok));
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    check(&fdb);
}

/// A station that is known all the time is found all the time, whatever happens to its neighbours and its port.
#[test]
fn a_station_that_stays_is_found_while_everything_around_it_changes() {
    let fdb = fdb(40);
    let done = AtomicBool::new(false);
    for n in 0..8 {
        fdb.insert(key(n), port(0), EntryKind::Static, at(0)).unwrap();
    }
    thread::scope(|scope| {
        let churn = scope.spawn(|| {
            for step in 0..200_000u64 {
                let n = 100 + step % 64;
                fdb.learn(key(n), port((step % 3) as u16), 0, at(step / 5000));
                fdb.learn(key(step % 8), port((step % 5) as u16), 0, at(step / 5000));
                fdb.remove(key(100 + (step * 7) % 64));
                if step % 1000 == 0 {
                    fdb.flush(&Flush { port: Some(PortIdx(1)), ..Flush::default() });
                    fdb.sweep(at(step / 5000), secs(1), 5);
                }
            }
            done.store(true, Relaxed);
        });
        let reader = scope.spawn(|| {
            while !done.load(Relaxed) {
                for n in 0..8 {
                    assert!(fdb.lookup(key(n)).is_some());
                }
            }
        });
        assert!(churn.join().is_ok());
        assert!(reader.join().is_ok());
    });
    check(&fdb);
}

#[test]
fn a_region_is_a_page() {
    assert_eq!(REGION * 64, 4096);
}
