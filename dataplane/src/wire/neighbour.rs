//! ARP messages (RFC 826) and neighbour solicitations and advertisements (RFC 4861 §4.3, §4.4): what they say, and their answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet,
        Ipv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
    },
};

use super::{
    EtherType, MacAddr, Tag,
    dot1q::TAG_LEN,
    ethernet::{ADDRS_LEN, HEADER_LEN},
};

/// Octets of an IPv6 header, and where it has the next header's number.
const IPV6_HEADER_LEN: usize = 40;
const NEXT_HEADER_AT: usize = 6;
const ICMPV6: u8 = 58;

/// ICMPv6 types (RFC 4861 §4.3, §4.4).
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// "The IP Hop Limit field has a value of 255, i.e., the packet could not possibly have been forwarded by a router" (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;
/// Octets of an advertisement with one option, the link-layer address.
const ADVERTISEMENT_LEN: usize = 32;

/// The group of all nodes of a link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The longest answer: an advertisement with the switch's own tag and a priority tag.
pub const MAX_ANSWER: usize = HEADER_LEN + 2 * TAG_LEN + IPV6_HEADER_LEN + ADVERTISEMENT_LEN;

/// Whether the frame is an ARP message, or an IPv6 packet that begins with a neighbour solicitation or advertisement. Its type, or
/// next tag, stands at octet `type_at`: behind the tag that the switch has looked at.
///
/// Solicitations and advertisements behind extension headers are not among them (nor to the kernel, `br_is_nd_neigh_msg`): nobody
/// sends them, and where somebody does they are flooded like any other frame.
#[inline]
pub fn concerns(frame: &[u8], type_at: usize) -> bool {
    match payload(frame, type_at) {
        Some((EtherType::ARP, _)) => true,
        Some((EtherType::IPV6, at)) => {
            frame.get(at + NEXT_HEADER_AT) == Some(&ICMPV6)
                && matches!(
                    frame.get(at + IPV6_HEADER_LEN),
                    Some(&(NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT))
                )
        }
        _ => false,
    }
}

/// The type of the frame, and where what it names begins. A priority tag is looked through, since it names no VLAN.
#[inline]
fn payload(frame: &[u8], type_at: usize) -> Option<(EtherType, usize)> {
    let rest = frame.get(type_at..)?;
    let ethertype = EtherType(u16::from_be_bytes(*rest.first_chunk()?));
    if !ethertype.is_tag() {
        return Some((ethertype, type_at + 2));
    }
    let (tag, rest) = rest.split_first_chunk::<TAG_LEN>()?;
    (Tag::from_bytes(*tag).tci.vid() == 0)
        .then_some((EtherType(u16::from_be_bytes(*rest.first_chunk()?)), type_at + TAG_LEN + 2))
}

/// A message, and where it begins in its frame.
#[derive(Debug)]
pub(crate) struct Message {
    at: usize,
    /// Source of the frame, and whether it went to a group.
    from: MacAddr,
    to_group: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Arp { request: bool, sender_mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr },
    Solicitation { source: Ipv6Addr, source_mac: Option<MacAddr>, target: Ipv6Addr },
    Advertisement { target: Ipv6Addr, target_mac: Option<MacAddr>, flags: NdiscNeighborFlags },
}

/// What a message says of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) ip: IpAddr,
    pub(crate) mac: MacAddr,
    /// Whether it holds against another MAC address that is known.
    pub(crate) overrides: bool,
    /// Whether the neighbour is a router, where the message says so.
    pub(crate) router: Option<bool>,
}

impl Message {
    /// The message in a frame that [`concerns`] us; `None` where its receivers would not believe it.
    pub(crate) fn parse(frame: &[u8], type_at: usize) -> Option<Self> {
        let to = MacAddr::from_octets(*frame.first_chunk()?);
        let from = MacAddr::from_octets(*frame.get(6..)?.first_chunk()?);
        let (ethertype, at) = payload(frame, type_at)?;
        let bytes = frame.get(at..)?;
        let kind = match ethertype {
            EtherType::ARP => arp(bytes)?,
            EtherType::IPV6 => neighbour_discovery(bytes)?,
            _ => return None,
        };
        Some(Self { at, from, to_group: to.is_group(), kind })
    }

    /// The address that an answer is wanted for.
    ///
    /// Not for an ARP probe, whose sender address is zero, nor an announcement, whose sender asks for its own address
    /// (RFC 5227 §2.1.1, §2.3), nor for a search for duplicates, which comes from the unspecified address (RFC 4862 §5.4.2).
    pub(crate) fn asks_for(&self) -> Option<IpAddr> {
        let (source, target): (IpAddr, IpAddr) = match self.kind {
            Kind::Arp { request: true, sender_mac, sender, target } if sender_mac.is_station() => {
                (sender.into(), target.into())
            }
            Kind::Solicitation { source, target, .. } => (source.into(), target.into()),
            _ => return None,
        };
        let asks = self.to_group && self.from.is_station() && is_station(source) && source != target;
        asks.then_some(target)
    }

    /// The address that its sender asks about, also where it only looks whether somebody has it: the one who has it answers those too
    /// (RFC 5227 §2.4, RFC 4862 §5.4.3).
    pub(crate) fn asks_about(&self) -> Option<IpAddr> {
        match self.kind {
            Kind::Arp { request: true, sender_mac, sender, target } => {
                (self.from.is_station() && sender_mac.is_station() && sender != target)
                    .then_some(target.into())
            }
            Kind::Solicitation { source, target, .. } => {
                (self.from.is_station() && source != target).then_some(target.into())
            }
            _ => None,
        }
    }

    /// What it says of its sender, or of the target of an advertisement.
    pub(crate) fn claim(&self) -> Option<Claim> {
        let (ip, mac, overrides, router): (IpAddr, _, _, _) = match self.kind {
            Kind::Arp { sender, sender_mac, .. } => (sender.into(), sender_mac, true, None),
            // "If an entry already exists, and the cached link-layer address differs from the one in the received Source
            // Link-Layer option, the cached address should be replaced by the received address" (RFC 4861 §7.2.3).
            Kind::Solicitation { source, source_mac, .. } => (source.into(), source_mac?, true, None),
            Kind::Advertisement { target, target_mac, flags } => {
                let overrides = flags.contains(NdiscNeighborFlags::OVERRIDE);
                (target.into(), target_mac?, overrides, Some(flags.contains(NdiscNeighborFlags::ROUTER)))
            }
        };
        (is_station(ip) && mac.is_station()).then_some(Claim { ip, mac, overrides, router })
    }

    /// Writes the answer to this question of `frame`; returns its octets.
    pub(crate) fn answer(&self, frame: &[u8], mac: MacAddr, router: bool, reply: &mut [u8]) -> Option<usize> {
        // Asked by the neighbour itself, under another of its addresses.
        let itself = matches!(self.kind, Kind::Arp { sender_mac, .. } if sender_mac == mac);
        if itself || self.from == mac {
            return None;
        }
        let (head, body) = reply.split_at_mut_checked(self.at)?;
        let body_len = match self.kind {
            Kind::Arp { sender_mac, sender, target, .. } => arp_reply(mac, target, sender_mac, sender, body)?,
            Kind::Solicitation { source, target, .. } => advertisement(mac, target, router, source, body)?,
            Kind::Advertisement { .. } => return None,
        };
        let (addresses, tags_and_type) = head.split_first_chunk_mut::<ADDRS_LEN>()?;
        let (destination, source) = addresses.split_at_mut(6);
        destination.copy_from_slice(&self.from.octets());
        source.copy_from_slice(&mac.octets());
        tags_and_type.copy_from_slice(frame.get(ADDRS_LEN..self.at)?);
        Some(self.at + body_len)
    }
}

/// Hardware type, protocol type and lengths are those of Ethernet and IPv4 (RFC 826).
fn arp(bytes: &[u8]) -> Option<Kind> {
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(sender_mac),
        source_protocol_addr: sender,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&ArpPacket::new_checked(bytes).ok()?).ok()?
    else {
        return None;
    };
    let request = match operation {
        ArpOperation::Request => true,
        ArpOperation::Reply => false,
        ArpOperation::Unknown(_) => return None,
    };
    Some(Kind::Arp { request, sender_mac: MacAddr::from_octets(sender_mac), sender, target })
}

/// A node silently discards what does not satisfy all of RFC 4861 §7.1.1 and §7.1.2, and so what follows them is not answered.
fn neighbour_discovery(bytes: &[u8]) -> Option<Kind> {
    let packet = Ipv6Packet::new_checked(bytes).ok()?;
    let ip = Ipv6Repr::parse(&packet).ok()?;
    if ip.next_header != IpProtocol::Icmpv6 || ip.hop_limit != HOP_LIMIT {
        return None;
    }
    // "ICMP length (derived from the IP length) is 24 or more octets"
    let message = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    // "ICMP Checksum is valid", "ICMP Code is 0", "All included options have a length that is greater than zero"
    let caps = ChecksumCapabilities::default();
    let repr = Icmpv6Repr::parse(&ip.src_addr, &ip.dst_addr, &message, &caps).ok()?;
    let mac = |address: RawHardwareAddress| {
        address.as_bytes().first_chunk().map(|octets| MacAddr::from_octets(*octets))
    };
    match repr {
        // "Target Address is not a multicast address"
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, lladdr })
            if !target_addr.is_multicast() =>
        {
            Some(Kind::Solicitation {
                source: ip.src_addr,
                source_mac: lladdr.and_then(mac),
                target: target_addr,
            })
        }
        // "If the IP Destination Address is a multicast address the Solicited flag is zero"
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr })
            if !(target_addr.is_multicast()
                || ip.dst_addr.is_multicast() && flags.contains(NdiscNeighborFlags::SOLICITED)) =>
        {
            Some(Kind::Advertisement { target: target_addr, target_mac: lladdr.and_then(mac), flags })
        }
        _ => None,
    }
}

/// "Swap hardware and protocol fields, putting the local hardware and protocol addresses in the sender fields. Set the ar$op field to
/// ares_op$REPLY" (RFC 826).
fn arp_reply(mac: MacAddr, ip: Ipv4Addr, to_mac: MacAddr, to: Ipv4Addr, body: &mut [u8]) -> Option<usize> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(mac.octets()),
        source_protocol_addr: ip,
        target_hardware_addr: EthernetAddress(to_mac.octets()),
        target_protocol_addr: to,
    };
    let len = repr.buffer_len();
    repr.emit(&mut ArpPacket::new_unchecked(body.get_mut(..len)?));
    Some(len)
}

/// "The Target Address of the advertisement is copied from the Target Address of the solicitation"; since that came from an address,
/// "the node MUST set the Solicited flag to one and unicast the advertisement to the Source Address of the solicitation". The override
/// flag is set, and the target's link-layer address there, as in what the neighbour itself would send (RFC 4861 §7.2.4).
fn advertisement(mac: MacAddr, ip: Ipv6Addr, router: bool, to: Ipv6Addr, body: &mut [u8]) -> Option<usize> {
    let mut flags = NdiscNeighborFlags::OVERRIDE;
    flags.set(NdiscNeighborFlags::ROUTER, router);
    // "If the source of the solicitation is the unspecified address, the node MUST set the Solicited flag to zero and multicast the
    // advertisement to the all-nodes address" (RFC 4861 §7.2.4).
    let to = if to.is_unspecified() { ALL_NODES } else { to };
    flags.set(NdiscNeighborFlags::SOLICITED, to != ALL_NODES);
    let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags,
        target_addr: ip,
        lladdr: Some(EthernetAddress(mac.octets()).into()),
    });
    let header = Ipv6Repr {
        src_addr: ip,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: HOP_LIMIT,
    };
    let len = IPV6_HEADER_LEN + message.buffer_len();
    let (head, rest) = body.get_mut(..len)?.split_at_mut_checked(IPV6_HEADER_LEN)?;
    header.emit(&mut Ipv6Packet::new_unchecked(head));
    let caps = ChecksumCapabilities::default();
    message.emit(&ip, &to, &mut Icmpv6Packet::new_unchecked(rest), &caps);
    Some(len)
}

/// Writes the frame by which `asker` asks who has `target`: of everybody, or of the station `of` alone, to see whether it still has it.
pub(crate) fn question(
    asker: IpAddr,
    asker_mac: MacAddr,
    target: IpAddr,
    of: Option<MacAddr>,
    frame: &mut [u8],
) -> Option<usize> {
    let (head, body) = frame.split_at_mut_checked(HEADER_LEN)?;
    let (destination, ethertype, len) = match (asker, target) {
        (IpAddr::V4(asker), IpAddr::V4(target)) => {
            let repr = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_hardware_addr: EthernetAddress(asker_mac.octets()),
                source_protocol_addr: asker,
                target_hardware_addr: EthernetAddress(of.unwrap_or(MacAddr::ZERO).octets()),
                target_protocol_addr: target,
            };
            repr.emit(&mut ArpPacket::new_unchecked(body.get_mut(..repr.buffer_len())?));
            (of.unwrap_or(MacAddr::BROADCAST), EtherType::ARP, repr.buffer_len())
        }
        (IpAddr::V6(asker), IpAddr::V6(target)) => {
            let [.., high, middle, low] = target.octets();
            // The solicited-node group, and its MAC address (RFC 4291 §2.7.1, RFC 2464 §7).
            let (low_bits, group_mac) =
                (u16::from_be_bytes([middle, low]), [0x33, 0x33, 0xff, high, middle, low]);
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(high), low_bits);
            let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
                target_addr: target,
                lladdr: Some(EthernetAddress(asker_mac.octets()).into()),
            });
            let to = if of.is_some() { target } else { group };
            let header = Ipv6Repr {
                src_addr: asker,
                dst_addr: to,
                next_header: IpProtocol::Icmpv6,
                payload_len: message.buffer_len(),
                hop_limit: HOP_LIMIT,
            };
            let len = IPV6_HEADER_LEN + message.buffer_len();
            let (packet, rest) = body.get_mut(..len)?.split_at_mut_checked(IPV6_HEADER_LEN)?;
            header.emit(&mut Ipv6Packet::new_unchecked(packet));
            let caps = ChecksumCapabilities::default();
            message.emit(&asker, &to, &mut Icmpv6Packet::new_unchecked(rest), &caps);
            (of.unwrap_or(MacAddr::from_octets(group_mac)), EtherType::IPV6, len)
        }
        _ => return None,
    };
    let (to, rest) = head.split_first_chunk_mut::<6>()?;
    let (from, kind) = rest.split_first_chunk_mut::<6>()?;
    *to = destination.octets();
    *from = asker_mac.octets();
    kind.copy_from_slice(&ethertype.0.to_be_bytes());
    Some(HEADER_LEN + len)
}

/// Whether one station can have the address.
pub(crate) fn is_station(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast()),
    }
}
