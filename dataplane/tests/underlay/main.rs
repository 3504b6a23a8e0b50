//! The sockets of the underlay against the real kernel, in network namespaces of their own.
//!
//! ```text
//!   host a                                  host b
//!   198.51.100.1, 2001:db8::1 ──── veth ──── 198.51.100.2, 2001:db8::2
//! ```
//! Nothing touches the namespace the tests were started in. They need root, and say so where they have not got it.

mod alloc;
mod kernel;
mod open;
mod receive;
mod send;
mod topo;
