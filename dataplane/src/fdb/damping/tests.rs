use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    fdb::{Fdb, Flush, Learn, LearnRefusal},
    index::{PortIdx, RemoteIdx},
    wire::MacAddr,
};

const DAMPED: Learn = Learn::Refused(LearnRefusal::Damped);

fn key(n: u64) -> FdbKey {
    FdbKey::new(0, MacAddr::from_bits(0x0200_0000_0000 | n))
}

fn port(n: u16) -> Dest {
    Dest::port(PortIdx(n))
}

fn at(secs: u64) -> Tick {
    Tick::from_secs(secs)
}

fn fdb(moves: u32) -> Fdb {
    let fdb = Fdb::new(1000).unwrap();
    fdb.set_damping(Damping::after(moves));
    fdb
}

/// Has station 1 heard on ports 1 and 2 in turn until it is held; how many moves that took.
fn loops(fdb: &Fdb, now: Tick) -> u32 {
    fdb.learn(key(1), port(1), 0, now);
    for move_ in 1..1000 {
        let to = port(1 + (move_ % 2) as u16);
        match fdb.learn(key(1), to, 0, now) {
            DAMPED => return move_,
            Learn::Moved { .. } if fdb.get(key(1)).is_some_and(|entry| entry.damped) => return move_,
            Learn::Moved { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    panic!("it is never held");
}

fn check(fdb: &Fdb) {
    fdb.table.check();
    fdb.write().check(&fdb.table);
}

/// RFC 7432 15.1: "N MAC moves before the timer expires (with a default value of N = 5)".
#[test]
fn the_fifth_move_within_the_window_leaves_a_loop_where_it_began() {
    let fdb = fdb(5);
    assert_eq!(loops(&fdb, at(0)), 5);
    assert_eq!(fdb.lookup(key(1)), Some(port(1)));
    assert!(fdb.get(key(1)).unwrap().damped);
    assert_eq!(fdb.learn(key(1), port(1), 0, at(1)), Learn::Known, "it works where it is held");
    assert_eq!(fdb.learn(key(1), port(2), 0, at(1)), DAMPED);
    assert_eq!(fdb.learn(key(1), port(3), 0, at(1)), DAMPED, "and not only against the second place");
    let damped = Damped { key: key(1), dest: port(1), elsewhere: port(2), moves: 5, until: at(30) };
    assert_eq!(fdb.damped(), [damped]);
    let stats = fdb.stats();
    assert_eq!((stats.moved, stats.damped, stats.refused_damped), (4, 1, 3));
    check(&fdb);
}

#[test]
fn whatever_the_limit_and_the_places_of_a_loop_a_station_is_held_where_it_stayed_last() {
    for (limit, places) in [(1, 2), (2, 2), (3, 2), (4, 2), (4, 3), (5, 3), (6, 3), (7, 4)] {
        let fdb = fdb(limit);
        fdb.learn(key(1), port(9), 0, at(0));
        // It has migrated from port 9 to port 0, half a minute ago; then the loop begins.
        fdb.learn(key(1), port(0), 0, at(30));
        let held = (1..100u16).find(|n| {
            fdb.learn(key(1), port(n % places), 0, at(60));
            fdb.get(key(1)).unwrap().damped
        });
        assert_eq!(fdb.lookup(key(1)), Some(port(if limit == 1 { 9 } else { 0 })), "{limit} {places}");
        if limit > 1 {
            assert_eq!(held, Some(limit as u16 - 1), "{limit} {places}");
            assert_ne!(fdb.damped()[0].elsewhere, port(0));
        }
        check(&fdb);
    }
}

#[test]
fn where_a_loop_that_turns_one_way_comes_in_is_no_place_where_a_station_stays() {
    let fdb = fdb(5);
    fdb.learn(key(1), port(0), 0, at(0));
    for n in [1, 2, 1, 2] {
        assert!(matches!(fdb.learn(key(1), port(n), 0, at(10)), Learn::Moved { .. }));
    }
    // Another switch has cut the way by port 1, what comes by port 2 moves nothing.
    for secs in 10..100 {
        assert_eq!(fdb.learn(key(1), port(2), 0, at(secs)), Learn::Known);
    }
    assert_eq!(fdb.learn(key(1), port(0), 0, at(100)), Learn::Moved { from: port(2) });
    assert_eq!(fdb.learn(key(1), port(2), 0, at(100)), DAMPED);
    assert_eq!(fdb.lookup(key(1)), Some(port(0)));
}

#[test]
fn two_stations_that_take_turns_slowly_leave_the_address_where_it_is() {
    let fdb = fdb(5);
    for n in 0..5u16 {
        fdb.learn(key(1), port(n % 2), 0, at(10 * u64::from(n)));
    }
    assert_eq!(fdb.learn(key(1), port(1), 0, at(50)), DAMPED);
    assert_eq!(fdb.lookup(key(1)), Some(port(0)));
}

#[test]
fn a_station_that_moves_back_where_it_stayed_with_the_last_move_is_held_there() {
    let fdb = fdb(2);
    fdb.learn(key(1), port(1), 0, at(0));
    fdb.learn(key(1), port(2), 0, at(0));
    assert_eq!(fdb.learn(key(1), port(1), 0, at(0)), Learn::Moved { from: port(2) });
    let damped = fdb.damped();
    assert_eq!((damped[0].dest, damped[0].elsewhere), (port(1), port(2)));
    assert_eq!(fdb.learn(key(1), port(2), 0, at(0)), DAMPED);
}

#[test]
fn nobody_is_put_back_behind_a_port_or_a_remote_that_was_flushed() {
    let remote = |n| Dest::remote(PortIdx(1), RemoteIdx(n));
    for (first, flush) in [
        (port(7), Flush { port: Some(PortIdx(7)), ..Flush::default() }),
        (remote(3), Flush { remote: Some(RemoteIdx(3)), ..Flush::default() }),
    ] {
        let fdb = fdb(4);
        fdb.learn(key(1), first, 0, at(0));
        fdb.learn(key(1), port(2), 0, at(0));
        fdb.flush(&flush);
        for n in 0..10u16 {
            fdb.learn(key(1), port(3 + n % 2), 0, at(0));
        }
        assert_eq!(fdb.lookup(key(1)), Some(port(2)), "the place before the first move that counts");
        assert!(fdb.get(key(1)).unwrap().damped);
        check(&fdb);
    }
}

#[test]
fn moves_further_apart_than_the_window_are_never_too_many() {
    let fdb = fdb(2);
    fdb.learn(key(1), port(0), 0, at(0));
    for n in 1..20u64 {
        let moved = fdb.learn(key(1), port((n % 2) as u16), 0, at(n * 180));
        assert!(matches!(moved, Learn::Moved { .. }), "{n}: {moved:?}");
    }
    fdb.learn(key(1), port(7), 0, at(19 * 180 + 179));
    assert!(fdb.get(key(1)).unwrap().damped);
}

#[test]
fn a_hold_is_told_once_ends_with_its_time_and_counting_begins_anew() {
    let fdb = fdb(3);
    loops(&fdb, at(10));
    let held = fdb.damped();
    assert_eq!(fdb.settle(at(11)), Settled { held: held.clone(), released: vec![] });
    assert_eq!(fdb.settle(at(39)), Settled::default());
    assert_eq!(fdb.settle(at(40)), Settled { held: vec![], released: held });
    assert_eq!(fdb.settle(at(41)), Settled::default());
    check(&fdb);
    assert!(!fdb.get(key(1)).unwrap().damped && fdb.damped().is_empty());
    assert_eq!(loops(&fdb, at(41)), 3, "as many moves as the first time");
}

#[test]
fn what_an_operator_does_to_the_entry_ends_the_hold() {
    type Act = fn(&Fdb);
    let acts: [Act; 3] = [
        |fdb| assert!(fdb.insert(key(1), port(2), EntryKind::Static, at(1)).is_ok()),
        |fdb| assert!(fdb.remove(key(1)).is_some()),
        |fdb| assert_eq!(fdb.flush(&Flush::default()), 1),
    ];
    for act in acts {
        for settled in [false, true] {
            let fdb = fdb(2);
            loops(&fdb, at(0));
            act(&fdb);
            assert!(fdb.damped().is_empty());
            if settled {
                assert_eq!(fdb.settle(at(1)), Settled::default());
            }
            fdb.learn(key(1), port(2), 0, at(1));
            check(&fdb);
            let moved = fdb.learn(key(1), port(3), 0, at(1));
            assert!(matches!(moved, Learn::Moved { .. }), "one move of two: {moved:?}");
            assert_eq!(fdb.learn(key(1), port(4), 0, at(1)), DAMPED);
            assert_eq!(fdb.damped().len(), 1);
            check(&fdb);
        }
    }
}

#[test]
fn static_entries_are_held_too_and_sticky_ones_never_move() {
    let fdb = fdb(2);
    fdb.insert(key(1), port(0), EntryKind::Static, at(0)).unwrap();
    assert_eq!(fdb.learn(key(1), port(1), 0, at(0)), Learn::Moved { from: port(0) });
    assert_eq!(fdb.learn(key(1), port(2), 0, at(0)), DAMPED);
    assert_eq!(fdb.get(key(1)).map(|e| (e.kind, e.damped)), Some((EntryKind::Static, true)));
    fdb.insert(key(2), port(0), EntryKind::Sticky, at(0)).unwrap();
    for _ in 0..5 {
        assert_eq!(fdb.learn(key(2), port(1), 0, at(0)), Learn::Refused(LearnRefusal::Sticky));
    }
    assert_eq!(fdb.stats().damped, 1);
}

#[test]
fn remotes_of_one_tunnel_are_different_places() {
    let fdb = fdb(2);
    let remote = |n| Dest::remote(PortIdx(1), RemoteIdx(n));
    fdb.learn(key(1), remote(u16::MAX), 0, at(0));
    assert_eq!(fdb.learn(key(1), remote(7), 0, at(0)), Learn::Moved { from: remote(u16::MAX) });
    assert_eq!(fdb.learn(key(1), remote(8), 0, at(0)), DAMPED);
    let held = fdb.damped();
    assert_eq!((held[0].dest, held[0].elsewhere), (remote(u16::MAX), remote(8)));
    assert_eq!(fdb.lookup(key(1)), Some(remote(u16::MAX)));
}

#[test]
fn another_limit_holds_from_now_on_and_zero_ends_every_hold() {
    let fdb = fdb(0);
    for n in 0..100u16 {
        fdb.learn(key(1), port(n % 2), 0, at(0));
    }
    assert_eq!(fdb.stats().damped, 0);
    fdb.set_damping(Damping::after(4));
    assert_eq!(loops(&fdb, at(0)), 4, "what was before does not count");
    fdb.set_damping(Damping::after(6));
    assert_eq!(fdb.learn(key(1), port(5), 0, at(1)), DAMPED, "held is held");
    fdb.set_damping(Damping::OFF);
    assert_eq!(fdb.settle(at(2)).released.len(), 1);
    assert!(matches!(fdb.learn(key(1), port(5), 0, at(2)), Learn::Moved { .. }));
}

#[test]
fn a_move_that_a_port_at_its_limit_refuses_does_not_count() {
    let fdb = fdb(2);
    fdb.learn(key(1), port(0), 0, at(0));
    fdb.learn(key(2), port(1), 1, at(0));
    for _ in 0..5 {
        assert_eq!(fdb.learn(key(1), port(1), 1, at(0)), Learn::Refused(LearnRefusal::PortLimit));
    }
    assert_eq!(fdb.learn(key(1), port(1), 0, at(0)), Learn::Moved { from: port(0) });
}

#[test]
fn nobody_is_held_in_a_copy() {
    let (old, new) = (fdb(2), fdb(2));
    loops(&old, at(0));
    old.copy_into(&new, at(0));
    check(&new);
    assert_eq!(new.lookup(key(1)), Some(port(1)));
    assert!(new.damped().is_empty() && !new.get(key(1)).unwrap().damped);
}

/// All of a large network moves at once, again and again, as when two switches are joined twice.
#[test]
fn a_loop_of_more_stations_than_are_tracked_is_held_too_but_for_some() {
    const STATIONS: u64 = 3 * TRACKS as u64;
    let fdb = Fdb::new((TRACKS * ENTRIES_PER_TRACK) as u32).unwrap();
    fdb.set_damping(Damping::after(5));
    let mut held = 0;
    for round in 0..60u16 {
        for n in 0..STATIONS {
            fdb.learn(key(n), port(round % 2), 0, at(0));
        }
    }
    for n in 0..STATIONS {
        held += usize::from(fdb.get(key(n)).unwrap().damped);
    }
    assert!(held > TRACKS * 9 / 10 && held <= TRACKS, "{held} of {STATIONS} are held");
    assert_eq!(fdb.damped().len(), held);
    check(&fdb);
    assert_eq!(fdb.settle(at(30)).released.len(), held);
    assert_eq!(fdb.write().movers.held, 0);
    check(&fdb);
}

#[test]
fn many_who_move_once_do_not_hide_one_who_moves_often() {
    let fdb = Fdb::new(100_000).unwrap();
    fdb.set_damping(Damping::after(5));
    for n in 0..100_000 {
        fdb.learn(key(n), port(0), 0, at(0));
    }
    // A link fails over: everybody moves once, and one station loops meanwhile, at a tenth of their rate.
    let mut loops = 0u16;
    for n in 1..100_000u64 {
        assert_eq!(fdb.learn(key(n), port(1), 0, at(0)), Learn::Moved { from: port(0) });
        if n % 10 == 0 {
            loops += 1;
            fdb.learn(key(0), port(loops % 2), 0, at(0));
        }
    }
    assert!(fdb.get(key(0)).unwrap().damped);
    assert_eq!(fdb.stats().damped, 1);
}

/// What damping is, for few stations.
#[derive(Default)]
struct Model {
    place: BTreeMap<u64, u16>,
    /// Begin of the window, moves in it, the last move and whether it came at leisure, and where the station stayed.
    moves: BTreeMap<u64, (u64, u32, u64, bool, u16)>,
    held: BTreeMap<u64, u64>,
}

impl Model {
    fn learn(&mut self, station: u64, to: u16, limit: u32, now: u64) -> Learn {
        let Some(&was) = self.place.get(&station) else {
            self.place.insert(station, to);
            return Learn::New;
        };
        if was == to {
            return Learn::Known;
        }
        if self.held.contains_key(&station) {
            return DAMPED;
        }
        let known = self.moves.get(&station).copied().filter(|window| now - window.0 < 180);
        let (began, moves, leisure, stayed) = match known {
            None => (now, 1, true, was),
            Some((began, moves, last, true, _)) if now > last => (began, moves + 1, true, was),
            Some((began, moves, last, _, stayed)) => (began, moves + 1, now > last, stayed),
        };
        if moves == limit {
            self.moves.remove(&station);
            self.held.insert(station, now);
            self.place.insert(station, stayed);
            return if stayed == to { Learn::Moved { from: port(was) } } else { DAMPED };
        }
        self.moves.insert(station, (began, moves, now, leisure, stayed));
        self.place.insert(station, to);
        Learn::Moved { from: port(was) }
    }
}

proptest! {
    #[test]
    fn any_moves_are_judged_as_by_a_plain_map(
        limit in 1..5u32,
        steps in prop::collection::vec((0..4u64, 0..3u16, prop_oneof![4 => Just(0u64), 3 => 1..20u64, 1 => 100..400u64]), 0..200),
    ) {
        let (fdb, mut model, mut now) = (fdb(limit), Model::default(), 1000);
        for (station, to, pause) in steps {
            now += pause;
            let settled = fdb.settle(at(now));
            let due = |model: &Model| model.held.iter().filter(|(_, began)| now - **began >= 30).map(|(s, _)| *s).collect::<Vec<_>>();
            let released = due(&model);
            model.held.retain(|station, _| !released.contains(station));
            let mut seen: Vec<u64> = settled.released.iter().map(|d| d.key.mac().bits() & 0xff).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, released);
            prop_assert_eq!(fdb.learn(key(station), port(to), 0, at(now)), model.learn(station, to, limit, now));
            prop_assert_eq!(fdb.lookup(key(station)), model.place.get(&station).map(|p| port(*p)));
            let mut held: Vec<u64> = fdb.damped().iter().map(|d| d.key.mac().bits() & 0xff).collect();
            held.sort_unstable();
            prop_assert_eq!(held, model.held.keys().copied().collect::<Vec<_>>());
        }
        check(&fdb);
    }
}
