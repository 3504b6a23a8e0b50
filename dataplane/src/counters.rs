//! Drop reasons and the counters of a port.
//!
//! Owns the one list of ways a frame can fail to leave: the enum, its names, the sentences that the tool prints and
//! the reference page `docs/reference/drops.md` all come from the table below.
//! Counters are written by one worker each and read by anybody: plain relaxed loads and stores, no read-modify-write.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crossbeam::utils::CachePadded;

/// The side of a port on which a reason is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// On the port the frame came from; the frame went nowhere.
    Ingress,
    /// On the port the frame should have left by; copies for other ports are not affected.
    Egress,
}

macro_rules! drop_reasons {
    ($($variant:ident $name:literal $side:ident $what:literal $remedy:literal;)*) => {
        /// Why a frame did not leave.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $what] $variant,)* }

        impl DropReason {
            /// Every reason, in the order of a frame's way through the switch.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word for it in the command-line tool, JSON and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Where it is counted.
            pub const fn side(self) -> Side {
                match self { $(Self::$variant => Side::$side,)* }
            }

            /// What happened, as a sentence.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }

            /// What an operator can do about it, as a sentence.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

drop_reasons! {
    Runt "runt" Ingress
        "The frame is shorter than an Ethernet header (14 octets)."
        "Find the sender of broken frames behind this port.";
    Giant "giant" Ingress
        "The frame is longer than the switch carries (65,535 octets after the addresses, type and tags)."
        "Find the sender of broken frames behind this port.";
    VnetHeaderInvalid "vnet_header_invalid" Ingress
        "The virtio header before the frame contradicts the frame: a checksum or segment size outside it, an unknown type."
        "Something behind the port writes raw virtio headers (PACKET_VNET_HDR); stop or fix it.";
    GsoMalformed "gso_malformed" Ingress
        "The frame is marked as a super-frame but its headers are not those of TCP or UDP over IPv4 or IPv6, or lie about their length; or a datagram from a tunnel can be read as one super-frame and as several packets."
        "Something behind the port writes raw virtio headers (PACKET_VNET_HDR), or a station beyond the tunnel forges lengths; find it.";
    RxOverflow "rx_overflow" Ingress
        "Frames came from the interface faster than they were taken, and the receive buffer of the port's packet socket was full; the number is the kernel's."
        "More workers, with a queue of the port for each, or CPU may help.";
    PortDown "port_down" Ingress
        "The port the frame came from is down, administratively or because its interface was renamed, moved or deleted."
        "tapwayctl port show NAME tells which.";
    UnderlayOverflow "underlay_overflow" Ingress
        "Datagrams came faster than they were taken, and the receive buffer of the tunnel's socket was full; the number is the kernel's."
        "More workers or CPU may help; net.core.rmem_max bounds the buffer.";
    UnderlayMalformed "underlay_malformed" Ingress
        "The outer headers, Ethernet, IP or UDP, are truncated, contradict themselves or carry a wrong checksum."
        "Find what breaks packets between the other end of the tunnel and here.";
    UnderlayFragment "underlay_fragment" Ingress
        "The outer packet is a fragment, and an uplink does not put packets together again."
        "Give the underlay an MTU that whole tunnel packets fit in, or the tunnel a smaller one; --df set at the other end finds the place.";
    NotForUs "not_for_us" Ingress
        "The frame that came from the uplink is neither for a tunnel nor for the switch's own address on it."
        "Nothing for a few; for many, look at the routes of the host that point to the uplink.";
    UdpZeroChecksum "udp_zero_checksum" Ingress
        "The outer packet came by an uplink over IPv6 and its UDP checksum is zero, which the tunnel does not accept (RFC 6936). Over sockets the kernel drops such datagrams itself: `nstat -az Udp6InCsumErrors` counts them."
        "Switch UDP checksums on at the other end, or accept zero at this one.";
    VxlanMalformed "vxlan_malformed" Ingress
        "The datagram ends inside its VXLAN header, or the I flag that says there is a VNI is not set (RFC 7348 5)."
        "Something other than VXLAN is sent to this UDP port; find the sender.";
    VxlanReservedBits "vxlan_reserved_bits" Ingress
        "The VXLAN header has reserved bits set and the port is told to refuse that, as Linux does; RFC 7348 has them ignored."
        "Switch the extension off at the other end, or let the port ignore the bits.";
    GeneveMalformed "geneve_malformed" Ingress
        "The datagram ends inside its Geneve header or options, or an option is longer than the room for options."
        "Something other than Geneve is sent to this UDP port, or its sender is broken; find it.";
    GeneveVersion "geneve_version" Ingress
        "The Geneve header has a version other than 0 (RFC 8926 3.4)."
        "Have the other end speak version 0.";
    GeneveControl "geneve_control" Ingress
        "The packet is a Geneve control packet (O flag), whose payload must not be forwarded (RFC 8926 3.4)."
        "Nothing, unless the other end should not send control packets.";
    GeneveCriticalOption "geneve_critical_option" Ingress
        "The packet carries a critical Geneve option that the switch does not know, so it must be dropped (RFC 8926 3.5)."
        "Have the other end leave the option out, or not mark it as critical.";
    GeneveProtocol "geneve_protocol" Ingress
        "The payload of the Geneve packet is not an Ethernet frame (protocol type 0x6558)."
        "Have the other end send Ethernet; a layer 3 tunnel does not fit a bridge.";
    VniUnknown "vni_unknown" Ingress
        "No bridge or VLAN behind this UDP port has the packet's VNI."
        "Correct --vni or --vlan-vni at one of the ends.";
    RemoteUnknown "remote_unknown" Ingress
        "The packet comes from an address that is not a remote of the tunnel, and the tunnel takes none but those."
        "tapwayctl remote add PORT IP if it belongs to you; else find the sender.";
    RemoteIsSelf "remote_is_self" Ingress
        "The packet carries the tunnel's own local address as its source."
        "Two hosts use one --local address, or the underlay sends packets back; find out which.";
    EcnInvalid "ecn_invalid" Ingress
        "The underlay marked congestion (CE) on a packet whose inner packet does not take part in ECN; RFC 6040 has it dropped."
        "Nothing for a few; for many, the other end sets ECN on outer headers without need.";
    VlanTruncated "vlan_truncated" Ingress
        "The frame ends inside its VLAN tag."
        "Find the sender of broken frames behind this port.";
    VlanReserved "vlan_reserved" Ingress
        "The VLAN tag carries the reserved identifier 4095."
        "Fix the VLAN configuration of the sender.";
    VlanNotMember "vlan_not_member" Ingress
        "The frame's VLAN is not among those of the port."
        "Add the VLAN to the port (--access, --trunk), or stop the sender from tagging.";
    NoNativeVlan "no_native_vlan" Ingress
        "The frame is untagged and the trunk has no native VLAN."
        "Set one: tapwayctl port set NAME --native V, or tag at the sender.";
    SourceInvalid "source_invalid" Ingress
        "The source address is a group address or zero, which no station has."
        "Find the sender of broken frames behind this port.";
    ReservedGroup "reserved_group" Ingress
        "The destination is one of 01:80:c2:00:00:00 to 0f (BPDU, pause, LACP, LLDP …), which a bridge never forwards (802.1Q 8.6.3)."
        "Nothing: this is correct.";
    StormLimit "storm_limit" Ingress
        "The port sent more broadcast, unknown unicast and multicast frames a second than its storm limit."
        "Find the storm's cause, or raise --storm-limit.";
    SecureMac "secure_mac" Ingress
        "The source address is not the one that --secure allows on this port."
        "Correct --secure mac=…, or the guest's address.";
    SecureIp "secure_ip" Ingress
        "The IPv4 or IPv6 source address is not one that --secure allows on this port."
        "Correct --secure ip=…, or the guest's address.";
    SecureArp "secure_arp" Ingress
        "An ARP message names a sender that --secure does not allow on this port."
        "Correct --secure, or the guest's address.";
    SecureNd "secure_nd" Ingress
        "A neighbour discovery message names an address that --secure does not allow on this port."
        "Correct --secure, or the guest's address.";
    SecureDhcpServer "secure_dhcp_server" Ingress
        "A secured port answered as a DHCP server."
        "Stop the DHCP server behind the port, or take --secure off.";
    SecureRa "secure_ra" Ingress
        "A secured port sent an IPv6 router advertisement or redirect."
        "Stop the router behind the port, or take --secure off.";
    SecureBpdu "secure_bpdu" Ingress
        "A secured port sent a spanning tree BPDU."
        "Switch spanning tree off behind the port, or take --secure off.";
    SecureMacLimit "secure_mac_limit" Ingress
        "A secured port sent under its address in more VLANs than its --mac-limit allows."
        "Stop what tags frames with many VLANs behind the port, or raise --mac-limit.";
    SecureMalformed "secure_malformed" Ingress
        "The headers that --secure must check are truncated or contradict themselves."
        "Find the sender of broken frames behind this port.";
    Locked "locked" Ingress
        "The port is locked and the source address is not known on it."
        "Add it: tapwayctl fdb add MAC --bridge BR --port P.";
    StickyViolation "sticky_violation" Ingress
        "The source address is a sticky entry of another port."
        "Somebody uses an address that is pinned elsewhere; find them, or delete the sticky entry.";
    MacDamped "mac_damped" Ingress
        "The source address moved between two places too often, and is held at the other one for a while."
        "There is a loop, or two stations have one address: tapwayctl status names the places. --move-limit 0 on the bridge if that is wanted.";
    SamePort "same_port" Ingress
        "The destination is behind the port the frame came from."
        "Nothing, unless the port should reflect: --hairpin on.";
    SplitHorizon "split_horizon" Ingress
        "The frame came from a tunnel and is for a station behind a tunnel; the two ends reach each other directly, and a copy would go round."
        "Nothing for a few, while a station moves; else the other end should have the station's place as a remote of its own.";
    Isolated "isolated" Ingress
        "Both the port the frame came from and the one it is for are isolated."
        "Nothing if that is wanted; else --isolated off on one of them.";
    NoMember "no_member" Ingress
        "No other port takes the frame: none in its VLAN, or flooding is off on all of them."
        "Add a port to the VLAN, or look at --flood, --bcast-flood and --mcast-flood.";
    DestinationNotMember "destination_not_member" Ingress
        "A static entry sends the frame to a port that is not in its VLAN."
        "Correct the entry, or the VLANs of that port.";
    EgressDown "egress_down" Egress
        "The port the frame is for is down, administratively or because its interface is down or gone."
        "tapwayctl port show NAME tells which.";
    BumLimit "bum_limit" Egress
        "More broadcast, unknown unicast and multicast frames a second were for the tunnel than its limit lets into the underlay."
        "Find the storm's cause, or raise the limit.";
    NoRemote "no_remote" Egress
        "The tunnel has no remote to send the frame to."
        "tapwayctl remote add PORT IP, or set --group.";
    MtuExceeded "mtu_exceeded" Egress
        "The frame, or a segment of it, is longer than the MTU of the port it is for."
        "Use one MTU in a VLAN, or set --mtu.";
    TunnelMtuExceeded "tunnel_mtu_exceeded" Egress
        "The packet, or a segment of it, does not fit the underlay with the tunnel's headers; its sender was told by ICMP where that is possible."
        "Raise the underlay's MTU, or lower that of the hosts; tapwayctl port show NAME has what fits.";
    UplinkUnresolved "uplink_unresolved" Egress
        "The next hop towards the remote has not answered ARP or neighbour discovery yet."
        "Nothing for the first frames; else look at the uplink's gateway.";
    UnderlayUnreachable "underlay_unreachable" Egress
        "The host has no route to the remote (ENETUNREACH, EHOSTUNREACH)."
        "ip route get REMOTE in the network namespace of the tunnel shows what is missing.";
    SegmentLimit "segment_limit" Egress
        "Splitting the super-frame would take more segments than one frame may have."
        "Something behind the sending port asks for absurdly small segments.";
    EgressFull "egress_full" Egress
        "The kernel or peer behind the port takes no more frames at the moment (ENOBUFS, ENOMEM, EAGAIN)."
        "The receiver is slower than the sender; more queues or CPU may help.";
    GuestBuffer "guest_buffer" Egress
        "The frame is longer than the buffers of the guest behind a vhost-user port, which has not agreed to frames that span several."
        "Use one MTU in a VLAN; a driver that accepts mergeable buffers (mrg_rxbuf) takes frames of any length.";
    EgressRefused "egress_refused" Egress
        "The kernel refused the frame (EINVAL), also without offloads."
        "Please report it, with a capture.";
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A counter that one thread writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call it: a second writer would lose counts, nothing worse.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value so far.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker counts for one port.
#[derive(Debug)]
pub struct PortCounters {
    /// Frames that came from the port; a super-frame is one.
    pub rx_frames: Counter,
    /// Octets of them, from the destination address on, without virtio header and FCS.
    pub rx_bytes: Counter,
    /// Frames that left by the port; a super-frame that was split counts as its segments.
    pub tx_frames: Counter,
    /// Octets of them.
    pub tx_bytes: Counter,
    /// Frames whose offload the kernel refused although it had agreed to it; they were finished in software.
    pub offload_fallbacks: Counter,
    drops: [Counter; DropReason::COUNT],
}

impl Default for PortCounters {
    fn default() -> Self {
        Self {
            rx_frames: Counter::default(),
            rx_bytes: Counter::default(),
            tx_frames: Counter::default(),
            tx_bytes: Counter::default(),
            offload_fallbacks: Counter::default(),
            drops: [const { Counter(AtomicU64::new(0)) }; DropReason::COUNT],
        }
    }
}

impl PortCounters {
    /// Counts one frame that did not leave.
    #[inline]
    pub fn drop(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }

    /// Counts `n` frames that did not leave.
    #[inline]
    pub fn drop_many(&self, reason: DropReason, n: u64) {
        self.drops[reason as usize].add(n);
    }

    /// Frames dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }
}

/// A port's counters: one block a worker, each on cache lines of its own, and one for the control thread.
#[derive(Debug)]
pub struct PortStats(Box<[CachePadded<PortCounters>]>);

impl PortStats {
    /// Counters for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self((0..=workers).map(|_| CachePadded::default()).collect())
    }

    /// The block that worker number `worker` writes.
    #[inline]
    pub fn of(&self, worker: usize) -> &PortCounters {
        &self.0[worker]
    }

    /// The block that the control thread writes: what the kernel has counted.
    pub fn of_control(&self) -> &PortCounters {
        &self.0[self.0.len() - 1]
    }

    /// The sums over all workers and the control thread.
    pub fn total(&self) -> Totals {
        let mut t = Totals::default();
        for c in &self.0 {
            t.rx_frames += c.rx_frames.get();
            t.rx_bytes += c.rx_bytes.get();
            t.tx_frames += c.tx_frames.get();
            t.tx_bytes += c.tx_bytes.get();
            t.offload_fallbacks += c.offload_fallbacks.get();
            for (sum, drops) in t.drops.iter_mut().zip(&c.drops) {
                *sum += drops.get();
            }
        }
        t
    }
}

/// A port's counters summed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// See [`PortCounters::rx_frames`].
    pub rx_frames: u64,
    /// See [`PortCounters::rx_bytes`].
    pub rx_bytes: u64,
    /// See [`PortCounters::tx_frames`].
    pub tx_frames: u64,
    /// See [`PortCounters::tx_bytes`].
    pub tx_bytes: u64,
    /// See [`PortCounters::offload_fallbacks`].
    pub offload_fallbacks: u64,
    drops: [u64; DropReason::COUNT],
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            rx_frames: 0,
            rx_bytes: 0,
            tx_frames: 0,
            tx_bytes: 0,
            offload_fallbacks: 0,
            drops: [0; DropReason::COUNT],
        }
    }
}

impl Totals {
    /// Frames dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// The reasons that have counted, with their numbers.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&r| (r, self.dropped(r))).filter(|&(_, n)| n > 0)
    }
}
