//! What may come in by a secured port: only its own addresses, and nothing that only infrastructure sends.
//!
//! Owns the policy `--secure mac=MAC[,ip=IP…]`. Reads frames, changes none, keeps no state between them.
//! A frame is judged by what a receiver could make of it, so everything that could hide a message is looked through or refused:
//! further VLAN tags, IPv6 extension headers and fragments (RFC 7113), IP in LLC/SNAP (RFC 1042).
//! A fragment other than the first is judged by its IP source alone: the first one, which carries the upper layer, is judged in full,
//! and without it the others are not put together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{ArpOperation, ArpPacket, Icmpv6Packet, NdiscOption};

use crate::{
    counters::DropReason::{
        self, SecureArp, SecureBpdu, SecureDhcpServer, SecureIp, SecureMac, SecureMalformed, SecureNd,
        SecureRa,
    },
    wire::{
        EtherType, Layers, MacAddr,
        layers::{Fragment, Ip, Version, be16},
    },
};

/// Reverse ARP (RFC 903): ARP under another type. QEMU announces a migrated guest with it.
const RARP: EtherType = EtherType(0x8035);
/// The least number after the addresses that is a type; those below are lengths (802.3-2018 §3.2.6).
const MIN_TYPE: u16 = 0x0600;
/// Where Cisco bridges send the spanning tree BPDUs of each VLAN (PVST+).
const PVST: MacAddr = MacAddr::from_octets([0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd]);
/// LLC addresses and control of a spanning tree BPDU (802.1Q-2018 §14.1): the bridge group protocol, unnumbered.
const LLC_BPDU: [u8; 3] = [0x42, 0x42, 0x03];
/// LLC addresses and control in front of a SNAP header (RFC 1042).
const LLC_SNAP: [u8; 3] = [0xaa, 0xaa, 0x03];

/// IP protocol numbers.
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const NO_NEXT_HEADER: u8 = 59;

/// UDP ports of DHCP (RFC 2131 §4.1) and DHCPv6 (RFC 8415 §7.2).
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
const DHCPV6_SERVER: u16 = 547;

/// ICMPv6 types: multicast listener discovery (RFC 2710, RFC 3810) and neighbour discovery (RFC 4861 §4).
const MLD_QUERY: u8 = 130;
const MLD_DONE: u8 = 132;
const MLDV2_REPORT: u8 = 143;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// The addresses of the station behind a secured port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secure {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its IP addresses; where there is none, IP addresses are not checked. A list of one version bars the other, but for
    /// the link-local address made of `mac`, which is always the station's.
    pub ips: Box<[IpAddr]>,
}

impl Secure {
    /// Whether `frame` may come in. Its type, or next tag, stands at octet `type_at`: behind the tag that the port itself has looked at.
    #[inline]
    pub fn check(&self, frame: &[u8], type_at: usize) -> Result<(), DropReason> {
        let addresses = frame.first_chunk::<12>().ok_or(SecureMalformed)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = *addresses;
        if MacAddr::from_octets([s0, s1, s2, s3, s4, s5]) != self.mac {
            return Err(SecureMac);
        }
        if MacAddr::from_octets([d0, d1, d2, d3, d4, d5]) == PVST {
            return Err(SecureBpdu);
        }
        let layers = Layers::parse_at(frame, type_at).map_err(|_| SecureMalformed)?;
        let payload = frame.get(layers.l3..).ok_or(SecureMalformed)?;
        match (layers.ethertype, layers.ip) {
            (_, Some(ip)) => self.check_ip(frame, layers.l3, &ip),
            (EtherType::ARP | RARP, _) => self.check_arp(payload),
            (EtherType(length), _) if length < MIN_TYPE => check_llc(payload),
            _ => Ok(()),
        }
    }

    /// Whether the station may use `ip`.
    #[inline]
    fn allows(&self, ip: IpAddr) -> bool {
        self.ips.is_empty() || self.ips.contains(&ip) || ip == IpAddr::V6(link_local(self.mac))
    }

    fn check_ip(&self, frame: &[u8], l3: usize, ip: &Ip) -> Result<(), DropReason> {
        let upper = frame.get(ip.l4..ip.end).ok_or(SecureMalformed)?;
        // "If the packet is identified to be a fragment [with offset 0] and the upper layer protocol is not present, drop it"
        // (RFC 7113 §3). A chain that is cut off in between does not parse in the first place.
        if ip.fragment == Fragment::First && upper.is_empty() && ip.protocol != NO_NEXT_HEADER {
            return Err(SecureMalformed);
        }
        let whole = ip.fragment != Fragment::Later;
        let ports = match ip.protocol {
            UDP if whole => Some(udp_ports(upper).ok_or(SecureMalformed)?),
            _ => None,
        };
        match ip.version {
            Version::V4 => {
                if matches!(ports, Some((DHCP_SERVER, _) | (_, DHCP_CLIENT))) {
                    return Err(SecureDhcpServer);
                }
                let source: [u8; 4] = octets(frame, l3 + 12)?;
                let source = Ipv4Addr::from(source);
                // A DHCP client has no address yet (RFC 2131 §4.1).
                let client = source.is_unspecified() && ports == Some((DHCP_CLIENT, DHCP_SERVER));
                if client || self.allows(source.into()) { Ok(()) } else { Err(SecureIp) }
            }
            Version::V6 => {
                if matches!(ports, Some((DHCPV6_SERVER, _) | (_, DHCPV6_CLIENT))) {
                    return Err(SecureDhcpServer);
                }
                let source: [u8; 16] = octets(frame, l3 + 8)?;
                let source = Ipv6Addr::from(source);
                if ip.protocol == ICMPV6 && whole {
                    return self.check_icmpv6(upper, source, ip.fragment);
                }
                if self.allows(source.into()) { Ok(()) } else { Err(SecureIp) }
            }
        }
    }

    fn check_icmpv6(&self, message: &[u8], source: Ipv6Addr, fragment: Fragment) -> Result<(), DropReason> {
        let kind = *message.first().ok_or(SecureMalformed)?;
        if matches!(kind, ROUTER_ADVERTISEMENT | REDIRECT) {
            return Err(SecureRa);
        }
        // A station without an address asks for duplicates of the one it wants, for routers (RFC 4861 §4.1, §4.3), and listens
        // (RFC 3590).
        let from_nowhere = source.is_unspecified()
            && matches!(
                kind,
                MLD_QUERY..=MLD_DONE | MLDV2_REPORT | ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION
            );
        if !from_nowhere && !self.allows(source.into()) {
            return Err(SecureIp);
        }
        if !matches!(kind, ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT) {
            return Ok(());
        }
        // "Nodes MUST NOT employ IPv6 fragmentation for sending" these (RFC 6980 §5), and a later fragment could hide an option.
        if fragment != Fragment::No {
            return Err(SecureMalformed);
        }
        let message = Icmpv6Packet::new_checked(message).map_err(|_| SecureMalformed)?;
        // An advertisement, or a question for duplicates, claims its target.
        let claims =
            kind == NEIGHBOUR_ADVERTISEMENT || kind == NEIGHBOUR_SOLICITATION && source.is_unspecified();
        if claims && !self.allows(message.target_addr().into()) {
            return Err(SecureNd);
        }
        self.check_options(message.payload())
    }

    /// Whether the link-layer addresses among neighbour discovery options (RFC 4861 §4.6) are the station's.
    fn check_options(&self, mut options: &[u8]) -> Result<(), DropReason> {
        const SOURCE_LINK_LAYER: u8 = 1;
        const TARGET_LINK_LAYER: u8 = 2;
        while let &[kind, units, ..] = options {
            let len = usize::from(units) * 8;
            if len == 0 {
                return Err(SecureMalformed);
            }
            let (option, rest) = options.split_at_checked(len).ok_or(SecureMalformed)?;
            if matches!(kind, SOURCE_LINK_LAYER | TARGET_LINK_LAYER) {
                let option = NdiscOption::new_checked(option).map_err(|_| SecureMalformed)?;
                if !option.link_layer_addr().as_bytes().starts_with(&self.mac.octets()) {
                    return Err(SecureNd);
                }
            }
            options = rest;
        }
        if options.is_empty() { Ok(()) } else { Err(SecureMalformed) }
    }

    fn check_arp(&self, payload: &[u8]) -> Result<(), DropReason> {
        /// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses (RFC 826).
        const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
        if !payload.starts_with(&ETHERNET_IPV4) {
            return Err(SecureMalformed);
        }
        let arp = ArpPacket::new_checked(payload).map_err(|_| SecureMalformed)?;
        if arp.source_hardware_addr() != self.mac.octets() {
            return Err(SecureArp);
        }
        let address: [u8; 4] = octets(arp.source_protocol_addr(), 0)?;
        let address = Ipv4Addr::from(address);
        // An ARP probe has a sender address of zero "to avoid polluting ARP caches in other hosts" (RFC 5227 §2.1.1).
        let probe = address.is_unspecified() && arp.operation() != ArpOperation::Reply;
        if probe || self.allows(address.into()) { Ok(()) } else { Err(SecureArp) }
    }
}

/// The link-local address that a station makes of its MAC address (RFC 4291, appendix A).
#[inline]
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Source and destination port of a UDP datagram whose header is all there.
#[inline]
fn udp_ports(datagram: &[u8]) -> Option<(u16, u16)> {
    let header = datagram.first_chunk::<8>()?;
    Some((be16(header, 0)?, be16(header, 2)?))
}

#[inline]
fn octets<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], DropReason> {
    bytes.get(at..).and_then(|b| b.first_chunk()).copied().ok_or(SecureMalformed)
}

/// Spanning tree is refused, and whatever is IP, ARP or a tag to a receiver that takes LLC/SNAP off, as some do (CVE-2021-27853,
/// CVE-2021-27861).
fn check_llc(payload: &[u8]) -> Result<(), DropReason> {
    match payload.first_chunk() {
        Some(&LLC_BPDU) => Err(SecureBpdu),
        // OUI 00:00:00 is for EtherTypes (RFC 1042), 00:00:f8 for those that bridges translate (802.1H).
        Some(&LLC_SNAP) => match payload.get(3..6) {
            Some([0, 0, 0 | 0xf8]) | None => Err(SecureMalformed),
            Some(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
