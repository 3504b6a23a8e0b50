//! Addresses that move too often: what the log and the operator hear of them.

use super::Engine;
use crate::{
    config::{BridgeName, PortName},
    fdb::{Damped, Dest, Settled},
    tick::Tick,
};

/// Lines of the log for one bridge in one round, and notices of one bridge: a loop holds thousands of addresses, and a few tell of it.
const LINES: usize = 8;

impl Engine {
    /// Ends the holds that have had their time, and logs who is held and who no more.
    pub(super) fn settle_damped(&self, now: Tick) {
        for (name, state) in &self.bridges {
            let Settled { held, released } = state.fdb.settle(now);
            for damped in first(&held) {
                let (mac, vlan) = (damped.key.mac(), damped.key.vlan());
                let (on, elsewhere) = (self.place(damped.dest), self.place(damped.elsewhere));
                let moves = damped.moves;
                tracing::warn!(bridge = %name, %mac, vlan, on, elsewhere, moves, "address damped: it moves too often");
            }
            for damped in first(&released) {
                let (mac, vlan) = (damped.key.mac(), damped.key.vlan());
                tracing::info!(bridge = %name, %mac, vlan, on = self.place(damped.dest), "address released");
            }
            for (what, all) in [("damped", held), ("released", released)] {
                if all.len() > LINES {
                    tracing::warn!(bridge = %name, more = all.len() - LINES, "further addresses {what}");
                }
            }
        }
    }

    /// A sentence for each address that is held, up to some for each bridge.
    pub(super) fn damped_notices(&self) -> Vec<String> {
        let now = self.clock.now();
        let of_bridge = |name: &BridgeName, mut all: Vec<Damped>| {
            all.sort_by_key(|damped| damped.key);
            let more = all.len().saturating_sub(LINES);
            let one = |damped: &Damped| {
                let vlan = match damped.key.vlan() {
                    0 => String::new(),
                    vlan => format!(" in VLAN {vlan}"),
                };
                let (on, elsewhere) = (self.place(damped.dest), self.place(damped.elsewhere));
                let left = damped.until.nanos().saturating_sub(now.nanos()).div_ceil(1_000_000_000);
                format!(
                    "bridge {name}: {}{vlan} moves between {on} and {elsewhere}, held on {on} for {left} s",
                    damped.key.mac()
                )
            };
            let mut notices: Vec<String> = first(&all).map(one).collect();
            if more > 0 {
                notices.push(format!("bridge {name}: {more} more addresses move too often and are held"));
            }
            notices
        };
        self.bridges.iter().flat_map(|(name, state)| of_bridge(name, state.fdb.damped())).collect()
    }

    /// A place in words.
    fn place(&self, dest: Dest) -> String {
        format!("port {}", self.port_name(dest.port).map_or("?", PortName::as_str))
    }
}

fn first(all: &[Damped]) -> impl Iterator<Item = &Damped> {
    all.iter().take(LINES)
}
