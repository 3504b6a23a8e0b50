//! Tunnel ports: what they need of the underlay, and what the packet path is to know of them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    Backend, Engine,
    backend::Bare,
    invalid,
    ports::{Oper, PortState},
    underlay::{Group, Lease, Need, VtepAddress, VtepState},
};
use crate::{
    api::{Refusal, TunnelView},
    bridge::VlanMode,
    config::{self, Df, PortName, PortOptions, PortSpec, PortType, Reserved},
    fdb::Flush,
    frame::Caps,
    index::{PortIdx, RemoteIdx},
    overlay::{
        Encap, Entrance, Fragmentation, Inherit, NextHop, Remotes, Segment, Tunnel, Via, Vtep, decap::Rules,
    },
    tick::Tick,
    wire::{Vid, VlanList, Vni, geneve, vxlan},
};

/// Octets of the longest outer packet where the kernel does not know the way to any remote: Ethernet's.
const ASSUMED_MTU: u32 = 1500;
/// A remote is forgotten when it was not heard of for this long after the last address behind it has aged.
const FORGET_REMOTE: Duration = Duration::from_secs(60);
/// Paths whose MTU is asked for in one round of housekeeping, of a second; what a sender meets is asked for at once.
const PATHS_PER_ROUND: usize = 16;

/// What a port that is a tunnel has beside what every port has.
#[derive(Debug)]
pub(super) struct TunnelState {
    pub(super) lease: Lease,
    /// The remotes that an operator named, in the order of the list; or the group.
    pub(super) flood: Vec<RemoteIdx>,
    pub(super) tunnel: Arc<Tunnel>,
    caps: Caps,
    /// The next hops towards them on an uplink, so that these are known before the first frame is there.
    _next_hops: Vec<Arc<NextHop>>,
}

impl TunnelState {
    /// What stands behind the port, seen from the control thread.
    pub(super) fn backend(&self) -> Box<dyn Backend> {
        Box::new(Bare(self.caps))
    }
}

/// Every VNI of a port, and the VLAN it belongs to.
fn vnis(options: &PortOptions) -> impl Iterator<Item = (Vni, Option<Vid>)> + '_ {
    let mapped = options.vlan_vni.iter().map(|(vlan, vni)| (vni, Some(vlan)));
    options.vni.map(|vni| (vni, None)).into_iter().chain(mapped)
}

/// How a tunnel treats tags: as its VLAN flags say, or by the VNIs of its VLANs.
pub(super) fn vlan_mode(options: &PortOptions) -> Option<VlanMode> {
    if options.vlan_vni.is_empty() {
        return None;
    }
    let mut vlans = VlanList::default();
    options.vlan_vni.iter().for_each(|(vlan, _)| vlans.insert(vlan));
    Some(VlanMode::Mapped { vlans: Arc::new(vlans), rest: options.vni.is_some() })
}

impl Engine {
    /// Opens what a tunnel needs; nothing is left behind where that fails.
    pub(super) fn tunnel_open(&mut self, spec: &PortSpec) -> Result<TunnelState, Refusal> {
        let need = self.need(spec)?;
        let failed = |e: &dyn ToString| Refusal::Kernel {
            kind: "port",
            name: spec.name.to_string(),
            reason: e.to_string(),
        };
        let lease =
            self.underlay.acquire(&need, &mut self.opener, &mut self.workers).map_err(|e| failed(&e))?;
        let options = &spec.options;
        let mut flood = Vec::new();
        for &ip in options.group.iter().chain(&options.remote) {
            match self.underlay.remotes.pin(lease.vtep, ip) {
                Some(remote) => flood.push(remote),
                None => {
                    flood.iter().for_each(|&remote| self.underlay.remotes.unpin(remote));
                    self.underlay.release(&lease, &mut self.workers);
                    return Err(invalid("port", &spec.name, "there are 65,536 remotes, no more fit"));
                }
            }
        }
        flood.iter().for_each(|&remote| self.look_up_path(remote));
        let tunnel = Arc::new(self.describe(spec, &need, &lease, &flood));
        self.underlay.touch(lease.vtep);
        let next_hops = self.ask_next_hops(need.vtep.local.ip(), &options.remote);
        let caps = self.caps_of(&tunnel);
        Ok(TunnelState { lease, flood, tunnel, caps, _next_hops: next_hops })
    }

    /// Asks for the next hops to these remotes, where they are reached by an uplink.
    fn ask_next_hops(&self, local: IpAddr, remotes: &[IpAddr]) -> Vec<Arc<NextHop>> {
        let Some(state) = self.uplink_at(local) else { return Vec::new() };
        let hops = remotes.iter().map(|&remote| state.uplink.path().host.next_hop(remote)).collect();
        state.uplink.look_after_next_hops(self.clock.now());
        hops
    }

    /// Gives back what a tunnel held; no snapshot that a worker uses may know of it any more.
    pub(super) fn tunnel_close(&mut self, state: &TunnelState) {
        state.flood.iter().for_each(|&remote| self.underlay.remotes.unpin(remote));
        self.underlay.release(&state.lease, &mut self.workers);
    }

    /// Forgets the addresses learned behind remotes that a tunnel no longer has.
    pub(super) fn forget_remotes(&self, name: &PortName, before: &TunnelState) {
        let Some(state) = self.ports.get(name) else { return };
        let Some(bridge) = self.bridges.get(&state.spec.bridge) else { return };
        let now = state.tunnel.as_ref().map(|tunnel| tunnel.flood.as_slice()).unwrap_or_default();
        for &remote in before.flood.iter().filter(|remote| !now.contains(remote)) {
            bridge.fdb.flush(&Flush { port: Some(state.idx), remote: Some(remote), ..Flush::default() });
        }
    }

    /// Why nothing leaves by a tunnel, where it is the uplink that is down.
    pub(super) fn broken_way(&self, tunnel: &TunnelState) -> Option<String> {
        let Via::Uplink(port) = tunnel.tunnel.via else { return None };
        let uplink = self.uplinks.values().find(|uplink| uplink.idx == port)?;
        match &uplink.oper {
            Oper::Up => None,
            Oper::Down(reason) => Some(format!("its uplink {} is down: {reason}", uplink.spec.name)),
        }
    }

    /// What the way out takes: nothing over sockets, whole super-frames over an uplink that can.
    fn caps_of(&self, tunnel: &Tunnel) -> Caps {
        let Via::Uplink(port) = tunnel.via else { return Caps::NONE };
        let uplink = self.uplinks.values().find(|uplink| uplink.idx == port);
        uplink.map_or(Caps::NONE, |uplink| uplink.uplink.caps().tunnelled(tunnel.udp_csum))
    }

    fn need(&self, spec: &PortSpec) -> Result<Need, Refusal> {
        let options = &spec.options;
        let local = options.local.ok_or_else(|| invalid("port", &spec.name, "local: is missing"))?;
        let group = match (options.group, &options.underlay_dev) {
            (Some(address), Some(device)) => Some(Group { address, device: device.clone() }),
            _ => None,
        };
        let uplink = self.uplink_at(local).map(|uplink| uplink.idx);
        if uplink.is_some() && group.is_some() {
            return Err(invalid(
                "port",
                &spec.name,
                format!("group: {local} is on an uplink, which carries no multicast"),
            ));
        }
        Ok(Need {
            vtep: VtepAddress {
                netns: options.netns.clone(),
                local: SocketAddr::new(local, options.dst_port_or_default()),
            },
            kind: options.kind_or_default(),
            zero_csum6: options.udp6_zero_csum_rx_or_default().0,
            uplink,
            group,
            ports: options.src_port_or_default().first()..=options.src_port_or_default().last(),
            udp_csum: options.udp_csum_or_default().0,
        })
    }

    fn describe(&self, spec: &PortSpec, need: &Need, lease: &Lease, flood: &[RemoteIdx]) -> Tunnel {
        let options = &spec.options;
        let encap = match need.kind {
            PortType::Geneve => {
                Encap::Geneve { options: geneve::options(&options.option).unwrap_or_default() }
            }
            _ => {
                let group = options.gbp_id.unwrap_or_default();
                let gbp = vxlan::Gbp { group, ..vxlan::Gbp::default() };
                Encap::Vxlan { gbp: options.gbp_or_default().0.then_some(gbp) }
            }
        };
        let via = match (need.uplink, lease.sets) {
            (Some(uplink), _) => Via::Uplink(uplink),
            (None, Some([fragmenting, whole])) => Via::Sockets { fragmenting, whole },
            // Every lease without an uplink has its sets.
            (None, None) => Via::Sockets { fragmenting: Default::default(), whole: Default::default() },
        };
        Tunnel {
            vtep: lease.vtep,
            via,
            v6: need.vtep.local.is_ipv6(),
            src_ports: need.ports.clone(),
            dst_port: need.vtep.local.port(),
            encap,
            vni: options.vni,
            vlan_vni: options.vlan_vni.iter().map(|(vlan, vni)| (vlan.get(), vni)).collect(),
            flood: flood.into(),
            ttl: inherit(options.ttl_or_default()),
            tos: inherit(options.tos_or_default()),
            df: match options.df_or_default() {
                Df::Set => Fragmentation::Forbidden,
                Df::Unset => Fragmentation::Allowed,
                Df::Inherit => Fragmentation::AsInner,
            },
            udp_csum: need.udp_csum,
            underlay_mtu: narrowest(&self.underlay.remotes, flood),
        }
    }

    /// Looks after the paths to remotes, and forgets those that nobody has heard of for long.
    pub(super) fn housekeep_tunnels(&mut self, now: Tick) {
        if self.underlay.remotes.is_empty() {
            return;
        }
        let all: Vec<RemoteIdx> = self.underlay.remotes.iter().map(|remote| remote.idx).collect();
        for _ in 0..all.len().min(PATHS_PER_ROUND) {
            self.next_path = (self.next_path + 1) % all.len();
            self.look_up_path(all[self.next_path]);
        }
        self.follow_paths();
        let longest = self.bridges.values().map(|bridge| bridge.options.ageing_or_default().duration()).max();
        let silent = self.underlay.remotes.expire(now, longest.unwrap_or_default() + FORGET_REMOTE);
        if !silent.is_empty() {
            // Once every worker has passed here none of them finds one any more, and so learns nothing behind it;
            self.publish();
            for (bridge, &remote) in self.bridges.values().flat_map(|b| silent.iter().map(move |r| (b, r))) {
                bridge.fdb.flush(&Flush { remote: Some(remote), ..Flush::default() });
            }
            // and once more, none of them sends to one that it has found before.
            self.publish();
            self.underlay.remotes.free(&silent);
        }
    }

    /// Asks the kernel how long a packet to a remote may be.
    pub(super) fn look_up_path(&mut self, remote: RemoteIdx) {
        let remotes = Arc::clone(&self.underlay.remotes);
        let Some(known) = remotes.get(remote) else { return };
        let Some(vtep) = self.underlay.vtep(known.vtep) else { return };
        if vtep.uplink.is_some() {
            // Routers tell the switch itself there (ICMP); the longest that can be told of is what the interface takes.
            if known.path_mtu == 0
                && let Some(uplink) = self.uplink_at(vtep.address.local.ip())
            {
                remotes.set_path_mtu(remote, uplink.uplink.path().mtu);
            }
            return;
        }
        let device = self.underlay.device_of(known.ip).map(str::to_owned);
        // Where there is no route now there may be one later; sending says so by name.
        if let Ok(mtu) = self.opener.path_mtu(&vtep.address, known.ip, device.as_deref()) {
            remotes.set_path_mtu(remote, mtu);
        }
    }

    /// Describes the tunnels again whose narrowest path has changed.
    pub(super) fn follow_paths(&mut self) {
        let mut changed = false;
        for port in self.ports.values_mut() {
            let Some(state) = &mut port.tunnel else { continue };
            let mtu = narrowest(&self.underlay.remotes, &state.flood);
            if mtu != state.tunnel.underlay_mtu {
                tracing::info!(port = %port.spec.name, mtu, "the underlay takes packets of another length now");
                state.tunnel = Arc::new(Tunnel { underlay_mtu: mtu, ..Tunnel::clone(&state.tunnel) });
                changed = true;
            }
        }
        if changed {
            self.publish();
        }
    }

    /// What became of a tunnel, for who looks at its port.
    pub(super) fn tunnel_view(&self, port: &PortState) -> TunnelView {
        let mut view = TunnelView::of(port.spec.effective(self.workers.len() as u16));
        if let Some(TunnelState { tunnel, .. }) = &port.tunnel {
            view.inner_mtu = Some(tunnel.inner_mtu());
            view.via = Some(self.path_of(tunnel));
        }
        view
    }

    /// By what a tunnel's packets travel.
    pub(super) fn path_of(&self, tunnel: &Tunnel) -> String {
        match tunnel.via {
            Via::Sockets { .. } => "sockets".to_owned(),
            Via::Uplink(idx) => format!("uplink {}", self.port_name(idx).map_or("?", PortName::as_str)),
        }
    }
}

/// Octets of the longest outer packet that every one of these remotes can get.
fn narrowest(remotes: &Remotes, all: &[RemoteIdx]) -> u32 {
    all.iter().map(|&remote| remotes.path_mtu(remote)).filter(|&mtu| mtu > 0).min().unwrap_or(ASSUMED_MTU)
}

/// What the packet path is to know of an endpoint; `entered` are the remotes behind static entries of the FDB.
pub(super) fn compile_vtep(
    vtep: &VtepState,
    ports: &[&PortState],
    entered: &BTreeSet<(PortIdx, RemoteIdx)>,
    remotes: &Remotes,
) -> Vtep {
    let mut segments = hashbrown::HashMap::default();
    let mut entrances = Vec::new();
    for port in ports {
        let Some(tunnel) = port.tunnel.as_ref().filter(|t| t.lease.vtep == vtep.idx) else { continue };
        let entrance = entrances.len() as u16;
        segments.extend(vnis(&port.spec.options).map(|(vni, vlan)| (vni, Segment { entrance, vlan })));
        entrances.push(compile_entrance(port, tunnel, entered, remotes));
    }
    Vtep {
        idx: vtep.idx,
        local: vtep.address.local.ip(),
        zero_csum6: vtep.zero_csum6,
        segments,
        entrances: entrances.into(),
        stats: Arc::clone(&vtep.stats),
    }
}

fn compile_entrance(
    port: &PortState,
    tunnel: &TunnelState,
    entered: &BTreeSet<(PortIdx, RemoteIdx)>,
    remotes: &Remotes,
) -> Entrance {
    let options = &port.spec.options;
    let rules = match options.kind_or_default() {
        PortType::Geneve => {
            Rules::Geneve(options.option.iter().map(|option| (option.class(), option.kind())).collect())
        }
        _ => Rules::Vxlan(vxlan::Rules {
            reserved: match options.reserved_or_default() {
                Reserved::Ignore => vxlan::Reserved::Ignore,
                Reserved::Drop => vxlan::Reserved::Refuse,
            },
            gbp: options.gbp_or_default().0,
        }),
    };
    let known = options.remote_check_or_default().0.then(|| {
        let entered = entered.iter().filter(|(at, _)| *at == port.idx).map(|(_, remote)| *remote);
        tunnel.flood.iter().copied().chain(entered).filter_map(|remote| remotes.address(remote)).collect()
    });
    Entrance { port: port.idx, rules, known, stats: Arc::clone(&port.stats) }
}

fn inherit(field: config::Inherit<u8>) -> Inherit<u8> {
    match field {
        config::Inherit::Fixed(value) => Inherit::Fixed(value),
        config::Inherit::Inherit => Inherit::Inherit,
    }
}
