//! The checksum of a frame that came out of a tunnel: right, left partial by a kernel on this machine, or wrong.

use super::{GOOD, Limits};
use crate::{
    frame::{Checksum, Gso, GsoKind, Offload},
    offload::{
        checksum::Sum,
        headers::{TCP, TCP_CHECKSUM, UDP, UDP_CHECKSUM, UDP_LEN, validate},
        split::CWR,
    },
    wire::layers::{Fragment, Layers, Version, be16},
};

/// Octets of a TCP header without options (RFC 9293 §3.1).
pub(super) const TCP_LEN: usize = 20;

/// The TCP or UDP packet in a frame; all positions in octets from the start of the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) version: Version,
    pub(super) tcp: bool,
    pub(super) l3: usize,
    pub(super) l4: usize,
    /// Where the IP packet ends.
    pub(super) end: usize,
    /// Neither a fragment, nor with options or extension headers: the transport header follows the addresses, and they are final.
    pub(super) plain: bool,
    fragment: bool,
}

/// What the checksums of a frame say of it. An octet: an [`Offload`] that is handed back through memory in parts is read as a whole
/// before they are there, which costs a small frame a fifth of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are right, or there is none to verify.
    Good,
    /// One is wrong, or nobody but the receiver can know.
    Unknown,
    /// The field has the pseudo-header sum: [`Packet::unfinished`] says what that makes of it.
    Unfinished,
}

impl Packet {
    /// The packet, or `None` where the frame has another, or one whose lengths lie.
    #[inline]
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let Layers { l3, ip: Some(ip), .. } = Layers::parse(frame).ok()? else { return None };
        let tcp = match ip.protocol {
            TCP => true,
            UDP => false,
            _ => return None,
        };
        let fixed_len = match ip.version {
            Version::V4 => 20,
            Version::V6 => 40,
        };
        let fragment = ip.fragment != Fragment::No;
        let plain = !fragment && ip.l4 - l3 == fixed_len;
        Some(Self { version: ip.version, tcp, l3, l4: ip.l4, end: ip.end, plain, fragment })
    }

    /// The addresses, source and destination.
    #[inline]
    pub(super) fn addresses<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        match self.version {
            Version::V4 => frame.get(self.l3 + 12..self.l3 + 20),
            Version::V6 => frame.get(self.l3 + 8..self.l3 + 40),
        }
    }

    /// The sum over the addresses.
    #[inline]
    fn addresses_sum(&self, frame: &[u8]) -> Option<Sum> {
        let network = frame.get(self.l3..)?;
        Some(match self.version {
            Version::V4 => Sum::of_header(network.get(12..)?.first_chunk::<8>()?),
            Version::V6 => Sum::of_header(network.get(8..)?.first_chunk::<32>()?),
        })
    }

    /// The protocol number.
    #[inline]
    pub(super) const fn protocol(&self) -> u8 {
        if self.tcp { TCP } else { UDP }
    }

    /// Where the checksum stands in the transport header.
    #[inline]
    pub(super) const fn checksum_at(&self) -> usize {
        if self.tcp { TCP_CHECKSUM } else { UDP_CHECKSUM }
    }

    /// What its checksums say of the frame, of which nobody has said anything.
    #[inline]
    pub(super) fn verdict(&self, frame: &[u8]) -> Verdict {
        if self.fragment || !self.has_good_header(frame) {
            return Verdict::Unknown;
        }
        let Some((pseudo, transport)) = self.covered(frame) else { return Verdict::Unknown };
        let Some(field) = be16(transport, self.checksum_at()) else { return Verdict::Unknown };
        if !self.tcp && field == 0 {
            // "An all zero transmitted checksum value means that the transmitter generated no checksum" (RFC 768); over IPv6,
            // "receivers must discard UDP packets containing a zero checksum" (RFC 8200 §8.1), and the receiver is not the switch.
            return if self.version == Version::V4 { Verdict::Good } else { Verdict::Unknown };
        }
        if field == pseudo.fold() && self.l4 + transport.len() == frame.len() {
            Verdict::Unfinished
        } else if self.is_right(pseudo, transport) {
            Verdict::Good
        } else {
            Verdict::Unknown
        }
    }

    /// The sum over the pseudo-header, and the octets that the checksum of the transport is over.
    #[inline]
    fn covered<'a>(&self, frame: &'a [u8]) -> Option<(Sum, &'a [u8])> {
        let transport = frame.get(self.l4..self.end)?;
        // Behind its own length a datagram may have octets that its checksum does not cover (RFC 768: "Length … of this user datagram").
        let (len, min) =
            if self.tcp { (transport.len(), TCP_LEN) } else { (usize::from(be16(transport, 4)?), UDP_LEN) };
        if len < min {
            return None;
        }
        let pseudo = self.addresses_sum(frame)?.add(u16::from(self.protocol())).add32(len as u32);
        Some((pseudo, transport.get(..len)?))
    }

    /// What is to be done to a frame that is [`Verdict::Unfinished`].
    #[cold]
    pub(super) fn unfinished(&self, frame: &[u8], hint: Option<Gso>, limits: &Limits) -> Offload {
        let partial = self.partial(frame, hint, limits);
        // Right by chance, a super-frame's checksum comes out the same when it is finished: it need not be summed up to be told apart.
        if partial.gso.is_none()
            && self.covered(frame).is_some_and(|(pseudo, transport)| self.is_right(pseudo, transport))
        {
            return GOOD;
        }
        partial
    }

    /// Whether the checksum over the pseudo-header and `covered` is right. Never behind options: there the address may not be the one
    /// that it is over, and the receiver knows.
    #[inline]
    fn is_right(&self, pseudo: Sum, covered: &[u8]) -> bool {
        self.plain && pseudo.and(Sum::of(covered)).fold() == 0xffff
    }

    /// Whether the sum over the header of IPv4 is right; IPv6 has none.
    #[inline]
    pub(super) fn has_good_header(&self, frame: &[u8]) -> bool {
        let Some(header) = frame.get(self.l3..self.l4) else { return false };
        match (self.version, header.first_chunk::<20>()) {
            (Version::V6, _) => true,
            (Version::V4, Some(header)) if self.plain => Sum::of_header(header).fold() == 0xffff,
            (Version::V4, _) => Sum::of(header).fold() == 0xffff,
        }
    }

    /// The state of a frame whose checksum field holds the pseudo-header sum, as a kernel leaves it that has not sent it over a wire:
    /// longer than a wire carries, it is a super-frame.
    fn partial(&self, frame: &[u8], hint: Option<Gso>, limits: &Limits) -> Offload {
        let csum = Checksum::Partial { start: self.l4 as u16, offset: self.checksum_at() as u16 };
        let super_frame = self.super_frame(frame, hint, limits).map(|gso| Offload { csum, gso: Some(gso) });
        super_frame.filter(|o| validate(frame, o).is_ok()).unwrap_or(Offload { csum, gso: None })
    }

    fn super_frame(&self, frame: &[u8], hint: Option<Gso>, limits: &Limits) -> Option<Gso> {
        let len = self.end - self.l3;
        if !self.tcp {
            let gso = hint.filter(|gso| gso.kind == GsoKind::Udp)?;
            let payload = self.l4 + UDP_LEN;
            return (self.end - payload > usize::from(gso.size)).then_some(Gso {
                hdr_len: payload as u16,
                ecn: false,
                ..gso
            });
        }
        if len <= limits.mtu {
            return None;
        }
        let [offset, flags] = be16(frame, self.l4 + 12)?.to_be_bytes();
        let payload = self.l4 + usize::from(offset >> 4) * 4;
        let size = limits.mtu.checked_sub(payload - self.l3)?;
        let kind = match self.version {
            Version::V4 => GsoKind::TcpV4,
            Version::V6 => GsoKind::TcpV6,
        };
        Some(Gso { kind, size: u16::try_from(size).ok()?, hdr_len: payload as u16, ecn: flags & CWR != 0 })
    }
}

/// What is still to be done to a frame that came out of a tunnel, of which nobody has said anything.
///
/// - Good where the checksums of IPv4 and of TCP or UDP are right, or UDP over IPv4 has none. A frame with IP options or extension
///   headers is never called good: its final destination may be another, and the receiver knows.
/// - Partial where the field of the transport checksum holds the pseudo-header sum: a kernel on this machine sent the frame over an
///   underlay that is no wire, and left the checksum to a network card that never came. (One of 65,536 frames that were damaged on
///   their way looks the same, as one of 65,536 looks right.) A TCP packet of that kind that is longer than [`Limits::mtu`] is a super-frame;
///   nobody says the size of its segments, and they are made as long as fits. A UDP packet is one where it is longer than one
///   segment of `hint`, as in [`merge`](super::merge).
/// - Unknown otherwise: a wrong checksum travels on and the receiver drops the packet.
pub fn verify(frame: &[u8], hint: Option<Gso>, limits: &Limits) -> Offload {
    let Some(packet) = Packet::of(frame) else { return Offload::NONE };
    match packet.verdict(frame) {
        Verdict::Good => GOOD,
        Verdict::Unknown => Offload::NONE,
        Verdict::Unfinished => packet.unfinished(frame, hint, limits),
    }
}
