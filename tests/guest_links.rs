//! What the kernel can put under a tunnel of ours and over a port of ours, in the guest: an underlay that loses, delays, reorders
//! and corrupts; VLAN interfaces, macvlan and ipvlan on a TAP.
//!
//! ```text
//!   client 1 ── tunnel ── site 0 ── netem ═══ underlay ═══ netem ── site 1 ── tunnel ── client 2
//!
//!   host a: eth0.10 ─ eth0 (TAP) ── trunk 10,20 ┤ br0 ├ access 10 ── host b
//! ```

mod topo;

use std::{net::IpAddr, process::Command};

use topo::{
    Host, Net, in_guest,
    kernel_vtep::{kernel_vtep, v4, v6},
    switch::Switch,
    traffic,
    underlay::{Site, UNDERLAY, Underlay},
    vtep::{Vtep, Way},
};

/// 10 ms of round trip, with so much jitter that packets overtake each other; every tenth is lost, every hundredth has a bit
/// that is wrong, and as many come twice.
const BAD_WEATHER: &str = "netem delay 5ms 2ms loss 10% corrupt 1% duplicate 1%";

fn tc(site: &Site, words: &str) -> String {
    site.host
        .command(Command::new("tc").args(words.split_whitespace()))
        .unwrap_or_else(|e| panic!("tc {words}: {e}"))
}

/// A transfer between the clients after the weather has changed. The sites know each other by then: no checksum protects ARP.
fn transfer_in_bad_weather(underlay: &Underlay, what: &str, [a, b]: [&Host; 2]) {
    assert!(a.ping(v4(2)) && b.ping(v4(1)), "{what}");
    for site in underlay.sites() {
        tc(site, &format!("qdisc add dev {UNDERLAY} root {BAD_WEATHER}"));
    }
    let lost = |site: &Site| {
        let shown = tc(site, &format!("-s qdisc show dev {UNDERLAY}"));
        let dropped =
            shown.split("dropped ").nth(1).and_then(|rest| rest.split(',').next()?.parse::<u32>().ok());
        dropped.unwrap_or_else(|| panic!("no drops in {shown}")) > 0
    };
    for _ in 0..20 {
        traffic::tcp(a, b, v4(2), 128 << 10);
        if underlay.sites().iter().all(lost) {
            return;
        }
    }
    panic!("{what}: nothing was lost");
}

#[test]
fn tcp_to_the_kernel_keeps_its_payload_where_packets_are_lost_late_twice_and_wrong() {
    if !in_guest() {
        return;
    }
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(2) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let vtep = Vtep::at(&underlay, 0, way, false);
        let (local, remote) = (vtep.local(), vtep.far());
        let words = format!("id 42 local {remote} remote {local} udpcsum");
        let Some(far) = kernel_vtep(&net, underlay.site(1), 2, &words) else { return };
        let near = vtep.start(&net, &switch, &format!("--type vxlan --vni 42 --remote {remote}"));
        transfer_in_bad_weather(&underlay, &format!("{way:?}"), [&near, &far]);
    }
}

#[test]
fn tcp_between_ours_keeps_its_payload_where_packets_are_lost_late_twice_and_wrong() {
    if !in_guest() {
        return;
    }
    for (kind, way) in [("vxlan", Way::Sockets), ("geneve", Way::Uplink)] {
        let Some((net, switch)) = Switch::new(2) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let ends = [0, 1].map(|n| Vtep::at(&underlay, n, way, false));
        let [a, b] = [0, 1].map(|n| {
            let words = format!("--type {kind} --vni 42 --remote {}", ends[1 - n].local());
            ends[n].start(&net, &switch, &words)
        });
        transfer_in_bad_weather(&underlay, &format!("{kind}, {way:?}"), [&a, &b]);
    }
}

/// An interface over another, up, with the `n`-th address.
fn over(host: &Host, name: &str, below: &str, words: &str, n: u8) {
    host.ip(&format!("link add link {below} name {name} type {words}"));
    host.address(name, &format!("{}/24", v4(n)));
    host.address(name, &format!("{}/64", v6(n)));
    host.ip(&format!("link set dev {name} up"));
}

#[test]
fn vlan_interfaces_on_a_tap_exchange_tagged_frames() {
    if !in_guest() {
        return;
    }
    for offload in ["on", "off"] {
        let Some((net, switch)) = Switch::new(1) else { return };
        switch.bridge("br0");
        let [trunk, access, other] = ["trunk", "access", "other"].map(|name| net.host(name));
        switch.tap("trunk", &trunk, &format!("--trunk 10,20 --offload {offload}"));
        switch.tap("access", &access, &format!("--access 10 --address {}/24 --address {}/64", v4(2), v6(2)));
        switch.tap("other", &other, &format!("--access 20 --address {}/24", v4(2)));
        over(&trunk, "eth0.10", "eth0", "vlan id 10", 1);
        assert!(trunk.ping(v4(2)) && access.ping(v6(1)), "offload {offload}");
        // No `UDP_SEGMENT`, as in `payloads`: without offloads this kernel refuses it (EIO).
        for (a, b, to) in [(&trunk, &access, v4(2).into()), (&access, &trunk, IpAddr::from(v6(1)))] {
            traffic::udp(a, b, to, &traffic::PAYLOADS);
            traffic::writes(a, b, to, &traffic::PAYLOADS);
            traffic::tcp(a, b, to, 1 << 20);
        }
        // The same addresses in the other VLAN are other hosts.
        let before = switch.show("other").tx.frames;
        traffic::tcp(&trunk, &access, v4(2), 100_000);
        assert_eq!(switch.show("other").tx.frames, before, "VLAN 20 hears nothing of VLAN 10");
    }
}

#[test]
fn a_customers_vlan_interface_reaches_one_under_a_service_tag() {
    if !in_guest() {
        return;
    }
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let [customer, provider] = ["customer", "provider"].map(|name| net.host(name));
    switch.tap("customer", &customer, "--qinq 100");
    switch.tap("provider", &provider, "--trunk 100,200");
    over(&customer, "eth0.7", "eth0", "vlan id 7", 1);
    provider.ip("link add link eth0 name eth0.100 type vlan protocol 802.1ad id 100");
    provider.ip("link set dev eth0.100 mtu 1496 up"); // room for the customer's tag
    over(&provider, "eth0.100.7", "eth0.100", "vlan id 7", 2);
    customer.ip("link set dev eth0.7 mtu 1496");
    assert!(customer.ping(v4(2)) && provider.ping(v6(1)));
    traffic::payloads(&customer, &provider, v4(2));
    traffic::payloads(&provider, &customer, v6(1));
}

/// Moves an interface into a host of its own.
fn into(net: &Net, from: &Host, name: &str) -> Host {
    let host = net.host(name);
    from.ip(&format!("link set dev {name} netns {}", host.path().display()));
    host
}

#[test]
fn hosts_behind_macvlan_and_ipvlan_share_a_tap() {
    if !in_guest() {
        return;
    }
    for words in ["macvlan mode bridge", "macvlan mode vepa", "ipvlan mode l2"] {
        let Some((net, switch)) = Switch::new(1) else { return };
        switch.bridge("br0");
        let (parent, far) = (net.host("parent"), net.host("far"));
        // A port in VEPA mode sends back to where a frame came from (IEEE 802.1Qbg): two hosts behind one port.
        let hairpin = if words.contains("vepa") { "--hairpin on" } else { "" };
        switch.tap("parent", &parent, hairpin);
        switch.tap("far", &far, &format!("--address {}/24 --address {}/64", v4(9), v6(9)));
        let [one, two] = [1, 2].map(|n: u8| {
            let name = format!("sub{n}");
            parent.ip(&format!("link add link eth0 name {name} type {words}"));
            let host = into(&net, &parent, &name);
            host.address(&name, &format!("{}/24", v4(n)));
            host.address(&name, &format!("{}/64", v6(n)));
            host.ip(&format!("link set dev {name} up"));
            host
        });
        for (a, b, to) in [(&one, &far, 9), (&two, &far, 9), (&one, &two, 2)] {
            assert!(a.ping(v4(to)), "{words}: {} to {}", a.name(), b.name());
            traffic::tcp(a, b, v4(to), 1 << 20);
            traffic::tcp(a, b, v6(to), 1 << 20);
        }
    }
}
