//! From names to indices: the snapshot of what the engine holds.

use std::sync::Arc;

use super::{
    Engine,
    bridges::BridgeState,
    ports::{Oper, PortState},
    tunnels,
};
use crate::{
    bridge::{Member, Members},
    index::BridgeIdx,
    snapshot::{Bridge, Port, Snapshot, UplinkEnd},
};

/// That of an uplink, whose frames are no bridge's.
const NO_BRIDGE: BridgeIdx = BridgeIdx(u16::MAX);

impl Engine {
    /// The snapshot after the one that runs. Bridges whose ports have not changed are taken over as they are.
    pub(super) fn compile(&mut self) -> Snapshot {
        let mut ports: Vec<Option<Port>> = vec![None; self.port_names.len()];
        for state in self.ports.values() {
            if let Some(bridge) = self.bridges.get(&state.spec.bridge) {
                ports[state.idx.at()] = Some(state.compile(bridge));
            }
        }
        for state in self.uplinks.values() {
            let vteps = self.underlay.vteps().filter(|vtep| vtep.uplink == Some(state.idx));
            let end = UplinkEnd {
                uplink: state.uplink.path().clone(),
                vteps: vteps.map(|vtep| (vtep.address.local.port(), vtep.idx)).collect(),
            };
            let port = Port {
                oper_up: state.oper == Oper::Up,
                uplink: Some(Arc::new(end)),
                stats: Arc::clone(&state.stats),
                ..Port::new(NO_BRIDGE, 0)
            };
            ports[state.idx.at()] = Some(port);
        }
        let mut bridges = vec![None; self.bridge_names.len()];
        for (name, state) in &mut self.bridges {
            let compiled = state.compiled.take().unwrap_or_else(|| {
                let of_bridge: Vec<(&PortState, &Port)> = self
                    .ports
                    .values()
                    .filter(|p| p.spec.bridge == *name)
                    .filter_map(|p| Some((p, ports[p.idx.at()].as_ref()?)))
                    .collect();
                Arc::new(state.compile(&of_bridge))
            });
            state.compiled = Some(Arc::clone(&compiled));
            bridges[state.idx.at()] = Some(compiled);
        }
        let of_tunnels: Vec<&PortState> = self.ports.values().filter(|p| p.tunnel.is_some()).collect();
        let fdb_remotes = &self.fdb_remotes;
        let remotes = Arc::clone(&self.underlay.remotes);
        let vteps =
            self.underlay.compile(|vtep| tunnels::compile_vtep(vtep, &of_tunnels, fdb_remotes, &remotes));
        Snapshot {
            generation: self.snapshot.generation + 1,
            bridges,
            ports,
            vteps,
            remotes: Arc::clone(&self.underlay.remotes),
        }
    }
}

impl BridgeState {
    fn compile(&self, ports: &[(&PortState, &Port)]) -> Bridge {
        let named = ports.iter().flat_map(|(_, port)| port.vlan.named());
        let members = Members::new(ports, named, |(state, port), vlan| {
            // A port that is down is no member: what is flooded goes past it without being counted as lost.
            let tagged = port.vlan.tags(vlan).filter(|_| port.is_up())?;
            let options = &state.spec.options;
            let classes = Member::classes(
                options.bcast_flood_or_default().0,
                options.mcast_flood_or_default().0,
                options.flood_or_default().0,
            );
            Some(Member { port: state.idx, tagged, classes, isolated: port.isolated })
        });
        Bridge { fdb: Arc::clone(&self.fdb), members, neighbours: Arc::clone(&self.neighbours) }
    }
}
