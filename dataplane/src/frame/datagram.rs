//! stub
use std::net::IpAddr;
use super::Offload;
/// d
#[derive(Clone, Copy, Debug)]
pub struct Datagram { pub at: u32, pub len: u32, pub stride: u32, pub from: IpAddr, pub tos: u8, pub offload: Offload }
