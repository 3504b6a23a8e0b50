//! Sending and receiving allocate nothing once the memory has grown to what the traffic needs: every allocation of the thread is counted.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    thread,
    time::Duration,
};

use tapway_dataplane::{
    counters::PortCounters,
    frame::Batch,
    index::{PortIdx, RemoteIdx},
    port::underlay::{Outbox, TxSetOptions, Who},
};

use super::topo::*;

thread_local! {
    /// Allocations of this thread: tests run beside each other. Needs no initialization, so that looking at it allocates nothing.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, and a count.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed to the system's allocator as it came, and what that answers is handed back; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above; `old` came from `System`, since everything here does.
        unsafe { System.dealloc(old, layout) }
    }
}

#[test]
fn a_warm_worker_sends_and_receives_without_an_allocation() {
    let Some((a, b)) = hosts() else { return };
    let mut rx = b.rx(vtep(B4));
    for checksum in [true, false] {
        let tx = a.tx(&TxSetOptions { checksum, ..tx_options(A4) });
        let (mut outbox, mut batch, mut datagrams) =
            (Outbox::default(), Batch::new(), Vec::with_capacity(64));
        let (memory, counters) = (vec![7; 2000], PortCounters::default());
        let who = Who { port: PortIdx(0), remote: RemoteIdx(0) };
        for round in 0..4 {
            let before = ALLOCATIONS.get();
            let (mut sent, mut octets) = (0, 0);
            // Runs, sizes that alternate, many flows, and one flow longer than the MTU, which takes the way of refusals.
            for n in 0..200_u32 {
                let len = if n / 5 == 15 { 1900 } else { [60, 1300, 1300, 300, 1300][n as usize % 5] };
                if outbox.is_full() {
                    outbox.flush(&memory, |_| Some(&tx), |_, s| sent += s.datagrams);
                }
                outbox.push(&to(vtep(B4), n / 5), who, &[&[8, 0, 0, 0], &[0; 50]], 0..len, &memory);
            }
            outbox.flush(&memory, |_| Some(&tx), |_, s| sent += s.datagrams);
            assert_eq!(sent, 200);
            thread::sleep(Duration::from_millis(20));
            for _ in 0..8 {
                rx.recv(&mut batch, &mut datagrams, &counters);
                octets += datagrams.iter().map(|d| d.len).sum::<u32>();
            }
            assert!(octets > 100_000, "{octets}");
            let spent = ALLOCATIONS.get() - before;
            assert!(round < 2 || spent == 0, "{spent} allocations, checksum {checksum}");
        }
    }
}
