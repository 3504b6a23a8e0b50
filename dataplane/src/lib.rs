//! A userspace software switch for Linux.
#![deny(unsafe_code)]

pub mod api;
pub mod config;
pub mod counters;
pub mod fdb;
pub mod frame;
pub mod index;
pub mod offload;
pub mod server;
pub mod tick;
pub mod wire;
