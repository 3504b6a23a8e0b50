//! The fuzz targets: plain functions that panic where something that must hold of any input does not.
//!
//! A new one is a module here and a line in [`ALL`], three lines in `fuzz_targets/`, a `[[bin]]` in `Cargo.toml`, and a directory in
//! `corpus/` whose files are named for what they hold.

pub mod call;
pub mod decap;
pub mod forward;
pub mod layers;
pub mod merge;
pub mod neigh;
pub mod overlay;
pub mod secure;
pub mod split;
pub mod stream;
pub mod topology;
pub mod uplink;
pub mod vhost;

/// A target's name, which is that of its directory in `corpus/`, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
#[allow(dead_code, reason = "a fuzzing binary runs one of them")]
pub const ALL: &[Target] = &[
    ("call", call::run),
    ("decap", decap::run),
    ("forward", forward::run),
    ("layers", layers::run),
    ("neigh", neigh::run),
    ("overlay", overlay::run),
    ("merge", merge::run),
    ("secure", secure::run),
    ("split", split::run),
    ("stream", stream::run),
    ("topology", topology::run),
    ("uplink", uplink::run),
    ("vhost", vhost::run),
];
