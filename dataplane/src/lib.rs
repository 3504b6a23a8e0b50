//! A userspace software switch for Linux.
#![deny(unsafe_code)]

pub mod api;
pub mod bridge;
pub mod clock;
pub mod config;
pub mod counters;

pub mod daemon;
pub mod engine;
pub mod fdb;
pub mod forward;
pub mod frame;
pub mod index;
pub mod netlink;
pub mod netns;
pub mod offload;
pub mod port;
pub mod server;
pub mod snapshot;
pub mod state;
#[allow(unsafe_code)]
pub mod sys;
pub mod tick;
pub mod wire;
pub mod worker;
