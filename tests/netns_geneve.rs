//! Geneve and VXLAN between the switch and Open vSwitch's userspace datapath, by both ways to the underlay.
//!
//! ```text
//!   client 1 ── our bridge and tunnel ── site 0 ═══ underlay ═══ site 1 ── Open vSwitch ── client 2
//! ```
//!
//! The same with Open vSwitch at both ends is `tests/netns_underlay.rs`: what fails there is not the switch.

mod topo;

use std::time::Duration;

use topo::{
    Host, Net,
    kernel_vtep::{v4, v6},
    ovs::Ovs,
    switch::Switch,
    traffic,
    underlay::Underlay,
    vtep::{Vtep, Way},
};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(5);

/// A cable that Open vSwitch can be at, and one at site 1.
macro_rules! cable_with_ovs {
    ($net:expr, $underlay:ident, $ovs:ident) => {
        let $underlay = Underlay::cable($net, 1500);
        if !$underlay.without_offloads() {
            return;
        }
        let Some($ovs) = Ovs::start($underlay.site(1)) else { return };
    };
}

/// Our client at site 0 and Open vSwitch's at site 1, joined by tunnels of a kind.
fn joined(net: &Net, switch: &Switch, vtep: Vtep<'_>, ovs: &Ovs<'_>, kind: &str, flags: &str) -> [Host; 2] {
    let remote = vtep.far();
    ovs.tunnel("overlay", &format!("type={kind} options:remote_ip={} options:key=42", vtep.local()));
    let near = vtep.start(net, switch, &format!("--type {kind} --vni 42 --remote {remote} {flags}"));
    let far = ovs.client(net, 2, vtep.inner_mtu());
    [near, far]
}

#[test]
fn every_payload_reaches_open_vswitch_and_comes_back() {
    for kind in ["geneve", "vxlan"] {
        for way in Way::BOTH {
            for over_v6 in [false, true] {
                let Some((net, switch)) = Switch::new(2) else { return };
                cable_with_ovs!(&net, underlay, ovs);
                let vtep = Vtep::at(&underlay, 0, way, over_v6);
                // Open vSwitch sends no UDP checksum unless it is told, nor over IPv6 (RFC 6935).
                let flags = if over_v6 { "--udp6-zero-csum-rx on" } else { "" };
                let [a, b] = joined(&net, &switch, vtep, &ovs, kind, flags);
                assert!(a.ping(v4(2)) && b.ping(v6(1)), "{kind}, {way:?}, IPv6 {over_v6}");
                traffic::payloads(&a, &b, v4(2));
                traffic::payloads(&b, &a, v6(1));
            }
        }
    }
}

#[test]
fn ours_and_ours_carry_every_payload_over_geneve() {
    for ways in [[Way::Sockets; 2], [Way::Uplink; 2], [Way::Sockets, Way::Uplink]] {
        for over_v6 in [false, true] {
            let Some((net, switch)) = Switch::new(2) else { return };
            let underlay = Underlay::cable(&net, 1500);
            let ends = [0, 1].map(|n| Vtep::at(&underlay, n, ways[n], over_v6));
            let [a, b] = [0, 1].map(|n| {
                let words = format!("--type geneve --vni 42 --remote {}", ends[1 - n].local());
                ends[n].start(&net, &switch, &words)
            });
            assert!(a.ping(v4(2)) && b.ping(v6(1)), "{ways:?}, IPv6 {over_v6}");
            traffic::payloads(&a, &b, v4(2));
            traffic::payloads(&b, &a, v6(1));
        }
    }
}

#[test]
fn an_option_that_is_not_critical_is_skipped_and_a_critical_one_is_not() {
    for way in Way::BOTH {
        // RFC 8926 §3.5: the high-order bit of the type says that it is critical.
        for (kind, passes) in [(0x10, true), (0x90, false)] {
            let Some((net, switch)) = Switch::new(1) else { return };
            cable_with_ovs!(&net, underlay, ovs);
            let vtep = Vtep::at(&underlay, 0, way, false);
            let [_near, far] = joined(&net, &switch, vtep, &ovs, "geneve", "");
            ovs.ofctl(&format!("add-tlv-map br0 {{class=0x102,type={kind:#x},len=4}}->tun_metadata0"));
            ovs.ofctl("add-flow br0 actions=set_field:0x01020304->tun_metadata0,normal");
            if passes {
                assert!(far.ping(v4(1)), "{way:?}");
                assert_eq!(switch.drops("overlay0", "geneve_critical_option"), 0);
            } else {
                assert!(far.ping_with(v4(1), 56, SHORT).is_none(), "{way:?}");
                switch.wait_drop("overlay0", "geneve_critical_option");
            }
        }
    }
}

#[test]
fn an_option_of_ours_is_read_at_the_other_end() {
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        cable_with_ovs!(&net, underlay, ovs);
        let vtep = Vtep::at(&underlay, 0, way, false);
        let [near, far] = joined(&net, &switch, vtep, &ovs, "geneve", "--option 0102:10:01020304");
        ovs.ofctl("add-tlv-map br0 {class=0x102,type=0x10,len=4}->tun_metadata0");
        ovs.ofctl("add-flow br0 priority=9,in_port=overlay,tun_metadata0=0x01020304,actions=normal");
        ovs.ofctl("add-flow br0 priority=8,in_port=overlay,actions=drop");
        assert!(near.ping(v4(2)), "{way:?}: what has not the option is dropped");
        traffic::tcp(&near, &far, v4(2), 1 << 20);
    }
}

#[test]
fn a_packet_of_another_network_is_dropped_by_name() {
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        cable_with_ovs!(&net, underlay, ovs);
        let vtep = Vtep::at(&underlay, 0, way, false);
        let [_near, far] = joined(&net, &switch, vtep, &ovs, "geneve", "");
        assert!(far.ping(v4(1)));
        ovs.vsctl("set interface overlay options:key=43");
        topo::wait_until("the key has changed", LONG, || far.ping_with(v4(1), 56, SHORT).is_none());
        switch.wait_drop(&format!("geneve {}:6081", vtep.local()), "vni_unknown");
    }
}
