//! Geneve between the switch and the kernel's geneve device, by both ways to the underlay, in the guest.
//!
//! ```text
//!   client 1 ── our bridge and tunnel ── site 0 ═══ underlay ═══ site 1 ── kernel bridge and geneve ── client 2
//! ```
//!
//! The guest's kernel is older than what offers UDP tunnel GSO to a TAP (Linux 6.17): an uplink sends segments here.

mod topo;

use std::time::Duration;

use topo::{
    Host, Net, in_guest,
    kernel_vtep::{kernel_geneve, v4, v6},
    switch::Switch,
    traffic,
    underlay::Underlay,
    vtep::{Vtep, Way},
};

const SHORT: Duration = Duration::from_millis(300);

/// Our client at site 0, and the kernel's at site 1, each with words of its own beside the addresses.
fn with_kernel(
    net: &Net,
    switch: &Switch,
    underlay: &Underlay,
    (way, over_v6): (Way, bool),
    [ours, kernels]: [&str; 2],
) -> Option<[Host; 2]> {
    let vtep = Vtep::at(underlay, 0, way, over_v6);
    let near = vtep.start(net, switch, &format!("--type geneve --vni 42 --remote {} {ours}", vtep.far()));
    let far = kernel_geneve(net, underlay.site(1), 2, &format!("id 42 remote {} {kernels}", vtep.local()))?;
    Some([near, far])
}

#[test]
fn every_payload_reaches_the_kernel_and_comes_back() {
    for way in Way::BOTH {
        for over_v6 in [false, true] {
            if !in_guest() {
                return;
            }
            let Some((net, switch)) = Switch::new(2) else { return };
            let underlay = Underlay::cable(&net, 1500);
            let Some([a, b]) = with_kernel(&net, &switch, &underlay, (way, over_v6), ["", ""]) else {
                return;
            };
            assert!(a.ping(v4(2)) && b.ping(v6(1)), "{way:?}, IPv6 {over_v6}");
            traffic::payloads(&a, &b, v4(2));
            traffic::payloads(&b, &a, v6(1));
        }
    }
}
