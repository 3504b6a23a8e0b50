//! From datagrams to frames: which tunnel a datagram belongs to, and where in it its frames are.
//!
//! Owns the table of virtual networks of a local endpoint, and every check between the outer UDP header and the frame: tunnel header,
//! VNI, sender, ECN. Moves no octets: a frame stays where its datagram was received.
//!
//! A call brings frames of one tunnel port and VLAN, up to a batch of them; the next call goes on where it ended. Datagrams of one
//! flow come together and are in one virtual network, so that in practice a run is as long as what was received.
//! No decision made for one datagram is reused for another, but for one: the entry of the VNI seen last, which depends on nothing else.

use std::{net::IpAddr, ops::Range, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use super::{RemoteCache, Remotes, ecn};
use crate::{
    counters::{DropReason, PortStats},
    frame::{BATCH, Batch, Datagram, Gso, GsoKind, Offload},
    index::{PortIdx, RemoteIdx, VtepIdx},
    tick::Tick,
    wire::{
        EtherType, Vid, Vni,
        ethernet::ADDRS_LEN,
        geneve::{self, Geneve},
        layers::{be16, skip_tags},
        vxlan::{self, Vxlan},
    },
};

/// IP protocol number of UDP.
const UDP: u8 = 17;

/// By what frames enter the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The port.
    pub port: PortIdx,
    /// The VLAN they are in whatever they say, where the VNI is that of a VLAN.
    pub vlan: Option<Vid>,
    /// Whether their senders may be learned.
    pub learn: bool,
}

impl From<PortIdx> for Ingress {
    fn from(port: PortIdx) -> Self {
        Self { port, vlan: None, learn: true }
    }
}

/// What a VNI is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The tunnel, by its place among the [entrances](Vtep::entrances).
    pub entrance: u16,
    /// The VLAN whose VNI it is; `None` where it is that of the whole bridge.
    pub vlan: Option<Vid>,
}

/// What a tunnel header must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rules {
    /// VXLAN.
    Vxlan(vxlan::Rules),
    /// Geneve, with the options (class and type) that are understood.
    Geneve(Box<[(u16, u8)]>),
}

/// A tunnel port on the way in.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// The port.
    pub port: PortIdx,
    /// What its header must be like.
    pub rules: Rules,
    /// The only senders that are let in; `None` for all. Addresses, since who is not let in is not to take a place among the remotes.
    pub known: Option<HashSet<IpAddr, RandomState>>,
    /// The port's counters.
    pub stats: Arc<PortStats>,
}

/// A local endpoint of tunnels: one address and UDP port, and the virtual networks behind it.
#[derive(Debug)]
pub struct Vtep {
    /// Its number, under which its remotes are known.
    pub idx: VtepIdx,
    /// Its address; datagrams from there are our own.
    pub local: IpAddr,
    /// Whether it takes datagrams over IPv6 without a checksum. Sockets of the kernel see to that themselves.
    pub zero_csum6: bool,
    /// Its virtual networks.
    pub segments: HashMap<Vni, Segment, RandomState>,
    /// Its tunnels.
    pub entrances: Box<[Entrance]>,
    /// Counts the datagrams that belong to no tunnel.
    pub stats: Arc<PortStats>,
}

/// What decapsulation knows beside the datagrams.
#[derive(Clone, Copy, Debug)]
pub struct Arrivals<'a> {
    /// Where they arrived.
    pub vtep: &'a Vtep,
    /// All far ends.
    pub remotes: &'a Remotes,
    /// The worker whose counters are written.
    pub worker: usize,
    /// When they were received.
    pub now: Tick,
}

/// The scratch memory of a worker's decapsulation.
#[derive(Debug, Default)]
pub struct Decapsulator {
    cache: RemoteCache,
    /// The datagram it is at.
    at: usize,
    /// How far in it.
    offset: u32,
    /// How long each part of it is.
    stride: u32,
    /// The VNI seen last.
    last: Option<(u32, Segment)>,
}

/// A frame in a datagram.
struct Found {
    ingress: Ingress,
    entrance: u16,
    frame: Range<usize>,
    remote: Option<RemoteIdx>,
}

/// Why a frame goes no further, and on whom that is counted.
struct Refused {
    reason: DropReason,
    entrance: Option<u16>,
}

impl Decapsulator {
    /// Must be called when new datagrams have been received.
    #[inline]
    pub fn begin(&mut self) {
        (self.at, self.offset, self.last) = (0, 0, None);
    }

    /// Puts the next frames that enter by one port into the batch; `None` where all datagrams are done.
    #[inline]
    pub fn next(&mut self, env: &Arrivals<'_>, datagrams: &[Datagram], batch: &mut Batch) -> Option<Ingress> {
        batch.clear();
        let mut run: Option<(Ingress, u16)> = None;
        let mut octets = 0;
        'all: while let Some(datagram) = datagrams.get(self.at) {
            if self.offset == 0 {
                self.stride = if datagram.stride == 0 { datagram.len } else { datagram.stride };
                // A datagram of no octets is one that ends inside its header.
                self.stride = self.stride.max(1);
            }
            while self.offset < datagram.len.max(1) {
                if batch.len() == BATCH {
                    break 'all;
                }
                match self.find(env, datagram, batch.memory()) {
                    Ok(found) if run.is_some_and(|(ingress, _)| ingress != found.ingress) => break 'all,
                    Ok(found) => {
                        let offload = self.offload(datagram, &found);
                        if mark(&mut batch.memory_mut()[found.frame.clone()], datagram.tos) {
                            run = Some((found.ingress, found.entrance));
                            octets += found.frame.len() as u64;
                            batch.push_at(found.frame, offload, found.remote);
                        } else {
                            count(env, Some(found.entrance), DropReason::EcnInvalid);
                        }
                    }
                    Err(Refused { reason, entrance }) => count(env, entrance, reason),
                }
                self.offset = self.offset.saturating_add(self.stride);
            }
            (self.at, self.offset) = (self.at + 1, 0);
        }
        let (ingress, entrance) = run?;
        if let Some(entrance) = env.vtep.entrances.get(usize::from(entrance)) {
            let counters = entrance.stats.of(env.worker);
            counters.rx_frames.add(batch.len() as u64);
            counters.rx_bytes.add(octets);
        }
        Some(ingress)
    }

    /// The frame at the cursor.
    #[inline]
    fn find(&mut self, env: &Arrivals<'_>, datagram: &Datagram, memory: &[u8]) -> Result<Found, Refused> {
        let (start, left) = (datagram.at + self.offset, datagram.len - self.offset);
        // Of the first part all is looked at: it may be the whole.
        let look = if self.offset == 0 { left } else { left.min(self.stride) };
        let bytes = memory.get(start as usize..(start + look) as usize).unwrap_or_default();
        // VXLAN and Geneve have the VNI in the same place (RFC 7348 §5, RFC 8926 §3.4).
        let Some(&[_, _, _, _, a, b, c, _]) = bytes.first_chunk() else {
            return Err(Refused { reason: env.vtep.truncated(), entrance: None });
        };
        let vni = u32::from_be_bytes([0, a, b, c]);
        let segment = match self.last {
            Some((last, segment)) if last == vni => segment,
            _ => {
                let unknown = Refused { reason: DropReason::VniUnknown, entrance: None };
                let segment = env.vtep.segment(vni).ok_or(unknown)?;
                self.last = Some((vni, segment));
                segment
            }
        };
        let refused = |reason| Refused { reason, entrance: Some(segment.entrance) };
        let Some(entrance) = env.vtep.entrances.get(usize::from(segment.entrance)) else {
            return Err(Refused { reason: DropReason::VniUnknown, entrance: None });
        };
        let (header_len, learn) = entrance.rules.check(bytes).map_err(refused)?;
        if datagram.from == env.vtep.local {
            return Err(refused(DropReason::RemoteIsSelf));
        }
        if entrance.known.as_ref().is_some_and(|known| !known.contains(&datagram.from)) {
            return Err(refused(DropReason::RemoteUnknown));
        }
        if self.offset == 0 && self.stride < left && fills(&bytes[header_len..]) {
            let next = &bytes[self.stride as usize..];
            self.stride = left;
            if env.vtep.opens(next) {
                return Err(refused(DropReason::GsoMalformed));
            }
        }
        let len = self.stride.min(left) as usize;
        if header_len > len {
            return Err(refused(env.vtep.truncated()));
        }
        let remote = self.cache.index(env.remotes, env.vtep.idx, datagram.from, env.now);
        Ok(Found {
            // A sender there is no room to remember is not learned: frames to it are flooded.
            ingress: Ingress { port: entrance.port, vlan: segment.vlan, learn: learn && remote.is_some() },
            entrance: segment.entrance,
            frame: start as usize + header_len..start as usize + len,
            remote,
        })
    }

    /// What is still to be done to a frame.
    #[inline]
    fn offload(&self, datagram: &Datagram, found: &Found) -> Offload {
        if datagram.offload != Offload::NONE {
            let header_len = found.frame.start - datagram.at as usize;
            // What contradicts the headers is no longer believed, and the receiver finds a checksum that is wrong.
            return datagram.offload.within(header_len as u16).unwrap_or(Offload::NONE);
        }
        if self.stride == datagram.len && datagram.stride != 0 && datagram.stride < datagram.len {
            // The control message has the size of the inner segments; `offload::merge` completes what it leaves open.
            let gso = Gso { kind: GsoKind::Udp, size: datagram.stride as u16, hdr_len: 0, ecn: false };
            return Offload { gso: Some(gso), ..Offload::NONE };
        }
        Offload::NONE
    }
}

impl Vtep {
    /// The virtual network `vni`.
    #[inline]
    fn segment(&self, vni: u32) -> Option<Segment> {
        self.segments.get(&Vni::new(vni)?).copied()
    }

    /// Whether a packet of one of its tunnels can begin like this.
    #[cold]
    fn opens(&self, bytes: &[u8]) -> bool {
        let Some(&[_, _, _, _, a, b, c, _]) = bytes.first_chunk() else { return false };
        let entrance = self
            .segment(u32::from_be_bytes([0, a, b, c]))
            .and_then(|segment| self.entrances.get(usize::from(segment.entrance)));
        entrance.is_some_and(|entrance| entrance.rules.check(bytes).is_ok())
    }

    fn truncated(&self) -> DropReason {
        match self.entrances.first().map(|entrance| &entrance.rules) {
            Some(Rules::Geneve(_)) => DropReason::GeneveMalformed,
            _ => DropReason::VxlanMalformed,
        }
    }
}

impl Rules {
    /// How long the header is, and whether the sender may be learned.
    #[inline]
    fn check(&self, bytes: &[u8]) -> Result<(usize, bool), DropReason> {
        match self {
            Self::Vxlan(rules) => match Vxlan::parse(bytes, *rules) {
                Ok(header) => Ok((vxlan::LEN, header.gbp.is_none_or(|gbp| !gbp.dont_learn))),
                Err(vxlan::Invalid::ReservedBits) => Err(DropReason::VxlanReservedBits),
                Err(_) => Err(DropReason::VxlanMalformed),
            },
            Self::Geneve(known) => match Geneve::parse(bytes, known) {
                Ok(header) => Ok((header.header_len, true)),
                Err(invalid) => Err(match invalid {
                    geneve::Invalid::Version => DropReason::GeneveVersion,
                    geneve::Invalid::Control => DropReason::GeneveControl,
                    geneve::Invalid::CriticalOption => DropReason::GeneveCriticalOption,
                    geneve::Invalid::ProtocolType => DropReason::GeneveProtocol,
                    geneve::Invalid::Truncated | geneve::Invalid::OptionLength => DropReason::GeneveMalformed,
                }),
            },
        }
    }
}

#[cold]
fn count(env: &Arrivals<'_>, entrance: Option<u16>, reason: DropReason) {
    match entrance.and_then(|n| env.vtep.entrances.get(usize::from(n))) {
        Some(entrance) => {
            let counters = entrance.stats.of(env.worker);
            counters.rx_frames.add(1);
            counters.drop(reason);
        }
        None => env.vtep.stats.of(env.worker).drop(reason),
    }
}

/// Takes the outer ECN field over into the frame (RFC 6040 §4.2); `false` where the frame must be dropped.
#[inline]
fn mark(frame: &mut [u8], tos: u8) -> bool {
    let outer = ecn::Ecn::of_tos(tos);
    if outer == ecn::Ecn::NotEct {
        return true; // the inner field stands, whatever it is
    }
    let Some((inner_tos, _)) = ecn::of(frame) else { return true };
    let inner = ecn::Ecn::of_tos(inner_tos);
    match ecn::decapsulate(inner, outer) {
        Ok(ecn) => {
            if ecn != inner {
                ecn::mark(frame, ecn);
            }
            true
        }
        Err(_) => false,
    }
}

/// Whether a frame, with all octets that came behind its first, is a UDP datagram as long as that.
///
/// A datagram that the kernel joined of several (`UDP_GRO`) has the length of each in the control message. One that is itself a
/// super-frame, from a kernel on this machine, has the size of the inner segments there; only the inner lengths tell which.
/// Those are the word of whoever made the frame: a station could give the length of a train to a frame at its head, and get what
/// follows it, of other networks too; or put tunnel headers into a super-frame, where those of a train would stand. What can be read
/// either way is neither's, and is dropped whole.
#[inline]
fn fills(frame: &[u8]) -> bool {
    let Ok((_, ethertype, l3)) = skip_tags(frame, ADDRS_LEN) else { return false };
    let (protocol, packet) = match ethertype {
        EtherType::IPV4 => (frame.get(l3 + 9), be16(frame, l3 + 2).map(usize::from)),
        EtherType::IPV6 => (frame.get(l3 + 6), be16(frame, l3 + 4).map(|len| usize::from(len) + 40)),
        _ => return false,
    };
    protocol == Some(&UDP) && packet.is_some_and(|packet| l3 + packet == frame.len())
}

#[cfg(test)]
pub(crate) mod tests;
