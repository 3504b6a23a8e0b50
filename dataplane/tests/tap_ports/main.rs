//! TAP ports against the real kernel, in network namespaces of their own.
//!
//! ```text
//!   thread of the test, in a namespace of its own     another thread's namespace
//!   ┌───────────────────────────────────┐             ┌──────────────────────┐
//!   │ "the daemon": Tap, queues         │── a TAP ───▶│ "the container"      │
//!   └───────────────────────────────────┘             └──────────────────────┘
//! ```
//! Nothing touches the namespace the tests were started in. They need root, and say so where they have not got it.

mod adopt;
mod change;
mod frames;
mod open;
mod topo;
mod uplink;
