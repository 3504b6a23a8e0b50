//! A userspace software switch for Linux.
#![deny(unsafe_code)]

pub mod api;
pub mod bridge;
pub mod config;
pub mod counters;
pub mod fdb;
pub mod frame;
pub mod index;
pub mod netlink;
pub mod offload;
pub mod port;
#[allow(unsafe_code)]
pub mod sys;
pub mod tick;
pub mod wire;
