//! The topology, and the scripts that make the same and take it away.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use tapway_dataplane::config::Topology;

const BRIDGES: usize = 50;
const PORTS: usize = 200;
/// Of the 200 devices: bridges of the kernel with an address, pairs whose one end is in such a bridge, and TAPs in them.
const KERNEL_BRIDGES: usize = 20;
const PAIRS: usize = 120;
const TAPS: usize = 60;

pub(crate) fn title() -> String {
    format!("{} devices, {PORTS} ports and {BRIDGES} bridges", KERNEL_BRIDGES + PAIRS + TAPS)
}

/// What `tapwayctl apply` is given.
pub(crate) fn topology() -> String {
    let mut text = String::new();
    for n in 0..BRIDGES {
        let _ = writeln!(text, "[[bridge]]\nname = \"b{n}\"");
    }
    for n in 0..KERNEL_BRIDGES {
        let address = n + 1;
        let _ = writeln!(
            text,
            "[[device]]\nname = \"k{n}\"\ntype = \"bridge\"\naddress = \"198.51.100.{address}/32\""
        );
    }
    for n in 0..PAIRS {
        let (master, address) = (n % KERNEL_BRIDGES, n + 1);
        let _ = writeln!(
            text,
            "[[device]]\nname = \"v{n}\"\ntype = \"veth\"\nmtu = 1400\nmaster = \"k{master}\"\n\
             peer = {{ name = \"w{n}\", address = \"203.0.113.{address}/32\" }}"
        );
    }
    for n in 0..TAPS {
        let master = n % KERNEL_BRIDGES;
        let _ = writeln!(
            text,
            "[[device]]\nname = \"t{n}\"\ntype = \"tap\"\nowner = 1000\nmaster = \"k{master}\""
        );
    }
    for n in 0..PORTS {
        let bridge = n % BRIDGES;
        let _ = writeln!(text, "[[port]]\nname = \"p{n}\"\nbridge = \"b{bridge}\"");
    }
    text
}

/// What `ip -batch` is given: one line a request, as a person would write them.
pub(crate) fn script() -> String {
    let mut text = String::new();
    for n in 0..BRIDGES {
        let _ = writeln!(text, "link add b{n} type bridge\nlink set b{n} up");
    }
    for n in 0..KERNEL_BRIDGES {
        let address = n + 1;
        let _ = writeln!(
            text,
            "link add k{n} type bridge\naddress add 198.51.100.{address}/32 dev k{n}\nlink set k{n} up"
        );
    }
    for n in 0..PAIRS {
        let (master, address) = (n % KERNEL_BRIDGES, n + 1);
        let _ = writeln!(
            text,
            "link add v{n} mtu 1400 type veth peer name w{n} mtu 1400\nlink set v{n} master k{master} up\n\
             address add 203.0.113.{address}/32 dev w{n}\nlink set w{n} up"
        );
    }
    for n in 0..TAPS {
        let master = n % KERNEL_BRIDGES;
        let _ = writeln!(text, "tuntap add t{n} mode tap user 1000\nlink set t{n} master k{master} up");
    }
    for n in 0..PORTS {
        let bridge = n % BRIDGES;
        let _ = writeln!(text, "tuntap add p{n} mode tap\nlink set p{n} master b{bridge} up");
    }
    text
}

/// And what takes it away again.
pub(crate) fn removal() -> String {
    let mut text = String::new();
    for (prefix, count) in [("p", PORTS), ("t", TAPS), ("v", PAIRS), ("k", KERNEL_BRIDGES), ("b", BRIDGES)] {
        for n in 0..count {
            let _ = writeln!(text, "link del {prefix}{n}");
        }
    }
    text
}

/// What needs no namespace: the topology is one, and the script makes as many interfaces as it has.
pub(crate) fn check() -> Result<()> {
    let (all, _) = Topology::parse(&topology()).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
    ensure!((all.device.len(), all.port.len(), all.bridge.len()) == (200, 200, 50), "{}", title());
    let made = script().lines().filter(|line| line.contains(" add ") && !line.starts_with("address")).count();
    ensure!(made == removal().lines().count(), "the script makes {made} and deletes others");
    println!("topology: self-check passed; `cargo bench -p tapway --bench topology` measures");
    Ok(())
}
