//! The system's allocator, with every allocation of a thread counted.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, none of which uses all of it")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    /// Allocations of this thread: tests run beside each other. Needs no initialization, so that looking at it allocates nothing.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Octets that this thread has allocated, less those that it has given back.
    static OCTETS: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, and a count.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(octets: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    OCTETS.set(OCTETS.get() + octets as i64);
}

// SAFETY: every call is handed to the system's allocator as it came, and what that answers is handed back; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        OCTETS.set(OCTETS.get() - layout.size() as i64);
        // SAFETY: as above; `old` came from `System`, since everything here does.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        OCTETS.set(OCTETS.get() - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

/// The allocations of `f` on this thread.
pub fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

/// What `f` makes, and the octets that it keeps allocated for that.
pub fn octets<T>(f: impl FnOnce() -> T) -> (T, i64) {
    let before = OCTETS.get();
    let made = f();
    (made, OCTETS.get() - before)
}
