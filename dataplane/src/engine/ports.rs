//! Ports: add, set, delete.

use std::sync::Arc;

use super::{
    Backend, Engine, Opened,
    bridges::BridgeState,
    free_place, invalid, not_found, place,
    tunnels::{self, TunnelState},
};
use crate::{
    api::Refusal,
    bridge::{Secure, Storm, VlanMode},
    config::{AdminState, PortName, PortOptions, PortSpec, PortType},
    counters::PortStats,
    fdb::{Flush, FlushKinds},
    frame::Caps,
    index::PortIdx,
    snapshot,
};

/// Whether what is behind a port is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Oper {
    Up,
    /// It is not, for this reason.
    Down(String),
}

/// A port.
#[derive(Debug)]
pub(super) struct PortState {
    pub(super) idx: PortIdx,
    pub(super) spec: PortSpec,
    pub(super) backend: Box<dyn Backend>,
    /// What the far side takes, and the interface's own MTU, as the workers are to know them.
    pub(super) caps: Caps,
    pub(super) link_mtu: Option<u32>,
    /// How many queues the workers have.
    pub(super) queues: u16,
    pub(super) oper: Oper,
    /// The deal that the workers have them from.
    pub(super) deal: u64,
    /// A worker has found a queue closed: the port carries nothing any more, whatever its device says.
    pub(super) lost: bool,
    pub(super) stats: Arc<PortStats>,
    /// What it holds of the underlay, where it is a tunnel.
    pub(super) tunnel: Option<TunnelState>,
    storm: Option<Arc<Storm>>,
    bum: Option<Arc<Storm>>,
    secure: Option<Arc<Secure>>,
}

/// A limit of so many frames a second; none for 0.
fn storm(limit: u32) -> Option<Arc<Storm>> {
    (limit > 0).then(|| Arc::new(Storm::new(limit)))
}

fn secure(options: &PortOptions) -> Option<Arc<Secure>> {
    options.secure.as_ref().map(|s| Arc::new(Secure { mac: s.mac, ips: s.ip.clone().into() }))
}

fn vlan_mode(options: &PortOptions) -> VlanMode {
    if let Some(mode) = tunnels::vlan_mode(options) {
        return mode;
    }
    match (options.access, &options.trunk, options.qinq) {
        (Some(vid), _, _) => VlanMode::Access(vid),
        (None, Some(list), _) => VlanMode::Trunk { tagged: Arc::new(list.clone()), native: options.native },
        (None, None, Some(vid)) => VlanMode::Qinq(vid),
        (None, None, None) => VlanMode::Transparent,
    }
}

impl PortState {
    /// Octets of the longest IP packet that leaves; of a tunnel, where nothing is said, what its underlay carries, and of an interface
    /// that is not the switch's what that says.
    pub(super) fn mtu(&self) -> u32 {
        let options = &self.spec.options;
        let carried = self.tunnel.as_ref().map(|state| state.tunnel.inner_mtu());
        options.mtu.or(carried).or(self.link_mtu).unwrap_or_else(|| options.mtu_or_default())
    }

    /// Asks the backend again for what the workers are to know; says whether that has changed.
    pub(super) fn look(&mut self) -> bool {
        let now = (self.backend.caps(), self.backend.mtu());
        let before = (self.caps, self.link_mtu);
        (self.caps, self.link_mtu) = now;
        before != now
    }

    /// What the packet path is to know of the port.
    pub(super) fn compile(&self, bridge: &BridgeState) -> snapshot::Port {
        let options = &self.spec.options;
        snapshot::Port {
            bridge: bridge.idx,
            vlan: vlan_mode(options),
            admin_up: options.admin_or_default() == AdminState::Up,
            oper_up: self.oper == Oper::Up,
            // An ageing time of zero means that nothing is remembered (br_fdb_update).
            learning: options.learning_or_default().0 && bridge.options.ageing_or_default().0 > 0,
            hairpin: options.hairpin_or_default().0,
            isolated: options.isolated_or_default().0,
            locked: options.locked_or_default().0,
            mac_limit: options.mac_limit_or_default(),
            // What fits a tunnel depends on the path to each remote; an operator can say less.
            mtu: if self.tunnel.is_some() { options.mtu.unwrap_or(u32::MAX) } else { self.mtu() },
            caps: self.caps,
            storm: self.storm.clone(),
            secure: self.secure.clone(),
            tunnel: self.tunnel.as_ref().map(|state| Arc::clone(&state.tunnel)),
            bum: self.bum.clone(),
            uplink: None,
            stats: Arc::clone(&self.stats),
        }
    }
}

fn destroy(name: &PortName, backend: Box<dyn Backend>) {
    if let Err(error) = backend.destroy() {
        tracing::warn!(port = %name, %error, "the port is deleted, its interface is not");
    }
}

impl Engine {
    pub(super) fn port_add(&mut self, spec: &PortSpec) -> Result<bool, Refusal> {
        check(spec)?;
        let workers = self.workers.len() as u16;
        if let Some(state) = self.ports.get(&spec.name) {
            let difference = state.spec.difference(spec, workers);
            return if difference.is_empty() {
                Ok(false)
            } else {
                Err(Refusal::Exists {
                    kind: "port",
                    name: spec.name.to_string(),
                    difference: difference.join(", "),
                    replace: !state.spec.immutable_differences(spec, workers).is_empty(),
                })
            };
        }
        if self.uplinks.contains_key(&spec.name) {
            return Err(invalid("port", &spec.name, "an uplink has this name"));
        }
        self.bridge(&spec.bridge)?;
        self.refuse_clash(spec)?;
        if spec.options.kind_or_default() == PortType::Tap {
            let netns = spec.options.netns.as_ref();
            self.refuse_interface_of_device("port", &spec.name, netns, spec.ifname_or_default())?;
        }
        let at = free_place(&self.port_names);
        let idx = PortIdx(
            u16::try_from(at)
                .map_err(|_| invalid("port", &spec.name, "there are 65,536 ports, no more fit"))?,
        );
        let queues = spec.queues_or_default(workers);
        let kernel = |e: &dyn ToString| Refusal::Kernel {
            kind: "port",
            name: spec.name.to_string(),
            reason: e.to_string(),
        };
        let (opened, tunnel) = if spec.options.kind_or_default().is_tunnel() {
            let state = self.tunnel_open(spec)?;
            (Opened { backend: state.backend(), queues: Vec::new() }, Some(state))
        } else {
            (self.opener.open(spec, queues).map_err(|e| kernel(&e))?, None)
        };
        let Opened { backend, queues: opened } = opened;
        let queues = opened.len() as u16;
        let deal = self.workers.attach(idx, opened).map_err(|e| kernel(&e))?;
        self.watch.begin(idx, &backend.watched());
        place(&mut self.port_names, at, spec.name.clone());
        let state = PortState {
            idx,
            spec: spec.clone(),
            caps: backend.caps(),
            link_mtu: backend.mtu(),
            oper: backend.health().map_or_else(Oper::Down, |()| Oper::Up),
            backend,
            queues,
            deal,
            lost: false,
            stats: Arc::new(PortStats::new(self.workers.len())),
            tunnel,
            storm: storm(spec.options.storm_limit_or_default()),
            bum: storm(spec.options.bum_limit_or_default()),
            secure: secure(&spec.options),
        };
        let (port, bridge) = (&spec.name, &spec.bridge);
        match (&state.tunnel, &spec.options.path) {
            (Some(TunnelState { tunnel, .. }), _) => {
                tracing::info!(%port, %bridge, path = %self.path_of(tunnel), "port added");
            }
            (None, Some(path)) => tracing::info!(%port, %bridge, path, "port added"),
            (None, None) => {
                tracing::info!(%port, %bridge, ifname = %state.backend.ifname(), queues, "port added");
            }
        }
        self.ports.insert(spec.name.clone(), state);
        self.touch_bridge_of(&spec.name);
        self.publish();
        Ok(true)
    }

    pub(super) fn port_set(
        &mut self,
        name: &PortName,
        options: &PortOptions,
        unset: &[String],
    ) -> Result<bool, Refusal> {
        let merged =
            self.port(name)?.spec.options.merge(options, unset).map_err(|e| invalid("port", name, e))?;
        self.port_replace(name, &merged)
    }

    /// Gives a port other options; says whether anything changed.
    pub(super) fn port_replace(&mut self, name: &PortName, options: &PortOptions) -> Result<bool, Refusal> {
        let workers = self.workers.len() as u16;
        let spec = PortSpec { options: options.clone(), ..self.port(name)?.spec.clone() };
        check(&spec)?;
        self.refuse_clash(&spec)?;
        let state = self.ports.get_mut(name).ok_or_else(|| not_found("port", name))?;
        let fixed = state.spec.immutable_differences(&spec, workers);
        if !fixed.is_empty() {
            let reason = format!(
                "{} cannot be changed while the port exists; delete it and add it again",
                fixed.join(", ")
            );
            return Err(invalid("port", name, reason));
        }
        let changed = !state.spec.difference(&spec, workers).is_empty();
        self.watch.end(&state.backend.watched());
        let done = state.backend.change(&state.spec.options, &spec.options).inspect_err(|_| {
            // What was changed before the error goes back; if that fails too, the first error is the one to tell.
            let _ = state.backend.change(&spec.options, &state.spec.options);
        });
        self.watch.begin(state.idx, &state.backend.watched());
        if let Err(error) = done {
            return Err(Refusal::Kernel { kind: "port", name: name.to_string(), reason: error.to_string() });
        }
        // Make before break: the tunnel as it will be is opened beside the one that is.
        let tunnel = if changed && spec.options.kind_or_default().is_tunnel() {
            Some(self.tunnel_open(&spec)?)
        } else {
            None
        };
        let state = self.ports.get_mut(name).ok_or_else(|| not_found("port", name))?;
        let replaced = tunnel.and_then(|tunnel| {
            state.backend = tunnel.backend();
            state.tunnel.replace(tunnel)
        });
        state.look();
        let before = std::mem::replace(&mut state.spec, spec);
        let (old, new) = (&before.options, &state.spec.options);
        if new.storm_limit_or_default() != old.storm_limit_or_default() {
            state.storm = storm(new.storm_limit_or_default());
        }
        if new.bum_limit != old.bum_limit {
            state.bum = storm(new.bum_limit_or_default());
        }
        state.secure = secure(new);
        let moved = vlan_mode(new) != vlan_mode(old)
            || (new.vni, &new.vlan_vni) != (old.vni, &old.vlan_vni)
            || new.admin_or_default() == AdminState::Down;
        self.touch_bridge_of(name);
        self.publish();
        if moved {
            self.forget_learned(name);
        }
        if let Some(replaced) = replaced {
            self.forget_remotes(name, &replaced);
            self.tunnel_close(&replaced);
        }
        Ok(changed)
    }

    pub(super) fn port_del(&mut self, name: &PortName) -> Result<(), Refusal> {
        self.port(name)?;
        self.refuse_needed("port", name.as_str())?;
        self.touch_bridge_of(name);
        let Some(state) = self.ports.remove(name) else { return Err(not_found("port", name)) };
        if let Some(tunnel) = &state.tunnel {
            self.underlay.touch(tunnel.lease.vtep);
        }
        // No worker sends to it any more once this returns, nor learns an address on it.
        self.publish();
        drop(self.workers.detach(state.idx));
        self.watch.end(&state.backend.watched());
        if let Some(bridge) = self.bridges.get(&state.spec.bridge) {
            bridge.fdb.flush(&Flush { port: Some(state.idx), kinds: FlushKinds::All, ..Flush::default() });
        }
        if let Some(tunnel) = &state.tunnel {
            self.tunnel_close(tunnel);
        }
        self.fdb_remotes.retain(|(port, _)| *port != state.idx);
        self.port_names[state.idx.at()] = None;
        tracing::info!(port = %name, "port deleted");
        match &mut self.leaving {
            Some(leaving) => leaving.push((name.clone(), state.backend)),
            None => destroy(name, state.backend),
        }
        Ok(())
    }

    /// Ends what was behind the ports that were deleted so far.
    pub(super) fn ports_end(&mut self) {
        let Some(leaving) = self.leaving.as_mut().map(std::mem::take) else { return };
        if leaving.len() > 1 {
            let interfaces: Vec<_> =
                leaving.iter().filter_map(|(_, backend)| backend.own_interface()).collect();
            self.opener.devices().delete_interfaces(&interfaces);
        }
        leaving.into_iter().for_each(|(name, backend)| destroy(&name, backend));
    }

    /// The bridge of a port must be compiled again.
    pub(super) fn touch_bridge_of(&mut self, name: &PortName) {
        if let Some(state) = self.ports.get(name)
            && let Some(bridge) = self.bridges.get_mut(&state.spec.bridge)
        {
            bridge.compiled = None;
        }
    }

    /// Its stations are heard of again soon enough, in whatever VLAN they are in now.
    pub(super) fn forget_learned(&self, name: &PortName) {
        if let Some(state) = self.ports.get(name)
            && let Some(bridge) = self.bridges.get(&state.spec.bridge)
        {
            bridge.fdb.flush(&Flush { port: Some(state.idx), ..Flush::default() });
        }
    }
}

fn check(spec: &PortSpec) -> Result<(), Refusal> {
    match spec.check().as_slice() {
        [] => Ok(()),
        mistakes => Err(invalid("port", &spec.name, mistakes.join("; "))),
    }
}
