//! What tunnels share: local endpoints, the sockets by which workers send, and the table of far ends.
//!
//! Owns who uses what: an endpoint or a set of sockets is opened for the first tunnel that needs it and closed after the last.
//! Opened before the snapshot that knows it, closed after the one that does not.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
};

use super::{backend::Opener, free_place, place, workers::Workers};
use crate::{
    config::{Netns, PortType},
    counters::PortStats,
    index::{PortIdx, TxSetIdx, VtepIdx},
    overlay::{Remotes, Vtep},
};

/// A local endpoint by what an operator says of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VtepAddress {
    /// The namespace of its sockets; `None` for the daemon's own.
    pub(super) netns: Option<Netns>,
    /// Its address and UDP port.
    pub(super) local: SocketAddr,
}

/// A multicast group that an endpoint listens to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    /// Its address.
    pub(super) address: IpAddr,
    /// The device on which it is joined.
    pub(super) device: String,
}

/// A set of sockets by what an operator says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SocketSet {
    /// The namespace they are in; `None` for the daemon's own.
    pub(super) netns: Option<Netns>,
    /// The address they send from.
    pub(super) local: IpAddr,
    /// The UDP ports they send from.
    pub(super) ports: RangeInclusive<u16>,
    /// Whether the packets must not be fragmented.
    pub(super) df: bool,
    /// Whether there is a UDP checksum.
    pub(super) udp_csum: bool,
    /// The device by which multicast leaves.
    pub(super) device: Option<String>,
}

/// An endpoint.
#[derive(Debug)]
pub(super) struct VtepState {
    pub(super) idx: VtepIdx,
    pub(super) address: VtepAddress,
    pub(super) kind: PortType,
    /// Whether it takes datagrams over IPv6 without a checksum.
    pub(super) zero_csum6: bool,
    /// The uplink that carries it; `None` where it has sockets.
    pub(super) uplink: Option<PortIdx>,
    pub(super) stats: Arc<PortStats>,
    /// What the snapshot has of it; `None` where a tunnel has changed since.
    pub(super) compiled: Option<Arc<Vtep>>,
    users: usize,
}

impl VtepState {
    /// What it is called where something is counted on it.
    pub(super) fn name(&self) -> String {
        let kind = if self.kind == PortType::Geneve { "geneve" } else { "vxlan" };
        format!("{kind} {}", self.address.local)
    }
}

#[derive(Debug)]
struct GroupState {
    idx: VtepIdx,
    of: VtepAddress,
    users: usize,
}

#[derive(Debug)]
struct SetState {
    idx: TxSetIdx,
    of: SocketSet,
    users: usize,
}

/// What a tunnel holds of it, to be given back.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) vtep: VtepIdx,
    group: Option<(VtepAddress, Group)>,
    /// The sets for packets that may be fragmented, and for those that must not.
    pub(super) sets: Option<[TxSetIdx; 2]>,
}

/// What a tunnel needs.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) vtep: VtepAddress,
    pub(super) kind: PortType,
    pub(super) zero_csum6: bool,
    pub(super) uplink: Option<PortIdx>,
    pub(super) group: Option<Group>,
    pub(super) ports: RangeInclusive<u16>,
    pub(super) udp_csum: bool,
}

/// Why a tunnel cannot have what it needs.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnderlayError {
    #[error("{at} is a {kind} endpoint already: another type needs another dst_port")]
    OtherKind { at: SocketAddr, kind: &'static str },
    #[error(
        "{at} takes IPv6 datagrams {takes} a checksum: all tunnels of an endpoint have the same udp6_zero_csum_rx"
    )]
    OtherChecksum { at: SocketAddr, takes: &'static str },
    #[error("there are 65,536 of them already")]
    TooMany,
    #[error("{0}")]
    Open(super::BackendError),
}

/// Everything that tunnels share.
#[derive(Debug, Default)]
pub(super) struct Underlay {
    vteps: Vec<Option<VtepState>>,
    /// Joined groups; each takes a place among the endpoints, since a worker polls its socket by that number.
    groups: BTreeMap<(VtepAddress, Group), GroupState>,
    sets: Vec<Option<SetState>>,
    pub(super) remotes: Arc<Remotes>,
}

impl Underlay {
    /// All endpoints.
    pub(super) fn vteps(&self) -> impl Iterator<Item = &VtepState> {
        self.vteps.iter().flatten()
    }

    pub(super) fn vtep(&self, idx: VtepIdx) -> Option<&VtepState> {
        self.vteps.get(idx.at())?.as_ref()
    }

    /// The tunnels of an endpoint have changed: it must be compiled again.
    pub(super) fn touch(&mut self, idx: VtepIdx) {
        if let Some(Some(vtep)) = self.vteps.get_mut(idx.at()) {
            vtep.compiled = None;
        }
    }

    /// What a snapshot has of all endpoints; `compile` makes one that has changed.
    pub(super) fn compile(&mut self, compile: impl Fn(&VtepState) -> Vtep) -> Vec<Option<Arc<Vtep>>> {
        let mut all: Vec<Option<Arc<Vtep>>> = vec![None; self.vteps.len()];
        for vtep in self.vteps.iter_mut().flatten() {
            let compiled = vtep.compiled.take().unwrap_or_else(|| Arc::new(compile(vtep)));
            vtep.compiled = Some(Arc::clone(&compiled));
            place(&mut all, vtep.idx.at(), compiled);
        }
        for group in self.groups.values() {
            let of = self.vteps.iter().flatten().find(|vtep| vtep.address == group.of);
            if let Some(compiled) = of.and_then(|vtep| vtep.compiled.clone()) {
                place(&mut all, group.idx.at(), compiled);
            }
        }
        all
    }

    /// Opens what is not open yet of what a tunnel needs, and hands it to the workers.
    pub(super) fn acquire(
        &mut self,
        need: &Need,
        opener: &mut Opener,
        workers: &mut Workers,
    ) -> Result<Lease, UnderlayError> {
        let vtep = self.acquire_vtep(need, opener, workers)?;
        let mut lease = Lease { vtep, group: None, sets: None };
        let rest = self.acquire_rest(need, &mut lease, opener, workers);
        if let Err(error) = rest {
            self.release(&lease, workers);
            return Err(error);
        }
        Ok(lease)
    }

    fn acquire_rest(
        &mut self,
        need: &Need,
        lease: &mut Lease,
        opener: &mut Opener,
        workers: &mut Workers,
    ) -> Result<(), UnderlayError> {
        if need.uplink.is_some() {
            return Ok(());
        }
        if let Some(group) = &need.group {
            self.acquire_group(need, group, opener, workers)?;
            lease.group = Some((need.vtep.clone(), group.clone()));
        }
        let set = |df| SocketSet {
            netns: need.vtep.netns.clone(),
            local: need.vtep.local.ip(),
            ports: need.ports.clone(),
            df,
            udp_csum: need.udp_csum,
            device: need.group.as_ref().map(|group| group.device.clone()),
        };
        let fragmenting = self.acquire_set(&set(false), opener, workers)?;
        match self.acquire_set(&set(true), opener, workers) {
            Ok(whole) => lease.sets = Some([fragmenting, whole]),
            Err(error) => {
                self.release_set(fragmenting, workers);
                return Err(error);
            }
        }
        Ok(())
    }

    fn acquire_vtep(
        &mut self,
        need: &Need,
        opener: &mut Opener,
        workers: &mut Workers,
    ) -> Result<VtepIdx, UnderlayError> {
        let at = need.vtep.local;
        if let Some(vtep) = self.vteps.iter_mut().flatten().find(|vtep| vtep.address == need.vtep) {
            if vtep.kind != need.kind {
                let kind = if vtep.kind == PortType::Geneve { "Geneve" } else { "VXLAN" };
                return Err(UnderlayError::OtherKind { at, kind });
            }
            if vtep.zero_csum6 != need.zero_csum6 && at.is_ipv6() {
                let takes = if vtep.zero_csum6 { "without" } else { "only with" };
                return Err(UnderlayError::OtherChecksum { at, takes });
            }
            vtep.users += 1;
            return Ok(vtep.idx);
        }
        let place_of = self.free_vtep();
        let idx = VtepIdx(u16::try_from(place_of).map_err(|_| UnderlayError::TooMany)?);
        if need.uplink.is_none() {
            let sockets =
                opener.listen(&need.vtep, need.zero_csum6, workers.len()).map_err(UnderlayError::Open)?;
            workers.attach_vtep(idx, sockets);
        }
        let state = VtepState {
            idx,
            address: need.vtep.clone(),
            kind: need.kind,
            zero_csum6: need.zero_csum6,
            uplink: need.uplink,
            stats: Arc::new(PortStats::new(workers.len())),
            compiled: None,
            users: 1,
        };
        place(&mut self.vteps, place_of, state);
        Ok(idx)
    }

    /// A number that no endpoint and no group has.
    fn free_vtep(&self) -> usize {
        let taken = |at: usize| {
            self.vteps.get(at).is_some_and(Option::is_some) || self.groups.values().any(|g| g.idx.at() == at)
        };
        (0..).find(|&at| !taken(at)).unwrap_or(usize::MAX)
    }

    fn acquire_group(
        &mut self,
        need: &Need,
        group: &Group,
        opener: &mut Opener,
        workers: &mut Workers,
    ) -> Result<(), UnderlayError> {
        let key = (need.vtep.clone(), group.clone());
        if let Some(state) = self.groups.get_mut(&key) {
            state.users += 1;
            return Ok(());
        }
        let idx = VtepIdx(u16::try_from(self.free_vtep()).map_err(|_| UnderlayError::TooMany)?);
        let socket = opener.join(&need.vtep, group, need.zero_csum6).map_err(UnderlayError::Open)?;
        // Multicast reaches every socket that has joined, so that one worker alone may listen.
        workers.attach_vtep(idx, vec![socket]);
        self.groups.insert(key, GroupState { idx, of: need.vtep.clone(), users: 1 });
        Ok(())
    }

    fn acquire_set(
        &mut self,
        of: &SocketSet,
        opener: &mut Opener,
        workers: &mut Workers,
    ) -> Result<TxSetIdx, UnderlayError> {
        if let Some(set) = self.sets.iter_mut().flatten().find(|set| set.of == *of) {
            set.users += 1;
            return Ok(set.idx);
        }
        let at = free_place(&self.sets);
        let idx = TxSetIdx(u16::try_from(at).map_err(|_| UnderlayError::TooMany)?);
        // A socket that only sends would share the port with those that receive, and lose what they should get.
        let here = |vtep: &&VtepState| vtep.address.netns == of.netns && vtep.address.local.ip() == of.local;
        let avoid = self.vteps().filter(here).map(|vtep| vtep.address.local.port()).collect();
        let sockets = opener.sockets(of, avoid, workers.len()).map_err(UnderlayError::Open)?;
        workers.attach_sockets(idx, sockets);
        place(&mut self.sets, at, SetState { idx, of: of.clone(), users: 1 });
        Ok(idx)
    }

    /// Gives back what a tunnel held; no snapshot that a worker uses may know of it any more.
    pub(super) fn release(&mut self, lease: &Lease, workers: &mut Workers) {
        for set in lease.sets.into_iter().flatten() {
            self.release_set(set, workers);
        }
        if let Some(key) = &lease.group
            && let Some(group) = self.groups.get_mut(key)
        {
            group.users -= 1;
            if group.users == 0 {
                workers.detach_vtep(group.idx);
                self.groups.remove(key);
            }
        }
        let Some(slot) = self.vteps.get_mut(lease.vtep.at()) else { return };
        let Some(vtep) = slot else { return };
        vtep.users -= 1;
        if vtep.users == 0 {
            if vtep.uplink.is_none() {
                workers.detach_vtep(vtep.idx);
            }
            // Its last tunnel is gone, and with that every address learned behind its remotes.
            let remotes = self.remotes.of_vtep_gone(vtep.idx);
            self.remotes.free(&remotes);
            *slot = None;
        }
    }

    /// The device by which packets to a multicast group leave.
    pub(super) fn device_of(&self, group: IpAddr) -> Option<&str> {
        self.groups.keys().find(|(_, of)| of.address == group).map(|(_, of)| of.device.as_str())
    }

    fn release_set(&mut self, idx: TxSetIdx, workers: &mut Workers) {
        let Some(slot) = self.sets.get_mut(idx.at()) else { return };
        let Some(set) = slot else { return };
        set.users -= 1;
        if set.users == 0 {
            workers.detach_sockets(idx);
            *slot = None;
        }
    }
}
