//! The kernel's bridge with VLAN filtering as the oracle, in the guest: the same frames, under every kind of tag, enter by the
//! same ports of both, and must leave by the same ports with the same octets.
//!
//! ```text
//!   host 0 ── access 10 ──┐          ┌── trunk 10,20 ──────────── host 3
//!   host 1 ── access 20 ──┤  bridge  ├── trunk 20,30, native 10 ── host 4
//!   host 2 ── access 10 ──┘          ├── access 30 ────────────── host 5
//!                                    └── trunk 10,20,30 ───────── hub, which says "everything before me has passed"
//! ```
//!
//! Three differences are by intention. They are left out of the random frames, and the last test says what each of the two does:
//!
//! - An access port of ours refuses a tag that names its own VLAN; the kernel knows members and no modes, and takes it.
//! - A service tag at a bridge of 802.1Q names a VLAN to us, and is payload to the kernel.
//! - A customer tag at a trunk of service VLANs names a VLAN to us, and is payload to a bridge of the kernel's of 802.1ad.
//!
//! And those that `tests/netns_oracle.rs` names.

mod topo;

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use topo::{
    Host, Net,
    frame::{self, BROADCAST, EXPERIMENTAL, mac},
    in_guest,
    packet::PacketSocket,
    random::Random,
    switch::Switch,
    traffic::pattern,
};

const STATIONS: usize = 4;
const FRAMES: usize = 100;
const LONG: Duration = Duration::from_secs(10);
/// The type of the frames that say "everything before me has passed".
const SENTINEL: u16 = EXPERIMENTAL + 1;
/// Customer and service tags (IEEE 802.1Q-2018 table 9-1).
const CUSTOMER: [u8; 2] = [0x81, 0x00];
const SERVICE: [u8; 2] = [0x88, 0xa8];

/// A port: our words for it, and its VLANs, each with whether it has a tag. Those without have the frames without.
struct Port {
    ours: &'static str,
    vlans: &'static [(u16, bool)],
}

/// Ports, of which the last is the hub's and in every VLAN; the kind of their tags, and what the kernel calls it.
struct Plan {
    ports: &'static [Port],
    tags: [u8; 2],
    protocol: &'static str,
}

const CUSTOMERS: Plan = Plan {
    ports: &[
        Port { ours: "--access 10", vlans: &[(10, false)] },
        Port { ours: "--access 20 --offload off", vlans: &[(20, false)] },
        Port { ours: "--access 10 --offload off", vlans: &[(10, false)] },
        Port { ours: "--trunk 10,20", vlans: &[(10, true), (20, true)] },
        Port { ours: "--trunk 20,30 --native 10", vlans: &[(10, false), (20, true), (30, true)] },
        Port { ours: "--access 30", vlans: &[(30, false)] },
        Port { ours: "--trunk 10,20,30", vlans: &[(10, true), (20, true), (30, true)] },
    ],
    tags: CUSTOMER,
    protocol: "802.1Q",
};

const SERVICES: Plan = Plan {
    ports: &[
        Port { ours: "--qinq 100", vlans: &[(100, false)] },
        Port { ours: "--qinq 100 --offload off", vlans: &[(100, false)] },
        Port { ours: "--qinq 200", vlans: &[(200, false)] },
        Port { ours: "--trunk 100", vlans: &[(100, true)] },
        Port { ours: "--trunk 100,200", vlans: &[(100, true), (200, true)] },
        Port { ours: "--trunk 100,200 --offload off", vlans: &[(100, true), (200, true)] },
    ],
    tags: SERVICE,
    protocol: "802.1ad",
};

impl Plan {
    fn hub(&self) -> usize {
        self.ports.len() - 1
    }

    /// A tag of its kind.
    fn tag(&self, tci: u16) -> [u8; 4] {
        tagged(self.tags, tci)
    }
}

fn tagged(kind: [u8; 2], tci: u16) -> [u8; 4] {
    let [a, b] = tci.to_be_bytes();
    [kind[0], kind[1], a, b]
}

/// What came out at each port.
type Copies = Vec<Vec<Vec<u8>>>;

/// Hosts at a bridge, and a socket in each.
struct Subject {
    name: &'static str,
    plan: &'static Plan,
    _hosts: Vec<Host>,
    sockets: Vec<PacketSocket>,
    sentinels: u32,
}

impl Subject {
    fn new(name: &'static str, plan: &'static Plan, net: &Net, plug: impl Fn(usize, &Port, &Host)) -> Self {
        let plugged = plan.ports.iter().enumerate().map(|(n, port)| {
            let host = net.host(&format!("h{n}"));
            host.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
            plug(n, port, &host);
            host
        });
        let hosts: Vec<Host> = plugged.collect();
        let sockets = hosts.iter().map(|host| host.packet_socket("eth0")).collect();
        Self { name, plan, _hosts: hosts, sockets, sentinels: 0 }
    }

    fn kernel(plan: &'static Plan, net: &Net) -> Self {
        net.kernel_bridge("br0");
        let words = format!("vlan_filtering 1 vlan_protocol {} vlan_default_pvid 0", plan.protocol);
        net.home().ip(&format!("link set dev br0 type bridge no_linklocal_learn 1 {words}"));
        Self::new("the kernel's bridge", plan, net, |n, port, host| {
            net.plug("br0", &format!("p{n}"), host, "eth0");
            for (vlan, tagged) in port.vlans {
                let flags = if *tagged { "" } else { "pvid untagged" };
                let words = format!("vlan add dev p{n} vid {vlan} {flags}");
                net.home()
                    .command(Command::new("bridge").args(words.split_whitespace()))
                    .unwrap_or_else(|e| panic!("bridge {words}: {e}"));
            }
        })
    }

    fn ours(plan: &'static Plan, net: &Net, switch: &Switch) -> Self {
        switch.bridge("br0 --move-limit 0"); // stations are here and there, as the kernel lets them be
        Self::new("ours", plan, net, |n, port, host| switch.tap(&format!("p{n}"), host, port.ours))
    }

    /// Sends a frame by a port; what came out at each.
    fn pass(&mut self, ingress: usize, frame: &[u8]) -> Copies {
        self.sockets[ingress].send(frame).unwrap_or_else(|e| panic!("{}: {e}: {frame:02x?}", self.name));
        let mut out = vec![Vec::new(); self.plan.ports.len()];
        // A bridge keeps the order of frames by one port: what the hub hears of the sentinel behind the frame, all have heard of
        // the frame.
        let hub = self.plan.hub();
        let last = self.sentinel(ingress, self.plan.ports[ingress].vlans[0]);
        self.collect(hub, last, &mut out[hub]);
        let sent: Vec<_> =
            self.plan.ports[hub].vlans.iter().map(|vlan| (vlan.0, self.sentinel(hub, *vlan))).collect();
        for (n, out) in out.iter_mut().enumerate().filter(|(n, _)| *n != hub) {
            for (_, number) in sent.iter().filter(|(vlan, _)| self.is_in(n, *vlan)) {
                self.collect(n, *number, out);
            }
        }
        out
    }

    fn is_in(&self, port: usize, vlan: u16) -> bool {
        self.plan.ports[port].vlans.iter().any(|(other, _)| *other == vlan)
    }

    /// Broadcasts a sentinel in a VLAN by a port; its number.
    fn sentinel(&mut self, by: usize, (vlan, tagged): (u16, bool)) -> u32 {
        self.sentinels += 1;
        let tag = self.plan.tag(vlan);
        let tags = if tagged { std::slice::from_ref(&tag) } else { &[] };
        let octets = self.sentinels.to_be_bytes();
        let sentinel = frame::frame(BROADCAST, mac(100 + by as u8), tags, SENTINEL, &octets);
        self.sockets[by].send(&sentinel).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        self.sentinels
    }

    /// What comes at a port before sentinel `number`, without other sentinels.
    fn collect(&self, port: usize, number: u32, out: &mut Vec<Vec<u8>>) {
        loop {
            let Some(got) = self.sockets[port].recv(LONG) else {
                panic!("{}: no sentinel {number} at port {port}", self.name)
            };
            match sentinel_number(&got.frame) {
                Some(other) if other == number => return,
                Some(_) => {}
                None => out.push(got.frame),
            }
        }
    }
}

fn sentinel_number(frame: &[u8]) -> Option<u32> {
    let at = if [CUSTOMER, SERVICE].iter().any(|kind| frame[12..14] == *kind) { 16 } else { 12 };
    let octets = frame[at..].strip_prefix(&SENTINEL.to_be_bytes())?;
    Some(u32::from_be_bytes(*octets.first_chunk()?))
}

/// The frames that a seed leads to.
struct Frames(Random);

impl Frames {
    fn station(&mut self) -> [u8; 6] {
        mac(1 + self.0.below(STATIONS) as u8)
    }

    fn destination(&mut self) -> [u8; 6] {
        match self.0.below(12) {
            0..8 => self.station(),
            8 => mac(200 + self.0.below(20) as u8), // nobody
            9 => BROADCAST,
            10 => [0x01, 0, 0x5e, 0, 0, self.0.below(256) as u8], // IPv4 multicast (RFC 1112)
            _ => [0x33, 0x33, 0, 0, 0, self.0.below(256) as u8],  // IPv6 multicast (RFC 2464)
        }
    }

    /// A TCI: now and then with priority and drop eligibility; one of these VLANs, or one that nobody has.
    fn tci(&mut self, vlans: &[u16]) -> u16 {
        let priority = if self.0.below(2) == 0 { 0 } else { self.0.below(16) as u16 };
        let vlan = match self.0.below(8) {
            0 => self.0.one(&[1, 11, 40, 101, 4094, 4095]),
            1 => 0, // a priority tag
            _ => self.0.one(vlans),
        };
        priority << 12 | vlan
    }

    fn with(&mut self, tags: &[[u8; 4]]) -> Vec<u8> {
        let kind = self.0.one(&[EXPERIMENTAL, 46, 0x0800, 0x0806, 0x86dd]);
        // An interface takes a tag off what it receives where two octets follow the type behind it (`skb_vlan_untag`).
        // And a socket sends a packet of the MTU under one customer tag (`packet_extra_vlan_len_allowed`); any other is part of
        // the packet.
        let free = tags.first().is_some_and(|tag| tag.starts_with(&CUSTOMER));
        let longest = 1500 - 4 * (tags.len() - usize::from(free));
        let len = self.0.one(&[2, 3, 46, 100, 500, longest - 4, longest]);
        let seed = self.0.below(1 << 20) as u64;
        frame::frame(self.destination(), self.station(), tags, kind, &pattern(len, seed))
    }

    /// At a bridge of [`CUSTOMERS`]: none, one or two customer tags, or a service tag behind one.
    fn customers(&mut self, port: &Port) -> Vec<u8> {
        let mut tci = self.tci(&[10, 20, 30]);
        // Left out: the tag that an access port refuses.
        while port.ours.starts_with("--access") && port.vlans[0].0 == tci & 0xfff {
            tci = self.tci(&[10, 20, 30]);
        }
        let (outer, inner) = (tagged(CUSTOMER, tci), self.tci(&[10, 20, 30]));
        // An access port refuses most of them.
        let some = if port.ours.starts_with("--access") { self.0.below(4) } else { 0 };
        match if some == 0 { self.0.below(8) } else { 0 } {
            0..3 => self.with(&[]),
            3..6 => self.with(&[outer]),
            6 => self.with(&[outer, tagged(CUSTOMER, inner)]),
            _ => self.with(&[outer, tagged(SERVICE, inner)]),
        }
    }

    /// At a bridge of [`SERVICES`]: a customer's frames at a customer's port, and under a service tag at a trunk.
    fn services(&mut self, port: &Port) -> Vec<u8> {
        let (outer, inner) = (self.tci(&[100, 200]), self.tci(&[7, 100, 200]));
        let customer = tagged(CUSTOMER, inner);
        let tags: &[[u8; 4]] = match self.0.below(4) {
            0 => &[],
            1 => &[customer, tagged(CUSTOMER, outer)],
            _ => &[customer],
        };
        if port.ours.starts_with("--qinq") {
            return self.with(tags);
        }
        // Left out: frames that begin with a customer tag.
        match self.0.below(8) {
            0 => self.with(&[]),
            _ => self.with(&[&[tagged(SERVICE, outer)], tags].concat()),
        }
    }
}

/// Random frames by all ports but the hub's, compared.
fn compare(plan: &'static Plan, next: impl Fn(&mut Frames, &Port) -> Vec<u8>) {
    if !in_guest() {
        return;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    for seed in [1, u64::from(now.subsec_nanos())] {
        println!("seed {seed}");
        let Some((net, switch)) = Switch::new(1) else { return };
        let mut ours = Subject::ours(plan, &net, &switch);
        let oracle_net = Net::new().expect("a second one like the first");
        let mut oracle = Subject::kernel(plan, &oracle_net);
        let mut frames = Frames(Random(seed));
        let (mut unicast, mut flooded, mut dropped, mut changed) = (0, 0, 0, 0);
        for n in 0..FRAMES {
            let ingress = frames.0.below(plan.hub());
            let sent = next(&mut frames, &plan.ports[ingress]);
            let (got, want) = (ours.pass(ingress, &sent), oracle.pass(ingress, &sent));
            let ports = |out: &Copies| out.iter().map(Vec::len).collect::<Vec<_>>();
            let what = format!(
                "seed {seed}, frame {n} by port {ingress}, {} octets: {:02x?}",
                sent.len(),
                &sent[..sent.len().min(22)]
            );
            assert_eq!(ports(&got), ports(&want), "copies at each port, ours and the kernel's; {what}");
            assert_eq!(got, want, "octets; {what}");
            changed += want.iter().flatten().filter(|frame| **frame != sent).count();
            match want.iter().map(Vec::len).sum() {
                0 => dropped += 1,
                1 => unicast += 1,
                _ => flooded += 1,
            }
        }
        assert!(
            unicast > 2 && flooded > 2 && dropped > 2 && changed > 10,
            "{unicast} to one, {flooded} to several, {dropped} to none, {changed} with another tag"
        );
    }
}

#[test]
fn customer_tags_come_and_go_as_the_kernels_bridge_would_have_them() {
    compare(&CUSTOMERS, Frames::customers);
}

#[test]
fn service_tags_come_and_go_as_the_kernels_bridge_would_have_them() {
    compare(&SERVICES, Frames::services);
}

#[test]
fn where_ours_and_the_kernels_bridge_differ_it_is_by_intention() {
    if !in_guest() {
        return;
    }
    let made = |tags: &[[u8; 4]]| frame::frame(BROADCAST, mac(1), tags, EXPERIMENTAL, &pattern(60, 1));
    for (what, plan, ingress, tag, ours, kernels) in [
        // The kernel's access port takes the tag; ours does not.
        (
            "own tag",
            &CUSTOMERS,
            0,
            tagged(CUSTOMER, 10),
            [0, 0, 0, 0, 0, 0, 0].as_slice(),
            [0, 0, 1, 1, 1, 0, 1].as_slice(),
        ),
        // VLAN 20 by the tag; VLAN 10, the native one, with the tag as payload.
        ("service tag", &CUSTOMERS, 4, tagged(SERVICE, 20), &[0, 1, 0, 1, 0, 0, 1], &[1, 0, 1, 1, 0, 0, 1]),
        // VLAN 200 by the tag; in no VLAN, for want of a native one.
        ("customer tag", &SERVICES, 4, tagged(CUSTOMER, 200), &[0, 0, 1, 0, 0, 1], &[0, 0, 0, 0, 0, 0]),
    ] {
        let Some((net, switch)) = Switch::new(1) else { return };
        let oracle_net = Net::new().expect("a second one like the first");
        for (mut subject, want) in
            [(Subject::ours(plan, &net, &switch), ours), (Subject::kernel(plan, &oracle_net), kernels)]
        {
            let out = subject.pass(ingress, &made(&[tag]));
            let copies: Vec<usize> = out.iter().map(Vec::len).collect();
            assert_eq!(copies, want, "{what}, {}", subject.name);
        }
    }
}
