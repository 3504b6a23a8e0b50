//! A tunnel port on the way out: VNI, remotes, the header in front of a frame, and the fields of the outer header.

use std::ops::RangeInclusive;

use super::ecn::{self, Ecn};
use crate::{
    index::{PortIdx, RemoteIdx, TxSetIdx, VtepIdx},
    wire::{
        EtherType, Vni,
        ethernet::HEADER_LEN,
        geneve::{self, Geneve},
        layers::skip_tags,
        vxlan::{self, Vxlan},
    },
};

/// Octets of an outer IPv4 header without options (RFC 791 §3.1).
const IPV4_LEN: u32 = 20;
/// Octets of an outer IPv6 header (RFC 8200 §3).
const IPV6_LEN: u32 = 40;
/// Octets of an outer UDP header (RFC 768).
const UDP_LEN: u32 = 8;
/// The longest tunnel header: Geneve's 8 octets and 63 words of options (RFC 8926 §3.4).
pub const MAX_HEADER: usize = 8 + 252;

/// What stands between the outer UDP header and the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encap {
    /// VXLAN.
    Vxlan {
        /// The group policy of every frame, where the extension is on.
        gbp: Option<vxlan::Gbp>,
    },
    /// Geneve.
    Geneve {
        /// The options of every frame, as they stand on the wire.
        options: Box<[u8]>,
    },
}

/// A field of the outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherit<T> {
    /// Always this.
    Fixed(T),
    /// What the inner packet has; the default where there is no inner packet.
    Inherit,
}

/// Whether routers may fragment the outer packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    /// They may; the sending host does it too where its own link is too narrow.
    Allowed,
    /// They may not (DF); what does not fit is answered with ICMP.
    Forbidden,
    /// As the inner packet says; without one, or over IPv6, they may not.
    AsInner,
}

/// How outer packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// By UDP sockets of the kernel.
    Sockets {
        /// Those that let outer packets be fragmented.
        fragmenting: TxSetIdx,
        /// Those that do not.
        whole: TxSetIdx,
    },
    /// By a TAP to the host's stack, the outer header being the switch's own work.
    Uplink(PortIdx),
}

/// One copy of a frame on its way through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// To whom.
    pub remote: RemoteIdx,
    /// In which virtual network.
    pub vni: Vni,
}

/// The fields of the outer header that depend on the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterFields {
    /// TOS or traffic class, with the ECN field (RFC 6040).
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// The TTL of an outer packet that has none to inherit (`IPDEFTTL`).
const DEFAULT_TTL: u8 = 64;

/// A tunnel port on the way out.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// The local endpoint.
    pub vtep: VtepIdx,
    /// How outer packets leave.
    pub via: Via,
    /// Whether the underlay is IPv6.
    pub v6: bool,
    /// The UDP ports outer packets come from, one for each flow.
    pub src_ports: RangeInclusive<u16>,
    /// The far ends' UDP port.
    pub dst_port: u16,
    /// The tunnel header.
    pub encap: Encap,
    /// The VNI of every VLAN without one of its own.
    pub vni: Option<Vni>,
    /// The VNIs of single VLANs, in the order of the VLANs.
    pub vlan_vni: Box<[(u16, Vni)]>,
    /// Where flooded frames go: each remote once (head-end replication), or a multicast group.
    pub flood: Box<[RemoteIdx]>,
    /// TTL of the outer packet.
    pub ttl: Inherit<u8>,
    /// TOS of the outer packet, without ECN.
    pub tos: Inherit<u8>,
    /// May the outer packet be fragmented?
    pub df: Fragmentation,
    /// A checksum in the outer UDP header.
    pub udp_csum: bool,
    /// Octets of the longest outer packet that the underlay's route takes, where nothing is known of a remote's path.
    pub underlay_mtu: u32,
}

impl Tunnel {
    /// The VNI of frames in `vlan`.
    #[inline]
    pub fn vni_of(&self, vlan: u16) -> Option<Vni> {
        if !self.vlan_vni.is_empty()
            && let Ok(at) = self.vlan_vni.binary_search_by_key(&vlan, |&(v, _)| v)
        {
            return Some(self.vlan_vni[at].1);
        }
        self.vni
    }

    /// Octets of the tunnel header.
    #[inline]
    pub fn header_len(&self) -> usize {
        match &self.encap {
            Encap::Vxlan { .. } => vxlan::LEN,
            Encap::Geneve { options } => geneve::LEN + options.len(),
        }
    }

    /// Octets of the outer IP and UDP header and the tunnel header.
    #[inline]
    pub fn overhead(&self) -> u32 {
        (if self.v6 { IPV6_LEN } else { IPV4_LEN }) + UDP_LEN + self.header_len() as u32
    }

    /// Octets of the longest frame, from its destination address on, that fits a path of `path_mtu` octets (0: not known).
    #[inline]
    pub fn frame_limit(&self, path_mtu: u32) -> u32 {
        let outer = if path_mtu == 0 { self.underlay_mtu } else { path_mtu };
        outer.saturating_sub(self.overhead())
    }

    /// Octets of the longest inner packet, in a frame without tags, that the underlay's route takes.
    #[inline]
    pub fn inner_mtu(&self) -> u32 {
        self.frame_limit(0).saturating_sub(HEADER_LEN as u32)
    }

    /// Writes the tunnel header to the front of `out`, which has [`MAX_HEADER`] octets; says how long it is.
    #[inline]
    pub fn write_header(&self, vni: Vni, out: &mut [u8]) -> usize {
        match &self.encap {
            Encap::Vxlan { gbp } => {
                out[..vxlan::LEN].copy_from_slice(&Vxlan { vni, gbp: *gbp }.to_bytes());
                vxlan::LEN
            }
            // Options that do not fit are refused where they are configured.
            Encap::Geneve { options } => Geneve::emit(vni, options, out).unwrap_or(0),
        }
    }

    /// What the outer header of a frame says.
    #[inline]
    pub fn outer_fields(&self, frame: &[u8]) -> OuterFields {
        let inner = ecn::of(frame);
        let (inner_tos, inner_ttl) = inner.unwrap_or((0, DEFAULT_TTL));
        let dscp = match self.tos {
            Inherit::Fixed(tos) => tos,
            Inherit::Inherit => inner_tos,
        };
        let ttl = match self.ttl {
            Inherit::Fixed(ttl) => ttl,
            Inherit::Inherit => inner_ttl,
        };
        // "In normal mode the encapsulator copies the inner ECN field" (RFC 6040 §4.1).
        let ecn = ecn::encapsulate(Ecn::of_tos(inner_tos));
        OuterFields { tos: ecn.in_tos(dscp), ttl }
    }

    /// Whether the outer packet of this frame may be fragmented.
    #[inline]
    pub fn may_fragment(&self, frame: &[u8], type_at: usize) -> bool {
        match self.df {
            Fragmentation::Allowed => true,
            Fragmentation::Forbidden => false,
            Fragmentation::AsInner => !has_df(frame, type_at),
        }
    }
}

/// Where the flags stand in an IPv4 header, and the bit among them that says "don't fragment" (RFC 791 §3.1).
const FLAGS_AT: usize = 6;
const DF: u8 = 0x40;

/// Whether the IPv4 packet in a frame must not be fragmented; other packets count as if they must not.
#[inline]
fn has_df(frame: &[u8], type_at: usize) -> bool {
    match skip_tags(frame, type_at) {
        Ok((_, EtherType::IPV4, l3)) => frame.get(l3 + FLAGS_AT).is_none_or(|flags| flags & DF != 0),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
