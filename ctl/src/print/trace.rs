//! What the switch would do with a frame.

use tapway_dataplane::api::Trace;

use super::table::{Align, BOLD, RED, RESET, Table, or_dash};

pub(crate) fn trace(t: &Trace) -> String {
    let width = t.steps.iter().map(|s| s.step.len()).max().unwrap_or(0);
    let mut text = t
        .steps
        .iter()
        .fold(String::new(), |text, s| text + &format!("{BOLD}{:width$}{RESET}  {}\n", s.step, s.detail));
    text += &match &t.reason {
        Some(reason) => format!("{RED}{}: {reason}{RESET}\n", t.verdict),
        None => format!("{BOLD}{}{RESET}\n", t.verdict),
    };
    if t.outputs.is_empty() {
        return text;
    }
    let tunnels = t.outputs.iter().any(|o| o.remote.is_some() || o.vni.is_some());
    let mut columns = vec![("PORT", Align::Left), ("VLAN", Align::Right), ("TAG", Align::Left)];
    if tunnels {
        columns.extend([("REMOTE", Align::Left), ("VNI", Align::Right)]);
    }
    let mut table = Table::new(&columns);
    for o in &t.outputs {
        let tag = if o.tagged { "tagged" } else { "untagged" };
        let mut row = vec![o.port.to_string(), o.vlan.to_string(), tag.to_owned()];
        if tunnels {
            row.extend([or_dash(o.remote.as_ref()), or_dash(o.vni.as_ref())]);
        }
        table.row(row);
    }
    text + &table.text()
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use tapway_dataplane::api::{TraceOutput, TraceStep};

    use super::*;

    #[test]
    fn a_trace_shows_the_steps_the_verdict_and_the_ways_out() {
        let step = |step: &str, detail: &str| TraceStep { step: step.to_owned(), detail: detail.to_owned() };
        let mut t = Trace {
            verdict: "flood".to_owned(),
            reason: None,
            steps: vec![step("parse", "60 octets"), step("admit", "VLAN 10")],
            outputs: vec![TraceOutput {
                port: "vm2".parse().unwrap(),
                vlan: 10,
                tagged: true,
                remote: None,
                vni: None,
            }],
        };
        assert_eq!(
            strip_str(&trace(&t)).to_string(),
            "parse  60 octets\nadmit  VLAN 10\nflood\nPORT  VLAN  TAG\nvm2     10  tagged\n"
        );
        (t.verdict, t.reason, t.outputs) = ("drop".to_owned(), Some("runt".to_owned()), vec![]);
        assert!(strip_str(&trace(&t)).to_string().ends_with("\ndrop: runt\n"));
    }
}
