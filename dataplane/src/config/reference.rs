//! The help texts and the reference page against the code.

use clap::{Args, Command};

use super::{
    keys::{FdbOptions, NeighOptions},
    *,
};

const PAGE: &str = include_str!("../../../docs/reference/config.md");

/// Every flag of a struct: its key, and the default that its help text names.
fn flags<T: Args>() -> Vec<(String, Option<String>)> {
    let command = T::augment_args(Command::new("x"));
    let flag = |arg: &clap::Arg| {
        let key = arg.get_long().unwrap_or(arg.get_id().as_str()).replace('-', "_");
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let default =
            help.split_once("[default: ").and_then(|(_, rest)| Some(rest.split_once(']')?.0.to_owned()));
        (key, default)
    };
    command.get_arguments().map(flag).collect()
}

/// Those of a device, where several flags are one key: a peer is a table, and `--down` is the other side of `--up`.
fn device_flags() -> Vec<(String, Option<String>)> {
    let mut all = flags::<DeviceSpec>();
    all.retain(|(key, _)| key != "down" && !key.starts_with("peer_"));
    all
}

/// The row of a key in the table of the page under `heading`, as cells.
fn row(heading: &str, key: &str) -> Vec<&'static str> {
    let section = PAGE.split("\n## ").find(|s| s.starts_with(heading)).expect(heading);
    let start = format!("| `{key}` |");
    let line = section.lines().find(|line| line.starts_with(&start));
    line.unwrap_or_else(|| panic!("{key} is not in the section {heading}"))
        .split('|')
        .map(str::trim)
        .collect()
}

#[test]
fn the_page_has_every_key_with_the_default_of_the_help_text() {
    let kinds = [
        ("[[bridge]]", flags::<BridgeSpec>()),
        ("[[port]]", flags::<PortSpec>()),
        ("[[fdb]]", flags::<FdbSpec>()),
        ("[[uplink]]", flags::<UplinkSpec>()),
        ("[[neigh]]", flags::<NeighSpec>()),
        ("[[device]]", device_flags()),
    ];
    for (heading, flags) in kinds {
        for (key, default) in flags {
            let cells = row(heading, &key);
            let default = default.unwrap_or_default();
            assert!(
                cells[3].contains(&default),
                "{heading} {key}: the page says {:?}, the help {default:?}",
                cells[3]
            );
            assert!(
                cells.len() == 8 && cells[1..6].iter().all(|c| !c.is_empty()),
                "{heading} {key}: {cells:?}"
            );
        }
    }
}

#[test]
fn the_flags_are_the_keys() {
    let of = |flags: Vec<(String, Option<String>)>, required: usize| -> Vec<String> {
        flags.into_iter().skip(required).map(|(key, _)| key).collect()
    };
    assert_eq!(of(flags::<BridgeSpec>(), 1), keys_of::<BridgeOptions>());
    assert_eq!(of(flags::<PortSpec>(), 2), keys_of::<PortOptions>());
    let mut fdb = of(flags::<FdbSpec>(), 0);
    fdb.retain(|key| keys_of::<FdbOptions>().contains(&key.as_str()));
    assert_eq!(fdb, keys_of::<FdbOptions>());
    assert_eq!(of(flags::<UplinkSpec>(), 2), keys_of::<UplinkOptions>());
    assert_eq!(of(flags::<NeighSpec>(), 3), keys_of::<NeighOptions>());
    assert_eq!(of(device_flags(), 2), keys_of::<DeviceOptions>());
}

#[test]
fn the_help_texts_name_the_defaults_in_force() {
    let port: PortSpec = toml::from_str("name = \"p\"\nbridge = \"b\"").unwrap();
    let port = diff::table_of(&port.effective(1));
    let of_type = |kind: &str| {
        let text = format!("name = \"p\"\nbridge = \"b\"\ntype = \"{kind}\"");
        let mut all = diff::table_of(&toml::from_str::<PortSpec>(&text).unwrap().effective(1));
        all.remove("type");
        all
    };
    let (vxlan, geneve) = (of_type("vxlan"), of_type("geneve"));
    let (netdev, vhost_user) = (of_type("netdev"), of_type("vhost-user"));
    let kinds = [vxlan, geneve, netdev, vhost_user].into_iter().flatten();
    let bridge = diff::table_of(&BridgeOptions::default().effective());
    let uplink: UplinkSpec = toml::from_str("name = \"u\"\naddress = \"198.51.100.1/24\"").unwrap();
    let uplink = diff::table_of(&uplink.effective(1));
    let device = |kind: DeviceType| {
        let text = format!("name = \"d\"\ntype = \"{kind}\"");
        diff::table_of(&toml::from_str::<DeviceSpec>(&text).unwrap().effective())
    };
    let mut devices: toml::Table = DeviceType::ALL.into_iter().flat_map(device).collect();
    // On or off is not said by a value there.
    devices.remove("up");
    let kinds = [
        (device_flags().into_iter().skip(2).collect(), devices),
        (flags::<BridgeOptions>(), bridge),
        (flags::<PortOptions>(), port.into_iter().chain(kinds).collect()),
        (flags::<UplinkOptions>(), uplink),
    ];
    // What depends on the daemon or the port is said in words.
    let in_words = [
        "ifname",
        "netns",
        "mac",
        "mtu",
        "queues",
        "gateway",
        "dst_port",
        "remote_check",
        "listen",
        "connect",
        "mac_limit",
        "storm_limit",
        "mode",
        "dstport",
        "ttl",
        "owner",
        "vnet_hdr",
        "link_netns",
    ];
    for (key, default, table) in
        kinds.iter().flat_map(|(flags, table)| flags.iter().map(move |(k, d)| (k, d.clone(), table)))
    {
        let in_force = table.get(key).map(|value| match value {
            toml::Value::Boolean(on) => OnOff(*on).to_string(),
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        if !in_words.contains(&key.as_str()) {
            assert_eq!(default, in_force, "{key}");
        }
    }
}

#[test]
fn the_limits_on_the_page_are_those_that_are_checked() {
    for (heading, key) in [
        ("[[bridge]]", "ageing"),
        ("[[bridge]]", "fdb_limit"),
        ("[[port]]", "access"),
        ("[[port]]", "native"),
        ("[[port]]", "qinq"),
        ("[[port]]", "mtu"),
        ("[[port]]", "dst_port"),
        ("[[port]]", "queues"),
        ("[[fdb]]", "vlan"),
        ("[[uplink]]", "mtu"),
        ("[[uplink]]", "queues"),
        ("[[neigh]]", "vlan"),
        ("[[device]]", "dstport"),
        ("[[device]]", "queues"),
        ("[[device]]", "ageing"),
    ] {
        let range = check::limit(key).expect(key);
        let text = format!("{} to {}", range.start(), range.end());
        assert!(row(heading, key)[4].contains(&text), "{heading} {key}: {text}");
    }
}

#[test]
fn the_examples_of_the_page_are_topologies() {
    let mut examples =
        PAGE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let first = examples.next().expect("a whole example");
    let (topology, _) = Topology::parse(first).unwrap();
    assert!(!topology.bridge.is_empty() && !topology.port.is_empty() && !topology.fdb.is_empty());
    for example in examples {
        assert!(Topology::parse(example).is_ok(), "{example}: {:?}", Topology::parse(example));
    }
    // The example in the last cell of each row, alone in an object of its kind.
    for (heading, head) in [
        ("[[bridge]]", "name = \"x\"\n"),
        ("[[port]]", "name = \"x\"\nbridge = \"x\"\n"),
        ("[[fdb]]", "mac = \"02:00:00:00:00:01\"\nbridge = \"x\"\nport = \"x\"\n"),
        ("[[uplink]]", "name = \"x\"\naddress = \"198.51.100.1/24\"\n"),
        ("[[device]]", "name = \"x\"\ntype = \"dummy\"\n"),
        ("[[neigh]]", "ip = \"198.51.100.1\"\nmac = \"02:00:00:00:00:01\"\nbridge = \"x\"\n"),
    ] {
        let section = PAGE.split("\n## ").find(|s| s.starts_with(heading)).expect(heading);
        for line in section.lines().filter(|line| line.starts_with("| `")) {
            let example = line.split('|').map(str::trim).nth(5).unwrap_or_default().trim_matches('`');
            let key = example.split(' ').next().unwrap_or_default();
            let rest: String = head
                .lines()
                .filter(|l| !l.starts_with(&format!("{key} =")))
                .map(|l| format!("{l}\n"))
                .collect();
            let text = format!("{rest}{example}\n");
            let read = match heading {
                "[[bridge]]" => toml::from_str::<BridgeSpec>(&text).map(drop),
                "[[port]]" => toml::from_str::<PortSpec>(&text).map(drop),
                "[[fdb]]" => toml::from_str::<FdbSpec>(&text).map(drop),
                "[[device]]" => toml::from_str::<DeviceSpec>(&text).map(drop),
                "[[uplink]]" => toml::from_str::<UplinkSpec>(&text).map(drop),
                _ => toml::from_str::<NeighSpec>(&text).map(drop),
            };
            assert!(read.is_ok(), "{line}: {read:?}");
            assert!(line.starts_with(&format!("| `{key}` |")), "{line}: the example is of another key");
        }
    }
}
