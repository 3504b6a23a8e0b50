//! The dataplane daemon.
fn main() {}
