//! A userspace software switch for Linux: TAP ports, VLAN-aware learning bridges, VXLAN and Geneve tunnels, and the daemon
//! `tapwayd` around them.
//!
//! Three nouns carry it. A [`Batch`](frame::Batch) is what one receive brings, a [`Snapshot`](snapshot::Snapshot) is one
//! state of the switch, and a [`TxPlan`](forward::TxPlan) says what leaves where. [`forward`](forward::forward) makes the
//! third of the first two and does nothing else; the rest of the crate receives, configures and sends.
//!
//! # Layers
//!
//! Imports point downwards only; `tests/house.rs` has every module with its layer, and fails where one is broken.
//!
//! ```text
//!  control   daemon ─ server, state ─ engine ─ api ─ config may block, allocate, log; never on a worker
//!     │
//!  effects   worker ─ port ─ netlink ─ netns ─ sys, clock   call the kernel; `unsafe` in sys alone
//!     │
//!  pure      forward ─ snapshot ─┬ bridge                   no I/O, no clock, no threads, no log
//!                                ├ fdb
//!                                └ overlay ─ offload ─ frame
//!            wire, tick, index, counters: leaves that all use
//! ```
//!
//! | Module | Owns |
//! |---|---|
//! | [`wire`] | the layout of headers |
//! | [`tick`] | time, as a number that somebody else read |
//! | [`index`] | dense numbers in the place of names |
//! | [`counters`] | drop reasons, and what a port counts |
//! | [`frame`] | the memory of a batch, and the offload state of a frame |
//! | [`fdb`] | which station is behind which port |
//! | [`bridge`] | who may talk to whom: VLANs, members, source security, storm limits; who answers for a neighbour |
//! | [`overlay`] | what a tunnel puts around a frame and takes off, the table of remotes, and the switch as a host on an uplink |
//! | [`offload`] | finishing checksums, splitting super-frames and merging segments in software |
//! | [`snapshot`] | the compiled state that the path reads |
//! | [`forward`](mod@forward) | the order of the steps, and the plan |
//! | [`clock`] | reading the time |
//! | [`sys`] | system calls, one safe function each |
//! | [`netns`] | how a network namespace is named |
//! | [`netlink`] | kernel devices: links, addresses and routes |
//! | [`port`] | descriptors, what was negotiated with the kernel, and what its errors mean |
//! | [`worker`] | the loop: receive, decapsulate, forward, send |
//! | [`config`] | the words of operators: parsed, checked, compared |
//! | [`api`] | requests and replies, shared with `tapwayctl` |
//! | [`engine`] | everything that can change, and the order in which it does |
//! | [`server`] | the control socket and its clients |
//! | `state` | the topology that outlives the daemon |
//! | [`daemon`] | the control thread's loop |
//!
//! # Reading order
//!
//! 1. [`forward`](mod@forward): a frame's life on one screen.
//! 2. [`bridge`], [`fdb`] and [`offload`]: what its steps ask.
//! 3. [`worker`] and [`port`]: where batches come from and plans go to. [`overlay`]: what tunnels add.
//! 4. [`engine`]: how a change is made under traffic.
//! 5. [`config`], [`api`] and [`server`]: how it is asked for.
//!
//! `docs/design/architecture.md` has the same on one page, with the threads.

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
pub mod overlay;
pub mod port;
pub mod server;
pub mod snapshot;
pub mod state;
#[allow(unsafe_code)]
pub mod sys;
pub mod tick;
pub mod wire;
pub mod worker;
