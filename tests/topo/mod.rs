//! Words for tests that need network namespaces.
//!
//! ```text
//!            Net                      one private world for each test
//!   ┌─────────┴─────────┐
//!  home     host "a"   host "b"       a network namespace each
//! ```
//!
//! The switch, or the kernel's bridge, lives in `net.home()`; what it connects lives in hosts.
//! A [`Host`] is a file descriptor of a namespace: nothing has a name outside the test, nothing needs to be deleted, and
//! the kernel takes a namespace down with its last descriptor, also when a test panics.
//! So tests run side by side in one process, and never touch the namespace they were started in.
//!
//! Two traps that this module keeps tests out of: `/proc/self/net` is the view of the *main* thread (it is
//! `/proc/thread-self/net` that follows [`Host::run`]), and `/sys/class/net` shows the namespace of whoever mounted it.
#![allow(dead_code, reason = "each test binary compiles this module for itself and speaks a part of it")]

use std::{
    env,
    fs::File,
    io::{self, Write as _},
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    panic,
    path::PathBuf,
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

pub(crate) mod frame;
pub(crate) mod kernel_vtep;
pub(crate) mod monitor;
pub(crate) mod ovs;
pub(crate) mod packet;
pub(crate) mod pattern;
pub(crate) mod random;
pub(crate) mod switch;
pub(crate) mod traffic;
pub(crate) mod underlay;
pub(crate) mod vtep;

/// A private world: a namespace for the switch, and as many hosts as the test asks for.
#[derive(Debug)]
pub(crate) struct Net {
    home: Host,
}

impl Net {
    /// A new world, or `None` (and a line that says why) where this process may not make namespaces.
    pub(crate) fn new() -> Option<Self> {
        match Host::unshare("home") {
            Ok(home) => Some(Self { home }),
            Err(e) => {
                skipped(&format!(
                    "this process may not make network namespaces ({e}); run as root, or under `unshare -Urn`"
                ));
                None
            }
        }
    }

    /// The namespace of the switch.
    pub(crate) fn home(&self) -> &Host {
        &self.home
    }

    /// A new host, with its loopback interface up.
    pub(crate) fn host(&self, name: &str) -> Host {
        let host = Host::unshare(name).unwrap_or_else(|e| panic!("host {name}: no new namespace: {e}"));
        // A host that has been up for long has its link-local addresses, and forwards over IPv6, which it does not for the two seconds of
        // duplicate address detection.
        for conf in ["all", "default"] {
            host.sysctl(&format!("net/ipv6/conf/{conf}/accept_dad"), "0");
        }
        host
    }

    /// [`Host::kernel_bridge`] in [`home`](Self::home).
    pub(crate) fn kernel_bridge(&self, bridge: &str) {
        self.home.kernel_bridge(bridge);
    }

    /// [`Host::veth`] from [`home`](Self::home).
    pub(crate) fn veth(&self, port: &str, host: &Host, ifname: &str) {
        self.home.veth(port, host, ifname);
    }

    /// [`Host::plug`] in [`home`](Self::home).
    pub(crate) fn plug(&self, bridge: &str, port: &str, host: &Host, ifname: &str) {
        self.home.plug(bridge, port, host, ifname);
    }
}

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Host {
    name: String,
    netns: OwnedFd,
}

impl Host {
    fn unshare(name: &str) -> io::Result<Self> {
        // A thread of its own, because the namespace of a thread that ends goes back to nobody else.
        let netns = in_thread(|| {
            // SAFETY: `NEWNET` replaces the network namespace of the calling thread and shares or closes no descriptor.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
        })?;
        let host = Self { name: name.to_owned(), netns };
        host.ip("link set dev lo up");
        Ok(host)
    }

    /// The name the test gave it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A path of the namespace, for `--netns PATH`; it lives as long as the host and the test process.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process::id(), self.netns.as_raw_fd()).into()
    }

    /// Runs `f` in this namespace and answers with what it returns; a panic in `f` is a panic here.
    ///
    /// Sockets that `f` opens, and threads and processes that it starts, stay in the namespace: a whole engine can be
    /// started by `net.home().run(…)`.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            move_into_link_name_space(self.netns.as_fd(), Some(LinkNameSpaceType::Network))
                .unwrap_or_else(|e| panic!("host {}: cannot enter the namespace: {e}", self.name));
            f()
        })
    }

    /// Runs `ip ARGS` here. What it printed is the answer; a failure is a panic that shows the command and its words.
    #[track_caller]
    pub(crate) fn ip(&self, args: &str) -> String {
        self.try_ip(args).unwrap_or_else(|e| panic!("host {}: ip {args}: {e}", self.name))
    }

    /// Runs `ip ARGS` here, where the answer may be no.
    pub(crate) fn try_ip(&self, args: &str) -> io::Result<String> {
        self.command(Command::new("ip").args(args.split_whitespace()))
    }

    /// Runs a command here to its end. What it printed is the answer; its complaint is the error.
    pub(crate) fn command(&self, command: &mut Command) -> io::Result<String> {
        let out = self.run(|| command.output())?;
        if !out.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&out.stderr).trim().to_owned()));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Makes a bridge of the kernel here, without STP and without IPv6 of its own.
    ///
    /// Netfilter is kept away from bridged frames: where `br_netfilter` is loaded it judges them as a router would, and
    /// drops what a bridge has to carry (an IPv4 header with a wrong checksum, for one).
    pub(crate) fn kernel_bridge(&self, bridge: &str) {
        for family in ["ip", "ip6", "arp"] {
            self.sysctl(&format!("net/bridge/bridge-nf-call-{family}tables"), "0");
        }
        self.ip(&format!("link add name {bridge} type bridge stp_state 0 mcast_snooping 0"));
        self.no_ipv6(bridge);
        self.ip(&format!("link set dev {bridge} up"));
    }

    /// A cable: `ifname` in `other`, and its other end `port` here; both up, without addresses, `port` without IPv6.
    pub(crate) fn veth(&self, port: &str, other: &Self, ifname: &str) {
        let netns = other.path();
        self.ip(&format!("link add name {port} type veth peer name {ifname} netns {}", netns.display()));
        self.no_ipv6(port);
        self.ip(&format!("link set dev {port} up"));
        other.ip(&format!("link set dev {ifname} up"));
    }

    /// [`veth`](Self::veth), and `port` is a port of the kernel's `bridge`.
    pub(crate) fn plug(&self, bridge: &str, port: &str, other: &Self, ifname: &str) {
        self.veth(port, other, ifname);
        self.ip(&format!("link set dev {port} master {bridge}"));
    }

    /// Gives `ifname` an address, usable at once (without duplicate address detection).
    #[track_caller]
    pub(crate) fn address(&self, ifname: &str, cidr: &str) {
        let nodad = if cidr.contains(':') { "nodad" } else { "" };
        self.ip(&format!("address add {cidr} dev {ifname} {nodad}"));
    }

    /// Stops IPv6 on `ifname`, so that no router solicitation or MLD report gets between the frames of a test.
    #[track_caller]
    pub(crate) fn no_ipv6(&self, ifname: &str) {
        self.sysctl(&format!("net/ipv6/conf/{ifname}/disable_ipv6"), "1");
    }

    /// Sets a knob of this namespace under `/proc/sys`; a kernel without the knob is left as it is.
    #[track_caller]
    pub(crate) fn sysctl(&self, knob: &str, value: &str) {
        match self.run(|| std::fs::write(format!("/proc/sys/{knob}"), value)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => panic!("host {}: {knob}: {e}", self.name),
        }
    }

    /// The MTU of an interface.
    #[track_caller]
    pub(crate) fn mtu(&self, ifname: &str) -> u32 {
        let shown = self.ip(&format!("link show dev {ifname}"));
        let mut words = shown.split_whitespace().skip_while(|word| *word != "mtu");
        words.nth(1).and_then(|mtu| mtu.parse().ok()).unwrap_or_else(|| panic!("no MTU in {shown}"))
    }

    /// Whether this host has an interface called `ifname`.
    pub(crate) fn has_interface(&self, ifname: &str) -> bool {
        self.try_ip(&format!("link show dev {ifname}")).is_ok()
    }

    /// Sends one ICMP or ICMPv6 echo request of 56 octets and waits for the answer.
    ///
    /// For five seconds: a machine under load may notice the carrier of a new interface late, so that the first question for
    /// a neighbour is lost, and the kernel asks again after a second.
    pub(crate) fn ping(&self, to: impl Into<IpAddr>) -> bool {
        self.ping_with(to, 56, Duration::from_secs(5)).is_some()
    }

    /// Sends one echo request of `len` octets; the round trip, if the same octets came back in time.
    ///
    /// Don't-fragment is set on IPv4, so that `len` tests the MTU of the path.
    pub(crate) fn ping_with(&self, to: impl Into<IpAddr>, len: usize, timeout: Duration) -> Option<Duration> {
        let to = to.into();
        self.run(|| traffic::echo(to, len, timeout))
            .unwrap_or_else(|e| panic!("host {}: ping {to}: {e}", self.name))
    }

    /// A socket that sends and receives whole Ethernet frames at `ifname`.
    #[track_caller]
    pub(crate) fn packet_socket(&self, ifname: &str) -> packet::PacketSocket {
        self.run(|| packet::PacketSocket::open(ifname, false))
            .unwrap_or_else(|e| panic!("host {}: packet socket at {ifname}: {e}", self.name))
    }

    /// The same with a virtio header before each frame, which the kernel takes from and gives to the test.
    #[track_caller]
    pub(crate) fn vnet_socket(&self, ifname: &str) -> packet::PacketSocket {
        self.run(|| packet::PacketSocket::open(ifname, true))
            .unwrap_or_else(|e| panic!("host {}: packet socket at {ifname}: {e}", self.name))
    }
}

fn in_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|s| s.spawn(f).join()).unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Says that a test did not run, and why, also when the test harness captures what tests print.
///
/// With `TAPWAY_TEST_REQUIRE=1`, as in CI, it is a failure: there, everything is expected to run.
#[track_caller]
pub(crate) fn skipped(reason: &str) {
    assert!(env::var_os("TAPWAY_TEST_REQUIRE").is_none_or(|v| v != "1"), "may not be skipped here: {reason}");
    let test = thread::current().name().unwrap_or("test").to_owned();
    // `eprintln!` would be captured; if standard error is gone, there is nobody to tell.
    let _ = writeln!(io::stderr(), "{test}: skipped: {reason}");
}

/// Whether this is the guest that `tests/guest.rs` boots. A test for it returns where it is not, because the host's kernel may
/// lack what it needs; a line says where it runs, and `tests/guest.rs` sees to it that it does.
pub(crate) fn in_guest() -> bool {
    let inside = emulated();
    if !inside {
        let test = thread::current().name().unwrap_or("test").to_owned();
        let _ = writeln!(io::stderr(), "{test}: runs in the guest (tests/guest.rs)");
    }
    inside
}

/// Whether this is the guest, whose processors may be emulated, at a tenth of the speed: long transfers are shorter there.
pub(crate) fn emulated() -> bool {
    env::var_os("TAPWAY_TEST_GUEST").is_some_and(|v| v == "1")
}

/// Waits until `cond` holds; panics with `what` if it does not within `within`.
#[track_caller]
pub(crate) fn wait_until(what: &str, within: Duration, mut cond: impl FnMut() -> bool) {
    let start = Instant::now();
    while !cond() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
