//! What the engine shows of itself.

use super::{
    Engine,
    ports::{Oper, PortState},
};
use crate::{
    api::{
        BridgeView, DropView, FdbCounts, PROTOCOL_VERSION, PortStatsView, PortView, Refusal, Reply, Status,
        Traffic, VmView, WorkerView,
    },
    config::{AdminState, OnOff, PortName, PortType},
    counters::Totals,
    frame::Caps,
    port::tap::offload_words,
};

pub(super) const fn rx(t: &Totals) -> Traffic {
    Traffic { frames: t.rx_frames, bytes: t.rx_bytes }
}

pub(super) const fn tx(t: &Totals) -> Traffic {
    Traffic { frames: t.tx_frames, bytes: t.tx_bytes }
}

impl Engine {
    pub(super) fn status(&self) -> Status {
        let mut notices = Vec::new();
        for (name, state) in &self.ports {
            if let Oper::Down(reason) = &state.oper {
                notices.push(format!("port {name} is down: {reason}"));
            }
            let fallbacks = state.stats.total().offload_fallbacks;
            if fallbacks > 0 {
                notices.push(format!(
                    "the kernel refused {fallbacks} frames for port {name} with offloads it had agreed to; they were finished in software"
                ));
            }
            let offloads = offload_words(&state.caps);
            // What a tunnel or a VM takes whole is no lack of the kernel's.
            let options = &state.spec.options;
            if options.kind_or_default().has_interface()
                && state.oper == Oper::Up
                && options.offload_or_default().0
            {
                let lacking: Vec<&str> =
                    offload_words(&Caps::ALL).into_iter().filter(|word| !offloads.contains(word)).collect();
                if !lacking.is_empty() {
                    notices.push(format!("port {name} does without {}", lacking.join(", ")));
                }
            }
        }
        for (name, state) in &self.uplinks {
            if let Oper::Down(reason) = &state.oper {
                notices.push(format!("uplink {name} is down: {reason}"));
            }
            if state.spec.options.offload_or_default().0 && !state.uplink.caps().tunnel {
                notices.push(format!(
                    "uplink {name}: this kernel takes no super-frames in tunnels (Linux 6.17); they leave in segments"
                ));
            }
        }
        notices.extend(self.damped_notices());
        notices.extend(self.device_notices());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL_VERSION,
            pid: std::process::id(),
            uptime_s: (self.clock.now().nanos() - self.started.nanos()) / 1_000_000_000,
            generation: self.snapshot.generation,
            bridges: self.bridges.len(),
            ports: self.ports.len(),
            fdb_entries: self.bridges.values().map(|b| b.fdb.len()).sum(),
            workers: self.worker_views(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            features: self.features.found.clone(),
            missing: self.features.missing.clone(),
            notices,
        }
    }

    fn worker_views(&self) -> Vec<WorkerView> {
        let workers = self.workers.len();
        let queues = |w| {
            let all = self.ports.values().map(|p| p.queues).chain(self.uplinks.values().map(|u| u.queues));
            all.map(|queues| (0..usize::from(queues)).filter(|q| q % workers == w).count()).sum()
        };
        self.workers
            .posts()
            .iter()
            .enumerate()
            .map(|(worker, post)| WorkerView {
                worker,
                generation: post.gauge.generation.get(),
                queues: queues(worker),
                wakeups: post.gauge.wakeups.get(),
                batches: post.gauge.batches.get(),
                frames: post.gauge.frames.get(),
            })
            .collect()
    }

    pub(super) fn bridge_views(&self) -> Vec<BridgeView> {
        self.bridges
            .iter()
            .map(|(name, state)| {
                let stats = state.fdb.stats();
                BridgeView {
                    name: name.clone(),
                    ageing: state.options.ageing_or_default(),
                    fdb_limit: state.options.fdb_limit_or_default(),
                    move_limit: state.options.move_limit_or_default(),
                    neigh_snoop: state.options.neigh_snoop_or_default(),
                    neighbours: state.neighbours.len(),
                    ports: self.ports.values().filter(|p| p.spec.bridge == *name).count(),
                    fdb: FdbCounts {
                        entries: state.fdb.len() as u64,
                        learned: stats.learned,
                        moved: stats.moved,
                        expired: stats.expired,
                        flushed: stats.flushed,
                        evicted: stats.evicted,
                        refused_full: stats.refused_full,
                        refused_mac_limit: stats.refused_port_limit,
                        refused_sticky: stats.refused_sticky,
                        damped: stats.damped,
                        refused_damped: stats.refused_damped,
                    },
                }
            })
            .collect()
    }

    pub(super) fn port_view(&self, state: &PortState) -> PortView {
        let spec = &state.spec;
        let options = &spec.options;
        let kind = options.kind_or_default();
        let totals = state.stats.total();
        let (oper, reason) = match (&state.oper, options.admin_or_default()) {
            (Oper::Down(reason), _) => ("down", Some(reason.clone())),
            (Oper::Up, AdminState::Down) => ("down", Some("administratively down".to_owned())),
            (Oper::Up, AdminState::Up) => ("up", None),
        };
        PortView {
            name: spec.name.clone(),
            bridge: spec.bridge.clone(),
            kind,
            ifname: kind.has_interface().then(|| state.backend.ifname()),
            netns: options.netns.clone(),
            mac: state.backend.mac(),
            mtu: state.mtu(),
            address: options.address.clone(),
            admin: options.admin_or_default(),
            oper: oper.to_owned(),
            reason,
            queues: state.queues,
            offload: offload_words(&state.caps).into_iter().map(str::to_owned).collect(),
            persist: (kind == PortType::Tap).then(|| options.persist_or_default()),
            access: options.access,
            trunk: options.trunk.clone(),
            native: options.native,
            qinq: options.qinq,
            learning: options.learning_or_default(),
            flood: options.flood_or_default(),
            bcast_flood: OnOff(options.bcast_flood_or_default().0),
            mcast_flood: OnOff(options.mcast_flood_or_default().0),
            hairpin: options.hairpin_or_default(),
            isolated: options.isolated_or_default(),
            locked: options.locked_or_default(),
            mac_limit: options.mac_limit_or_default(),
            storm_limit: options.storm_limit_or_default(),
            secure: options.secure.clone(),
            vm: VmView::of(spec.effective(self.workers.len() as u16)),
            tunnel: self.tunnel_view(state),
            macs: self.bridges.get(&spec.bridge).map_or(0, |b| b.fdb.port_len(state.idx) as u64),
            rx: rx(&totals),
            tx: tx(&totals),
            drops: totals.drops().map(|(reason, n)| (reason.name().to_owned(), n)).collect(),
        }
    }

    /// One port, or all.
    fn selected(&self, port: Option<&PortName>) -> Result<Vec<&PortState>, Refusal> {
        match port {
            Some(name) => Ok(vec![self.port(name)?]),
            None => Ok(self.ports.values().collect()),
        }
    }

    pub(super) fn stats(&self, port: Option<&PortName>) -> Result<Reply, Refusal> {
        let view = |state: &PortState| {
            let totals = state.stats.total();
            let dropped = totals.drops().map(|(_, n)| n).sum();
            PortStatsView { port: state.spec.name.clone(), rx: rx(&totals), tx: tx(&totals), dropped }
        };
        Ok(Reply::Stats { stats: self.selected(port)?.into_iter().map(view).collect() })
    }

    pub(super) fn drops(&self, port: Option<&PortName>) -> Result<Reply, Refusal> {
        let mut drops = Vec::new();
        let mut count = |port: Option<&PortName>, vtep: Option<String>, totals: Totals| {
            drops.extend(totals.drops().map(|(reason, frames)| DropView {
                port: port.cloned(),
                vtep: vtep.clone(),
                reason: reason.name().to_owned(),
                frames,
                what: reason.what().to_owned(),
                remedy: reason.remedy().to_owned(),
            }));
        };
        if let Some(uplink) = port.and_then(|name| self.uplinks.get(name)) {
            count(port, None, uplink.stats.total());
            return Ok(Reply::Drops { drops });
        }
        for state in self.selected(port)? {
            count(Some(&state.spec.name), None, state.stats.total());
        }
        if port.is_none() {
            for (name, uplink) in &self.uplinks {
                count(Some(name), None, uplink.stats.total());
            }
            for vtep in self.underlay.vteps() {
                count(None, Some(vtep.name()), vtep.stats.total());
            }
        }
        Ok(Reply::Drops { drops })
    }
}
