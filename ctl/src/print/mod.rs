//! What people read: pure functions from the daemon's answers to text.
//!
//! Tables are aligned and without lines, as iproute2's are, and a `-` stands where there is nothing. Colour is in the text as escape
//! sequences; the stream takes it out where nobody would see it.

mod device;
mod overlay;
mod port;
mod stats;
mod status;
mod table;
mod trace;

use tapway_dataplane::api::{BridgeView, FdbView, Plan};

pub(crate) use self::{
    device::{device, devices},
    overlay::{neighbours, remotes, uplinks},
    port::{port, ports},
    stats::{Rated, drops, stats},
    status::status,
    trace::trace,
};
use table::{Align, GREEN, RED, RESET, Table, YELLOW, or_dash};

pub(crate) fn bridges(bridges: &[BridgeView]) -> String {
    let mut table = Table::new(&[
        ("BRIDGE", Align::Left),
        ("PORTS", Align::Right),
        ("AGEING", Align::Right),
        ("ENTRIES", Align::Right),
        ("LIMIT", Align::Right),
        ("LEARNED", Align::Right),
        ("MOVED", Align::Right),
        ("EXPIRED", Align::Right),
        ("EVICTED", Align::Right),
        ("REFUSED", Align::Right),
        ("DAMPED", Align::Right),
    ]);
    for b in bridges {
        let refused = b.fdb.refused_full + b.fdb.refused_mac_limit + b.fdb.refused_sticky;
        table.row([
            b.name.to_string(),
            b.ports.to_string(),
            b.ageing.to_string(),
            b.fdb.entries.to_string(),
            b.fdb_limit.to_string(),
            b.fdb.learned.to_string(),
            b.fdb.moved.to_string(),
            b.fdb.expired.to_string(),
            b.fdb.evicted.to_string(),
            refused.to_string(),
            b.fdb.damped.to_string(),
        ]);
    }
    table.text()
}

pub(crate) fn fdb(entries: &[FdbView]) -> String {
    let remotes = entries.iter().any(|e| e.remote.is_some());
    let mut columns = vec![
        ("BRIDGE", Align::Left),
        ("VLAN", Align::Right),
        ("MAC", Align::Left),
        ("PORT", Align::Left),
        ("KIND", Align::Left),
        ("AGE", Align::Right),
    ];
    if remotes {
        columns.push(("REMOTE", Align::Left));
    }
    let mut table = Table::new(&columns);
    for e in entries {
        // An address that an operator wrote does not age.
        let age = if e.kind == "dynamic" { format!("{}s", e.age_s) } else { "-".to_owned() };
        let mut row = vec![
            e.bridge.to_string(),
            e.vlan.to_string(),
            e.mac.to_string(),
            e.port.to_string(),
            // Held where it is, because it moved too often.
            if e.damped { format!("{}, damped", e.kind) } else { e.kind.clone() },
            age,
        ];
        if remotes {
            row.push(or_dash(e.remote.as_ref()));
        }
        table.row(row);
    }
    table.text()
}

pub(crate) fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        let colour = match step.op.as_str() {
            "+" => GREEN,
            "-" => RED,
            _ => YELLOW,
        };
        text += &format!("{colour}{} {} {}{RESET}\n", step.op, step.kind, step.name);
        for change in &step.changes {
            text += &format!("    {change}\n");
        }
    }
    let steps = match plan.steps.len() {
        0 => return "nothing to do: this runs already\n".to_owned(),
        1 => "1 step".to_owned(),
        n => format!("{n} steps"),
    };
    text + &if plan.applied { format!("{steps} done\n") } else { format!("{steps}, none of them done\n") }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use tapway_dataplane::{
        api::{FdbCounts, PlanStep},
        config::OnOff,
    };

    use super::*;

    #[test]
    fn bridges_stand_in_columns_under_their_heads() {
        let bridge = |name: &str, ports, entries| BridgeView {
            name: name.parse().unwrap(),
            ageing: "5m".parse().unwrap(),
            fdb_limit: 65536,
            move_limit: 5,
            neigh_snoop: OnOff(false),
            neighbours: 0,
            ports,
            fdb: FdbCounts {
                entries,
                refused_full: 1,
                refused_sticky: 2,
                damped: 4,
                refused_damped: 99,
                ..Default::default()
            },
        };
        let text = bridges(&[bridge("br0", 2, 1000), bridge("a-long-name", 12, 0)]);
        assert_eq!(
            strip_str(&text).to_string(),
            "BRIDGE       PORTS  AGEING  ENTRIES  LIMIT  LEARNED  MOVED  EXPIRED  EVICTED  REFUSED  DAMPED\n\
             br0              2    300s     1000  65536        0      0        0        0        3       4\n\
             a-long-name     12    300s        0  65536        0      0        0        0        3       4\n"
        );
    }

    #[test]
    fn only_a_learned_entry_has_an_age_and_only_a_tunnel_a_remote() {
        let entry = |kind: &str, remote: Option<&str>| FdbView {
            bridge: "br0".parse().unwrap(),
            vlan: 10,
            mac: "02:00:00:00:00:07".parse().unwrap(),
            port: "vm1".parse().unwrap(),
            remote: remote.map(|r| r.parse().unwrap()),
            kind: kind.to_owned(),
            age_s: 12,
            damped: false,
        };
        let text = fdb(&[entry("dynamic", None), entry("static", None)]);
        assert_eq!(
            strip_str(&text).to_string(),
            "BRIDGE  VLAN  MAC                PORT  KIND     AGE\n\
             br0       10  02:00:00:00:00:07  vm1   dynamic  12s\n\
             br0       10  02:00:00:00:00:07  vm1   static     -\n"
        );
        let text = strip_str(&fdb(&[entry("static", Some("198.51.100.2"))])).to_string();
        assert!(text.ends_with("-  198.51.100.2\n"), "{text}");
        let text = strip_str(&fdb(&[FdbView { damped: true, ..entry("dynamic", None) }])).to_string();
        assert!(text.ends_with("vm1   dynamic, damped  12s\n"), "{text}");
    }

    #[test]
    fn a_plan_says_what_was_done() {
        let step = |op: &str, changes: &[&str]| PlanStep {
            op: op.to_owned(),
            kind: "port".to_owned(),
            name: "vm1".to_owned(),
            changes: changes.iter().map(|&c| c.to_owned()).collect(),
        };
        let text =
            plan(&Plan { steps: vec![step("+", &[]), step("~", &["access: 10 -> 20"])], applied: true });
        assert_eq!(
            strip_str(&text).to_string(),
            "+ port vm1\n~ port vm1\n    access: 10 -> 20\n2 steps done\n"
        );
        let text = plan(&Plan { steps: vec![step("-", &[])], applied: false });
        assert_eq!(strip_str(&text).to_string(), "- port vm1\n1 step, none of them done\n");
        assert!(text.contains(RED));
        assert_eq!(plan(&Plan::default()), "nothing to do: this runs already\n");
    }
}
