//! The switch as a host on its uplink: it owns one address, and answers for it what every host answers.
//!
//! Owns ARP and neighbour discovery in both directions, ICMP echo, and the hearing of "fragmentation needed" and "packet too big" about
//! the switch's own tunnel packets. Has no sockets, no routes beyond one gateway, and nothing that keeps a connection.
//!
//! It is written over `smoltcp::wire` and not over its `iface`: that one has a neighbour cache that can be neither filled nor read, of a
//! size fixed when it is built, and wants to own the device; here workers need the MAC address of a next hop for every packet.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use hashbrown::HashMap;
use ipnet::IpNet;

use super::next_hop::NextHop;
use crate::{
    offload::checksum::Sum,
    tick::Tick,
    wire::{
        EtherType, Layers, MacAddr,
        ethernet::HEADER_LEN,
        layers::{Fragment, Ip, Version, be16},
        neighbour::{self, Message},
    },
};

/// IP protocol numbers.
const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// ICMP types and a code (RFC 792).
const ECHO_REPLY: u8 = 0;
const DESTINATION_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const ECHO: u8 = 8;
/// ICMPv6 types (RFC 4443 §3.2, §4).
const PACKET_TOO_BIG: u8 = 2;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// Octets of an ICMP or ICMPv6 header in front of what it quotes or echoes.
const ICMP_LEN: usize = 8;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// The TTL of what the switch sends itself (RFC 1700).
const TTL: u8 = 64;

/// "Every internet module must be able to forward a datagram of 68 octets without further fragmentation" (RFC 791 §3.2).
const MIN_MTU_IPV4: u32 = 68;
/// "If a node receives a Packet Too Big message reporting a next-hop MTU that is less than the IPv6 minimum link MTU, it MUST discard it"
/// (RFC 8201 §4).
const MIN_MTU_IPV6: u32 = 1280;
/// What a router that says no MTU may have meant (RFC 1191 §7).
const PLATEAUS: [u32; 10] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// What came of a frame for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// An answer of so many octets was written, to be sent back by the uplink.
    Answer(usize),
    /// A neighbour has said where it is.
    Learned,
    /// The underlay does not carry so long a packet to this remote. It is for the caller to know whether it has such a remote: anybody
    /// can write such a message.
    PathMtu {
        /// Where the packet that was quoted went.
        remote: IpAddr,
        /// The longest outer IP packet.
        mtu: u32,
    },
    /// It was not for this host, or nothing a host answers.
    Ignored,
}

/// Where packets go that leave the switch.
#[derive(Debug)]
enum Way {
    /// To the interface at the other end of the uplink, which routes.
    Interface(Arc<NextHop>),
    /// To a neighbour in the prefix, or to the gateway.
    Prefix { net: IpNet, gateway: IpAddr },
}

/// Next hops by address; the addresses come from configuration and from learned remotes, so the hash is seeded.
type Hops = HashMap<IpAddr, Arc<NextHop>, foldhash::quality::RandomState>;

/// The host.
pub struct Host {
    address: IpAddr,
    mac: MacAddr,
    way: Way,
    hops: RwLock<Hops>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("address", &self.address)
            .field("mac", &self.mac)
            .field("way", &self.way)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// The host that has `address` and, on the uplink, the MAC address `mac`. `interface` is that of the uplink's other end: where packets
    /// go when there is no `gateway` to ask for.
    pub fn new(address: IpNet, mac: MacAddr, gateway: Option<IpAddr>, interface: MacAddr) -> Self {
        let way = match gateway {
            Some(gateway) => Way::Prefix { net: address, gateway },
            None => Way::Interface(Arc::new(NextHop::fixed(interface))),
        };
        let host = Self { address: address.addr(), mac, way, hops: RwLock::default() };
        if let Some(gateway) = gateway {
            // It is the other end's address, and that is where the first frames go, which would come before an answer.
            host.next_hop(gateway).presume(interface);
        }
        host
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its MAC address: the source of what it sends.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// The next hop towards a remote. To be asked for once a remote, not for every frame.
    pub fn next_hop(&self, remote: IpAddr) -> Arc<NextHop> {
        let ip = match &self.way {
            Way::Interface(hop) => return Arc::clone(hop),
            Way::Prefix { net, .. } if net.contains(&remote) => remote,
            Way::Prefix { gateway, .. } => *gateway,
        };
        if let Some(hop) = self.hops().get(&ip) {
            return Arc::clone(hop);
        }
        let mut hops = self.hops.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hops.entry(ip).or_insert_with(|| Arc::new(NextHop::unknown(ip))))
    }

    /// Forgets the next hops that nobody but the host knows any more.
    pub fn prune(&self) {
        let gateway = match &self.way {
            Way::Prefix { gateway, .. } => Some(*gateway),
            Way::Interface(_) => None,
        };
        let mut hops = self.hops.write().unwrap_or_else(PoisonError::into_inner);
        hops.retain(|ip, hop| Arc::strong_count(hop) > 1 || Some(*ip) == gateway);
    }

    /// Hands `emit` the requests that are due, as frames for the uplink. Often enough is once a second, and when a next hop is new.
    pub fn due(&self, now: Tick, mut emit: impl FnMut(&[u8])) {
        let hops: Vec<Arc<NextHop>> = self.hops().values().map(Arc::clone).collect();
        let mut frame = [0; neighbour::MAX_ANSWER];
        for hop in hops {
            if let Some(len) = self.ask(&hop, now, &mut frame) {
                emit(frame.get(..len).unwrap_or_default());
            }
        }
    }

    /// Writes the request for a next hop, where one is due; says how long it is. A worker asks here when it meets one that is unresolved,
    /// so that nobody waits for a timer.
    pub fn ask(&self, hop: &NextHop, now: Tick, frame: &mut [u8]) -> Option<usize> {
        let asking = hop.asking(now)?;
        neighbour::question(self.address, self.mac, asking.ip, asking.of, frame)
    }

    /// Takes in a frame of the uplink that is not a tunnel packet; an answer is written to the start of `reply`.
    pub fn handle(&self, frame: &[u8], now: Tick, reply: &mut [u8]) -> Handled {
        let handled = if neighbour::concerns(frame, HEADER_LEN - 2) {
            self.neighbour(frame, now, reply)
        } else {
            self.icmp(frame, reply)
        };
        handled.unwrap_or(Handled::Ignored)
    }

    fn hops(&self) -> RwLockReadGuard<'_, Hops> {
        self.hops.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn neighbour(&self, frame: &[u8], now: Tick, reply: &mut [u8]) -> Option<Handled> {
        let message = Message::parse(frame, HEADER_LEN - 2)?;
        let mut handled = None;
        // Whoever claims to have our own address is not our neighbour.
        if let Some(claim) = message.claim().filter(|claim| claim.ip != self.address)
            && let Some(hop) = self.hops().get(&claim.ip)
        {
            hop.learn(claim.mac, claim.overrides, now);
            handled = Some(Handled::Learned);
        }
        let asked = message.asks_about() == Some(self.address);
        // The other end looks for us from time to time: where it is the next hop, it says by that what its MAC address is now.
        if let (true, Way::Interface(hop), Some(claim)) = (asked, &self.way, message.claim()) {
            hop.moved(claim.mac);
        }
        if asked && let Some(len) = message.answer(frame, self.mac, false, reply) {
            handled = Some(Handled::Answer(len));
        }
        handled
    }

    fn icmp(&self, frame: &[u8], reply: &mut [u8]) -> Option<Handled> {
        let Layers { tags: 0, l3, ip: Some(ip), .. } = Layers::parse(frame).ok()? else { return None };
        if ip.fragment != Fragment::No {
            return None;
        }
        let packet = frame.get(l3..ip.end)?;
        let message = frame.get(ip.l4..ip.end)?;
        let (source, destination) = addresses(packet, ip.version)?;
        if destination != self.address || !neighbour::is_station(source) || message.len() < ICMP_LEN {
            return None;
        }
        // "ICMP messages with a bad checksum are silently discarded": with its own checksum in, the sum is all ones (RFC 1071 §1).
        let sum = Sum::of(message).and(pseudo(packet, &ip, message.len())?);
        let whole = ip.version == Version::V6 || Sum::of(packet.get(..ip.l4 - l3)?).fold() == 0xffff;
        if !whole || sum.fold() != 0xffff {
            return None;
        }
        let kind = *message.first()?;
        match (ip.version, ip.protocol, kind) {
            (Version::V4, ICMP, ECHO) | (Version::V6, ICMPV6, ECHO_REQUEST_V6) => {
                self.echo(frame, packet, message, &ip, reply)
            }
            (Version::V4, ICMP, DESTINATION_UNREACHABLE) if *message.get(1)? == FRAGMENTATION_NEEDED => {
                self.too_long(message, Version::V4)
            }
            (Version::V6, ICMPV6, PACKET_TOO_BIG) => self.too_long(message, Version::V6),
            _ => None,
        }
    }

    /// "Every host MUST implement an ICMP Echo server function" (RFC 1122 §3.2.2.6), "every node" (RFC 4443 §4.2). IPv4 options are not
    /// returned.
    fn echo(
        &self,
        frame: &[u8],
        packet: &[u8],
        message: &[u8],
        ip: &Ip,
        reply: &mut [u8],
    ) -> Option<Handled> {
        let header_len = if ip.version == Version::V4 { IPV4_LEN } else { IPV6_LEN };
        let len = HEADER_LEN + header_len + message.len();
        let (ethernet, rest) = reply.get_mut(..len)?.split_first_chunk_mut::<HEADER_LEN>()?;
        let (header, body) = rest.split_at_mut_checked(header_len)?;
        let (destination, source_and_type) = ethernet.split_first_chunk_mut::<6>()?;
        let (source, ethertype) = source_and_type.split_first_chunk_mut::<6>()?;
        *destination = *frame.get(6..)?.first_chunk()?;
        *source = self.mac.octets();
        body.copy_from_slice(message);
        body.get_mut(2..4)?.fill(0);
        let total = u16::try_from(header_len + message.len()).ok()?;
        match ip.version {
            Version::V4 => {
                ethertype.copy_from_slice(&EtherType::IPV4.0.to_be_bytes());
                // Not to be fragmented, so that the identification may be zero (RFC 6864 §4.1).
                let [high, low] = total.to_be_bytes();
                let start = [0x45, *packet.get(1)?, high, low, 0, 0, 0x40, 0, TTL, ICMP, 0, 0];
                header.first_chunk_mut().map(|to| *to = start)?;
                header.get_mut(12..16)?.copy_from_slice(packet.get(16..20)?);
                header.get_mut(16..20)?.copy_from_slice(packet.get(12..16)?);
                let sum = !Sum::of(header).fold();
                header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
                *body.first_mut()? = ECHO_REPLY;
                let sum = !Sum::of(body).fold();
                body.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
            }
            Version::V6 => {
                ethertype.copy_from_slice(&EtherType::IPV6.0.to_be_bytes());
                let [high, low] = u16::try_from(message.len()).ok()?.to_be_bytes();
                let class = u8::try_from(be16(packet, 0)? >> 4 & 0xff).ok()?;
                let start = [0x60 | class >> 4, class << 4, 0, 0, high, low, ICMPV6, TTL];
                header.first_chunk_mut().map(|to| *to = start)?;
                header.get_mut(8..24)?.copy_from_slice(packet.get(24..40)?);
                header.get_mut(24..40)?.copy_from_slice(packet.get(8..24)?);
                *body.first_mut()? = ECHO_REPLY_V6;
                let sum = !Sum::of(body).and(pseudo(packet, ip, message.len())?).fold();
                body.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
            }
        }
        Some(Handled::Answer(len))
    }

    /// The path MTU that a message says, where the packet that it quotes is a UDP packet of this host.
    fn too_long(&self, message: &[u8], version: Version) -> Option<Handled> {
        let quoted = message.get(ICMP_LEN..)?;
        let (source, remote) = addresses(quoted, version)?;
        let (protocol, mtu) = match version {
            Version::V4 => {
                // "The value carried in the Next-Hop MTU field"; zero is from a router that does not know of it (RFC 1191 §4, §5).
                let said = u32::from(be16(message, 6)?);
                let long = u32::from(be16(quoted, 2)?);
                let guessed = || PLATEAUS.into_iter().find(|&plateau| plateau < long);
                let mtu = if said == 0 { guessed()? } else { said };
                (*quoted.get(9)?, Some(mtu).filter(|&mtu| mtu >= MIN_MTU_IPV4))
            }
            Version::V6 => {
                let said = u32::from_be_bytes(*message.get(4..)?.first_chunk()?);
                (*quoted.get(6)?, Some(said).filter(|&mtu| mtu >= MIN_MTU_IPV6))
            }
        };
        (source == self.address && protocol == UDP).then_some(Handled::PathMtu { remote, mtu: mtu? })
    }
}

/// Source and destination of an IP packet.
pub(super) fn addresses(packet: &[u8], version: Version) -> Option<(IpAddr, IpAddr)> {
    Some(match version {
        Version::V4 => {
            let at = |at: usize| Some(Ipv4Addr::from_octets(*packet.get(at..)?.first_chunk()?));
            (at(12)?.into(), at(16)?.into())
        }
        Version::V6 => {
            let at = |at: usize| Some(Ipv6Addr::from_octets(*packet.get(at..)?.first_chunk()?));
            (at(8)?.into(), at(24)?.into())
        }
    })
}

/// The sum over what a checksum covers beside its message: nothing for ICMP, the pseudo-header for ICMPv6 (RFC 4443 §2.3).
fn pseudo(packet: &[u8], ip: &Ip, len: usize) -> Option<Sum> {
    Some(match ip.version {
        Version::V4 => Sum::default(),
        Version::V6 => Sum::of(packet.get(8..40)?).add32(len as u32).add32(ICMPV6.into()),
    })
}

#[cfg(test)]
mod tests;
