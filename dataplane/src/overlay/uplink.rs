//! Frames of an uplink: whole packets of the underlay, with what the kernel says of them and is to be told.
//!
//! Owns what a frame is that comes in, and what stands in the virtio header and in the outer UDP checksum of one that leaves. The outer
//! headers themselves are in [`outer`]; what is in the tunnel is not looked at.
//!
//! A super-frame stays one both ways, where the kernel has UDP tunnel GSO (Linux 6.17): the inner packet with its partial
//! checksum, the outer headers once, and the positions of both in the longer virtio header. Where the kernel has not, or the outer packet would be
//! longer than 65,535 octets ([`Caps::take_tunnelled`]), the caller splits the inner frame first, and each segment gets outer headers of
//! its own: one segment here is one plain frame.

use std::{net::IpAddr, ops::Range, sync::Arc};

use zerocopy::IntoBytes;

use super::{
    Host,
    host::{Handled, addresses},
    outer::{self, Fields, Invalid, Outer, UdpChecksum},
};
use crate::{
    counters::DropReason,
    frame::{Caps, Checksum, Datagram, GsoKind, Offload, TunnelGso, UplinkOffload},
    offload::checksum::Sum,
    tick::Tick,
    wire::{
        EtherType, MacAddr,
        ethernet::{ADDRS_LEN, HEADER_LEN},
        layers::{Version, be16},
    },
};

/// Octets of a UDP header, and where its checksum stands in it (RFC 768).
const UDP_LEN: usize = 8;
const UDP_CHECKSUM: u16 = 6;
/// IP protocol numbers.
const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Where an IPv4 header has the protocol, and an IPv6 header the next header.
const PROTOCOL_V4: usize = 9;
const PROTOCOL_V6: usize = 6;

/// What the packet path knows of an uplink.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// The switch's own address on it: that of its tunnels.
    pub address: IpAddr,
    /// The source MAC address of what the switch sends by it.
    pub mac: MacAddr,
    /// What the kernel takes and gives.
    pub caps: Caps,
    /// The longest outer packet: the MTU of the interface at the other end.
    pub mtu: u32,
    /// Answers what is no tunnel packet, and knows the next hops.
    pub host: Arc<Host>,
}

/// What a worker does with a frame that came in by an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// Hand it to the tunnel with that port and address; where there is none it is [`DropReason::NotForUs`].
    Datagrams(Datagrams),
    /// Send this back, behind a virtio header that says nothing.
    Answer(&'a [u8]),
    /// Lower the path MTU of this remote, if it is one.
    PathMtu {
        /// Where a packet of ours did not get through to.
        remote: IpAddr,
        /// The longest outer packet that does.
        mtu: u32,
    },
    /// Nothing: a neighbour has said where it is.
    Learned,
    /// Count it.
    Drop(DropReason),
}

impl Uplink {
    /// Looks at a frame and at the virtio header that was in front of it. `reply` is room for an answer: of an echo it is as long as the
    /// question.
    #[inline]
    pub fn receive<'a>(&self, header: &[u8], frame: &[u8], now: Tick, reply: &'a mut [u8]) -> Arrival<'a> {
        let Some(said) = UplinkOffload::parse(header, frame.len()) else {
            return Arrival::Drop(DropReason::VnetHeaderInvalid);
        };
        match inbound(frame, &said, self.address) {
            Inbound::Datagrams(datagrams) => Arrival::Datagrams(datagrams),
            Inbound::Refused(reason) => Arrival::Drop(reason),
            Inbound::Local => match self.host.handle(frame, now, reply) {
                Handled::Answer(len) => Arrival::Answer(reply.get(..len).unwrap_or_default()),
                Handled::PathMtu { remote, mtu } => Arrival::PathMtu { remote, mtu },
                Handled::Learned => Arrival::Learned,
                Handled::Ignored => Arrival::Drop(DropReason::NotForUs),
            },
        }
    }
}

/// What stands around an inner frame on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The outer headers of the remote.
    pub outer: &'a Outer,
    /// The MAC address of the next hop, which takes the place of the one in `outer`.
    pub to: MacAddr,
    /// What differs from packet to packet.
    pub fields: &'a Fields,
    /// The header of the tunnel.
    pub tunnel: &'a [u8],
    /// Whether outer packets have UDP checksums.
    pub udp_csum: bool,
}

impl Envelope<'_> {
    /// Octets in front of the inner frame, without the virtio header.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "headers are never empty")]
    pub fn len(&self) -> usize {
        self.outer.len() + self.tunnel.len()
    }
}

impl Uplink {
    /// Whether an inner frame of `len` octets can leave in one piece; else it is to be split and finished first.
    #[inline]
    pub fn takes(&self, envelope: &Envelope<'_>, offload: &Offload, len: usize) -> bool {
        self.caps.take_tunnelled(offload, envelope.len() - HEADER_LEN + len, envelope.udp_csum)
    }

    /// Writes all that stands in front of an inner frame, which is in two parts, to the start of `out`: virtio header, outer headers,
    /// tunnel header. Says how long it is; `None` where `out` has not so much room.
    ///
    /// The frame is one that the uplink [takes](Self::takes); `inner_l3` is as in [`outbound`].
    #[inline]
    pub fn seal(
        &self,
        envelope: &Envelope<'_>,
        inner: [&[u8]; 2],
        offload: &Offload,
        inner_l3: u16,
        out: &mut [u8],
    ) -> Option<usize> {
        let around = Encapsulation {
            v6: self.address.is_ipv6(),
            l4: (envelope.outer.len() - UDP_LEN) as u16,
            len: u16::try_from(envelope.len()).ok()?,
            udp_csum: envelope.udp_csum,
        };
        let (said, csum) = outbound(&self.caps, &around, offload, inner_l3);
        let mut word = [0; 2];
        let [before, rest] = csum.covers(inner, &mut word);
        let slices = [envelope.tunnel, before, rest];
        let checksum = match csum {
            OuterChecksum::Zero => UdpChecksum::Zero,
            OuterChecksum::Partial => UdpChecksum::Partial,
            OuterChecksum::Local { .. } | OuterChecksum::Complete => UdpChecksum::Complete(&slices),
        };
        let (header, frame) = out.split_at_mut_checked(self.caps.vnet_header_len())?;
        header.copy_from_slice(said.to_vnet().as_bytes().get(..header.len())?);
        let payload = envelope.tunnel.len() + inner.iter().map(|part| part.len()).sum::<usize>();
        let outer_len = envelope.outer.write(envelope.fields, payload, checksum, frame)?;
        *frame.first_chunk_mut()? = envelope.to.octets();
        frame.get_mut(outer_len..envelope.len())?.copy_from_slice(envelope.tunnel);
        Some(header.len() + envelope.len())
    }
}

/// What a frame is that came in by an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// UDP for the switch's own address: for a tunnel, if one has the port.
    Datagrams(Datagrams),
    /// For [`Host::handle`].
    Local,
    /// Nothing for the switch.
    Refused(DropReason),
}

/// UDP payload for a tunnel: one datagram, or a train of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagrams {
    /// Where it is, in octets from the start of the frame.
    pub payload: Range<usize>,
    /// Octets of each datagram in it but the last, which may be shorter. One datagram alone is as long as the payload.
    pub stride: usize,
    /// Who sent it.
    pub from: IpAddr,
    /// From which port.
    pub from_port: u16,
    /// For which tunnel.
    pub to_port: u16,
    /// Type of service, or traffic class, with its ECN bits.
    pub tos: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// What is still to be done to the inner frame; positions from the start of `payload`. Whoever takes the tunnel header away moves
    /// it on ([`Offload::within`]), and checks it against the inner headers (`offload::validate`). None of a train has any.
    pub offload: Offload,
    /// Whether there was a UDP checksum; it holds. Over IPv6 one that is zero needs the tunnel's consent.
    pub has_checksum: bool,
}

impl Datagrams {
    /// The same as a socket of the underlay would have told it, of a frame that begins at octet `frame_at` of a batch's memory.
    #[inline]
    pub fn of_batch(&self, frame_at: usize) -> Datagram {
        let len = self.payload.len() as u32;
        let stride = self.stride as u32;
        Datagram {
            at: (frame_at + self.payload.start) as u32,
            len,
            stride: if stride < len { stride } else { 0 },
            from: self.from,
            tos: self.tos,
            offload: self.offload,
        }
    }
}

/// What a frame of the uplink of `me` is, by its own headers and by what its virtio header says.
#[inline]
pub fn inbound(frame: &[u8], said: &UplinkOffload, me: IpAddr) -> Inbound {
    let packet = match outer::parse(frame, said.offload.gso.is_some()) {
        Ok(packet) => packet,
        Err(invalid) => return other(frame, invalid, me),
    };
    if packet.destination != me {
        return Inbound::Refused(DropReason::NotForUs);
    }
    match datagrams(frame, said, packet) {
        Ok(datagrams) => Inbound::Datagrams(datagrams),
        Err(reason) => Inbound::Refused(reason),
    }
}

#[inline]
fn datagrams(frame: &[u8], said: &UplinkOffload, packet: outer::Inbound) -> Result<Datagrams, DropReason> {
    // The 16 bits of a position reach this far, and the payload begins behind 62 octets, extension headers aside.
    let start = u16::try_from(packet.payload.start).map_err(|_| DropReason::UnderlayMalformed)?;
    let l4 = start - UDP_LEN as u16;
    let mut stride = packet.payload.len();
    let offload = match (said.tunnel, said.offload.gso, said.offload.csum) {
        (Some(tunnel), ..) => {
            let fits =
                tunnel.outer_l4 == l4 && tunnel.v6 == packet.source.is_ipv6() && tunnel.inner_l3 >= start;
            said.offload.within(start).filter(|_| fits).ok_or(DropReason::VnetHeaderInvalid)?
        }
        (None, Some(gso), Checksum::Partial { start, offset }) => {
            // Segmented is the outer datagram itself: nothing else is, outside a tunnel.
            if gso.kind != GsoKind::Udp || start != l4 || offset != UDP_CHECKSUM {
                return Err(DropReason::VnetHeaderInvalid);
            }
            stride = gso.size.into();
            Offload::NONE
        }
        (None, None, Checksum::Partial { start, offset }) if start == l4 => {
            if offset != UDP_CHECKSUM {
                return Err(DropReason::VnetHeaderInvalid);
            }
            Offload::NONE // the sender is a device of this host: nothing can have changed it on the way
        }
        (None, None, Checksum::Partial { .. }) => {
            let inner = said.offload.within(start).ok_or(DropReason::VnetHeaderInvalid)?;
            if !verify_local(frame, &packet, inner.csum) {
                return Err(DropReason::UnderlayMalformed);
            }
            inner
        }
        (None, _, Checksum::Good) => Offload::NONE,
        (None, _, Checksum::Unknown) => {
            // "If it chooses to perform such verification, and the verification fails, the packet MUST be dropped" (RFC 7348 §5).
            if !outer::verify(frame, &packet) {
                return Err(DropReason::UnderlayMalformed);
            }
            Offload::NONE
        }
    };
    Ok(Datagrams {
        stride,
        from: packet.source,
        from_port: packet.source_port,
        to_port: packet.destination_port,
        tos: packet.tos,
        ttl: packet.ttl,
        offload,
        has_checksum: packet.has_checksum,
        payload: packet.payload,
    })
}

/// What a frame is that is no UDP packet in good order.
#[cold]
fn other(frame: &[u8], invalid: Invalid, me: IpAddr) -> Inbound {
    let Some(ethertype) = be16(frame, ADDRS_LEN) else { return Inbound::Refused(DropReason::Runt) };
    let packet = frame.get(HEADER_LEN..).unwrap_or_default();
    let (version, protocol_at, icmp) = match EtherType(ethertype) {
        EtherType::ARP if me.is_ipv4() => return Inbound::Local,
        EtherType::IPV4 => (Version::V4, PROTOCOL_V4, ICMP),
        EtherType::IPV6 => (Version::V6, PROTOCOL_V6, ICMPV6),
        _ => return Inbound::Refused(DropReason::NotForUs),
    };
    let protocol = packet.get(protocol_at).copied();
    let ours = match addresses(packet, version) {
        None => return Inbound::Refused(DropReason::UnderlayMalformed),
        // A solicitation goes to a group (RFC 4861 §4.3); the host knows which.
        Some((_, IpAddr::V6(to))) if to.is_multicast() && protocol == Some(icmp) => me.is_ipv6(),
        Some((_, to)) => to == me,
    };
    Inbound::Refused(match invalid {
        _ if !ours => DropReason::NotForUs,
        Invalid::Fragment => DropReason::UnderlayFragment,
        Invalid::NotUdp if protocol == Some(icmp) => return Inbound::Local,
        Invalid::NotUdp => DropReason::NotForUs,
        _ => DropReason::UnderlayMalformed,
    })
}

/// Whether the outer checksum holds of a packet whose inner checksum is partial. It was computed as if the inner one were finished already
/// (see [`OuterChecksum::Local`]), so it says nothing of the octets that the inner one covers, and need not be taken over them.
fn verify_local(frame: &[u8], packet: &outer::Inbound, inner: Checksum) -> bool {
    if !packet.has_checksum {
        return true;
    }
    let Range { start, end } = packet.payload;
    let Some(header) = start.checked_sub(UDP_LEN).and_then(|l4| frame.get(l4..start)) else { return false };
    let Some(payload) = frame.get(start..end) else { return false };
    let Some((before, word)) = up_to_partial(payload, inner) else { return false };
    let address = |address: &IpAddr| match address {
        IpAddr::V4(address) => Sum::of(&address.octets()),
        IpAddr::V6(address) => Sum::of(&address.octets()),
    };
    let pseudo = address(&packet.source).and(address(&packet.destination));
    let pseudo = pseudo.add(UDP.into()).add32((UDP_LEN + payload.len()) as u32);
    let word = u16::from_be_bytes(word);
    let word = if before.len() % 2 == 0 { word } else { word.swap_bytes() };
    pseudo.and(Sum::of(header)).and(Sum::of(before)).add(word).fold() == 0xffff
}

/// The octets in front of what a partial checksum covers, and the sum over all of it once that is finished: the complement of what
/// the field holds now.
///
/// The finished checksum is the complement of the sum over the covered octets and the pseudo-header. So the two add up to the complement
/// of the pseudo-header's sum, whatever the octets are; and that sum is what stands in the field (Linux,
/// Documentation/networking/checksum-offloads.rst, "LCO: Local Checksum Offload").
fn up_to_partial(inner: &[u8], csum: Checksum) -> Option<(&[u8], [u8; 2])> {
    let Checksum::Partial { start, offset } = csum else { return None };
    let (before, covered) = inner.split_at_checked(start.into())?;
    let field = covered.get(offset.into()..)?.first_chunk()?;
    Some((before, (!u16::from_be_bytes(*field)).to_be_bytes()))
}

/// The shape of the headers in front of an inner frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encapsulation {
    /// The underlay is IPv6; else IPv4.
    pub v6: bool,
    /// Where the outer UDP header begins, in octets from the start of the outer frame.
    pub l4: u16,
    /// Octets in front of the inner frame: the outer headers and that of the tunnel.
    pub len: u16,
    /// The outer packets have UDP checksums.
    pub udp_csum: bool,
}

/// What the outer UDP checksum of a frame is to be: see [`UdpChecksum`], which it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OuterChecksum {
    /// None.
    Zero,
    /// The sum over the pseudo-header; the kernel adds the rest, of every segment where there are several.
    Partial,
    /// Complete, as if the inner checksum were finished already: what that one covers need not be looked at.
    Local {
        /// Where what the inner checksum covers begins, in octets from the start of the inner frame.
        start: u16,
        /// Where its field stands, in octets from `start`.
        offset: u16,
    },
    /// Complete, over everything.
    Complete,
}

impl OuterChecksum {
    /// What it is to be taken over, behind the tunnel header, of an inner frame that is in two parts: slices for
    /// [`UdpChecksum::Complete`]. `word` is for two octets that stand for all the rest.
    #[inline]
    pub fn covers<'a>(&self, inner: [&'a [u8]; 2], word: &'a mut [u8; 2]) -> [&'a [u8]; 2] {
        let [first, _] = inner;
        match *self {
            Self::Zero | Self::Partial => [&[], &[]],
            Self::Complete => inner,
            Self::Local { start, offset } => {
                match up_to_partial(first, Checksum::Partial { start, offset }) {
                    Some((before, rest)) => {
                        *word = rest;
                        [before, word]
                    }
                    None => inner,
                }
            }
        }
    }
}

/// What the kernel is to be told of an inner frame with these headers in front, and what their UDP checksum is to be.
///
/// The inner frame is one that `caps` [take](Caps::take_tunnelled): others are split or finished first. `inner_l3` is where its network header
/// begins, in octets from its own start; it is asked of a super-frame alone.
#[inline]
pub fn outbound(
    caps: &Caps,
    around: &Encapsulation,
    inner: &Offload,
    inner_l3: u16,
) -> (UplinkOffload, OuterChecksum) {
    let offload = inner.behind(around.len);
    let whole = |offload, csum| (UplinkOffload { offload, tunnel: None }, csum);
    match (inner.gso, inner.csum) {
        (Some(_), _) => {
            let tunnel = TunnelGso {
                v6: around.v6,
                csum: around.udp_csum,
                outer_l4: around.l4,
                inner_l3: around.len.saturating_add(inner_l3),
            };
            let csum = if around.udp_csum { OuterChecksum::Partial } else { OuterChecksum::Zero };
            (UplinkOffload { offload, tunnel: Some(tunnel) }, csum)
        }
        (None, _) if !around.udp_csum => whole(offload, OuterChecksum::Zero),
        // One virtio header describes one partial checksum, and that is taken by the inner one.
        (None, Checksum::Partial { start, offset }) => whole(offload, OuterChecksum::Local { start, offset }),
        (None, _) if caps.csum => {
            let csum = Checksum::Partial { start: around.l4, offset: UDP_CHECKSUM };
            whole(Offload { csum, gso: None }, OuterChecksum::Partial)
        }
        (None, _) => whole(offload, OuterChecksum::Complete),
    }
}

#[cfg(test)]
pub(crate) mod tests;
