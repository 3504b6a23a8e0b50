//! Neighbours that bridges answer for: add, delete, list.

use super::{Engine, invalid, not_found};
use crate::{
    api::{NeighView, Refusal},
    bridge::neigh::NeighbourKind,
    config::{BridgeName, NeighSpec},
};

impl Engine {
    pub(super) fn neigh_add(&mut self, spec: &NeighSpec) -> Result<bool, Refusal> {
        let known = self.bridge(&spec.bridge)?.neighbours.get(spec.vlan, spec.ip);
        if let Some(neighbour) = known.filter(|n| n.kind == NeighbourKind::Static) {
            if neighbour.mac == spec.mac {
                return Ok(false);
            }
            let difference = format!("mac: {} -> {}", neighbour.mac, spec.mac);
            return Err(Refusal::Exists { kind: "neigh", name: spec.key(), difference, replace: true });
        }
        self.neigh_put(spec)?;
        Ok(true)
    }

    /// Sets a neighbour whatever was known of it.
    pub(super) fn neigh_put(&mut self, spec: &NeighSpec) -> Result<(), Refusal> {
        let mistakes = spec.check();
        if !mistakes.is_empty() {
            return Err(invalid("neigh", spec.key(), mistakes.join("; ")));
        }
        let neighbours = &self.bridge(&spec.bridge)?.neighbours;
        neighbours
            .insert_static(spec.vlan, spec.ip, spec.mac, self.clock.now())
            .map_err(|e| invalid("neigh", spec.key(), e))?;
        Ok(())
    }

    pub(super) fn neigh_del(
        &mut self,
        bridge: &BridgeName,
        vlan: u16,
        ip: std::net::IpAddr,
    ) -> Result<(), Refusal> {
        match self.bridge(bridge)?.neighbours.remove(vlan, ip) {
            Some(_) => Ok(()),
            None => Err(not_found("neigh", format!("{bridge} vlan {vlan} {ip}"))),
        }
    }

    pub(super) fn neigh_views(&self, bridge: Option<&BridgeName>) -> Result<Vec<NeighView>, Refusal> {
        if let Some(name) = bridge {
            self.bridge(name)?;
        }
        let now = self.clock.now();
        let mut views = Vec::new();
        for (name, state) in self.bridges.iter().filter(|(name, _)| bridge.is_none_or(|b| b == *name)) {
            views.extend(state.neighbours.list().into_iter().map(|n| NeighView {
                bridge: name.clone(),
                vlan: n.vlan,
                ip: n.ip,
                mac: n.mac,
                kind: n.kind.name().to_owned(),
                age_s: n.age(now).as_secs() as u32,
            }));
        }
        Ok(views)
    }

    /// The static neighbours, as an operator would write them.
    pub(super) fn neigh_specs(&self) -> Vec<NeighSpec> {
        let mut specs = Vec::new();
        for (name, state) in &self.bridges {
            let set = state.neighbours.list().into_iter().filter(|n| n.kind == NeighbourKind::Static);
            specs.extend(set.map(|n| NeighSpec { ip: n.ip, mac: n.mac, bridge: name.clone(), vlan: n.vlan }));
        }
        specs
    }
}
