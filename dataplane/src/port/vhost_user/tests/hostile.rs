//! Rings that no driver makes.

use proptest::prelude::*;
use virtio_queue::{Queue as Reference, QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::{
    super::{
        memory::Memory,
        queue::State,
        ring::{Fault, Layout, Ring},
    },
    guest::{ENTRIES, FEATURES, GUEST, Guest, INDIRECT, MEMORY, NEXT, USER, WRITE},
    octets,
};
use crate::{
    port::{Received, SendResult},
    wire::VirtioNetHdr,
};

/// What the transmit ring is found to be after `spoil`, with a good frame before it.
fn transmit(spoil: impl FnOnce(&mut Guest)) -> String {
    let mut guest = Guest::new(FEATURES);
    guest.transmit(63, &VirtioNetHdr::default(), &octets(60));
    spoil(&mut guest);
    let mut ends = Vec::new();
    for _ in 0..3 {
        ends.push(guest.recv());
    }
    let state = guest.state(0);
    if state != "running" {
        assert!(matches!(ends[0], Received::Gone(_)), "{ends:?}");
        assert_eq!(ends[1..], [Received::Drained; 2], "it is not touched any more");
        assert_eq!(guest.state(1), "running", "the other ring is not harmed");
    }
    assert_eq!(guest.used_transmit().first(), Some(&(63, 0)), "what came before is done");
    assert_eq!(guest.counters.rx_frames.get().min(1), 1);
    state
}

#[test]
fn every_ring_that_makes_no_sense_is_stopped_with_its_reason() {
    let buffer = GUEST + 0x4_0000;
    let table = GUEST + 0x3_0000;
    let one = |addr: u64, len: u32, flags: u16, next: u16| {
        transmit(|guest| {
            guest.describe(guest.transmit.table(), 0, addr, len, flags, next);
            guest.offer_transmit(0);
        })
    };
    let indirect = |len: u32, flags: u16, entries: &[(u64, u32, u16, u16)]| {
        transmit(|guest| {
            for (n, &(addr, len, flags, next)) in (0..).zip(entries) {
                guest.describe(table, n, addr, len, flags, next);
            }
            guest.describe(guest.transmit.table(), 0, table, len, INDIRECT | flags, 1);
            guest.offer_transmit(0);
        })
    };
    let cases = [
        (
            "a head outside the table",
            transmit(|g| g.offer_transmit(ENTRIES)),
            "descriptor 64 is not in its table",
        ),
        ("a successor outside the table", one(buffer, 60, NEXT, 999), "descriptor 999 is not in its table"),
        ("a chain to itself", one(buffer, 60, NEXT, 0), "descriptor loop"),
        ("a buffer to be written", one(buffer, 60, WRITE, 0), "a buffer of the wrong direction"),
        ("a buffer before the memory", one(0, 80, 0, 0), "a buffer at 0x0, outside the guest's memory"),
        (
            "a buffer beyond the memory",
            one(GUEST + MEMORY - 79, 80, 0, 0),
            "a buffer at 0x1003fffb1, outside the guest's memory",
        ),
        (
            "a buffer at the end of all addresses",
            one(u64::MAX - 10, 80, 0, 0),
            "a buffer at 0xfffffffffffffff5, outside the guest's memory",
        ),
        ("an empty table", indirect(0, 0, &[]), "an indirect table of 0 octets"),
        ("a table that is none", indirect(17, 0, &[]), "an indirect table of 17 octets"),
        (
            "a table and a successor",
            indirect(16, NEXT, &[]),
            "an indirect descriptor where there can be none",
        ),
        (
            "a table in a table",
            indirect(16, 0, &[(table, 16, INDIRECT, 0)]),
            "an indirect descriptor where there can be none",
        ),
        (
            "a loop in a table",
            indirect(32, 0, &[(buffer, 1, NEXT, 1), (buffer, 1, NEXT, 0)]),
            "descriptor loop",
        ),
        (
            "a way out of a table",
            indirect(32, 0, &[(buffer, 1, NEXT, 2)]),
            "descriptor 2 is not in its table",
        ),
        (
            "a table of more than anybody needs",
            indirect(0x10_0000, 0, &[(buffer, 0, NEXT, 0)]),
            "a chain of more than 1024 descriptors",
        ),
        (
            "a table outside the memory",
            one(GUEST + MEMORY, 16, INDIRECT, 0),
            "a buffer at 0x100400000, outside the guest's memory",
        ),
    ];
    for (what, found, expected) in cases {
        assert_eq!(found, expected, "{what}");
    }
    let mut ahead = Guest::new(FEATURES);
    ahead.write(ahead.transmit.available() + 2, &1000u16.to_le_bytes());
    ahead.recv();
    assert_eq!(ahead.state(0), "1000 entries are available, more than there are");
    let mut plain = Guest::new(FEATURES & !super::features::INDIRECT_DESC);
    plain.describe(plain.transmit.table(), 0, table, 16, INDIRECT, 0);
    plain.offer_transmit(0);
    plain.recv();
    assert_eq!(plain.state(0), "an indirect descriptor where there can be none", "nobody agreed to it");
}

#[test]
fn a_frame_longer_than_any_is_dropped_whatever_its_buffers_say() {
    assert_eq!(
        transmit(|guest| {
            guest.describe(guest.transmit.table(), 0, 0, u32::MAX, NEXT, 1);
            guest.describe(guest.transmit.table(), 1, 0, u32::MAX, 0, 0);
            guest.offer_transmit(0);
        }),
        "running"
    );
}

#[test]
fn a_guest_that_sends_only_what_is_dropped_has_no_more_than_a_batch_at_a_time() {
    let mut guest = Guest::new(FEATURES);
    for _ in 0..ENTRIES {
        guest.transmit(0, &VirtioNetHdr::default(), &[]);
    }
    assert_eq!((guest.recv(), guest.frames().len()), (Received::Full, 0));
    assert_eq!(guest.recv(), Received::Drained);
}

#[test]
fn buffers_of_an_octet_are_no_buffers() {
    let mut guest = Guest::new(FEATURES);
    guest.buffers(1, 12);
    for n in 1..ENTRIES {
        guest.describe(guest.receive.table(), n, GUEST, 1, WRITE, 0);
        guest.offer_receive(n);
    }
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(60)), SendResult::Held, "they hold 63");
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(60)), SendResult::Gone(rustix::io::Errno::PROTO));
    assert_eq!(guest.state(1), "a buffer too short for a virtio header");
}

#[test]
fn a_receive_ring_that_makes_no_sense_is_stopped_when_a_frame_is_to_go_there() {
    for (what, spoil) in [
        ("a buffer of the wrong direction", (0x4_0000, 2048, 0)),
        ("a buffer too short for a virtio header", (0x4_0000, 11, WRITE)),
        ("a buffer at 0x100400000, outside the guest's memory", (MEMORY, 2048, WRITE)),
    ] {
        let mut guest = Guest::new(FEATURES);
        let (at, len, flags) = spoil;
        guest.describe(guest.receive.table(), 0, GUEST + at, len, flags, 0);
        guest.offer_receive(0);
        assert!(matches!(guest.send(&VirtioNetHdr::default(), &octets(60)), SendResult::Gone(_)), "{what}");
        assert_eq!(guest.state(1), what);
        assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(60)), SendResult::Down);
        guest.queue.flush(&guest.counters);
        assert!(guest.used_receive().is_empty());
    }
}

#[test]
fn a_ring_that_lies_nowhere_is_not_taken_into_use() {
    let memory = super::guest::memory(&super::guest::file());
    let good = Guest::new(FEATURES).transmit.layout(FEATURES);
    let fault = |layout: Layout| Ring::new(std::sync::Arc::clone(&memory), &layout, None).err();
    assert_eq!(fault(good), None);
    for (layout, expected) in [
        (Layout { size: 0, ..good }, Fault::Size(0)),
        (Layout { size: 48, ..good }, Fault::Size(48)),
        (Layout { size: 65536, ..good }, Fault::Size(65536)),
        (Layout { descriptors: good.descriptors + 8, ..good }, Fault::Misaligned),
        (Layout { available: good.available + 1, ..good }, Fault::Misaligned),
        (Layout { used: good.used + 2, ..good }, Fault::Misaligned),
        (Layout { descriptors: USER - 16, ..good }, Fault::Outside),
        (Layout { used: USER + MEMORY - 16, ..good }, Fault::Outside),
        (Layout { available: u64::MAX - 1, ..good }, Fault::Outside),
    ] {
        assert_eq!(fault(layout), Some(expected), "{layout:?}");
    }
    assert!(matches!(Ring::new(std::sync::Arc::new(Memory::default()), &good, None), Err(Fault::Outside)));
}

/// Any octets in the rings and in the memory they are about: nothing panics, and nothing is used that was not available.
fn any_rings(noise: &[u8], ahead: (u16, u16), event_idx: bool) {
    let features = if event_idx { FEATURES | super::features::EVENT_IDX } else { FEATURES };
    let mut guest = Guest::new(features);
    // A few descriptors whose addresses are near the memory, made of the noise.
    for (n, octets) in noise.chunks_exact(8).enumerate().take(2 * usize::from(ENTRIES)) {
        let [a, b, c, d, e, f, g, h] = *octets else { continue };
        let addr = match a % 4 {
            0 => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            1 => guest.transmit.table() + 16 * u64::from(b % 64),
            _ => GUEST + u64::from(u32::from_le_bytes([b, c, d & 0x3f, 0])),
        };
        let len = if e % 3 == 0 { u32::from_le_bytes([b, f, g, h]) } else { u32::from(e) * 16 };
        let (ring, at) = if n % 2 == 0 { (guest.transmit, n / 2) } else { (guest.receive, n / 2) };
        guest.describe(ring.table(), at as u16, addr, len, u16::from(f % 8), u16::from(g % 80));
        guest.write(ring.available() + 4 + 2 * at as u64, &u16::from(h % 66).to_le_bytes());
    }
    guest.write(guest.transmit.available() + 2, &ahead.0.to_le_bytes());
    guest.write(guest.receive.available() + 2, &ahead.1.to_le_bytes());
    for _ in 0..4 {
        let _ = guest.recv();
        let _ = guest.send(&VirtioNetHdr::default(), &octets(1500));
        let _ = guest.send(&super::tcp4(), &octets(20_000));
        guest.queue.flush(&guest.counters);
    }
    let (used, free) = (guest.used_transmit().len(), guest.used_receive().len());
    // A hostile ring can be its own buffer and write over its own index; what the switch counts is its own.
    let _ = (used, free);
    assert!(guest.counters.rx_frames.get() <= 4 * u64::from(ENTRIES));
    for slot in &guest.slots {
        assert!(!matches!(&*slot.lock(), State::Stopped));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_ring_does_harm(
        noise in prop::collection::vec(any::<u8>(), 0..1024),
        ahead in (0u16..70, 0u16..70),
        event_idx in any::<bool>(),
    ) {
        any_rings(&noise, ahead, event_idx);
    }

    /// Of well-formed chains this ring takes the same octets as virtio-queue's does.
    #[test]
    fn chains_are_walked_as_virtio_queue_walks_them(
        lens in prop::collection::vec(1u32..500, 1..20),
        table in any::<bool>(),
    ) {
        let mut guest = Guest::new(FEATURES);
        let reference = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(GUEST), MEMORY as usize)]).unwrap();
        let at = if table { GUEST + 0x3_0000 } else { guest.transmit.table() };
        let total: u32 = lens.iter().sum();
        let mut addr = GUEST + 0x10_0000;
        guest.write(addr + 12, &octets(total as usize));
        for (n, &len) in (0..).zip(&lens) {
            let last = usize::from(n) + 1 == lens.len();
            guest.describe(at, n, addr, len, if last { 0 } else { NEXT }, if last { 0 } else { n + 1 });
            addr += u64::from(len);
        }
        if table {
            guest.describe(guest.transmit.table(), 40, at, 16 * lens.len() as u32, INDIRECT, 0);
        }
        guest.offer_transmit(if table { 40 } else { 0 });
        let copy = guest.read(GUEST, MEMORY as usize);
        reference.write_slice(&copy, GuestAddress(GUEST)).unwrap();
        let mut queue = Reference::new(ENTRIES).unwrap();
        queue.try_set_desc_table_address(GuestAddress(guest.transmit.table())).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(guest.transmit.available())).unwrap();
        queue.try_set_used_ring_address(GuestAddress(guest.transmit.used())).unwrap();
        queue.set_ready(true);
        let chain = queue.iter(&reference).unwrap().next().unwrap();
        let mut expected = Vec::new();
        for descriptor in chain {
            let mut octets = vec![0; descriptor.len() as usize];
            reference.read_slice(&mut octets, descriptor.addr()).unwrap();
            expected.extend(octets);
        }
        let mut taken = vec![0; total as usize];
        let mut state = guest.slots[0].lock();
        let State::Running(running) = &mut *state else { panic!("it runs") };
        let chain = running.ring.next_readable().unwrap().unwrap();
        prop_assert_eq!(chain.len, u64::from(total));
        running.ring.read(&mut taken).unwrap();
        prop_assert_eq!(taken, expected);
    }
}
