//! The header a TAP puts before each frame (`struct virtio_net_hdr_v1`, Virtual I/O Device 1.2 §5.1.6).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U16};

/// Octets of the header with `num_buffers`: what `TUNSETVNETHDRSZ` is set to.
pub const LEN: usize = 12;

/// `csum_start` and `csum_offset` say where a checksum is still to be filled in (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
pub const F_NEEDS_CSUM: u8 = 1;
/// The checksum has been verified (`VIRTIO_NET_HDR_F_DATA_VALID`).
pub const F_DATA_VALID: u8 = 2;

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
