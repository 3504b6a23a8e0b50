//! Splitting a super-frame into the segments it is made of.
//!
//! A segment is a header that is written here and a range of the super-frame's payload, which is neither moved nor copied: an
//! egress sends the two as one vector. Everything that is the same for all segments is summed up once, in [`Split::plan`]; a segment costs
//! a copy of the headers, a few fields, and one pass over its payload for the checksum.

use std::ops::Range;

use super::{
    checksum::{Sum, not_zero},
    headers::{Headers, MAX_HEADERS, TCP_CHECKSUM, UDP_CHECKSUM},
};
use crate::{
    counters::DropReason,
    frame::{GsoKind, Offload},
    wire::layers::{Version, be16},
};

/// The most segments of one super-frame.
///
/// Linux refuses an MSS under 48 (`TCP_MIN_SND_MSS`), which leaves 36 octets after timestamps: 1,820 segments of the longest packet.
/// Its UDP senders stop at 128 (`UDP_MAX_SEGMENTS`). Whatever asks for more than 2,048 is after the work it makes.
pub const MAX_SEGMENTS: usize = 2048;

/// The flags of TCP (RFC 9293 §3.1) that not every segment of a super-frame carries, in the octet at 13.
pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const CWR: u8 = 0x80;

/// How a super-frame is split.
#[derive(Clone, Copy, Debug)]
pub struct Split<'a> {
    frame: &'a [u8],
    headers: Headers,
    tcp: bool,
    size: usize,
    count: usize,
    l3_len: usize,
    /// Over the IPv4 header, without total length, identification and checksum.
    ip: Sum,
    id: u16,
    /// Over the pseudo-header and the transport header, without length, sequence number, flags and checksum.
    transport: Sum,
    sequence: u32,
    /// Data offset and flags of TCP: the word at 12.
    flags: u16,
}

impl<'a> Split<'a> {
    /// Checks the headers of a super-frame, and prepares for its segments.
    ///
    /// [`DropReason::GsoMalformed`] where the frame is no super-frame of the kind that `offload` says, as in [`validate`](super::validate);
    /// [`DropReason::SegmentLimit`] where there would be more than [`MAX_SEGMENTS`].
    pub fn plan(frame: &'a [u8], offload: &Offload) -> Result<Self, DropReason> {
        let gso = offload.gso.as_ref().ok_or(DropReason::GsoMalformed)?;
        let headers = Headers::of(frame, gso, offload.csum).ok_or(DropReason::GsoMalformed)?;
        let size = usize::from(gso.size);
        let count = (headers.end - headers.payload).div_ceil(size).max(1);
        if count > MAX_SEGMENTS {
            return Err(DropReason::SegmentLimit);
        }
        let mut split = Self {
            frame,
            headers,
            tcp: gso.kind != GsoKind::Udp,
            size,
            count,
            l3_len: headers.l3_len(gso),
            ip: Sum::default(),
            id: 0,
            transport: Sum::default(),
            sequence: 0,
            flags: 0,
        };
        split.sum_up().ok_or(DropReason::GsoMalformed)?;
        Ok(split)
    }

    /// Fills in the sums over what all segments have in common.
    fn sum_up(&mut self) -> Option<()> {
        let Headers { version, l3, l4, payload, end } = self.headers;
        let ip = self.frame.get(l3..l4)?;
        let transport = self.frame.get(l4..payload)?;
        let (addresses, fixed_len) = match version {
            Version::V4 => {
                self.id = be16(ip, 4)?;
                self.ip = Sum::of(ip.get(..2)?).and(Sum::of(ip.get(6..10)?)).and(Sum::of(ip.get(12..)?));
                (ip.get(12..20)?, 20)
            }
            Version::V6 => (ip.get(8..40)?, 40),
        };
        let (protocol, checksum) = if self.tcp { (6, TCP_CHECKSUM) } else { (17, UDP_CHECKSUM) };
        self.transport = if ip.len() == fixed_len {
            Sum::of(addresses).add(protocol)
        } else {
            // "If the IPv6 packet contains a Routing header, the Destination Address used in the pseudo-header is that of the
            // final destination" (RFC 8200 §8.1); a source route of IPv4 hides it the same way. The sender knew it: the field
            // holds its pseudo-header sum, over the whole length.
            Sum::default().add(be16(transport, checksum)?).sub32((end - l4) as u32)
        };
        self.transport = if self.tcp {
            self.sequence = u32::from(be16(transport, 4)?) << 16 | u32::from(be16(transport, 6)?);
            self.flags = be16(transport, 12)?;
            self.transport
                .and(Sum::of(transport.get(..4)?))
                .and(Sum::of(transport.get(8..12)?))
                .and(Sum::of(transport.get(14..16)?))
                .and(Sum::of(transport.get(18..)?))
        } else {
            self.transport.and(Sum::of(transport.get(..4)?))
        };
        Some(())
    }

    /// How many segments there are; at least one.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The octets in front of the payload of every segment.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.headers.payload
    }

    /// The octets of the longest segment from its network header on: what is compared with an MTU.
    #[inline]
    pub fn l3_len(&self) -> usize {
        self.l3_len
    }

    /// The octets that all segments have together, each with its header.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.count * self.headers.payload + self.headers.end - self.headers.payload
    }

    /// Writes the header of segment `n` to the first [`header_len`](Self::header_len) octets of `header`, its checksums finished, and says
    /// where in the super-frame its payload is.
    ///
    /// # Panics
    /// Where there is no segment `n`: [`count`](Self::count) tells how many there are.
    #[inline]
    pub fn segment(&self, n: usize, header: &mut [u8; MAX_HEADERS]) -> Range<usize> {
        assert!(n < self.count, "segment {n} of {}", self.count);
        let Headers { version, l3, l4, payload, end } = self.headers;
        let start = payload + n * self.size;
        let range = start..end.min(start + self.size);
        header[..payload].copy_from_slice(&self.frame[..payload]);

        let transport_len = payload - l4 + range.len();
        let ip = &mut header[l3..];
        match version {
            Version::V4 => {
                // Segments count up in the identification, as Linux does (`inet_gso_segment`).
                let (len, id) = ((l4 - l3 + transport_len) as u16, self.id.wrapping_add(n as u16));
                put(ip, 2, len);
                put(ip, 4, id);
                put(ip, 10, !self.ip.add(len).add(id).fold());
            }
            // "Length of the IPv6 payload … any extension headers present are considered part of the payload" (RFC 8200 §3).
            Version::V6 => put(ip, 4, (l4 - l3 - 40 + transport_len) as u16),
        }

        let sum = self.transport.and(Sum::of(&self.frame[range.clone()])).add32(transport_len as u32);
        let transport = &mut header[l4..payload];
        if self.tcp {
            let sequence = self.sequence.wrapping_add((n * self.size) as u32);
            let mut flags = self.flags;
            if n + 1 < self.count {
                flags &= !u16::from(FIN | PSH);
            }
            if n > 0 {
                // The sender "sets the CWR flag on the first new data packet sent after the window reduction" (RFC 3168 §6.1.2).
                flags &= !u16::from(CWR);
            }
            put(transport, 4, (sequence >> 16) as u16);
            put(transport, 6, sequence as u16);
            put(transport, 12, flags);
            put(transport, TCP_CHECKSUM, !sum.add32(sequence).add(flags).fold());
        } else {
            let len = transport_len as u16;
            put(transport, 4, len);
            put(transport, UDP_CHECKSUM, not_zero(!sum.add(len).fold()));
        }
        range
    }
}

/// Writes the word at octet `at`.
#[inline]
pub(super) fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}
