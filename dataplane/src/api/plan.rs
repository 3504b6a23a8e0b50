//! A planned change as an operator reads it.

use super::PlanStep;
use crate::config::{Change, Difference};

impl From<&Change> for PlanStep {
    fn from(change: &Change) -> Self {
        let (op, kind, name, differences): (_, _, _, &[Difference]) = match change {
            Change::AddBridge(b) => ("+", "bridge", b.name.to_string(), &[]),
            Change::SetBridge { new, differences, .. } => ("~", "bridge", new.name.to_string(), differences),
            Change::DelBridge(b) => ("-", "bridge", b.name.to_string(), &[]),
            Change::AddPort(p) => ("+", "port", p.name.to_string(), &[]),
            Change::SetPort { new, differences, .. } => ("~", "port", new.name.to_string(), differences),
            Change::DelPort { port, differences } => ("-", "port", port.name.to_string(), differences),
            Change::AddFdb(f) => ("+", "fdb", f.key(), &[]),
            Change::SetFdb { new, differences, .. } => ("~", "fdb", new.key(), differences),
            Change::DelFdb(f) => ("-", "fdb", f.key(), &[]),
            Change::AddDevice(d) => ("+", "device", d.name.to_string(), &[]),
            Change::SetDevice { new, differences, .. } => ("~", "device", new.name.to_string(), differences),
            Change::DelDevice { device, differences } => {
                ("-", "device", device.name.to_string(), differences)
            }
            Change::AddUplink(u) => ("+", "uplink", u.name.to_string(), &[]),
            Change::DelUplink { uplink, differences } => {
                ("-", "uplink", uplink.name.to_string(), differences)
            }
            Change::AddNeigh(n) => ("+", "neigh", n.key(), &[]),
            Change::SetNeigh { new, differences, .. } => ("~", "neigh", new.key(), differences),
            Change::DelNeigh(n) => ("-", "neigh", n.key(), &[]),
        };
        let changes = differences.iter().map(Difference::to_string).collect();
        Self { op: op.to_owned(), kind: kind.to_owned(), name, changes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Topology, plan};

    #[test]
    fn a_replaced_port_is_removed_with_the_reason_and_added() {
        let topology = |queues: u16| {
            let text = format!(
                "bridge = [{{ name = \"br0\" }}]\nport = [{{ name = \"vm1\", bridge = \"br0\", queues = {queues} }}]"
            );
            Topology::parse(&text).unwrap().0
        };
        let steps: Vec<PlanStep> =
            plan(&topology(1), &topology(2), false, 1).iter().map(PlanStep::from).collect();
        let step = |op: &str, changes: &[&str]| PlanStep {
            op: op.into(),
            kind: "port".into(),
            name: "vm1".into(),
            changes: changes.iter().map(|c| (*c).to_owned()).collect(),
        };
        assert_eq!(steps, [step("-", &["queues: 1 -> 2"]), step("+", &[])]);
    }
}
