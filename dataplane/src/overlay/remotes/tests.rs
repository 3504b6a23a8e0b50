use std::{
    collections::{BTreeMap, BTreeSet},
    sync::mpsc,
    thread,
};

use proptest::prelude::*;

use super::*;

const VTEP: VtepIdx = VtepIdx(0);
const AGE: Duration = Duration::from_secs(300);

fn at(secs: u64) -> Tick {
    Tick::from_secs(secs)
}

/// The addresses 2001:db8::n and, every other one, 198.51.x.y: as many as are needed.
fn ip(n: u32) -> IpAddr {
    if n.is_multiple_of(2) {
        Ipv4Addr::from_bits(0xc633_0000 + n).into()
    } else {
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n)).into()
    }
}

fn listed(remotes: &Remotes) -> BTreeMap<(VtepIdx, IpAddr), RemoteIdx> {
    let all: BTreeMap<_, _> = remotes.iter().map(|r| ((r.vtep, r.ip), r.idx)).collect();
    assert_eq!(all.len(), remotes.len());
    assert_eq!(all.values().collect::<BTreeSet<_>>().len(), all.len(), "an index of two remotes");
    all
}

#[test]
fn a_remote_keeps_its_index_and_an_index_leads_to_its_address() {
    let remotes = Remotes::default();
    assert!(remotes.is_empty() && remotes.address(RemoteIdx(0)).is_none());
    let indices: Vec<_> = (0..3000).map(|n| remotes.find_or_add(VTEP, ip(n), at(1)).unwrap()).collect();
    for (n, &idx) in (0..3000).zip(&indices) {
        assert_eq!(remotes.address(idx), Some(ip(n)));
        assert_eq!(remotes.find_or_add(VTEP, ip(n), at(2)), Some(idx));
        assert_eq!(remotes.find(VTEP, ip(n)), Some(idx));
    }
    assert_eq!((remotes.len(), listed(&remotes).len()), (3000, 3000));
    assert_eq!(remotes.find(VTEP, ip(5000)), None);
    assert_eq!(remotes.address(RemoteIdx(u16::MAX)), None);
}

#[test]
fn addresses_of_other_vteps_and_families_are_other_remotes() {
    let remotes = Remotes::default();
    let v4: IpAddr = "198.51.100.1".parse().unwrap();
    let mapped: IpAddr = "::ffff:198.51.100.1".parse().unwrap();
    let same_bits: IpAddr = "::c633:6401".parse().unwrap();
    let all = [(VTEP, v4), (VtepIdx(u16::MAX), v4), (VTEP, mapped), (VTEP, same_bits)];
    let indices: BTreeSet<_> = all.map(|(vtep, ip)| remotes.find_or_add(vtep, ip, at(0)).unwrap()).into();
    assert_eq!(indices.len(), all.len());
    for (vtep, ip) in all {
        assert_eq!(remotes.find(vtep, ip).and_then(|idx| remotes.address(idx)), Some(ip));
    }
}

#[test]
fn there_is_room_for_65536_and_not_one_more() {
    let remotes = Remotes::default();
    for n in 0..MAX_REMOTES as u32 {
        assert_eq!(remotes.find_or_add(VTEP, ip(n), at(0)), Some(RemoteIdx(n as u16)));
    }
    let mut cache = RemoteCache::default();
    let one_more = ip(MAX_REMOTES as u32);
    assert_eq!(remotes.find_or_add(VTEP, one_more, at(0)), None);
    assert_eq!(remotes.pin(VTEP, one_more), None);
    assert_eq!(cache.index(&remotes, VTEP, one_more, at(0)), None);
    assert_eq!(
        cache.index(&remotes, VTEP, ip(7), at(0)),
        Some(RemoteIdx(7)),
        "those that are there are found"
    );
    assert_eq!(remotes.address(RemoteIdx(u16::MAX)), Some(ip(u32::from(u16::MAX))));

    remotes.touch(RemoteIdx(7), at(1000));
    let left = remotes.expire(at(1000), AGE);
    assert_eq!(left.len(), MAX_REMOTES - 1);
    assert_eq!(cache.index(&remotes, VTEP, one_more, at(1000)), None, "they have left, and are not free yet");
    remotes.free(&left);
    assert!(cache.index(&remotes, VTEP, one_more, at(1001)).is_some());
    assert_eq!(remotes.len(), 2);
}

#[test]
fn what_was_not_heard_leaves_and_keeps_its_address_until_it_is_freed() {
    let remotes = Remotes::default();
    let [quiet, loud, pinned] = [0, 1, 2].map(|n| remotes.find_or_add(VTEP, ip(n), at(0)).unwrap());
    assert_eq!(remotes.pin(VTEP, ip(2)), Some(pinned));
    remotes.set_path_mtu(quiet, 1400);
    remotes.touch(loud, at(200));
    assert_eq!(remotes.expire(at(300), AGE), [], "as long as the age");
    let epoch = remotes.epoch();
    assert_eq!(remotes.expire(at(301), AGE), [quiet]);
    assert_ne!(remotes.epoch(), epoch);
    assert_eq!(remotes.find(VTEP, ip(0)), None);
    assert_eq!((remotes.address(quiet), remotes.path_mtu(quiet)), (Some(ip(0)), 1400));
    assert_eq!(remotes.len(), 2);

    // Heard again meanwhile it is another one.
    let again = remotes.find_or_add(VTEP, ip(0), at(302)).unwrap();
    assert_ne!(again, quiet);
    remotes.free(&[quiet, quiet, loud, RemoteIdx(999)]);
    assert_eq!((remotes.address(quiet), remotes.path_mtu(quiet)), (None, 0));
    assert_eq!(remotes.address(loud), Some(ip(1)), "who is in use is not freed");
    assert_eq!(remotes.find_or_add(VTEP, ip(9), at(302)), Some(quiet), "reused");
    assert_eq!((remotes.address(quiet), remotes.path_mtu(quiet)), (Some(ip(9)), 0));
    assert_ne!(remotes.find_or_add(VTEP, ip(10), at(302)), Some(quiet), "and once only");
}

#[test]
fn a_pinned_remote_stays_until_it_is_unpinned_as_often() {
    let remotes = Remotes::default();
    let idx = remotes.pin(VTEP, ip(0)).unwrap();
    assert_eq!(remotes.pin(VTEP, ip(0)), Some(idx));
    remotes.unpin(idx);
    assert_eq!(remotes.expire(at(10_000), AGE), []);
    assert!(remotes.iter().all(|r| r.pinned && r.last_heard.is_none()));
    remotes.unpin(idx);
    remotes.unpin(idx);
    assert!(remotes.iter().all(|r| !r.pinned));
    assert_eq!(remotes.expire(at(0), AGE), [idx], "never heard");
    assert_eq!(remotes.expire(at(0), AGE), [], "told once");

    let heard = remotes.pin(VTEP, ip(1)).unwrap();
    remotes.touch(heard, at(9_900));
    remotes.unpin(heard);
    assert_eq!(remotes.expire(at(10_000), AGE), [], "as one that was learned");
}

#[test]
fn all_remotes_of_a_vtep_leave_with_it() {
    let remotes = Remotes::default();
    let other = VtepIdx(1);
    let here: Vec<_> = (0..5).map(|n| remotes.find_or_add(VTEP, ip(n), at(0)).unwrap()).collect();
    remotes.pin(VTEP, ip(0));
    let there = remotes.find_or_add(other, ip(0), at(0)).unwrap();
    let mut left = remotes.of_vtep_gone(VTEP);
    left.sort_unstable();
    assert_eq!(left, here);
    assert_eq!(listed(&remotes), BTreeMap::from([((other, ip(0)), there)]));
    assert_eq!(remotes.of_vtep_gone(VTEP), []);
}

#[test]
fn a_stamp_is_the_second_and_never_goes_back() {
    let remotes = Remotes::default();
    let idx = remotes.find_or_add(VTEP, ip(0), Tick::from_nanos(5_900_000_000)).unwrap();
    assert_eq!(remotes.last_heard(idx), Some(at(5)));
    remotes.touch(idx, at(4));
    assert_eq!(remotes.last_heard(idx), Some(at(5)));
    remotes.touch(idx, at(7));
    assert_eq!(remotes.last_heard(idx), Some(at(7)));
    let first_second = remotes.find_or_add(VTEP, ip(1), at(0)).unwrap();
    assert_eq!(remotes.last_heard(first_second), Some(at(0)), "the first second is not never");
}

#[test]
fn a_cache_asks_once_notes_what_it_hears_and_forgets_who_has_left() {
    let remotes = Remotes::default();
    let mut cache = RemoteCache::default();
    let [a, b] = [0, 1].map(|n| cache.index(&remotes, VTEP, ip(n), at(0)).unwrap());
    for secs in [1, 2] {
        let lock = remotes.lock(); // whoever wants it now waits for ever
        assert_eq!(cache.index(&remotes, VTEP, ip(0), at(secs)), Some(a));
        assert_eq!(cache.index(&remotes, VTEP, ip(0), at(secs)), Some(a));
        assert_eq!(cache.index(&remotes, VTEP, ip(1), at(secs)), Some(b));
        drop(lock);
        assert_eq!((remotes.last_heard(a), remotes.last_heard(b)), (Some(at(secs)), Some(at(secs))));
    }
    remotes.touch(b, at(400));
    assert_eq!(remotes.expire(at(400), AGE), [a]);
    assert_eq!(cache.index(&remotes, VTEP, ip(1), at(400)), Some(b));
    assert_ne!(cache.index(&remotes, VTEP, ip(0), at(400)), Some(a));
}

#[derive(Clone, Debug)]
enum Op {
    Hear { vtep: u16, ip: u32 },
    Pin { vtep: u16, ip: u32 },
    Unpin { nth: usize },
    Wait(u64),
    Expire,
    Gone { vtep: u16 },
    Free,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3u16, 0..8u32).prop_map(|(vtep, ip)| Op::Hear { vtep, ip }),
        2 => (0..3u16, 0..8u32).prop_map(|(vtep, ip)| Op::Pin { vtep, ip }),
        2 => any::<usize>().prop_map(|nth| Op::Unpin { nth }),
        3 => (1..200u64).prop_map(Op::Wait),
        2 => Just(Op::Expire),
        1 => (0..3u16).prop_map(|vtep| Op::Gone { vtep }),
        2 => Just(Op::Free),
    ]
}

proptest! {
    #[test]
    fn any_operations_do_what_they_do_to_a_plain_map(ops in prop::collection::vec(any_op(), 0..120)) {
        let (remotes, mut cache, mut now) = (Remotes::default(), RemoteCache::default(), 1000);
        // Index, pins and when it was heard.
        let mut model: BTreeMap<(VtepIdx, IpAddr), (RemoteIdx, u32, Option<u64>)> = BTreeMap::new();
        let mut leaving: BTreeMap<RemoteIdx, IpAddr> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Hear { vtep, ip: n } => {
                    let idx = cache.index(&remotes, VtepIdx(vtep), ip(n), at(now)).unwrap();
                    let entry = model.entry((VtepIdx(vtep), ip(n))).or_insert((idx, 0, None));
                    prop_assert_eq!(entry.0, idx);
                    entry.2 = Some(now);
                }
                Op::Pin { vtep, ip: n } => {
                    let idx = remotes.pin(VtepIdx(vtep), ip(n)).unwrap();
                    let entry = model.entry((VtepIdx(vtep), ip(n))).or_insert((idx, 0, None));
                    prop_assert_eq!(entry.0, idx);
                    entry.1 += 1;
                }
                Op::Unpin { nth } if !model.is_empty() => {
                    let nth = nth % model.len();
                    let entry = model.values_mut().nth(nth).unwrap();
                    remotes.unpin(entry.0);
                    entry.1 = entry.1.saturating_sub(1);
                }
                Op::Unpin { .. } => {}
                Op::Wait(secs) => now += secs,
                Op::Expire | Op::Gone { .. } => {
                    let goes = |vtep: VtepIdx, pins: u32, heard: Option<u64>| match op {
                        Op::Gone { vtep: gone } => vtep.0 == gone,
                        _ => pins == 0 && heard.is_none_or(|heard| now - heard > 300),
                    };
                    let mut left = match op {
                        Op::Gone { vtep } => remotes.of_vtep_gone(VtepIdx(vtep)),
                        _ => remotes.expire(at(now), AGE),
                    };
                    let mut expected = Vec::new();
                    model.retain(|(vtep, ip), (idx, pins, heard)| {
                        let goes = goes(*vtep, *pins, *heard);
                        if goes {
                            expected.push(*idx);
                            leaving.insert(*idx, *ip);
                        }
                        !goes
                    });
                    left.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(left, expected);
                }
                Op::Free => {
                    let all: Vec<RemoteIdx> = std::mem::take(&mut leaving).into_keys().collect();
                    remotes.free(&all);
                    for idx in all {
                        prop_assert_eq!(remotes.address(idx), None);
                    }
                }
            }
            prop_assert_eq!(listed(&remotes), model.iter().map(|(k, v)| (*k, v.0)).collect::<BTreeMap<_, _>>());
            for ((_, ip), (idx, pins, heard)) in &model {
                prop_assert_eq!(remotes.address(*idx), Some(*ip));
                prop_assert_eq!(remotes.last_heard(*idx), heard.map(at));
                prop_assert!(!leaving.contains_key(idx), "given out while it is leaving");
                prop_assert!(remotes.iter().any(|r| r.idx == *idx && r.pinned == (*pins > 0)));
            }
            for (idx, ip) in &leaving {
                prop_assert_eq!(remotes.address(*idx), Some(*ip));
            }
        }
    }
}

/// Workers resolve addresses batch after batch and keep what they got until the batch ends, while the control thread takes out and
/// reuses indices as fast as it may. An index given back too early would show the address of another.
#[test]
fn no_worker_ever_sees_another_address_behind_an_index_it_holds() {
    const WORKERS: usize = 3;
    let remotes = Remotes::default();
    let (done, reports) = mpsc::channel();
    thread::scope(|scope| {
        let mail: Vec<mpsc::Sender<()>> = (0..WORKERS as u32)
            .map(|worker| {
                let (send, mailbox) = mpsc::channel();
                let (remotes, done) = (&remotes, done.clone());
                scope.spawn(move || {
                    let mut cache = RemoteCache::default();
                    let mut batch = 0u32;
                    loop {
                        match mailbox.try_recv() {
                            Ok(()) => done.send(()).unwrap(),
                            Err(mpsc::TryRecvError::Empty) => {}
                            Err(mpsc::TryRecvError::Disconnected) => return,
                        }
                        batch += 1;
                        let heard = |n: u32| ip((batch * 7 + worker * 13 + n * n) % 97);
                        let held: Vec<_> = (0..64)
                            .map(|n| (cache.index(remotes, VTEP, heard(n), at(1)).unwrap(), heard(n)))
                            .collect();
                        for (idx, ip) in held {
                            assert_eq!(remotes.address(idx), Some(ip));
                        }
                    }
                });
                send
            })
            .collect();
        let pass_between_batches = || {
            mail.iter().for_each(|mail| mail.send(()).unwrap());
            (0..WORKERS).for_each(|_| reports.recv().unwrap());
        };
        let mut reused = 0;
        for round in 0..300u64 {
            // Every other round all of them leave.
            let left = remotes.expire(at(1000 * (round % 2)), AGE);
            pass_between_batches();
            for &idx in &left {
                assert!(remotes.address(idx).is_some());
            }
            reused += left.len();
            remotes.free(&left);
        }
        assert!(reused > 1000, "{reused}");
        assert!(remotes.len() <= 97);
        drop(mail);
    });
}
