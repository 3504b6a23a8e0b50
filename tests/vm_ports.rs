//! Virtual machines at the switch, by every kind of port that a monitor can be given.
//!
//! ```text
//!   guest a ─┬─ card 0 ── port ┐                  ┌ port ── card 0 ─┬─ guest b
//!            ├─ card 1 ── port ┤  br0, a VLAN for ├ port ── card 1 ─┤
//!            └─ …              ┘  each pair       └              … ─┘
//! ```
//!
//! Two guests are enough for every pair of kinds: each has two cards of each kind, one of them without offloads. A pair of
//! cards has a VLAN and a subnet of its own, and the next round makes other pairs of them.

mod topo;
mod vm;

use tempfile::TempDir;

use topo::{Net, switch::Switch};
use vm::{
    Image, Vm, VmOptions,
    nic::{Kind, NO_OFFLOADS, Nic},
};

/// Ethernet with jumbo frames.
const JUMBO: u32 = 9000;

/// A guest with two cards of each kind, all of them for jumbo frames and in no VLAN that another is in.
struct Guest {
    vm: Vm,
    cards: Vec<Nic>,
}

/// An address of a card in a VLAN that it has to itself with another.
#[derive(Clone, Copy)]
struct Place {
    /// The number of the pair, which no other has in any round: nobody remembers another neighbour.
    pair: usize,
    /// Of the two.
    end: u8,
    mtu: u32,
    tagged: bool,
}

impl Place {
    fn vlan(self) -> usize {
        100 + self.pair
    }

    fn v4(self) -> String {
        let subnet = ["198.51.100", "203.0.113"][self.pair / 64];
        format!("{subnet}.{}", 4 * (self.pair % 64) + usize::from(self.end))
    }

    fn v6(self) -> String {
        format!("2001:db8:0:{:x}::{}", self.vlan(), self.end)
    }
}

impl Guest {
    fn boot(image: &Image, net: &Net, switch: &Switch, directory: &TempDir, name: &str, first: u8) -> Self {
        let kinds = Kind::all().into_iter().flat_map(|kind| [(kind, ""), (kind, NO_OFFLOADS)]);
        let cards: Vec<Nic> = (first..)
            .zip(kinds)
            .map(|(host, (kind, properties))| {
                let offload = if properties.is_empty() { "" } else { "-off" };
                let port = format!("{name}-{}{offload}", kind.word());
                Nic { properties, mtu: JUMBO, ..Nic::new(kind, &port, host) }
            })
            .collect();
        // Each card keeps room for frames of 9000 octets: some megabytes.
        let mut options = VmOptions { memory: 256, ..VmOptions::default() };
        for card in &cards {
            card.attach(
                net,
                switch,
                directory.path(),
                &format!("--access {}", 1000 + usize::from(card.host)),
            );
            card.plug(net, directory.path(), &mut options);
        }
        Self { vm: Vm::boot(image, net.home(), name, &options), cards }
    }

    /// Puts each card where `place` says.
    fn move_to(&self, switch: &Switch, place: impl Fn(usize) -> Place) {
        for (n, card) in self.cards.iter().enumerate() {
            let place = place(n);
            let (vlan, mtu) = (place.vlan(), place.mtu);
            let mode = if place.tagged { "--trunk" } else { "--access" };
            switch.set(&format!("{} {mode} {vlan}", card.port));
            let (at, link) = if place.tagged {
                let add = format!("ip link add link eth{n} name tagged{n} type vlan id {vlan} && ");
                ("tagged", add + &format!("ip link set tagged{n} up && "))
            } else {
                ("eth", String::new())
            };
            self.vm.sh(&format!(
                "ip link del tagged{n} 2>/dev/null; ip address flush dev eth{n} scope global; \
                 ip link set eth{n} mtu {mtu} up && {link} \
                 ip address add {}/30 dev {at}{n} && ip address add {}/64 dev {at}{n}",
                place.v4(),
                place.v6(),
            ));
        }
    }
}

#[test]
fn guests_behind_ports_of_every_two_kinds_exchange_every_payload() {
    let Some(image) = Image::new() else { return };
    let Some((net, switch)) = Switch::new(2) else { return };
    let directory = TempDir::new().unwrap();
    switch.bridge("br0");
    let [a, b] =
        [("a", 1), ("b", 101)].map(|(n, first)| Guest::boot(&image, &net, &switch, &directory, n, first));
    let cards = a.cards.len();
    // Every card meets one with and one without offloads, and every kind meets every kind.
    let rounds = [(0, 1500, false), (1, JUMBO, false), (3, 1500, true), (4, JUMBO, true), (7, 1500, false)];
    for (round, (shift, mtu, tagged)) in rounds.into_iter().enumerate() {
        let place = |pair, end| Place { pair: round * cards + pair, end, mtu, tagged };
        a.move_to(&switch, |n| place(n, 1));
        b.move_to(&switch, |n| place((n + cards - shift % cards) % cards, 2));
        let with: Vec<_> = (0..cards).map(|n| (place(n, 2).v4(), place(n, 2).v6())).collect();
        let wrong = a.vm.exchange(&with);
        let pair = |n: usize| {
            let ends = [&a.cards[n], &b.cards[(n + shift) % cards]]
                .map(|card| format!("{} {:?}", card.port, switch.show(&card.port).drops));
            format!("{}: {}\n", with[n].0, ends.join(" to "))
        };
        assert!(
            wrong.is_empty(),
            "MTU {mtu}, tagged {tagged}:\n{wrong}where\n{}",
            (0..cards).map(pair).collect::<String>()
        );
        // Its VLAN is all that a card has.
        let (eth, next) = (if tagged { "tagged0" } else { "eth0" }, place(1, 2).v4());
        let (_, printed) = a.vm.try_sh(&format!(
            "ip route add {next} dev {eth} && arping -q -c 1 -w 1 -I {eth} {next}; echo answered $?; ip route del {next}"
        ));
        assert!(printed.contains("answered 1"), "MTU {mtu}, tagged {tagged}: {printed}");
    }
}
