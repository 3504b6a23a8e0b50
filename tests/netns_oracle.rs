//! The kernel's bridge as the oracle: the same frames in the same order enter by the same ports of both, and must leave by the
//! same ports with the same octets.
//!
//! ```text
//!   host 0 ──┐         ┌── host 2        six stations that move between four ports,
//!            ├ bridge ─┤                 and every other kind of address
//!   host 1 ──┘         └── host 3
//! ```
//!
//! Two differences are by intention, and kept out. The kernel forwards BPDUs (01:80:c2:00:00:00) while STP is off; we never do.
//! The kernel learns the sender of a frame to another reserved address; we do not (as Open vSwitch), and it is told not to.

mod topo;

use std::time::Duration;

use topo::{
    Host, Net,
    frame::{self, BROADCAST, EXPERIMENTAL, mac},
    packet::PacketSocket,
    random::Random,
    switch::Switch,
    traffic::pattern,
};

const PORTS: usize = 4;
const STATIONS: usize = 6;
const FRAMES: usize = 400;
const LONG: Duration = Duration::from_secs(5);
/// The type of the frames that say "everything before me has passed".
const SENTINEL: u16 = EXPERIMENTAL + 1;

/// Four hosts at a bridge, and a socket in each.
struct Subject {
    name: &'static str,
    _hosts: Vec<Host>,
    sockets: Vec<PacketSocket>,
    sentinels: u32,
}

fn hosts(net: &Net) -> Vec<Host> {
    (0..PORTS)
        .map(|n| {
            let host = net.host(&format!("h{n}"));
            host.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
            host
        })
        .collect()
}

impl Subject {
    fn new(name: &'static str, hosts: Vec<Host>) -> Self {
        let sockets = hosts.iter().map(|h| h.packet_socket("eth0")).collect();
        Self { name, _hosts: hosts, sockets, sentinels: 0 }
    }

    fn kernel(net: &Net) -> Self {
        let hosts = hosts(net);
        net.kernel_bridge("br0");
        net.home().ip("link set dev br0 type bridge no_linklocal_learn 1");
        for (n, host) in hosts.iter().enumerate() {
            net.plug("br0", &format!("p{n}"), host, "eth0");
        }
        Self::new("the kernel's bridge", hosts)
    }

    fn ours(net: &Net, switch: &Switch) -> Self {
        let hosts = hosts(net);
        switch.bridge("br0 --move-limit 0"); // stations are here and there, as the kernel lets them be
        for (n, host) in hosts.iter().enumerate() {
            let offload = if n % 2 == 0 { "on" } else { "off" };
            switch.tap(&format!("p{n}"), host, &format!("--offload {offload}"));
        }
        Self::new("ours", hosts)
    }

    /// Sends a frame by a port; what came out at each.
    fn pass(&mut self, ingress: usize, frame: &[u8]) -> Vec<Vec<Vec<u8>>> {
        self.sockets[ingress].send(frame).unwrap_or_else(|e| panic!("{}: {e}: {frame:02x?}", self.name));
        let mut out = vec![Vec::new(); PORTS];
        // A bridge keeps the order of frames from one port to another. So what leaves by another port has left before the
        // sentinel that follows it, and what comes back before the sentinel from elsewhere that follows that one.
        self.sentinel(ingress, &mut out, |n| n != ingress);
        self.sentinel((ingress + 1) % PORTS, &mut out, |n| n == ingress);
        out
    }

    /// Broadcasts a sentinel by a port and collects what comes before it, at those that are `watched`.
    fn sentinel(&mut self, by: usize, out: &mut [Vec<Vec<u8>>], watched: impl Fn(usize) -> bool) {
        self.sentinels += 1;
        let number = self.sentinels.to_be_bytes();
        let sentinel = frame::frame(BROADCAST, mac(100 + by as u8), &[], SENTINEL, &number);
        self.sockets[by].send(&sentinel).unwrap();
        for (n, (socket, out)) in self.sockets.iter().zip(out).enumerate().filter(|(n, _)| *n != by) {
            loop {
                let got = socket
                    .recv(LONG)
                    .unwrap_or_else(|| panic!("{}: no sentinel from {by} at port {n}", self.name))
                    .frame;
                if got == sentinel {
                    break;
                }
                assert!(watched(n), "{}: a frame at port {n} after its turn: {got:02x?}", self.name);
                out.push(got);
            }
        }
    }
}

/// The frames that a seed leads to.
struct Frames(Random);

impl Frames {
    fn station(&mut self) -> [u8; 6] {
        mac(1 + self.0.below(STATIONS) as u8)
    }

    fn destination(&mut self) -> [u8; 6] {
        match self.0.below(16) {
            0..9 => self.station(),
            9 => mac(200 + self.0.below(50) as u8), // nobody
            10 => BROADCAST,
            11 => [0x01, 0, 0x5e, 0, 0, self.0.below(256) as u8], // IPv4 multicast (RFC 1112)
            12 => [0x33, 0x33, 0, 0, 0, self.0.below(256) as u8], // IPv6 multicast (RFC 2464)
            13 => [0x01, 0x80, 0xc2, 0, 0, 1 + self.0.below(15) as u8], // reserved (802.1Q-2018 table 8-1)
            14 => [0x01, 0x80, 0xc2, 0, 0, 0x10 + self.0.below(32) as u8], // just beyond
            _ => [0; 6],
        }
    }

    fn source(&mut self) -> [u8; 6] {
        match self.0.below(20) {
            0 => [0; 6],
            1 => BROADCAST,
            2 => [0x03, 0, 0, 0, 0, self.0.below(256) as u8],
            _ => self.station(),
        }
    }

    fn next(&mut self) -> Vec<u8> {
        let len = self.0.one(&[0, 1, 2, 18, 45, 46, 47, 100, 500, 1486, 1499, 1500]);
        // A length (802.3), IPv4, ARP, IPv6, LLDP, and what nobody knows.
        let kind = self.0.one(&[EXPERIMENTAL, 46, 0x0800, 0x0806, 0x86dd, 0x88cc, 0xffff]);
        let seed = self.0.below(1 << 20) as u64;
        frame::frame(self.destination(), self.source(), &[], kind, &pattern(len, seed))
    }
}

#[test]
fn frames_leave_by_the_ports_and_with_the_octets_that_the_kernels_bridge_would_choose() {
    for seed in [1, 2, u64::from(std::process::id())] {
        println!("seed {seed}");
        let Some((net, switch)) = Switch::new(1) else { return };
        let mut ours = Subject::ours(&net, &switch);
        let oracle_net = Net::new().expect("a second one like the first");
        let mut oracle = Subject::kernel(&oracle_net);
        let mut frames = Frames(Random(seed));
        let (mut unicast, mut flooded, mut dropped) = (0, 0, 0);
        for n in 0..FRAMES {
            let (ingress, sent) = (frames.0.below(PORTS), frames.next());
            let (got, want) = (ours.pass(ingress, &sent), oracle.pass(ingress, &sent));
            let ports = |out: &[Vec<Vec<u8>>]| out.iter().map(Vec::len).collect::<Vec<_>>();
            assert_eq!(
                ports(&got),
                ports(&want),
                "copies at each port, ours and the kernel's; seed {seed}, frame {n} by port {ingress}: {:02x?}",
                &sent[..14]
            );
            assert_eq!(got, want, "octets; seed {seed}, frame {n} by port {ingress}");
            assert!(want.iter().flatten().all(|f| *f == sent), "a bridge changes nothing");
            match want.iter().map(Vec::len).sum() {
                0 => dropped += 1,
                1 => unicast += 1,
                _ => flooded += 1,
            }
        }
        assert!(
            unicast > 40 && flooded > 40 && dropped > 40,
            "{unicast} to one, {flooded} to all, {dropped} to none"
        );
    }
}
