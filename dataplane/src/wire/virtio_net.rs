//! The header a TAP puts before each frame (`struct virtio_net_hdr_v1`, Virtual I/O Device 1.2 §5.1.6), and its longer
//! form, which also describes a super-frame inside a UDP tunnel (`struct virtio_net_hdr_v1_hash_tunnel`, Linux 6.17).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U16};

/// Octets of the header with `num_buffers`: what `TUNSETVNETHDRSZ` is set to.
pub const LEN: usize = 12;
/// Octets of the header without `num_buffers`, of guests of before virtio 1.0 (`struct virtio_net_hdr`).
pub const LEGACY_LEN: usize = 10;
/// Octets of the header that describes tunnels too (`TUN_VNET_TNL_SIZE`).
pub const TUNNEL_LEN: usize = 24;

/// `csum_start` and `csum_offset` say where a checksum is still to be filled in (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
pub const F_NEEDS_CSUM: u8 = 1;
/// The checksum has been verified (`VIRTIO_NET_HDR_F_DATA_VALID`).
pub const F_DATA_VALID: u8 = 2;
/// The outer UDP header of a super-frame in a tunnel has a checksum, to be finished in every segment
/// (`VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM`).
pub const F_UDP_TUNNEL_CSUM: u8 = 8;

/// Not a super-frame (`VIRTIO_NET_HDR_GSO_NONE`).
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
pub const GSO_TCPV4: u8 = 1;
/// UDP fragmentation offload, which Linux no longer makes (`VIRTIO_NET_HDR_GSO_UDP`).
pub const GSO_UDP: u8 = 3;
/// TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
pub const GSO_TCPV6: u8 = 4;
/// UDP datagrams of one size (`VIRTIO_NET_HDR_GSO_UDP_L4`).
pub const GSO_UDP_L4: u8 = 5;
/// What the other bits describe is inside a UDP tunnel over IPv4 (`VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV4`).
pub const GSO_UDP_TUNNEL_IPV4: u8 = 0x20;
/// What the other bits describe is inside a UDP tunnel over IPv6 (`VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV6`).
pub const GSO_UDP_TUNNEL_IPV6: u8 = 0x40;
/// The TCP segment carries CWR (`VIRTIO_NET_HDR_GSO_ECN`), beside one of the TCP types.
pub const GSO_ECN: u8 = 0x80;

/// `struct virtio_net_hdr_v1`, little endian (the order of `TUNSETVNETLE`; the native one on x86 and arm64).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct VirtioNetHdr {
    /// `F_*` bits.
    pub flags: u8,
    /// One of `GSO_*`, perhaps with [`GSO_ECN`].
    pub gso_type: u8,
    /// Octets of all headers, as a hint.
    pub hdr_len: U16,
    /// Payload octets of each segment.
    pub gso_size: U16,
    /// Where the checksummed part begins, from the start of the frame.
    pub csum_start: U16,
    /// Where the checksum stands, from `csum_start`.
    pub csum_offset: U16,
    /// Buffers the frame spans; a TAP writes 0 or 1 and ignores it.
    pub num_buffers: U16,
}

/// `struct virtio_net_hdr_v1_hash_tunnel`: the header above, what a TAP leaves zero, and where the tunnel's headers stand.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct VirtioNetHdrTunnel {
    /// The shorter header; its positions are those of the innermost transport header.
    pub hdr: VirtioNetHdr,
    /// A flow hash with its kind and padding, which a TAP writes as zero and does not read.
    pub hash: [u8; 8],
    /// Where the outer UDP header begins, from the start of the frame.
    pub outer_th_offset: U16,
    /// Where the inner network header begins, from the start of the frame.
    pub inner_nh_offset: U16,
}

const _: () = assert!(size_of::<VirtioNetHdr>() == LEN && size_of::<VirtioNetHdrTunnel>() == TUNNEL_LEN);

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets that a kernel (6.18) put before a TCP super-frame of a vxlan device, underlay IPv4.
    #[test]
    fn the_fields_stand_where_the_kernel_puts_them() {
        let octets = [
            0x01, 0x21, 0x74, 0x00, 0x58, 0x05, 0x54, 0x00, 0x10, 0x00, 0, 0, // hdr
            0, 0, 0, 0, 0, 0, 0, 0, // hash, report, padding
            0x22, 0x00, 0x40, 0x00,
        ];
        let header = VirtioNetHdrTunnel::read_from_bytes(&octets).unwrap();
        assert_eq!((header.hdr.flags, header.hdr.gso_type), (F_NEEDS_CSUM, GSO_TCPV4 | GSO_UDP_TUNNEL_IPV4));
        assert_eq!((header.hdr.gso_size.get(), header.hdr.csum_start.get()), (1368, 84));
        assert_eq!((header.outer_th_offset.get(), header.inner_nh_offset.get()), (34, 64));
        assert_eq!(header.as_bytes(), octets);
    }
}
