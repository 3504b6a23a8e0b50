//! Carrying bridges between hosts: tunnels, their headers and their endpoints.
//!
//! Owns what is between an inner frame and the underlay. Never decides where a frame goes, and does no I/O.

pub mod remotes;
