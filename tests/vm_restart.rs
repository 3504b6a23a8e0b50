//! What runs goes away under its peer, and comes back: a guest under the switch, and the switch under a guest.
//!
//! ```text
//!   guest ─┬─ eth0 ── port ┐                ┌ TAP ── eth0, host 0
//!          ├─ eth1 ── port ┤  br0, a VLAN   ├ TAP ── eth0, host 1      each serves transfers
//!          └─ …            ┘  for each pair └               …
//! ```

mod topo;
mod vm;

use std::{net::Ipv4Addr, thread, time::Duration};

use tempfile::TempDir;

use topo::{Host, Net, switch::Switch, traffic, wait_until};
use vm::{
    Image, Running, Vm, VmOptions,
    nic::{Kind, Nic},
};

const LONG: Duration = Duration::from_secs(20);

/// A guest's cards, one of each kind, and a host behind the switch for each.
struct Pairs {
    net: Net,
    directory: TempDir,
    cards: Vec<Nic>,
    hosts: Vec<Host>,
    _servers: Vec<Running>,
    options: VmOptions,
}

impl Pairs {
    fn new(image: &Image, net: Net, switch: &Switch, kinds: &[Kind]) -> Self {
        let directory = TempDir::new().unwrap();
        let cards: Vec<Nic> =
            (1..).zip(kinds).map(|(n, &kind)| Nic::new(kind, &format!("vm-{}", kind.word()), n)).collect();
        let hosts: Vec<Host> = cards.iter().map(|card| net.host(&format!("host{}", card.host))).collect();
        let mut options = VmOptions::default();
        switch.bridge("br0");
        for card in &cards {
            card.attach(&net, switch, directory.path(), &flags(card));
            card.plug(&net, directory.path(), &mut options);
        }
        let _servers = hosts.iter().map(|host| image.serve(host)).collect();
        let pairs = Self { net, directory, cards, hosts, _servers, options };
        pairs.connect_hosts(switch);
        pairs
    }

    /// The ports of the hosts, whose interfaces outlive a switch.
    fn connect_hosts(&self, switch: &Switch) {
        for (card, host) in self.cards.iter().zip(&self.hosts) {
            let vlan = vlan(card);
            switch.tap(host.name(), host, &format!("--persist --access {vlan} --address {}/29", far(card)));
        }
    }

    /// The guest, with an address at each card.
    fn boot(&self, image: &Image) -> Vm {
        let vm = Vm::boot(image, self.net.home(), "vm", &self.options);
        vm.sh("ip address flush dev eth0");
        for (n, card) in self.cards.iter().enumerate() {
            vm.sh(&format!("ip link set eth{n} up; ip address add {}/29 dev eth{n}", near(card)));
        }
        vm
    }

    /// Everybody reaches everybody's host, and a transfer through each port is whole.
    fn assert_whole(&self, switch: &Switch, vm: &Vm) {
        for card in &self.cards {
            switch.wait_oper(&card.port, "up");
            wait_until(&format!("the host of {} answers", card.port), LONG, || {
                vm.pings(&far(card).to_string(), 1, 56)
            });
            vm.sh(&format!("vm_peer tcp {} 200000", far(card)));
        }
    }
}

fn vlan(card: &Nic) -> u32 {
    100 + u32::from(card.host)
}

fn flags(card: &Nic) -> String {
    let persist = if card.kind == Kind::Macvtap { "--persist" } else { "" };
    format!("--access {} {persist}", vlan(card))
}

fn near(card: &Nic) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 8 * card.host + 1)
}

fn far(card: &Nic) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 8 * card.host + 2)
}

#[test]
fn a_guest_that_is_killed_in_the_middle_of_transfers_comes_back_and_others_are_not_disturbed() {
    let Some(image) = Image::new() else { return };
    let Some((net, switch)) = Switch::new(2) else { return };
    let pairs = Pairs::new(&image, net, &switch, &Kind::all());
    let bystanders = ["x", "y"].map(|name| pairs.net.host(name));
    for (n, host) in (1..).zip(&bystanders) {
        switch.tap(host.name(), host, &format!("--access 10 --address 203.0.113.{n}/24"));
    }
    let vm = pairs.boot(&image);
    pairs.assert_whole(&switch, &vm);

    thread::scope(|s| {
        let endless = pairs.cards.iter().map(|card| format!("vm_peer tcp {} 1000000000000 & ", far(card)));
        vm.sh(&endless.collect::<String>());
        for card in &pairs.cards {
            wait_until(&format!("{} is in the middle of a transfer", card.port), LONG, || {
                switch.show(&card.port).rx.bytes > 1_000_000
            });
        }
        s.spawn(|| traffic::tcp(&bystanders[0], &bystanders[1], [203, 0, 113, 2], 16 << 20));
        drop(vm);
        for card in pairs.cards.iter().filter(|card| card.kind.tells_of_its_end()) {
            let why = switch.wait_oper(&card.port, "down");
            assert!(why.is_some(), "{} says why it is down", card.port);
            assert_eq!(switch.fdb_of(&card.port), 0, "{} has nobody behind it", card.port);
        }
    });
    let vm = pairs.boot(&image);
    pairs.assert_whole(&switch, &vm);
}

#[test]
fn a_guest_goes_on_where_it_was_when_the_switch_comes_back() {
    let Some(image) = Image::new() else { return };
    let Some((net, switch)) = Switch::new(2) else { return };
    let kinds: Vec<Kind> = Kind::all().into_iter().filter(|kind| kind.outlives_the_switch()).collect();
    let pairs = Pairs::new(&image, net, &switch, &kinds);
    let vm = pairs.boot(&image);
    pairs.assert_whole(&switch, &vm);

    let before: Vec<u64> = pairs.cards.iter().map(|card| switch.show(&card.port).rx.bytes).collect();
    let transfer =
        |card| format!("(vm_peer tcp {0} 8000000 && echo whole {0}) >>/tmp/transfers & ", far(card));
    vm.sh(&pairs.cards.iter().map(transfer).collect::<String>());
    for (card, before) in pairs.cards.iter().zip(before) {
        wait_until(&format!("{} is in the middle of a transfer", card.port), LONG, || {
            switch.show(&card.port).rx.bytes > before + 500_000
        });
    }
    drop(switch);
    assert!(!vm.pings(&far(&pairs.cards[0]).to_string(), 1, 56), "there is no switch");
    let switch = Switch::at(&pairs.net, 2);
    switch.bridge("br0");
    pairs.cards.iter().for_each(|card| card.port(&switch, pairs.directory.path(), &flags(card)));
    pairs.connect_hosts(&switch);
    pairs.assert_whole(&switch, &vm);
    // The connections, too, are those of before.
    for card in &pairs.cards {
        wait_until(&format!("the transfer through {} is whole", card.port), 3 * LONG, || {
            vm.sh("cat /tmp/transfers").contains(&format!("whole {}", far(card)))
        });
    }
}
