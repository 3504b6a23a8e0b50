//! Topology files: what differs, all of it or nothing, and the way back into a file.

use super::Engine;
use crate::{
    api::{Plan, Refusal, Reply},
    config::{BridgeSpec, Change, DeviceName, FdbSpec, Mistake, NeighSpec, SourceLines, Topology, plan},
};

impl Engine {
    /// What runs, as a file would say it.
    fn running(&self) -> Topology {
        let bridge = |(name, state): (&_, &super::BridgeState)| BridgeSpec {
            name: Clone::clone(name),
            options: state.options.clone(),
        };
        Topology {
            device: self.device_specs(),
            bridge: self.bridges.iter().map(bridge).collect(),
            uplink: self.uplink_specs(),
            port: self.ports.values().map(|state| state.spec.clone()).collect(),
            fdb: self.fdb_specs(),
            neigh: self.neigh_specs(),
        }
    }

    pub(super) fn export(&self) -> Reply {
        let config = self.running();
        Reply::Exported { topology: config.to_toml(), config }
    }

    pub(super) fn apply(&mut self, text: &str, dry_run: bool, prune: bool) -> Result<Reply, Refusal> {
        let (desired, lines) = Topology::parse(text).map_err(|mistakes| Refusal::Topology { mistakes })?;
        let mut changes = plan(&self.running(), &desired, prune, self.workers.len() as u16);
        // Before anything is made on them, and after what is in the way is gone.
        let repairs = self.repairs(&desired.device, &changes);
        let at = changes.iter().position(Change::makes).unwrap_or(changes.len());
        changes.splice(at..at, repairs);
        let steps = changes.iter().map(Into::into).collect();
        if !dry_run {
            self.carry_out(&changes, &lines)?;
        }
        Ok(Reply::Plan(Plan { steps, applied: !dry_run }))
    }

    /// Does all of it, or undoes what it has done.
    ///
    /// What the kernel deletes slowly one by one is deleted together: devices that follow each other in the plan, and the interfaces
    /// of ports before the next step that is not a deletion.
    fn carry_out(&mut self, changes: &[Change], lines: &SourceLines) -> Result<(), Refusal> {
        self.leaving = Some(Vec::new());
        let mut done = 0;
        let mut result = Ok(());
        while let Some(change) = changes.get(done) {
            if change.makes() || matches!(change, Change::DelDevice { .. }) {
                self.ports_end();
            }
            let devices: Vec<&DeviceName> = changes[done..].iter().map_while(deleted_device).collect();
            let step = if devices.is_empty() {
                self.carry_out_one(change).map_err(|refusal| (0, refusal))
            } else {
                self.devices_del(&devices)
            };
            if let Err((gone, refusal)) = step {
                let line = line_of(&changes[done + gone], lines).unwrap_or(0);
                let mistakes = vec![Mistake { line, message: refusal.to_string() }];
                result = Err(Refusal::Topology { mistakes });
                self.ports_end();
                self.undo(&changes[..done + gone]);
                break;
            }
            done += devices.len().max(1);
        }
        self.ports_end();
        self.leaving = None;
        result
    }

    fn undo(&mut self, done: &[Change]) {
        for back in done.iter().rev().map(Change::undo) {
            if back.makes() {
                self.ports_end();
            }
            if let Err(error) = self.carry_out_one(&back) {
                tracing::error!(%error, "a step of a failed apply could not be undone");
            }
        }
    }

    fn carry_out_one(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::AddBridge(spec) => self.bridge_add(spec).map(drop),
            Change::SetBridge { new, .. } => self.bridge_replace(&new.name, &new.options).map(drop),
            Change::DelBridge(spec) => self.bridge_del(&spec.name),
            Change::AddDevice(spec) => self.device_add(spec).map(drop),
            Change::SetDevice { new, .. } => self.device_replace(new).map(drop),
            Change::DelDevice { device, .. } => self.device_del(&device.name),
            Change::AddUplink(spec) => self.uplink_add(spec).map(drop),
            Change::DelUplink { uplink, .. } => self.uplink_del(&uplink.name),
            Change::AddPort(spec) => self.port_add(spec).map(drop),
            Change::SetPort { new, .. } => self.port_replace(&new.name, &new.options).map(drop),
            Change::DelPort { port, .. } => self.port_del(&port.name),
            Change::AddFdb(spec) => self.fdb_add(spec).map(drop),
            Change::SetFdb { new, .. } => self.fdb_put(new),
            Change::DelFdb(FdbSpec { mac, bridge, vlan, .. }) => self.fdb_del(*mac, bridge, *vlan),
            Change::AddNeigh(spec) => self.neigh_add(spec).map(drop),
            Change::SetNeigh { new, .. } => self.neigh_put(new),
            Change::DelNeigh(NeighSpec { ip, bridge, vlan, .. }) => self.neigh_del(bridge, *vlan, *ip),
        }
    }

    /// Sets an entry whatever stood there.
    fn fdb_put(&mut self, spec: &FdbSpec) -> Result<(), Refusal> {
        self.fdb_del(spec.mac, &spec.bridge, spec.vlan)?;
        self.fdb_add(spec).map(drop)
    }
}

fn deleted_device(change: &Change) -> Option<&DeviceName> {
    match change {
        Change::DelDevice { device, .. } => Some(&device.name),
        _ => None,
    }
}

/// Where in the file stands what a change is about; a removal is about what does not.
fn line_of(change: &Change, lines: &SourceLines) -> Option<u32> {
    match change {
        Change::AddBridge(b) | Change::SetBridge { new: b, .. } => lines.line("bridge", b.name.as_str()),
        Change::AddPort(p) => lines.line("port", p.name.as_str()),
        Change::SetPort { new: p, .. } => lines.line("port", p.name.as_str()),
        Change::AddDevice(d) => lines.line("device", d.name.as_str()),
        Change::SetDevice { new: d, .. } => lines.line("device", d.name.as_str()),
        Change::AddUplink(u) => lines.line("uplink", u.name.as_str()),
        Change::AddFdb(f) | Change::SetFdb { new: f, .. } => lines.line("fdb", &f.key()),
        Change::AddNeigh(n) | Change::SetNeigh { new: n, .. } => lines.line("neigh", &n.key()),
        Change::DelBridge(_)
        | Change::DelDevice { .. }
        | Change::DelUplink { .. }
        | Change::DelPort { .. }
        | Change::DelFdb(_)
        | Change::DelNeigh(_) => None,
    }
}
