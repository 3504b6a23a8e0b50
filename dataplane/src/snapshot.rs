//! The compiled configuration: immutable tables of dense indices that the packet path reads.
//!
//! Owns no names and no descriptors. The engine compiles one for each change and hands an `Arc` of it to every worker;
//! state that outlives a change (forwarding databases, counters, storm limits) is shared by reference.

use std::sync::Arc;

use crate::{
    bridge::{Members, Neighbours, Secure, Storm, VlanMode},
    counters::PortStats,
    fdb::Fdb,
    frame::Caps,
    index::{BridgeIdx, PortIdx, VtepIdx},
    overlay::{Remotes, Tunnel, Uplink, Vtep},
};

/// What the packet path knows of a port.
#[derive(Clone, Debug)]
pub struct Port {
    /// The bridge it belongs to.
    pub bridge: BridgeIdx,
    /// VLANs and tags.
    pub vlan: VlanMode,
    /// Whether an operator wants it to carry frames.
    pub admin_up: bool,
    /// Whether what is behind it is there.
    pub oper_up: bool,
    /// Source addresses are learned.
    pub learning: bool,
    /// Frames may leave by the port they came from.
    pub hairpin: bool,
    /// It exchanges frames only with ports that are not isolated.
    pub isolated: bool,
    /// Only known source addresses enter.
    pub locked: bool,
    /// Addresses that may be learned on it; 0 for no limit.
    pub mac_limit: u32,
    /// Longest IP packet that may leave by it, in octets.
    pub mtu: u32,
    /// What the far side takes.
    pub caps: Caps,
    /// Limit on flooded frames that enter by it.
    pub storm: Option<Arc<Storm>>,
    /// The only source addresses that enter by it.
    pub secure: Option<Arc<Secure>>,
    /// Where it leads, where it is a tunnel.
    pub tunnel: Option<Arc<Tunnel>>,
    /// Limit on flooded frames that leave by it, where it is a tunnel.
    pub bum: Option<Arc<Storm>>,
    /// What is behind it, where it is an uplink; it belongs to no bridge then.
    pub uplink: Option<Arc<UplinkEnd>>,
    /// Its counters.
    pub stats: Arc<PortStats>,
}

/// An uplink, and the local endpoints of tunnels whose packets it carries.
#[derive(Debug)]
pub struct UplinkEnd {
    /// The uplink.
    pub uplink: Uplink,
    /// By the UDP port.
    pub vteps: Box<[(u16, VtepIdx)]>,
}

impl UplinkEnd {
    /// The endpoint at a UDP port.
    #[inline]
    pub fn vtep(&self, port: u16) -> Option<VtepIdx> {
        self.vteps.iter().find(|(at, _)| *at == port).map(|(_, vtep)| *vtep)
    }
}

impl Port {
    /// A port of this bridge as it is where nothing is said of it, with every offload and counters for `workers` workers.
    pub fn new(bridge: BridgeIdx, workers: usize) -> Self {
        Self {
            bridge,
            vlan: VlanMode::Transparent,
            admin_up: true,
            oper_up: true,
            learning: true,
            hairpin: false,
            isolated: false,
            locked: false,
            mac_limit: 0,
            mtu: 1500,
            caps: Caps::ALL,
            storm: None,
            secure: None,
            tunnel: None,
            bum: None,
            uplink: None,
            stats: Arc::new(PortStats::new(workers)),
        }
    }

    /// Whether frames may leave by it.
    #[inline]
    pub const fn is_up(&self) -> bool {
        self.admin_up && self.oper_up
    }
}

/// What the packet path knows of a bridge.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Where its stations are.
    pub fdb: Arc<Fdb>,
    /// Who is in its VLANs.
    pub members: Members,
    /// The addresses for which it answers.
    pub neighbours: Arc<Neighbours>,
}

/// One state of the whole switch.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts the changes; a worker reports the newest it has taken up.
    pub generation: u64,
    /// By [`BridgeIdx`]; unchanged bridges are shared with the snapshot before.
    pub bridges: Vec<Option<Arc<Bridge>>>,
    /// By [`PortIdx`].
    pub ports: Vec<Option<Port>>,
    /// By [`VtepIdx`]; unchanged ones are shared with the snapshot before.
    pub vteps: Vec<Option<Arc<Vtep>>>,
    /// The far ends of all tunnels; it outlives snapshots.
    pub remotes: Arc<Remotes>,
}

impl Snapshot {
    /// The port at `idx`, if there is one.
    #[inline]
    pub fn port(&self, idx: PortIdx) -> Option<&Port> {
        self.ports.get(idx.at())?.as_ref()
    }

    /// The bridge at `idx`, if there is one.
    #[inline]
    pub fn bridge(&self, idx: BridgeIdx) -> Option<&Bridge> {
        self.bridges.get(idx.at())?.as_deref()
    }

    /// The local endpoint at `idx`, if there is one.
    #[inline]
    pub fn vtep(&self, idx: VtepIdx) -> Option<&Vtep> {
        self.vteps.get(idx.at())?.as_deref()
    }
}
