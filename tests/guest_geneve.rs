//! Geneve between the switch and the kernel's geneve device, by both ways to the underlay, in the guest.
//!
//! ```text
//!   client 1 ── our bridge and tunnel ── site 0 ═══ underlay ═══ site 1 ── kernel bridge and geneve ── client 2
//!
//!   with options, in the place of the bridge:                    site 1 ── geneve0 ◄── tc ──► p0 ── client 2
//! ```
//!
//! The guest's kernel is older than what lets a TAP have super-frames in tunnels (Linux 6.17): an uplink sends segments here.

mod topo;

use std::{process::Command, time::Duration};

use tapway_dataplane::api::{Reply, Request};
use topo::{
    Host, Net,
    frame::{self, BROADCAST, EXPERIMENTAL, TCP4_HEADERS, mac, tcp4, tcp4_vnet},
    in_guest,
    kernel_vtep::{VXLAN_PORT, kernel_geneve, overlay_address, v4, v6},
    packet::PacketSocket,
    switch::Switch,
    traffic::{self, pattern},
    underlay::{Site, UNDERLAY, Underlay},
    vtep::{Vtep, Way},
};

const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(5);
/// IANA's port for Geneve (RFC 8926 §3.3).
const GENEVE_PORT: u16 = 6081;
/// Octets of Ethernet and IPv4 before the outer UDP header.
const OUTER4: usize = 14 + 20;
/// Octets before the inner frame, where there is no option.
const INNER4: usize = OUTER4 + 8 + 8;
/// An option that may be skipped, and one that may not: the high-order bit of the type (RFC 8926 §3.5).
const OPTION: &str = "0102:10:01020304";
const CRITICAL: &str = "0102:90:01020304";

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

/// Our client at site 0, and at site 1 one whose packets get `option` from the kernel, and who hears of those that have it.
fn with_options(
    net: &Net,
    switch: &Switch,
    underlay: &Underlay,
    way: Way,
    [ours, option]: [&str; 2],
) -> [Host; 2] {
    let vtep = Vtep::at(underlay, 0, way, false);
    let (site, local, remote) = (underlay.site(1), vtep.local(), vtep.far());
    let near = vtep.start(net, switch, &format!("--type geneve --vni 42 --remote {remote} {ours}"));
    near.ip("link set dev eth0 mtu 1400"); // the option needs room
    let far = net.host("client2");
    site.host.veth("p0", &far, "eth0");
    site.host.ip("link add geneve0 type geneve external");
    site.host.no_ipv6("geneve0");
    site.host.ip("link set dev geneve0 up");
    overlay_address(&far, 2, 1400);
    let key = format!(
        "src_ip {remote} dst_ip {local} id 42 dst_port {GENEVE_PORT} ttl 64 geneve_opts {option} csum"
    );
    for (from, filter, to) in [
        ("p0", format!("matchall action tunnel_key set {key}"), "geneve0"),
        ("geneve0", format!("flower enc_key_id 42 geneve_opts {OPTION} action tunnel_key unset"), "p0"),
    ] {
        tc(site, &format!("qdisc add dev {from} ingress"));
        let redirect = format!("pipe action mirred egress redirect dev {to}");
        tc(site, &format!("filter add dev {from} ingress protocol all {filter} {redirect}"));
    }
    [near, far]
}

fn tc(site: &Site, words: &str) {
    site.host
        .command(Command::new("tc").args(words.split_whitespace()))
        .unwrap_or_else(|e| panic!("tc {words}: {e}"));
}

/// The next tunnelled packet over IPv4 that comes in, from its Ethernet header on.
fn tunnelled(socket: &PacketSocket, kind: &str) -> Option<Vec<u8>> {
    let port = if kind == "vxlan" { VXLAN_PORT } else { GENEVE_PORT }.to_be_bytes();
    let wanted = |f: &[u8]| f[12..14] == [0x08, 0x00] && f.get(OUTER4 + 2..OUTER4 + 4) == Some(&port);
    socket.recv_where(LONG, wanted).map(|received| received.frame)
}

/// What the kernel's geneve device has refused, of all it got.
fn receive_errors(site: &Site) -> u64 {
    let shown = site.host.ip("-s link show dev geneve0");
    let after = shown.lines().skip_while(|line| !line.trim_start().starts_with("RX:")).nth(1);
    let errors = after.and_then(|numbers| numbers.split_whitespace().nth(2)?.parse().ok());
    errors.unwrap_or_else(|| panic!("no errors in {shown}"))
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

#[test]
fn outer_checksums_are_there_or_not_as_asked_in_either_direction() {
    if !in_guest() {
        return;
    }
    for way in Way::BOTH {
        for (over_v6, ours, kernels) in [
            (false, "--udp-csum off", "udpcsum"),
            (false, "--udp-csum on", "noudpcsum"),
            (true, "--udp-csum off", "udp6zerocsumrx"),
            (true, "--udp-csum on --udp6-zero-csum-rx on", "udp6zerocsumtx"),
        ] {
            let Some((net, switch)) = Switch::new(1) else { return };
            let underlay = Underlay::cable(&net, 1500);
            let socket = underlay.site(1).host.packet_socket(UNDERLAY);
            let Some([a, b]) = with_kernel(&net, &switch, &underlay, (way, over_v6), [ours, kernels]) else {
                return;
            };
            assert!(a.ping(v4(2)), "{way:?}, {ours}, {kernels}");
            if !over_v6 {
                let sum = tunnelled(&socket, "geneve").map(|p| p[OUTER4 + 6..OUTER4 + 8] != [0, 0]);
                assert_eq!(sum, Some(ours == "--udp-csum on"), "{way:?}, {ours}");
            }
            traffic::udp(&a, &b, v4(2), &traffic::PAYLOADS);
            traffic::tcp(&a, &b, v4(2), 1 << 20);
        }
    }
}

#[test]
fn options_cross_in_both_directions_under_every_payload() {
    if !in_guest() {
        return;
    }
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(2) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let ours = format!("--option {OPTION}");
        let [a, b] = with_options(&net, &switch, &underlay, way, [&ours, OPTION]);
        assert!(a.ping(v4(2)) && b.ping(v4(1)), "{way:?}");
        traffic::payloads(&a, &b, v4(2));
        traffic::tcp(&b, &a, v6(1), 1 << 20);
    }
}

#[test]
fn the_kernel_does_not_find_an_option_that_we_do_not_send() {
    if !in_guest() {
        return;
    }
    for (ours, found) in
        [("", false), ("--option 0102:10:01020305", false), ("--option 0102:10:01020304", true)]
    {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let [near, far] = with_options(&net, &switch, &underlay, Way::Sockets, [ours, OPTION]);
        let heard = far.packet_socket("eth0");
        let sent = frame::frame(BROADCAST, mac(1), &[], EXPERIMENTAL, &pattern(60, 1));
        near.packet_socket("eth0").send(&sent).unwrap();
        let within = if found { LONG } else { SHORT };
        assert_eq!(heard.recv_where(within, |frame| frame == sent).is_some(), found, "{ours}");
    }
}

#[test]
fn a_critical_option_of_the_kernel_is_refused_by_name() {
    if !in_guest() {
        return;
    }
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let ours = format!("--option {OPTION}");
        let [_near, far] = with_options(&net, &switch, &underlay, way, [&ours, CRITICAL]);
        assert!(far.ping_with(v4(1), 56, SHORT).is_none(), "{way:?}");
        switch.wait_drop("overlay0", "geneve_critical_option");
    }
}

#[test]
fn the_kernel_skips_an_option_of_ours_and_refuses_a_critical_one() {
    if !in_guest() {
        return;
    }
    for way in Way::BOTH {
        for (option, passes) in [(OPTION, true), (CRITICAL, false)] {
            let Some((net, switch)) = Switch::new(1) else { return };
            let underlay = Underlay::cable(&net, 1500);
            let ours = format!("--option {option}");
            let Some([a, b]) = with_kernel(&net, &switch, &underlay, (way, false), [&ours, ""]) else {
                return;
            };
            if passes {
                assert!(a.ping(v4(2)), "{way:?}");
                traffic::tcp(&a, &b, v4(2), 1 << 20);
                assert_eq!(receive_errors(underlay.site(1)), 0, "{way:?}");
            } else {
                assert!(a.ping_with(v4(2), 56, SHORT).is_none(), "{way:?}");
                assert!(receive_errors(underlay.site(1)) > 0, "{way:?}: they arrive, and are refused");
            }
        }
    }
}

#[test]
fn an_uplink_sends_segments_where_the_kernel_takes_no_super_frames_in_tunnels() {
    if !in_guest() {
        return;
    }
    for kind in ["geneve", "vxlan"] {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let ends = [0, 1].map(|n| Vtep::at(&underlay, n, Way::Uplink, false));
        let [a, b] = [0, 1].map(|n| {
            let words = format!("--type {kind} --vni 42 --remote {}", ends[1 - n].local());
            ends[n].start(&net, &switch, &words)
        });
        assert!(a.ping(v4(2)), "{kind}");
        let Ok(Reply::Uplinks { uplinks }) = switch.call(Request::UplinkList) else { panic!("no uplinks") };
        assert!(uplinks[0].offload.iter().any(|word| word == "tso4"), "{uplinks:?}");
        assert!(!uplinks[0].offload.iter().any(|word| word == "udp_tunnel"), "{uplinks:?}");

        let socket = underlay.site(0).host.packet_socket("uplink0");
        let heard = b.packet_socket("eth0");
        let payload = pattern(20 * 1410, 1);
        a.vnet_socket("eth0").send_with(tcp4_vnet(1410), &tcp4(mac(2), mac(1), &payload)).unwrap();
        // What the clients' stacks say of themselves is on the way too.
        let all = std::iter::from_fn(|| tunnelled(&socket, kind));
        let lengths: Vec<_> =
            all.filter(|f| f[INNER4..INNER4 + 6] == mac(2)).map(|f| f.len()).take(20).collect();
        assert_eq!(lengths, [14 + 1500; 20], "{kind}: each segment fills the underlay");
        // They may be one super-frame again by then.
        let mut arrived: Vec<u8> = Vec::new();
        while arrived.len() < payload.len() {
            let frame = heard.recv_where(LONG, |f| f[..6] == mac(2)).expect("the segments").frame;
            arrived.extend(&frame[TCP4_HEADERS..]);
        }
        assert!(arrived == payload, "{kind}");
    }
}
