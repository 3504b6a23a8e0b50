//! Kernel devices through netlink, in network namespaces of their own.
//!
//! ```text
//!   thread of the test, in a namespace of its own       other namespaces
//!   ┌────────────────────────────────────────┐          ┌────────────────┐
//!   │ "the daemon": create, change, delete   │──veth───▶│ "the container"│
//!   └────────────────────────────────────────┘          └────────────────┘
//! ```
//! `ip` is the judge: it makes foreign devices, and says what ours have become.
//! Nothing touches the namespace the tests were started in. They need root, and say so where they have not got it.
//! Tests whose names end with `_in_the_guest` need kinds that not every kernel has; where the kernel lacks one they say so
//! and pass, unless `TAPWAY_TEST_GUEST` is set: then every kind has to be there.

mod change;
mod killed;
mod kinds;
mod monitor;
mod random;
mod refusals;
mod requests;
mod topo;
