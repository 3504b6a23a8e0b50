//! Bridges: add, set, delete.

use std::sync::Arc;

use super::{Engine, free_place, invalid, not_found, place};
use crate::{
    api::Refusal,
    bridge::Neighbours,
    config::{BridgeName, BridgeOptions, BridgeSpec},
    fdb::{Damping, Fdb},
    index::BridgeIdx,
    snapshot,
};

/// A bridge.
#[derive(Debug)]
pub(super) struct BridgeState {
    pub(super) idx: BridgeIdx,
    pub(super) options: BridgeOptions,
    pub(super) fdb: Arc<Fdb>,
    pub(super) neighbours: Arc<Neighbours>,
    /// What the snapshot has of it; `None` where something has changed since.
    pub(super) compiled: Option<Arc<snapshot::Bridge>>,
}

impl Engine {
    pub(super) fn bridge_add(&mut self, spec: &BridgeSpec) -> Result<bool, Refusal> {
        check(spec)?;
        if let Some(state) = self.bridges.get(&spec.name) {
            let running = BridgeSpec { name: spec.name.clone(), options: state.options.clone() };
            let difference = running.difference(spec);
            return if difference.is_empty() {
                Ok(false)
            } else {
                Err(Refusal::Exists {
                    kind: "bridge",
                    name: spec.name.to_string(),
                    difference: difference.join(", "),
                    replace: false,
                })
            };
        }
        let at = free_place(&self.bridge_names);
        let idx = BridgeIdx(
            u16::try_from(at)
                .map_err(|_| invalid("bridge", &spec.name, "there are 65,536 bridges, no more fit"))?,
        );
        let fdb = table(&spec.name, &spec.options)?;
        place(&mut self.bridge_names, at, spec.name.clone());
        let neighbours = Arc::new(Neighbours::new());
        neighbours.set_snooping(spec.options.neigh_snoop_or_default().0);
        let state = BridgeState { idx, options: spec.options.clone(), fdb, neighbours, compiled: None };
        self.bridges.insert(spec.name.clone(), state);
        self.publish();
        tracing::info!(bridge = %spec.name, "bridge added");
        Ok(true)
    }

    pub(super) fn bridge_set(&mut self, spec: &BridgeSpec) -> Result<bool, Refusal> {
        check(spec)?;
        let state = self.bridge(&spec.name)?;
        let merged = state.options.merge(&spec.options);
        self.bridge_replace(&spec.name, &merged)
    }

    /// Gives a bridge other options; says whether anything changed.
    pub(super) fn bridge_replace(
        &mut self,
        name: &BridgeName,
        options: &BridgeOptions,
    ) -> Result<bool, Refusal> {
        let now = self.clock.now();
        // Learned entries that do not fit are learned again; what an operator has entered is not thrown away in silence.
        let entered = self.fdb_specs().iter().filter(|entry| entry.bridge == *name).count();
        if entered > options.fdb_limit_or_default() as usize {
            let reason = format!(
                "fdb_limit: {} is less than its {entered} static entries",
                options.fdb_limit_or_default()
            );
            return Err(invalid("bridge", name, reason));
        }
        let state = self.bridges.get_mut(name).ok_or_else(|| not_found("bridge", name))?;
        let before = std::mem::replace(&mut state.options, options.clone());
        state.fdb.set_damping(damping(options));
        let neighbours = Arc::clone(&state.neighbours);
        if options.fdb_limit_or_default() != before.fdb_limit_or_default() {
            let new = table(name, options).inspect_err(|_| {
                state.fdb.set_damping(damping(&before));
                state.options = before.clone();
            })?;
            let old = std::mem::replace(&mut state.fdb, Arc::clone(&new));
            old.copy_into(&new, now);
            state.compiled = None;
            self.publish();
            // What workers have learned into the old table while they still worked with it.
            old.copy_into(&new, now);
        } else {
            self.publish();
        }
        if options.neigh_snoop_or_default() != before.neigh_snoop_or_default() {
            neighbours.set_snooping(options.neigh_snoop_or_default().0);
        }
        let spec = |options: &BridgeOptions| BridgeSpec { name: name.clone(), options: options.clone() };
        Ok(!spec(&before).difference(&spec(options)).is_empty())
    }

    pub(super) fn bridge_del(&mut self, name: &BridgeName) -> Result<(), Refusal> {
        let idx = self.bridge(name)?.idx;
        let ports: Vec<&str> =
            self.ports.values().filter(|p| p.spec.bridge == *name).map(|p| p.spec.name.as_str()).collect();
        if !ports.is_empty() {
            let by = match ports.as_slice() {
                [one] => format!("it has port {one}"),
                [first, rest @ ..] => format!("it has port {first} and {} more", rest.len()),
                [] => String::new(),
            };
            return Err(Refusal::InUse { kind: "bridge", name: name.to_string(), by });
        }
        self.bridges.remove(name);
        self.publish();
        self.bridge_names[idx.at()] = None;
        tracing::info!(bridge = %name, "bridge deleted");
        Ok(())
    }
}

/// An empty FDB as large as the options say.
fn table(name: &BridgeName, options: &BridgeOptions) -> Result<Arc<Fdb>, Refusal> {
    let fdb = Fdb::new(options.fdb_limit_or_default()).map_err(|e| invalid("bridge", name, e))?;
    fdb.set_damping(damping(options));
    Ok(Arc::new(fdb))
}

fn damping(options: &BridgeOptions) -> Damping {
    Damping::after(options.move_limit_or_default())
}

fn check(spec: &BridgeSpec) -> Result<(), Refusal> {
    match spec.check().as_slice() {
        [] => Ok(()),
        mistakes => Err(invalid("bridge", &spec.name, mistakes.join("; "))),
    }
}
