//! The offload state of a frame on an uplink: a whole packet of the underlay, which may hold a super-frame inside its tunnel.

use zerocopy::FromBytes;

use super::{Checksum, Gso, GsoKind, Offload};
use crate::wire::{
    VirtioNetHdr, VirtioNetHdrTunnel,
    virtio_net::{self as vnet},
};

/// Octets of an Ethernet header without tags, of an IPv4 and an IPv6 header without options, and of a UDP header: what the kernel
/// holds positions against (`virtio_net_hdr_tnl_to_skb`).
const ETH: u16 = 14;
const IPV4: u16 = 20;
const IPV6: u16 = 40;
const UDP: u16 = 8;

/// The tunnel around a super-frame; positions in octets from the start of the outer frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelGso {
    /// The underlay is IPv6; else IPv4.
    pub v6: bool,
    /// The outer UDP header has a checksum: its field holds the pseudo-header sum, and every segment gets its own.
    pub csum: bool,
    /// Where the outer UDP header begins.
    pub outer_l4: u16,
    /// Where the inner network header begins.
    pub inner_l3: u16,
}

/// What the kernel says of a frame on an uplink; positions in octets from the start of the outer frame.
///
/// It comes in three forms. With `tunnel`, `offload` is that of the inner super-frame. Without, a partial checksum may be that of the
/// outer or of an inner transport header, which its position tells; and a super-frame is a train of datagrams of one size,
/// such as a sender makes with `UDP_SEGMENT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UplinkOffload {
    /// Checksum and segmentation: of what is inside the tunnel, where there is one.
    pub offload: Offload,
    /// The tunnel around the super-frame.
    pub tunnel: Option<TunnelGso>,
}

impl UplinkOffload {
    /// A plain, complete frame.
    pub const NONE: Self = Self { offload: Offload::NONE, tunnel: None };

    /// What the virtio header of 24, 12 or 0 octets in `header` says of a frame of `len` octets, or `None` where it contradicts itself or
    /// the frame. The frame's own headers are not looked at.
    #[inline]
    pub fn parse(header: &[u8], len: usize) -> Option<Self> {
        let Ok((long, _)) = VirtioNetHdrTunnel::ref_from_prefix(header) else {
            return match VirtioNetHdr::ref_from_prefix(header) {
                Ok((short, _)) => Self::from_short(short, len),
                Err(_) => header.is_empty().then_some(Self::NONE),
            };
        };
        let v6 = match long.hdr.gso_type & (vnet::GSO_UDP_TUNNEL_IPV4 | vnet::GSO_UDP_TUNNEL_IPV6) {
            0 => return Self::from_short(&long.hdr, len),
            vnet::GSO_UDP_TUNNEL_IPV4 => false,
            vnet::GSO_UDP_TUNNEL_IPV6 => true,
            _ => return None,
        };
        let csum = long.hdr.flags & vnet::F_UDP_TUNNEL_CSUM != 0;
        let inner = VirtioNetHdr {
            flags: long.hdr.flags & !vnet::F_UDP_TUNNEL_CSUM,
            gso_type: long.hdr.gso_type & !(vnet::GSO_UDP_TUNNEL_IPV4 | vnet::GSO_UDP_TUNNEL_IPV6),
            ..long.hdr
        };
        let offload = Offload::from_vnet(&inner, len)?;
        let (Some(gso), Checksum::Partial { start, .. }) = (&offload.gso, offload.csum) else { return None };
        let (outer_l4, inner_l3) = (long.outer_th_offset.get(), long.inner_nh_offset.get());
        let fits = outer_l4 >= ETH + if v6 { IPV6 } else { IPV4 }
            && inner_l3 >= outer_l4.checked_add(UDP)?
            && start >= inner_l3.checked_add(if gso.kind == GsoKind::TcpV6 { IPV6 } else { IPV4 })?;
        fits.then_some(Self { offload, tunnel: Some(TunnelGso { v6, csum, outer_l4, inner_l3 }) })
    }

    #[inline]
    fn from_short(header: &VirtioNetHdr, len: usize) -> Option<Self> {
        Some(Self { offload: Offload::from_vnet(header, len)?, tunnel: None })
    }

    /// The header that says it; the first [12 octets](vnet::LEN) alone where there is no tunnel around a super-frame.
    #[inline]
    pub fn to_vnet(&self) -> VirtioNetHdrTunnel {
        let mut long = VirtioNetHdrTunnel { hdr: self.offload.to_vnet(0), ..VirtioNetHdrTunnel::default() };
        if let Some(tunnel) = &self.tunnel {
            long.hdr.gso_type |=
                if tunnel.v6 { vnet::GSO_UDP_TUNNEL_IPV6 } else { vnet::GSO_UDP_TUNNEL_IPV4 };
            if tunnel.csum {
                long.hdr.flags |= vnet::F_UDP_TUNNEL_CSUM;
            }
            long.outer_th_offset = tunnel.outer_l4.into();
            long.inner_nh_offset = tunnel.inner_l3.into();
        }
        long
    }
}

impl Offload {
    /// The state of the frame that lies `by` octets into this one; `None` where its checksum or headers would begin before it.
    #[inline]
    pub fn within(&self, by: u16) -> Option<Self> {
        let csum = match self.csum {
            Checksum::Partial { start, offset } => {
                Checksum::Partial { start: start.checked_sub(by)?, offset }
            }
            // Verified was what is outside.
            Checksum::Good | Checksum::Unknown => Checksum::Unknown,
        };
        // The kernel's hint was short of the inner headers at first: a wrong one becomes none.
        let gso = self.gso.map(|gso| Gso { hdr_len: gso.hdr_len.saturating_sub(by), ..gso });
        Some(Self { csum, gso })
    }

    /// The state of a frame that gained (or lost) `by` octets before its network header.
    #[inline]
    pub fn moved(&self, by: i16) -> Self {
        let csum = match self.csum {
            Checksum::Partial { start, offset } => {
                Checksum::Partial { start: start.saturating_add_signed(by), offset }
            }
            other => other,
        };
        let gso = self.gso.map(|gso| Gso { hdr_len: gso.hdr_len.saturating_add_signed(by), ..gso });
        Self { csum, gso }
    }

    /// The state of a frame that gets `by` octets of other headers in front.
    #[inline]
    pub fn behind(&self, by: u16) -> Self {
        let csum = match self.csum {
            Checksum::Partial { start, offset } => {
                Checksum::Partial { start: start.saturating_add(by), offset }
            }
            Checksum::Good | Checksum::Unknown => Checksum::Unknown,
        };
        let gso = self.gso.map(|gso| Gso { hdr_len: gso.hdr_len.saturating_add(by), ..gso });
        Self { csum, gso }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;

    /// A TCP super-frame over IPv4 in VXLAN over IPv4.
    const TCP_IN_VXLAN: UplinkOffload = UplinkOffload {
        offload: Offload {
            csum: Checksum::Partial { start: 84, offset: 16 },
            gso: Some(Gso { kind: GsoKind::TcpV4, size: 1398, hdr_len: 116, ecn: false }),
        },
        tunnel: Some(TunnelGso { v6: false, csum: false, outer_l4: 34, inner_l3: 64 }),
    };

    #[test]
    fn a_super_frame_in_a_tunnel_survives_the_way_in_and_out() {
        let tunnel = TCP_IN_VXLAN.tunnel.unwrap();
        for tunnel in
            [tunnel, TunnelGso { csum: true, ..tunnel }, TunnelGso { v6: true, outer_l4: 54, ..tunnel }]
        {
            let said = UplinkOffload { tunnel: Some(tunnel), ..TCP_IN_VXLAN };
            let said = UplinkOffload {
                tunnel: Some(TunnelGso { inner_l3: tunnel.outer_l4 + 30, ..tunnel }),
                offload: Offload {
                    csum: Checksum::Partial { start: tunnel.outer_l4 + 50, offset: 16 },
                    ..said.offload
                },
            };
            assert_eq!(UplinkOffload::parse(said.to_vnet().as_bytes(), 9000), Some(said));
        }
    }

    #[test]
    fn the_shorter_headers_say_what_they_say_on_any_port() {
        assert_eq!(UplinkOffload::parse(&[], 60), Some(UplinkOffload::NONE));
        let train = UplinkOffload {
            offload: Offload {
                csum: Checksum::Partial { start: 34, offset: 6 },
                gso: Some(Gso { kind: GsoKind::Udp, size: 1450, hdr_len: 42, ecn: false }),
            },
            tunnel: None,
        };
        let header = train.to_vnet();
        for octets in [header.as_bytes(), header.hdr.as_bytes()] {
            assert_eq!(UplinkOffload::parse(octets, 9000), Some(train));
        }
        assert_eq!(UplinkOffload::parse(&header.as_bytes()[..11], 9000), None, "a header of no known length");
    }

    #[test]
    fn a_header_that_contradicts_itself_or_the_frame_is_refused() {
        let good = TCP_IN_VXLAN.to_vnet();
        let bad = |change: fn(&mut VirtioNetHdrTunnel)| {
            let mut header = good;
            change(&mut header);
            UplinkOffload::parse(header.as_bytes(), 9000)
        };
        assert!(bad(|_| {}).is_some());
        for (why, parsed) in [
            ("both families", bad(|h| h.hdr.gso_type |= vnet::GSO_UDP_TUNNEL_IPV6)),
            ("a tunnel around no super-frame", bad(|h| h.hdr.gso_type = vnet::GSO_UDP_TUNNEL_IPV4)),
            ("the retired UFO type", bad(|h| h.hdr.gso_type = vnet::GSO_UDP | vnet::GSO_UDP_TUNNEL_IPV4)),
            ("no partial checksum", bad(|h| h.hdr.flags = 0)),
            ("an outer UDP header inside the IP header", bad(|h| h.outer_th_offset = 33.into())),
            ("an inner header inside the outer UDP header", bad(|h| h.inner_nh_offset = 41.into())),
            ("a checksum inside the inner IP header", bad(|h| h.inner_nh_offset = 65.into())),
            ("positions that overflow", bad(|h| h.outer_th_offset = 65_535.into())),
            ("an inner header past everything", bad(|h| h.inner_nh_offset = 65_535.into())),
        ] {
            assert_eq!(parsed, None, "{why}");
        }
        assert_eq!(UplinkOffload::parse(good.as_bytes(), 101), None, "a checksum past the end");
    }

    #[test]
    fn a_state_moves_with_the_headers_in_front_of_it() {
        let inner = TCP_IN_VXLAN.offload.within(50).unwrap();
        assert_eq!(inner.csum, Checksum::Partial { start: 34, offset: 16 });
        assert_eq!(inner.gso.unwrap().hdr_len, 66);
        assert_eq!(inner.behind(50), TCP_IN_VXLAN.offload);
        assert_eq!(TCP_IN_VXLAN.offload.within(85), None, "a checksum outside the frame");
        let good = Offload { csum: Checksum::Good, gso: None };
        assert_eq!((good.within(50), good.behind(50)), (Some(Offload::NONE), Offload::NONE));
    }

    proptest! {
        #[test]
        fn whatever_is_believed_is_inside_the_frame_and_in_order(octets: [u8; 24], len in 0usize..70_000) {
            let mut octets = octets;
            octets[0] &= 0x0b; // else hardly any is believed
            octets[0] |= 1;
            octets[1] = [0x21, 0x24, 0x25, 0x41, 0x44, 0x45, 0xa1, 0x61][usize::from(octets[1]) % 8];
            if let Some(UplinkOffload { offload, tunnel: Some(tunnel) }) = UplinkOffload::parse(&octets, len) {
                let Checksum::Partial { start, offset } = offload.csum else { panic!("{offload:?}") };
                prop_assert!(tunnel.outer_l4 < tunnel.inner_l3 && tunnel.inner_l3 < start);
                prop_assert!(usize::from(start) + usize::from(offset) + 2 <= len);
            }
        }
    }
}
