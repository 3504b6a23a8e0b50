//! x
mod topo;
#[test]
fn x() { if !topo::in_guest() { return; } }
