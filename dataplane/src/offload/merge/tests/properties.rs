//! Random flows: what was split comes back, and nothing is lost, changed or passed.

use proptest::prelude::*;

use super::*;

prop_compose! {
    fn sender()(
        tcp: bool, six: bool, tags in prop::collection::vec(any::<u16>().prop_map(|tci| [0x8100, tci]), 0..=4),
        options in prop::collection::vec(any::<[u8; 4]>(), 0..=10), port in 0u16..4, sequence: u32, id: u16,
    ) -> Sender {
        Sender { tcp, six, tags, options: options.concat(), port, sequence, id }
    }
}

/// One frame of a random batch: who sends it, how long, and what is done to it.
type Event = (prop::sample::Index, prop::sample::Index, u8, u8);

fn event() -> impl Strategy<Value = Event> {
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..40, any::<u8>())
}

/// What packets of one flow have in common; the frame itself where it has no ports.
fn flow(frame: &[u8]) -> Vec<u8> {
    match Packet::of(frame) {
        Some(p) if p.l4 + 4 <= p.end => {
            [&frame[..p.l3], p.addresses(frame).unwrap(), &[p.protocol()], &frame[p.l4..p.l4 + 4]].concat()
        }
        _ => frame.to_vec(),
    }
}

proptest! {
    #[test]
    fn what_was_split_is_merged_to_the_same_super_frame(
        sender in sender(), len in 1usize..20_000, size in 300usize..9000, lie in prop_oneof![Just(Lie::Apart), (0usize..100).prop_map(Lie::Together)],
        flags in prop_oneof![Just(0), Just(PSH), Just(FIN)],
    ) {
        let mut frame = left_partial(sender.clone().send(len, flags));
        let (_, l4) = at(&frame);
        let headers = if sender.tcp { 20 + sender.options.len() } else { 8 };
        let kind = match (sender.tcp, sender.six) {
            (true, false) => GsoKind::TcpV4,
            (true, true) => GsoKind::TcpV6,
            (false, _) => GsoKind::Udp,
        };
        let offload = Offload {
            csum: Checksum::Partial { start: l4 as u16, offset: if sender.tcp { 16 } else { 6 } },
            gso: Some(Gso { kind, size: size as u16, hdr_len: (l4 + headers) as u16, ecn: false }),
        };
        let mut batch = Batch::new();
        prop_assert!(batch.append(&frame, offload));
        let segments = split(&batch).remove(0);
        let mut batch = batch_of(&segments, lie);
        merge(&mut batch, &Limits { mtu: 9100, ..LIMITS });
        if segments.len() == 1 {
            finish(&mut frame);
        }
        prop_assert_eq!(batch.len(), 1);
        prop_assert_eq!(batch.bytes(0), &frame[..]);
        prop_assert_eq!(batch.frame(0).offload, if segments.len() == 1 { GOOD } else { offload });
    }

    /// Random flows, interleaved, with all that ends a merge, at random places in the memory.
    #[test]
    fn nothing_is_lost_or_changed_and_every_flow_keeps_its_order(
        mut senders in prop::collection::vec(sender(), 1..5), sizes in prop::collection::vec(1usize..600, 1..3),
        events in prop::collection::vec(event(), 1..=64), gap in 0usize..40, together in 1usize..64, turned: bool,
    ) {
        let frames: Vec<Vec<u8>> = events
            .iter()
            .map(|(who, size, what, noise)| {
                let count = senders.len();
                let sender = &mut senders[who.index(count)];
                let size = sizes[size.index(sizes.len())];
                match what {
                    0 => sender.sequence = sender.sequence.wrapping_add(u32::from(*noise)),
                    1 => sender.id = sender.id.wrapping_add(5),
                    _ => {}
                }
                let flags = match what { 2 => PSH, 3 => FIN, 4 => *noise, _ => 0 };
                let mut frame = sender.send(if *what == 5 { 0 } else { size }, flags);
                let at = usize::from(*noise) % frame.len();
                match what {
                    6 => frame[at] ^= 1,
                    7 => frame.truncate(at),
                    8 => frame.extend([0; 3]),
                    9 => frame = left_partial(frame),
                    _ => {}
                }
                frame
            })
            .collect();
        // Some in each slot; where `turned`, the later ones before the earlier ones.
        let mut batch = Batch::new();
        let mut last = 0;
        for (slot, part) in frames.chunks(together).enumerate() {
            let place = |n: usize| part.iter().take(n).map(|f| f.len() + gap).sum::<usize>() + gap;
            for (n, frame) in part.iter().enumerate() {
                let at = if turned { place(part.len()) - place(n + 1) + gap } else { place(n) } + Batch::slot_at(slot);
                prop_assert!(at + frame.len() <= Batch::slot_end(at));
                batch.memory_mut()[at..at + frame.len()].copy_from_slice(frame);
                batch.push_at(at..at + frame.len(), Offload::NONE, None);
            }
            last = slot;
        }
        let starts: Vec<_> = (0..batch.len()).map(|n| batch.frame(n).range().start).collect();
        merge(&mut batch, &LIMITS);

        let after = split(&batch);
        let of = |frames: &[Vec<u8>], key: &[u8]| frames.iter().filter(|f| flow(f) == key).cloned().collect::<Vec<_>>();
        let all = after.concat();
        prop_assert_eq!(all.len(), frames.len());
        for frame in &frames {
            let key = flow(frame);
            prop_assert_eq!(of(&all, &key), of(&frames, &key));
        }
        // Each stays where its first segment was, in the order of those.
        let places: Vec<_> = (0..batch.len()).map(|n| starts.iter().position(|&s| s == batch.frame(n).range().start).unwrap()).collect();
        prop_assert!(places.is_sorted(), "{:?}", places);
        for n in 0..batch.len() {
            check_headers(&batch, n);
        }
        // What lies before the first frame of a slot, and in the slots after the last, is nobody's to write to.
        for slot in 0..=last {
            prop_assert!(batch.memory()[Batch::slot_at(slot)..][..gap].iter().all(|&o| o == 0));
        }
        let next = Batch::slot_at(last + 1);
        prop_assert!(batch.memory()[next..next + 4096].iter().all(|&o| o == 0));
    }

    #[test]
    fn no_bytes_and_no_state_make_it_fail(
        mut frames in prop::collection::vec((sender(), 0usize..200, any::<u8>()), 1..20), same: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..20),
        states in prop::collection::vec((0u8..4, any::<u16>(), any::<u16>(), any::<bool>()), 20), mtu in 0usize..2000, gap in 0usize..20,
    ) {
        let first = frames[0].0.clone();
        let mut frames: Vec<Vec<u8>> =
            frames.iter_mut().map(|(s, len, flags)| if same { first.clone().send(*len, *flags) } else { s.send(*len, *flags) }).collect();
        let count = frames.len();
        for (which, at, value) in changes {
            let frame = &mut frames[which.index(count)];
            let at = at.index(frame.len());
            frame[at] = value;
        }
        let mut batch = batch_of(&frames, Lie::Together(gap));
        for (n, (kind, a, b, has_gso)) in states.into_iter().enumerate().take(count) {
            let csum = match kind {
                0 => Checksum::Good,
                1 => Checksum::Partial { start: a, offset: b },
                _ => Checksum::Unknown,
            };
            let gso = has_gso.then_some(Gso { kind: GsoKind::Udp, size: a, hdr_len: b, ecn: false });
            batch.frame_mut(n).offload = Offload { csum, gso };
        }
        let partial = |batch: &Batch| {
            (0..batch.len()).filter(|&n| matches!(batch.frame(n).offload.csum, Checksum::Partial { .. })).count()
        };
        let before = partial(&batch);
        merge(&mut batch, &Limits { mtu, udp: true });
        prop_assert!(batch.len() <= count && partial(&batch) >= before);
    }
}
