//! The offload state of a frame: what of its checksum and segmentation is still to be done.

use crate::wire::virtio_net::{self as vnet, VirtioNetHdr};

/// Where the first transport header can begin: behind an Ethernet header (14) and an IPv4 header (20).
/// A checksum that began before could change the VLAN tag after the switch has looked at it.
const MIN_CSUM_START: u16 = 34;

/// The longest IPv4 packet (RFC 791 §3.1).
const MAX_PACKET: usize = 65_535;

/// The state of the innermost transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nobody said; the bytes are complete as they stand.
    #[default]
    Unknown,
    /// Verified by whoever handed us the frame; complete as it stands.
    Good,
    /// The field holds the pseudo-header sum only; the rest is still to be added.
    Partial {
        /// Where the checksummed part begins, in octets from the start of the frame.
        start: u16,
        /// Where the field stands, in octets from `start`.
        offset: u16,
    },
}

/// What a super-frame is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of one size, over IPv4 or IPv6.
    Udp,
}

/// A super-frame: many segments under one header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Transport protocol.
    pub kind: GsoKind,
    /// Payload octets of each segment but the last, which may be shorter; never 0.
    pub size: u16,
    /// The sender said where the payload begins, in octets from the start of the frame. A hint, not to be relied on.
    pub hdr_len: u16,
    /// The first segment alone carries CWR (RFC 3168 §6.1.2).
    pub ecn: bool,
}

/// Everything that is still to be done to a frame before it is a plain frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Transport checksum.
    pub csum: Checksum,
    /// Segmentation, where the frame is a super-frame.
    pub gso: Option<Gso>,
}

impl Offload {
    /// A plain, complete frame.
    pub const NONE: Self = Self { csum: Checksum::Unknown, gso: None };

    /// Whether a receiver without any offload can take the frame as it stands.
    #[inline]
    pub const fn is_plain(&self) -> bool {
        self.gso.is_none() && !matches!(self.csum, Checksum::Partial { .. })
    }

    /// What `hdr` says of a frame of `len` octets, or `None` where it contradicts itself or the frame.
    /// The headers of a super-frame are not looked at here; see `offload::split`.
    #[inline]
    pub fn from_vnet(hdr: &VirtioNetHdr, len: usize) -> Option<Self> {
        if hdr.flags == 0 && hdr.gso_type == vnet::GSO_NONE {
            return Some(Self::NONE);
        }
        let csum = if hdr.flags & vnet::F_NEEDS_CSUM != 0 {
            let (start, offset) = (hdr.csum_start.get(), hdr.csum_offset.get());
            if usize::from(start) + usize::from(offset) + 2 > len || start < MIN_CSUM_START {
                return None;
            }
            Checksum::Partial { start, offset }
        } else if hdr.flags & vnet::F_DATA_VALID != 0 {
            Checksum::Good
        } else {
            Checksum::Unknown
        };
        let kind = match hdr.gso_type & !vnet::GSO_ECN {
            vnet::GSO_NONE => return (hdr.gso_type == vnet::GSO_NONE).then_some(Self { csum, gso: None }),
            vnet::GSO_TCPV4 => GsoKind::TcpV4,
            vnet::GSO_TCPV6 => GsoKind::TcpV6,
            vnet::GSO_UDP_L4 => GsoKind::Udp,
            _ => return None,
        };
        let size = hdr.gso_size.get();
        if size == 0 || !matches!(csum, Checksum::Partial { .. }) {
            return None; // the kernel never makes a super-frame without a partial checksum (skb_gso_ok)
        }
        let ecn = hdr.gso_type & vnet::GSO_ECN != 0;
        Some(Self { csum, gso: Some(Gso { kind, size, hdr_len: hdr.hdr_len.get(), ecn }) })
    }

    /// The header for a frame that lost or gained `shift` octets before its network header.
    #[inline]
    pub fn to_vnet(&self, shift: i16) -> VirtioNetHdr {
        let mut hdr = VirtioNetHdr::default();
        match self.csum {
            Checksum::Partial { start, offset } => {
                hdr.flags = vnet::F_NEEDS_CSUM;
                hdr.csum_start = start.wrapping_add_signed(shift).into();
                hdr.csum_offset = offset.into();
            }
            Checksum::Good => hdr.flags = vnet::F_DATA_VALID,
            Checksum::Unknown => {}
        }
        if let Some(gso) = self.gso {
            hdr.gso_type = match gso.kind {
                GsoKind::TcpV4 => vnet::GSO_TCPV4,
                GsoKind::TcpV6 => vnet::GSO_TCPV6,
                GsoKind::Udp => vnet::GSO_UDP_L4,
            } | if gso.ecn { vnet::GSO_ECN } else { 0 };
            hdr.gso_size = gso.size.into();
            hdr.hdr_len = gso.hdr_len.saturating_add_signed(shift).into();
        }
        hdr
    }
}

/// What an egress takes: the offloads the kernel (or a VM) behind it has agreed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Frames carry a virtio header at all (`IFF_VNET_HDR`).
    pub vnet_hdr: bool,
    /// Partial checksums (`TUN_F_CSUM`).
    pub csum: bool,
    /// TCP super-frames over IPv4 (`TUN_F_TSO4`).
    pub tso4: bool,
    /// TCP super-frames over IPv6 (`TUN_F_TSO6`).
    pub tso6: bool,
    /// TCP super-frames with CWR (`TUN_F_TSO_ECN`).
    pub tso_ecn: bool,
    /// UDP super-frames, both families (`TUN_F_USO4`, `TUN_F_USO6`: the kernel takes both or none).
    pub uso: bool,
    /// Super-frames inside a UDP tunnel (`TUN_F_UDP_TUNNEL_GSO`), and a virtio header of 24 octets: an uplink alone has it.
    pub tunnel: bool,
    /// The same where the tunnel has outer checksums (`TUN_F_UDP_TUNNEL_GSO_CSUM`).
    pub tunnel_csum: bool,
}

impl Caps {
    /// A port without any offload.
    pub const NONE: Self = Self {
        vnet_hdr: false,
        csum: false,
        tso4: false,
        tso6: false,
        tso_ecn: false,
        uso: false,
        tunnel: false,
        tunnel_csum: false,
    };
    /// A port with every offload that a port has.
    pub const ALL: Self =
        Self { vnet_hdr: true, csum: true, tso4: true, tso6: true, tso_ecn: true, uso: true, ..Self::NONE };
    /// An uplink with every offload.
    pub const UPLINK: Self = Self { tunnel: true, tunnel_csum: true, ..Self::ALL };

    /// Octets of the virtio header that goes with these capabilities.
    #[inline]
    pub const fn vnet_header_len(&self) -> usize {
        match self {
            Self { tunnel: true, .. } => vnet::TUNNEL_LEN,
            Self { vnet_hdr: true, .. } => vnet::LEN,
            _ => 0,
        }
    }

    /// Whether a frame in this state can be handed over as it stands.
    #[inline]
    pub const fn take(&self, offload: &Offload) -> bool {
        match offload.gso {
            None => self.csum || !matches!(offload.csum, Checksum::Partial { .. }),
            Some(gso) => self.takes_gso(&gso),
        }
    }

    /// What of it is there for frames inside a UDP tunnel, which has checksums or not.
    pub const fn tunnelled(self, udp_csum: bool) -> Self {
        let whole = self.tunnel && (!udp_csum || self.tunnel_csum);
        Self {
            vnet_hdr: self.vnet_hdr,
            csum: self.csum,
            tso4: whole && self.tso4,
            tso6: whole && self.tso6,
            tso_ecn: whole && self.tso_ecn,
            uso: whole && self.uso,
            tunnel: false,
            tunnel_csum: false,
        }
    }

    /// Whether a frame in this state can be handed over inside a UDP tunnel as it stands: `len` octets from the outer network header
    /// on, the outer checksum there or not.
    #[inline]
    pub const fn take_tunnelled(&self, offload: &Offload, len: usize, udp_csum: bool) -> bool {
        // The length fields of IPv4 and UDP end there (RFC 791 §3.1, RFC 768): the inner packet may be that long itself.
        len <= MAX_PACKET
            && self.take(offload)
            && (offload.gso.is_none() || self.tunnel && (!udp_csum || self.tunnel_csum))
    }

    #[inline]
    const fn takes_gso(&self, gso: &Gso) -> bool {
        (match gso.kind {
            GsoKind::TcpV4 => self.tso4,
            GsoKind::TcpV6 => self.tso6,
            GsoKind::Udp => self.uso,
        }) && (!gso.ecn || self.tso_ecn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hdr(flags: u8, gso_type: u8, size: u16, start: u16, offset: u16) -> VirtioNetHdr {
        VirtioNetHdr {
            flags,
            gso_type,
            gso_size: size.into(),
            csum_start: start.into(),
            csum_offset: offset.into(),
            hdr_len: 54.into(),
            num_buffers: 0.into(),
        }
    }

    #[test]
    fn a_virtio_header_survives_the_way_in_and_out() {
        for h in [
            hdr(1, vnet::GSO_NONE, 0, 34, 16),
            hdr(1, vnet::GSO_TCPV4, 1448, 34, 16),
            hdr(1, vnet::GSO_TCPV6 | vnet::GSO_ECN, 1428, 54, 16),
            hdr(1, vnet::GSO_UDP_L4, 1200, 34, 6),
        ] {
            let offload = Offload::from_vnet(&h, 9000).unwrap();
            let mut out = offload.to_vnet(0);
            if offload.gso.is_none() {
                out.hdr_len = h.hdr_len;
            }
            assert_eq!(out, h);
            assert_eq!(
                offload.to_vnet(4).csum_start.get(),
                h.csum_start.get() + 4,
                "a pushed tag moves the checksum"
            );
        }
    }

    #[test]
    fn a_virtio_header_that_contradicts_the_frame_is_refused() {
        for (why, h, len) in [
            ("checksum beyond the end", hdr(1, 0, 0, 59, 0), 60),
            ("checksum inside the Ethernet header", hdr(1, 0, 0, 2, 0), 60),
            ("checksum over the VLAN tag", hdr(1, 0, 0, 14, 0), 60),
            ("checksum inside the shortest IP header", hdr(1, 0, 0, 33, 0), 60),
            ("super-frame without segment size", hdr(1, vnet::GSO_TCPV4, 0, 34, 16), 6000),
            ("super-frame without partial checksum", hdr(0, vnet::GSO_TCPV4, 1448, 34, 16), 6000),
            ("the retired UFO type", hdr(1, vnet::GSO_UDP, 1448, 34, 16), 6000),
            ("an unknown type", hdr(1, 77, 1448, 34, 16), 6000),
            ("ECN on no super-frame", hdr(1, vnet::GSO_ECN, 0, 34, 16), 6000),
        ] {
            assert_eq!(Offload::from_vnet(&h, len), None, "{why}");
        }
    }
}
