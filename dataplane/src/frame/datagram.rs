//! A datagram of the underlay, as it was received.

use std::{net::IpAddr, ops::Range};

use super::Offload;

/// One datagram, or a train of them that the kernel joined, in the memory of a batch.
///
/// These are the facts that the kernel told, not what they mean. The stride above all: over a virtual underlay it can be the
/// segment size of the frame *inside* the datagram (docs/design/underlay.md), which only who reads the inner headers can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it begins in the batch's memory: the first octet behind the UDP header.
    pub at: u32,
    /// Its octets.
    pub len: u32,
    /// What the kernel calls the size of each datagram of a train but the last, which may be shorter (`UDP_GRO`); 0 where it said nothing.
    pub stride: u32,
    /// Who sent it.
    pub from: IpAddr,
    /// The TOS octet, or the traffic class, of the outer header: DSCP and ECN.
    pub tos: u8,
    /// What is still to be done to the frame inside, where whoever received it knows; positions are those of the datagram.
    pub offload: Offload,
}

impl Datagram {
    /// Its octets, as a range of the batch's memory.
    #[inline]
    pub const fn range(&self) -> Range<usize> {
        self.at as usize..(self.at + self.len) as usize
    }
}
