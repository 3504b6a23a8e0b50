//! Many guests at once, and guests whose peer is behind a tunnel.

mod topo;
mod vm;

use std::thread;

use tempfile::TempDir;

use topo::{
    kernel_vtep::VXLAN_PORT,
    switch::Switch,
    underlay::{UNDERLAY, Underlay},
    vtep::{Vtep, Way},
};
use vm::{
    Image, Vm, VmOptions,
    nic::{Kind, Nic},
};

/// How many are at the switch at once.
const CROWD: u8 = 8;

#[test]
fn eight_guests_at_ports_of_all_kinds_speak_with_each_other_at_once() {
    let Some(image) = Image::new() else { return };
    let Some((net, switch)) = Switch::new(2) else { return };
    let directory = TempDir::new().unwrap();
    switch.bridge("br0");
    let vms: Vec<Vm> = (1..=CROWD)
        .zip(Kind::all().into_iter().cycle())
        .map(|(n, kind)| {
            let nic = Nic { mtu: 9000, ..Nic::new(kind, &format!("vm{n}-{}", kind.word()), n) };
            let mut options = VmOptions::default();
            nic.attach(&net, &switch, directory.path(), "");
            nic.plug(&net, directory.path(), &mut options);
            Vm::boot(&image, net.home(), &nic.port, &options)
        })
        .collect();
    vms.iter().for_each(|vm| drop(vm.sh("ip link set eth0 mtu 9000")));
    thread::scope(|s| {
        for (n, vm) in (1..).zip(&vms) {
            // A ring: each answers one neighbour while it asks the other.
            let next = n % CROWD + 1;
            s.spawn(move || {
                let with = (format!("198.51.100.{next}"), format!("2001:db8::{next}"));
                assert_eq!(vm.exchange(&[with]), "", "{}", vm.name());
            });
        }
    });
}

#[test]
fn two_guests_with_a_queue_for_each_processor_exchange_every_payload() {
    let Some(image) = Image::new() else { return };
    let Some((net, switch)) = Switch::new(2) else { return };
    let directory = TempDir::new().unwrap();
    switch.bridge("br0");
    let kinds: Vec<Kind> = Kind::all().into_iter().filter(|kind| kind.has_queues()).collect();
    let mut cards = Vec::new();
    let [a, b] = [1, 2].map(|end| {
        let mut options = VmOptions { memory: 192, processors: 2, ..VmOptions::default() };
        let mut lines = String::from("ip address flush dev eth0 scope global; ");
        for (n, &kind) in (0..).zip(&kinds) {
            let card = Nic {
                mtu: 9000,
                queues: 2,
                ..Nic::new(kind, &format!("vm{end}-{}", kind.word()), 16 * end + n)
            };
            // A kind meets the next: a's first card b's second.
            let pair = if end == 1 { n } else { (n + 1) % kinds.len() as u8 };
            card.attach(&net, &switch, directory.path(), &format!("--access {}", 100 + pair));
            card.plug(&net, directory.path(), &mut options);
            cards.push(card.port);
            lines += &format!(
                "ip link set eth{n} mtu 9000 up; ip address add 198.51.100.{}/29 dev eth{n}; \
                 ip address add 2001:db8:0:{pair}::{end}/64 dev eth{n}; ",
                8 * pair + end
            );
        }
        let vm = Vm::boot(&image, net.home(), &format!("vm{end}"), &options);
        vm.sh(&lines);
        vm
    });
    for port in cards {
        switch.wait_oper(&port, "up");
        assert_eq!(switch.show(&port).queues, 2, "{port}");
    }
    assert_eq!(b.sh("echo /sys/class/net/eth0/queues/rx-*").split_whitespace().count(), 2);
    let with: Vec<_> = (0..kinds.len())
        .map(|pair| (format!("198.51.100.{}", 8 * pair + 2), format!("2001:db8:0:{pair}::2")))
        .collect();
    assert_eq!(a.exchange(&with), "", "of {kinds:?}");
}

#[test]
fn a_guest_at_ports_of_all_kinds_exchanges_every_payload_with_the_kernel_behind_a_tunnel() {
    let Some(image) = Image::new() else { return };
    let Some((net, switch)) = Switch::new(2) else { return };
    let directory = TempDir::new().unwrap();
    let underlay = Underlay::cable(&net, 9050);
    let near = Vtep::at(&underlay, 0, Way::Sockets, false);
    let (local, far) = (near.local(), &underlay.site(1).host);
    let cards: Vec<Nic> = (1..)
        .zip(Kind::all())
        .map(|(n, kind)| Nic { mtu: 9000, ..Nic::new(kind, &format!("vm-{}", kind.word()), n) })
        .collect();
    let vnis: String = cards.iter().map(|card| format!("--vlan-vni {0}=10{0} ", 100 + card.host)).collect();
    near.tunnel(&switch, &format!("--type vxlan --remote {} {vnis}", near.far()));

    let mut options = VmOptions::default();
    let (mut lines, mut with) = (String::new(), Vec::new());
    for (n, card) in cards.iter().enumerate() {
        let (vlan, host) = (100 + card.host, 8 * card.host);
        card.attach(&net, &switch, directory.path(), &format!("--access {vlan}"));
        card.plug(&net, directory.path(), &mut options);
        let kernel =
            format!("id 10{vlan} dev {UNDERLAY} local {} remote {local} dstport {VXLAN_PORT}", near.far());
        if let Err(e) = far.try_ip(&format!("link add vx{vlan} type vxlan {kernel}")) {
            assert!(e.to_string().contains("Unknown device type"), "{e}");
            return topo::skipped(&format!("this kernel has no vxlan: {e}"));
        }
        far.ip(&format!("link set dev vx{vlan} up"));
        let (v4, v6) = (format!("198.51.100.{}", host + 2), format!("2001:db8:0:{vlan}::2"));
        far.address(&format!("vx{vlan}"), &format!("{v4}/29"));
        far.address(&format!("vx{vlan}"), &format!("{v6}/64"));
        lines.push_str(&format!(
            "ip link set eth{n} mtu 9000 up; ip address add 198.51.100.{}/29 dev eth{n}; \
             ip address add 2001:db8:0:{vlan}::1/64 dev eth{n}; ",
            host + 1
        ));
        with.push((v4, v6));
    }
    let _server = image.serve(far);
    let vm = Vm::boot(&image, net.home(), "vm", &options);
    vm.sh("ip address flush dev eth0 scope global");
    vm.sh(&lines);
    assert_eq!(vm.exchange(&with), "", "of {cards:?}");
}
