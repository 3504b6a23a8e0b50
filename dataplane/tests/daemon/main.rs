//! `tapwayd` from outside: the process, its socket, and the kernel around it.
//!
//! Each test has a private world of namespaces (`tests/topo`), starts the daemon in its `home`, and speaks Varlink to it
//! in the plainest way there is, JSON and a zero octet, so that no code of ours stands between the test and the wire.

mod clients;
mod commands;
mod devices;
mod life;
mod lost;
mod storm;
mod switch;
#[path = "../../../tests/topo/mod.rs"]
mod topo;
mod topology;
mod unprivileged;
