//! Frames that are complete, left partial or wrong, and states that are known already.

use super::*;

#[test]
fn what_a_kernel_left_partial_is_finished_by_whoever_sends_it_on() {
    for mut sender in Sender::all() {
        let frame = left_partial(sender.send(1000, PSH));
        let (_, l4) = at(&frame);
        let offset = if sender.tcp { 16 } else { 6 };
        let expected = Checksum::Partial { start: l4 as u16, offset };
        assert_eq!(verify(&frame, None, &LIMITS), Offload { csum: expected, gso: None });
        let padded = [&frame[..], &[0; 4]].concat();
        assert_eq!(verify(&padded, None, &LIMITS), Offload::NONE, "octets that the sum would take in");
        let mut finished = frame;
        crate::offload::checksum::complete(&mut finished, l4, offset.into()).unwrap();
        assert_eq!(verify(&finished, None, &LIMITS), GOOD);
    }
}

#[test]
fn a_tcp_packet_longer_than_the_wire_is_a_whole_super_frame() {
    for (six, cwr) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut sender = Sender::new(true, six);
        sender.tags = vec![[0x8100, 9]];
        let frame = left_partial(sender.send(30_000, if cwr { CWR | PSH } else { PSH }));
        let (l3, l4) = at(&frame);
        let kind = if six { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
        let hdr_len = (l4 + 32) as u16;
        let size = 1450 - (hdr_len - l3 as u16);
        let expected = Offload {
            csum: Checksum::Partial { start: l4 as u16, offset: 16 },
            gso: Some(Gso { kind, size, hdr_len, ecn: cwr }),
        };
        let limits = Limits { mtu: 1450, udp: false };
        assert_eq!(verify(&frame, None, &limits), expected);
        assert_eq!(validate(&frame, &expected), Ok(Some(1450)));
        let mut batch = batch_of(&[frame.clone(), sender.send(1000, 0)], Lie::Apart);
        merge(&mut batch, &limits);
        assert_eq!((batch.len(), batch.bytes(0), batch.frame(0).offload), (2, &frame[..], expected));
        // As long as a wire carries, it is a frame.
        let len = frame.len() - l3;
        assert_eq!(verify(&frame, None, &Limits { mtu: len, udp: false }).gso, None);
        assert_eq!(
            verify(&frame, None, &Limits { mtu: 40, udp: false }).gso,
            None,
            "no room for any payload"
        );
        let mut finished = frame;
        finish(&mut finished);
        assert_eq!(verify(&finished, None, &limits), GOOD, "long, but complete: somebody's jumbo frame");
    }
}

#[test]
fn a_hint_makes_a_udp_packet_a_super_frame_that_was_left_partial_and_nothing_else() {
    let hint = Gso { kind: GsoKind::Udp, size: 1200, hdr_len: 0, ecn: false };
    let mut batch = Batch::new();
    let mut expected = Vec::new();
    let mut add = |frame: Vec<u8>, offload: Offload, then: Offload| {
        let at = Batch::slot_at(batch.len());
        batch.memory_mut()[at..at + frame.len()].copy_from_slice(&frame);
        batch.push_at(at..at + frame.len(), offload, None);
        expected.push((frame, then));
    };
    let hinted = Offload { csum: Checksum::Unknown, gso: Some(hint) };
    for six in [false, true] {
        let mut sender = Sender::new(false, six);
        let l4 = if six { 54 } else { 34 };
        let csum = Checksum::Partial { start: l4, offset: 6 };
        let whole = Offload { csum, gso: Some(Gso { hdr_len: l4 + 8, ..hint }) };
        add(left_partial(sender.send(12_345, 0)), hinted, whole);
        add(left_partial(sender.send(1201, 0)), hinted, whole);
        add(left_partial(sender.send(1200, 0)), hinted, Offload { csum, gso: None });
        add(left_partial(sender.send(12_345, 0)), Offload::NONE, Offload { csum, gso: None });
        add(sender.send(12_345, 0), hinted, GOOD);
        let mut damaged = sender.send(12_345, 0);
        damaged[1000] ^= 1;
        add(damaged, hinted, Offload::NONE);
        let mut tcp = Sender::new(true, six);
        let csum = Checksum::Partial { start: l4, offset: 16 };
        add(left_partial(tcp.send(1300, 0)), hinted, Offload { csum, gso: None });
        let zero = Offload { csum: Checksum::Unknown, gso: Some(Gso { size: 0, ..hint }) };
        let csum = Checksum::Partial { start: l4, offset: 6 };
        add(left_partial(sender.send(12_345, 0)), zero, Offload { csum, gso: None });
    }
    add(sample::ethernet(&[], EtherType::ARP, &[0; 28]), hinted, Offload::NONE);
    add(vec![], hinted, Offload::NONE);
    merge(&mut batch, &LIMITS);
    let after: Vec<_> = (0..batch.len()).map(|n| (batch.bytes(n).to_vec(), batch.frame(n).offload)).collect();
    for (n, (after, expected)) in after.iter().zip(&expected).enumerate() {
        assert_eq!(after.1, expected.1, "frame {n}");
        assert_eq!(after.0, expected.0, "frame {n}");
    }
    assert_eq!(after.len(), expected.len());
}

#[test]
fn a_state_that_is_known_already_is_kept() {
    let mut sender = Sender::new(true, false);
    let frames =
        [sender.send(100, 0), left_partial(sender.send(100, 0)), sender.send(100, 0), sender.send(100, 0)];
    let partial = Offload { csum: Checksum::Partial { start: 34, offset: 16 }, gso: None };
    let gso = Some(Gso { kind: GsoKind::TcpV4, size: 50, hdr_len: 66, ecn: false });
    for state in [partial, Offload { gso, ..partial }] {
        let mut batch = batch_of(&frames, Lie::Apart);
        batch.frame_mut(1).offload = state;
        merge(&mut batch, &LIMITS);
        assert_eq!(batch.len(), 3, "the two behind it");
        assert_eq!((batch.bytes(1), batch.frame(1).offload), (&frames[1][..], state));
    }
    // Good is believed, and spares the sum: a segment whose checksum is wrong is merged, and has the right one afterwards.
    let mut batch = batch_of(&frames, Lie::Apart);
    for n in 0..4 {
        batch.frame_mut(n).offload = GOOD;
    }
    merge(&mut batch, &LIMITS);
    assert_eq!(sizes(&batch), [4]);
    // Of the header of IPv4 it says nothing.
    let mut batch = batch_of(&frames, Lie::Apart);
    for n in 0..4 {
        batch.frame_mut(n).offload = GOOD;
    }
    batch.bytes_mut(3)[24] ^= 1;
    merge(&mut batch, &LIMITS);
    assert_eq!(sizes(&batch), [3, 1]);
    assert_eq!(batch.frame(1).offload, Offload::NONE);
}

#[test]
fn a_wrong_checksum_is_nobodys_business_here() {
    for mut sender in Sender::all() {
        let good = sender.send(100, 0);
        assert_eq!(verify(&good, None, &LIMITS), GOOD);
        let (l3, l4) = at(&good);
        let mut places = vec![l4 + 1, l4 + 17, good.len() - 1];
        if !sender.six {
            places.extend([l3 + 1, l3 + 5, l3 + 11]);
        }
        for at in places {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(verify(&bad, None, &LIMITS), Offload::NONE, "octet {at}, {sender:?}");
        }
        for len in 0..good.len() {
            assert_eq!(verify(&good[..len], None, &LIMITS), Offload::NONE, "{len} octets");
        }
    }
}

#[test]
fn a_datagram_without_checksum_is_good_over_ipv4_and_unknown_over_ipv6() {
    for (six, expected) in [(false, GOOD), (true, Offload::NONE)] {
        let mut sender = Sender::new(false, six);
        let mut frames = [sender.send(100, 0), sender.send(100, 0)];
        for frame in &mut frames {
            finish_with(frame, |_, _| 0);
        }
        assert_eq!(merged(&frames, Lie::Apart), [1, 1]);
        assert_eq!(verify(&frames[0], None, &LIMITS), expected);
    }
}

#[test]
fn a_checksum_in_the_other_form_of_zero_stays_as_it_is() {
    // 0xffff and 0 are one number (RFC 1624 §3): a receiver takes both, but a split writes one of them.
    let mut sender = Sender::new(true, false);
    let mut frames = [sender.send(100, 0), sender.send(100, 0)];
    for frame in &mut frames {
        let (_, l4) = at(frame);
        let sum = be16(frame, l4 + 16).unwrap();
        let last = frame.len() - 2;
        let word =
            sample::naive_sum(&[frame[last], frame[last + 1], sum.to_be_bytes()[0], sum.to_be_bytes()[1]]);
        put(frame, last, word);
        finish_with(frame, |_, sum| {
            assert_eq!(sum, 0);
            0xffff
        });
        assert_eq!(verify(frame, None, &LIMITS), GOOD);
    }
    assert_eq!(merged(&frames, Lie::Apart), [1, 1]);
}

#[test]
fn a_right_checksum_that_equals_the_pseudo_header_sum_is_right() {
    for mut sender in Sender::all() {
        let mut frames = [sender.send(100, 0), sender.send(100, 0)];
        for frame in &mut frames {
            let last = frame.len() - 2;
            put(frame, last, 0);
            finish_with(frame, |_, sum| sum);
            let field = at(frame).1 + if sender.tcp { 16 } else { 6 };
            let sum = be16(frame, field).unwrap();
            finish_with(frame, |pseudo, _| pseudo);
            let pseudo = be16(frame, field).unwrap();
            // The word that makes the sum the complement of the pseudo-header sum.
            let parts = [!pseudo, sum].map(u16::to_be_bytes);
            put(frame, last, sample::naive_sum(parts.as_flattened()));
            finish_with(frame, |pseudo, sum| {
                assert_eq!(sum, pseudo);
                sum
            });
            assert_eq!(verify(frame, None, &LIMITS), GOOD);
        }
        assert_eq!(merged(&frames, Lie::Apart), [2], "{sender:?}");
    }
}

#[test]
fn packets_with_options_are_neither_good_nor_merged_but_may_be_partial() {
    let mut frames = Vec::new();
    for protocol in [6, 17] {
        let transport =
            if protocol == 6 { sample::tcp(9, ACK, &[], &[7; 50]) } else { sample::udp(5, 6, &[7; 50]) };
        let packets = [
            (EtherType::IPV4, sample::ipv4_with_options(protocol, &[1; 4], &transport)),
            (EtherType::IPV6, sample::ipv6(60, &[sample::ext(protocol, 8), transport.clone()].concat())),
        ];
        for (ethertype, packet) in packets {
            let field = packet.len() - transport.len() + if protocol == 6 { 16 } else { 6 };
            let mut plain = packet.clone();
            if ethertype == EtherType::IPV6 {
                plain[6] = protocol;
            }
            let pseudo = sample::pseudo_sum(&plain, transport.len());
            let all = [&pseudo.to_be_bytes()[..], &transport].concat();
            let mut complete = packet.clone();
            put(&mut complete, field, !sample::naive_sum(&all));
            let complete = sample::ethernet(&[], ethertype, &complete);
            assert_eq!(verify(&complete, None, &LIMITS), Offload::NONE);
            frames.extend([complete.clone(), complete]);
            let mut partial = packet;
            put(&mut partial, field, pseudo);
            let state = verify(&sample::ethernet(&[], ethertype, &partial), None, &LIMITS);
            assert!(matches!(state, Offload { csum: Checksum::Partial { .. }, gso: None }), "{state:?}");
        }
    }
    assert_eq!(merged(&frames, Lie::Apart), [1; 8]);
}
