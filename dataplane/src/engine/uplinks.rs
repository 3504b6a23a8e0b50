//! Uplinks: add, delete, list, and what they need from second to second.
//!
//! An uplink takes a port's place in the tables, so that workers poll and lose its queues as those of a port; it belongs to no bridge.

use std::{net::IpAddr, sync::Arc};

use super::{
    Engine, free_place, invalid, not_found, place,
    ports::Oper,
    view::{rx, tx},
};
use crate::{
    api::{Refusal, UplinkView},
    config::{PortName, UplinkSpec},
    counters::PortStats,
    index::PortIdx,
    overlay::Via,
    port::{
        Queue,
        tap::{Health, TapOptions, offload_words},
        uplink::Uplink,
    },
    tick::Tick,
};

/// An uplink.
#[derive(Debug)]
pub(super) struct UplinkState {
    pub(super) idx: PortIdx,
    pub(super) spec: UplinkSpec,
    pub(super) uplink: Uplink,
    pub(super) queues: u16,
    pub(super) oper: Oper,
    deal: u64,
    /// A worker has found a queue closed.
    lost: bool,
    pub(super) stats: Arc<PortStats>,
}

impl Engine {
    pub(super) fn uplink_add(&mut self, spec: &UplinkSpec) -> Result<bool, Refusal> {
        match spec.check().as_slice() {
            [] => {}
            mistakes => return Err(invalid("uplink", &spec.name, mistakes.join("; "))),
        }
        let workers = self.workers.len() as u16;
        if let Some(state) = self.uplinks.get(&spec.name) {
            let difference = state.spec.difference(spec, workers).join(", ");
            return if difference.is_empty() {
                Ok(false)
            } else {
                let name = spec.name.to_string();
                Err(Refusal::Exists { kind: "uplink", name, difference, replace: true })
            };
        }
        if self.ports.contains_key(&spec.name) {
            return Err(invalid("uplink", &spec.name, "a port has this name"));
        }
        if let Some(other) = self.uplinks.values().find(|u| u.spec.address.addr() == spec.address.addr()) {
            let reason = format!("uplink {} has the address {}", other.spec.name, spec.address.addr());
            return Err(invalid("uplink", &spec.name, reason));
        }
        let netns = spec.options.netns.as_ref();
        self.refuse_interface_of_device("uplink", &spec.name, netns, spec.ifname_or_default())?;
        let at = free_place(&self.port_names);
        let idx = PortIdx(
            u16::try_from(at)
                .map_err(|_| invalid("uplink", &spec.name, "there are 65,536 ports, no more fit"))?,
        );
        let kernel = |e: &dyn ToString| Refusal::Kernel {
            kind: "uplink",
            name: spec.name.to_string(),
            reason: e.to_string(),
        };
        let options = TapOptions {
            ifname: Some(spec.ifname_or_default().to_owned()),
            netns: spec.options.netns.clone(),
            mac: spec.options.mac,
            mtu: Some(spec.options.mtu_or_default()),
            queues: spec.queues_or_default(workers).into(),
            offload: spec.options.offload_or_default().0,
            ..TapOptions::default()
        };
        let mut uplink =
            Uplink::open(options, spec.address, spec.gateway_or_default()).map_err(|e| kernel(&e))?;
        let opened: Vec<Queue> = uplink.take_queues().into_iter().map(Queue::Tap).collect();
        let queues = opened.len() as u16;
        let deal = self.workers.attach(idx, opened).map_err(|e| kernel(&e))?;
        uplink.look_after_next_hops(self.clock.now());
        place(&mut self.port_names, at, spec.name.clone());
        tracing::info!(uplink = %spec.name, address = %spec.address, ifname = %uplink.tap().ifname(), queues, "uplink added");
        let state = UplinkState {
            idx,
            spec: spec.clone(),
            uplink,
            queues,
            oper: Oper::Up,
            deal,
            lost: false,
            stats: Arc::new(PortStats::new(self.workers.len())),
        };
        self.uplinks.insert(spec.name.clone(), state);
        self.publish();
        Ok(true)
    }

    /// The uplink that owns an address.
    pub(super) fn uplink_at(&self, address: IpAddr) -> Option<&UplinkState> {
        self.uplinks.values().find(|state| state.spec.address.addr() == address)
    }

    pub(super) fn uplink_del(&mut self, name: &PortName) -> Result<(), Refusal> {
        let idx = self.uplinks.get(name).map(|state| state.idx);
        let by = self.ports.values().find(|port| {
            port.tunnel.as_ref().is_some_and(|t| matches!(t.tunnel.via, Via::Uplink(at) if Some(at) == idx))
        });
        if let Some(port) = by {
            let by = format!("the tunnel of port {} uses it", port.spec.name);
            return Err(Refusal::InUse { kind: "uplink", name: name.to_string(), by });
        }
        self.refuse_needed("uplink", name.as_str())?;
        let Some(state) = self.uplinks.remove(name) else { return Err(not_found("uplink", name)) };
        // No worker sends to it any more once this returns.
        self.publish();
        drop(self.workers.detach(state.idx));
        self.port_names[state.idx.at()] = None;
        tracing::info!(uplink = %name, "uplink deleted");
        if let Err(error) = state.uplink.destroy() {
            tracing::warn!(uplink = %name, %error, "the uplink is deleted, its interface is not");
        }
        Ok(())
    }

    /// A worker has lost a queue of the uplink, if it is one.
    pub(super) fn uplink_lost(&mut self, name: &PortName, deal: u64) {
        if let Some(state) = self.uplinks.get_mut(name).filter(|state| state.deal == deal) {
            state.lost = true;
        }
    }

    /// Looks after next hops and devices, once a second.
    pub(super) fn housekeep_uplinks(&mut self, now: Tick) {
        let mut changed = false;
        for (name, state) in &mut self.uplinks {
            state.uplink.look_after_next_hops(now);
            let oper = match state.uplink.health() {
                Ok(Health::Up) if state.lost => {
                    Oper::Down("the kernel closed its queue; delete the uplink and add it again".into())
                }
                Ok(Health::Up) => Oper::Up,
                Ok(ill) => Oper::Down(ill.to_string()),
                Err(error) => Oper::Down(error.to_string()),
            };
            if oper == state.oper {
                continue;
            }
            match &oper {
                Oper::Up => {
                    tracing::info!(uplink = %name, "uplink is up");
                    if let Err(error) = state.uplink.lead_here_again() {
                        tracing::warn!(uplink = %name, %error, "the host's way to the switch could not be put back");
                    }
                }
                Oper::Down(reason) => tracing::warn!(uplink = %name, reason, "uplink is down"),
            }
            state.oper = oper;
            changed = true;
        }
        if changed {
            self.publish();
        }
    }

    pub(super) fn uplink_views(&self) -> Vec<UplinkView> {
        self.uplinks
            .values()
            .map(|state| {
                let totals = state.stats.total();
                let (oper, reason) = match &state.oper {
                    Oper::Up => ("up", None),
                    Oper::Down(reason) => ("down", Some(reason.clone())),
                };
                let tap = state.uplink.tap();
                UplinkView {
                    name: state.spec.name.clone(),
                    address: state.spec.address,
                    gateway: state.spec.gateway_or_default(),
                    ifname: tap.ifname().to_owned(),
                    netns: tap.netns().cloned(),
                    mac: Some(tap.mac()),
                    mtu: tap.mtu(),
                    oper: oper.to_owned(),
                    reason,
                    queues: state.queues,
                    offload: offload_words(tap.caps()).into_iter().map(str::to_owned).collect(),
                    rx: rx(&totals),
                    tx: tx(&totals),
                    drops: totals.drops().map(|(reason, n)| (reason.name().to_owned(), n)).collect(),
                }
            })
            .collect()
    }

    /// As an operator would write them.
    pub(super) fn uplink_specs(&self) -> Vec<UplinkSpec> {
        self.uplinks.values().map(|state| state.spec.clone()).collect()
    }
}
