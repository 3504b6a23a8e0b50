//! Kernel devices: what was asked for beside what the kernel has.

use serde_json::Value;
use tapway_dataplane::api::DeviceView;

use super::table::{Align, RED, RESET, Table, YELLOW, or_dash};

/// What concerns an operator most: red where there is no such device, yellow where it is another than was asked for.
fn colour(device: &DeviceView) -> Option<&'static str> {
    match device.state.as_str() {
        "ok" => None,
        "drifted" => Some(YELLOW),
        _ => Some(RED),
    }
}

/// As much as fits a terminal of 80 columns, as observed; below it what is not as desired. `--json` has the rest.
pub(crate) fn devices(devices: &[DeviceView]) -> String {
    let mut table = Table::new(&[
        ("DEVICE", Align::Left),
        ("TYPE", Align::Left),
        ("NETNS", Align::Left),
        ("STATE", Align::Left),
        ("OPER", Align::Left),
        ("MTU", Align::Right),
        ("MASTER", Align::Left),
        ("ADDRESS", Align::Left),
    ]);
    for d in devices {
        let seen = d.observed.as_ref();
        let address = seen.and_then(|s| s.address.first());
        let cells = [
            d.name.to_string(),
            d.kind.to_string(),
            or_dash(d.netns.as_ref()),
            d.state.clone(),
            or_dash(seen.map(|s| &s.oper)),
            or_dash(seen.map(|s| &s.mtu)),
            or_dash(seen.and_then(|s| s.master.as_ref())),
            or_dash(address),
        ];
        table.coloured(colour(d), cells);
    }
    let mut text = table.text();
    for d in devices {
        for drift in &d.drift {
            text += &format!("{YELLOW}{}: {drift}{RESET}\n", d.name);
        }
    }
    text
}

/// A value as the command line has it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
        Value::Array(all) => all.iter().map(shown).collect::<Vec<_>>().join(","),
        Value::Object(all) => {
            all.iter().map(|(key, value)| format!("{key}={}", shown(value))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// Every setting that was given, and every that the kernel tells.
pub(crate) fn device(device: &DeviceView) -> String {
    let rows = |object: &Value| -> Vec<(String, String)> {
        let all = object.as_object().into_iter().flatten();
        all.map(|(key, value)| (key.clone(), shown(value))).collect()
    };
    // Cannot fail: both serialize as flat objects.
    let desired = rows(&serde_json::to_value(&device.desired).unwrap_or_default());
    let observed = rows(&serde_json::to_value(&device.observed).unwrap_or_default());
    let mut keys: Vec<&String> = desired.iter().map(|(key, _)| key).collect();
    for (key, _) in &observed {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut table =
        Table::new(&[("SETTING", Align::Left), ("DESIRED", Align::Left), ("OBSERVED", Align::Left)]);
    let of = |all: &[(String, String)], key: &String| {
        or_dash(all.iter().find(|(other, _)| other == key).map(|(_, value)| value))
    };
    for key in keys {
        table.row([key.clone(), of(&desired, key), of(&observed, key)]);
    }
    let mut text = match colour(device) {
        Some(colour) => format!("{} is {colour}{}{RESET}\n", device.name, device.state),
        None => format!("{} is {}\n", device.name, device.state),
    };
    for drift in &device.drift {
        text += &format!("  {YELLOW}{drift}{RESET}\n");
    }
    text + &table.text()
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use serde_json::json;

    use super::*;

    fn view(more: Value) -> DeviceView {
        let mut view = json!({
            "name": "v0", "type": "veth", "state": "ok", "desired": { "name": "v0", "type": "veth", "mtu": 1400, "peer": { "name": "v1" } },
            "observed": { "index": 7, "type": "veth", "mtu": 1400, "up": true, "oper": "up", "address": ["198.51.100.1/24"] }
        });
        view.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn what_is_not_as_desired_stands_out_and_is_told_below() {
        let drifted =
            json!({ "name": "v1", "netns": "c1", "state": "drifted", "drift": ["mtu: 1400 -> 1500"] });
        let mut missing = view(json!({ "name": "v2", "state": "missing" }));
        missing.observed = None;
        let text = devices(&[view(json!({})), view(drifted), missing]);
        assert_eq!(
            strip_str(&text).to_string(),
            "DEVICE  TYPE  NETNS  STATE    OPER   MTU  MASTER  ADDRESS\n\
             v0      veth  -      ok       up    1400  -       198.51.100.1/24\n\
             v1      veth  c1     drifted  up    1400  -       198.51.100.1/24\n\
             v2      veth  -      missing  -        -  -       -\n\
             v1: mtu: 1400 -> 1500\n"
        );
        assert!(text.contains(RED) && text.contains(YELLOW));
    }

    #[test]
    fn one_device_is_shown_as_desired_and_as_observed() {
        let text = device(&view(json!({})));
        let text = strip_str(&text).to_string();
        assert!(text.starts_with("v0 is ok\nSETTING  DESIRED  OBSERVED\n"), "{text}");
        assert!(text.lines().any(|l| l.split_whitespace().eq(["mtu", "1400", "1400"])), "{text}");
        assert!(text.lines().any(|l| l.split_whitespace().eq(["peer", "name=v1", "-"])), "{text}");
        assert!(text.lines().any(|l| l.split_whitespace().eq(["address", "-", "198.51.100.1/24"])), "{text}");
    }
}
