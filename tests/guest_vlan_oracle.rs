//! The kernel's bridge with VLAN filtering as the oracle, in the guest: the same frames, with every kind of tag, enter by the same
//! ports of both, and must leave by the same ports with the same octets.
//!
//! ```text
//!   host 0 ── access 10 ──────────────┐          ┌── trunk 10,20 ──────────── host 3
//!   host 1 ── access 20 ──────────────┤  bridge  ├── trunk 20,30, native 10 ── host 4
//!   host 2 ── access 10 ──────────────┘          └── access 30 ───────────── host 5
//! ```
//!
//! Where the two differ by intention, the oracle is told to do what we do (and the RFCs and standards allow), or the frame is
//! left out, and a test of its own says what each does:
//!
//! - An access port of ours refuses a tag with its own VLAN; the kernel's takes it, since it knows members and not modes.
//! - A tag of the other kind (802.1ad at a bridge of 802.1Q) is payload to the kernel; to us it names a VLAN too.
//! - What `tests/netns_oracle.rs` says of reserved addresses.

mod topo;

use std::{process::Command, time::Duration};

use topo::{
    Host, Net,
    frame::{self, BROADCAST, EXPERIMENTAL, mac, tag},
    in_guest,
    packet::PacketSocket,
    random::Random,
    switch::Switch,
    traffic::pattern,
};

const STATIONS: usize = 5;
const FRAMES: usize = 300;
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);
/// The type of the frames that say "everything before me has passed".
const SENTINEL: u16 = EXPERIMENTAL + 1;
/// The type of an 802.1ad service tag.
const SERVICE: [u8; 2] = [0x88, 0xa8];

/// What a port is, in our words, and in those of `bridge vlan add`.
struct Port {
    ours: &'static str,
    kernels: &'static [&'static str],
    /// The VLANs in which it sends and receives, and whether with a tag.
    vlans: &'static [(u16, bool)],
}
