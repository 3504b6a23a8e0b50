//! The kernel's own vxlan or geneve device, at a bridge, with a client behind.
//!
//! ```text
//!   client ──eth0──veth──p0┤ br0 ├vxlan0 ── underlay0     all in a site's host, but for the client
//!   client ──eth0──veth──p0┤ br0 ├geneve0 ── underlay0
//! ```
//!
//! What the device is like is said in `ip`'s words: `id 42 local 203.0.113.1 remote 203.0.113.2 dstport 4789`.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    process::Command,
};

use super::{Host, Net, skipped, underlay::Site, underlay::UNDERLAY};

/// IANA's port for VXLAN (RFC 7348 §8.1); `ip` takes the older 8472 if it is not told.
pub(crate) const VXLAN_PORT: u16 = 4789;

/// A client's address in the overlay.
pub(crate) const fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, n)
}

/// The same for IPv6.
pub(crate) const fn v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16)
}

/// Gives a client's eth0 its addresses, the `n`-th of the overlay, and says what it may send.
pub(crate) fn overlay_address(client: &Host, n: u8, mtu: u32) {
    client.ip(&format!("link set dev eth0 mtu {mtu}"));
    client.address("eth0", &format!("{}/24", v4(n)));
    client.address("eth0", &format!("{}/64", v6(n)));
}

/// A vxlan device made, joined to a bridge, with a client behind: [`v4`]`(n)`, [`v6`]`(n)`. `None` (and a line that says
/// why) where the kernel has no vxlan.
///
/// `words` are those of `ip link add … type vxlan` after the device of the underlay, which is said here: so the kernel
/// knows the MTU of the tunnel, and the client has it too. Without `dstport` it is [`VXLAN_PORT`].
pub(crate) fn kernel_vtep(net: &Net, site: &Site, n: u8, words: &str) -> Option<Host> {
    let port = if words.contains("dstport") { String::new() } else { format!("dstport {VXLAN_PORT}") };
    if let Err(e) = site.host.try_ip(&format!("link add vxlan0 type vxlan dev {UNDERLAY} {port} {words}")) {
        // Whoever asks for nonsense is told so; what the kernel was built without is nobody's mistake.
        assert!(e.to_string().contains("Unknown device type"), "vxlan {words}: {e}");
        skipped(&format!("this kernel has no vxlan: {e}"));
        return None;
    }
    Some(behind(net, site, n, "vxlan0"))
}

/// A geneve device made, joined to a bridge, with a client behind: [`v4`]`(n)`, [`v6`]`(n)`. `None` (and a line that says why)
/// where the kernel has no geneve.
///
/// `words` are those of `ip link add … type geneve`: `id 42 remote 203.0.113.2`; its own address is that of the route.
pub(crate) fn kernel_geneve(net: &Net, site: &Site, n: u8, words: &str) -> Option<Host> {
    if let Err(e) = site.host.try_ip(&format!("link add geneve0 type geneve {words}")) {
        assert!(e.to_string().contains("Unknown device type"), "geneve {words}: {e}");
        skipped(&format!("this kernel has no geneve: {e}"));
        return None;
    }
    Some(behind(net, site, n, "geneve0"))
}

/// A client at a bridge with a tunnel's device.
fn behind(net: &Net, site: &Site, n: u8, device: &str) -> Host {
    let client = net.host(&format!("client{n}"));
    site.host.kernel_bridge("br0");
    site.host.plug("br0", "p0", &client, "eth0");
    site.host.no_ipv6(device);
    site.host.ip(&format!("link set dev {device} master br0 up"));
    overlay_address(&client, n, site.host.mtu(device));
    client
}

/// `bridge fdb WORDS` in a site: a remote more for head-end replication (`append 00:00:00:00:00:00 dev vxlan0 dst IP`),
/// or an entry of one address.
#[track_caller]
pub(crate) fn fdb(site: &Site, words: &str) -> String {
    site.host
        .command(Command::new("bridge").arg("fdb").args(words.split_whitespace()))
        .unwrap_or_else(|e| panic!("host {}: bridge fdb {words}: {e}", site.host.name()))
}
