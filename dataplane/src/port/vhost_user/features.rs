//! What is negotiated with a front end: virtio features of a network device, and features of the protocol itself.
//!
//! A `HOST` feature says what the guest may send, a `GUEST` feature what it takes (Virtual I/O Device 1.2 §5.1.3).

use vhost::vhost_user::message::VhostUserProtocolFeatures;

use crate::{
    frame::Caps,
    wire::virtio_net::{LEGACY_LEN, LEN},
};

/// Partial checksums from the guest (`VIRTIO_NET_F_CSUM`).
pub(super) const NET_CSUM: u64 = 1 << 0;
/// Partial checksums to the guest (`VIRTIO_NET_F_GUEST_CSUM`).
pub(super) const NET_GUEST_CSUM: u64 = 1 << 1;
/// TCP super-frames over IPv4 to the guest (`VIRTIO_NET_F_GUEST_TSO4`).
pub(super) const NET_GUEST_TSO4: u64 = 1 << 7;
/// TCP super-frames over IPv6 to the guest (`VIRTIO_NET_F_GUEST_TSO6`).
pub(super) const NET_GUEST_TSO6: u64 = 1 << 8;
/// TCP super-frames with CWR to the guest (`VIRTIO_NET_F_GUEST_ECN`).
pub(super) const NET_GUEST_ECN: u64 = 1 << 9;
/// TCP super-frames over IPv4 from the guest (`VIRTIO_NET_F_HOST_TSO4`).
pub(super) const NET_HOST_TSO4: u64 = 1 << 11;
/// TCP super-frames over IPv6 from the guest (`VIRTIO_NET_F_HOST_TSO6`).
pub(super) const NET_HOST_TSO6: u64 = 1 << 12;
/// TCP super-frames with CWR from the guest (`VIRTIO_NET_F_HOST_ECN`).
pub(super) const NET_HOST_ECN: u64 = 1 << 13;
/// A frame to the guest may span several chains (`VIRTIO_NET_F_MRG_RXBUF`).
pub(super) const NET_MRG_RXBUF: u64 = 1 << 15;
/// Several pairs of queues (`VIRTIO_NET_F_MQ`).
pub(super) const NET_MQ: u64 = 1 << 22;
/// UDP super-frames over IPv4 to the guest (`VIRTIO_NET_F_GUEST_USO4`).
pub(super) const NET_GUEST_USO4: u64 = 1 << 54;
/// UDP super-frames over IPv6 to the guest (`VIRTIO_NET_F_GUEST_USO6`).
pub(super) const NET_GUEST_USO6: u64 = 1 << 55;
/// UDP super-frames from the guest (`VIRTIO_NET_F_HOST_USO`).
pub(super) const NET_HOST_USO: u64 = 1 << 56;
/// A chain may be of any lay-out (`VIRTIO_F_ANY_LAYOUT`); guests of before virtio 1.0 ask for it.
pub(super) const ANY_LAYOUT: u64 = 1 << 27;
/// A descriptor may refer to a table of descriptors (`VIRTIO_F_INDIRECT_DESC`).
pub(super) const INDIRECT_DESC: u64 = 1 << 28;
/// Either side says after which entry it wants to be told (`VIRTIO_F_EVENT_IDX`).
pub(super) const EVENT_IDX: u64 = 1 << 29;
/// The front end knows features of the protocol (`VHOST_USER_F_PROTOCOL_FEATURES`).
pub(super) const PROTOCOL_FEATURES: u64 = 1 << 30;
/// Virtio 1.0 or later (`VIRTIO_F_VERSION_1`).
pub(super) const VERSION_1: u64 = 1 << 32;

/// What every port offers.
const PLAIN: u64 = NET_MRG_RXBUF | ANY_LAYOUT | INDIRECT_DESC | EVENT_IDX | PROTOCOL_FEATURES | VERSION_1;
/// What a port with offloads offers too.
const OFFLOADS: u64 = NET_CSUM
    | NET_GUEST_CSUM
    | NET_GUEST_TSO4
    | NET_GUEST_TSO6
    | NET_GUEST_ECN
    | NET_HOST_TSO4
    | NET_HOST_TSO6
    | NET_HOST_ECN
    | NET_GUEST_USO4
    | NET_GUEST_USO6
    | NET_HOST_USO;

/// Features that the switch offers a guest with up to `pairs` pairs of queues.
pub(super) fn offered(pairs: u16, offload: bool) -> u64 {
    PLAIN | if offload { OFFLOADS } else { 0 } | if pairs > 1 { NET_MQ } else { 0 }
}

/// Features of the protocol that the switch offers. The crate adds `REPLY_ACK`, which it does by itself.
pub(super) const PROTOCOL: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// What a guest takes that has accepted `features`.
pub(super) const fn caps(features: u64) -> Caps {
    // Everything else rests on partial checksums (§5.1.3.1).
    let csum = features & NET_GUEST_CSUM != 0;
    let uso = NET_GUEST_USO4 | NET_GUEST_USO6;
    Caps {
        vnet_hdr: true,
        csum,
        tso4: csum && features & NET_GUEST_TSO4 != 0,
        tso6: csum && features & NET_GUEST_TSO6 != 0,
        tso_ecn: csum && features & NET_GUEST_ECN != 0,
        uso: csum && features & uso == uso,
        ..Caps::NONE
    }
}

/// Octets of the virtio header of a guest that has accepted `features`: it has `num_buffers` from version 1 on, and where frames may
/// span several chains (§5.1.6.1).
pub(super) const fn header_len(features: u64) -> usize {
    if features & (VERSION_1 | NET_MRG_RXBUF) != 0 { LEN } else { LEGACY_LEN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_gets_only_what_it_has_accepted() {
        assert_eq!(caps(offered(1, true)), Caps::ALL);
        assert_eq!(caps(offered(1, false)), Caps { vnet_hdr: true, ..Caps::NONE });
        assert_eq!(
            caps(NET_GUEST_TSO4 | NET_GUEST_USO4 | NET_GUEST_USO6),
            Caps { vnet_hdr: true, ..Caps::NONE },
            "nothing without partial checksums"
        );
        let one_family = caps(NET_GUEST_CSUM | NET_GUEST_USO4);
        assert!(one_family.csum && !one_family.uso, "UDP super-frames need both families");
    }

    #[test]
    fn several_pairs_are_offered_where_there_are_several() {
        assert_eq!(offered(1, true) & NET_MQ, 0);
        assert_eq!(offered(2, true) & NET_MQ, NET_MQ);
    }

    #[test]
    fn the_header_of_a_guest_of_before_version_1_is_shorter() {
        assert_eq!(header_len(VERSION_1), 12);
        assert_eq!(header_len(NET_MRG_RXBUF), 12);
        assert_eq!(header_len(NET_CSUM), 10);
    }
}
