//! Frames from one packet socket to another, tags put back and super-frames included, and nothing is allocated.

mod counting;
mod topo;

use std::time::Duration;

use counting::allocations;
use tapway_dataplane::{
    bridge::Rewrite,
    counters::PortCounters,
    forward::TxFrame,
    frame::{BATCH, Batch},
    index::PortIdx,
    port::{
        Queue, Transmitter,
        netdev::{Netdev, NetdevOptions},
    },
    sys::uring::Batcher,
};
use topo::{
    Net,
    frame::{EXPERIMENTAL, frame, mac, tag, tcp4, tcp4_vnet},
    wait_until,
};

/// Rounds before one is measured: a queue has seen how many frames come at once.
const WARM_UP: usize = 3;
const ROUNDS: usize = 6;
/// Frames of each kind in a round.
const EACH: usize = 8;

fn options(ifname: &str) -> NetdevOptions {
    NetdevOptions {
        ifname: ifname.to_owned(),
        netns: None,
        mtu: None,
        queues: 1,
        offload: true,
        qdisc_bypass: false,
    }
}

#[test]
fn from_one_packet_socket_to_another_nothing_is_allocated() {
    let Some(net) = Net::new() else { return };
    let [a, b] = ["a", "b"].map(|name| net.host(name));
    for host in [&a, &b] {
        host.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        net.veth(host.name(), host, "eth0");
    }
    let (from, to) = (a.vnet_socket("eth0"), b.vnet_socket("eth0"));
    net.home().run(|| {
        let mut open = ["a", "b"].map(|ifname| {
            let mut netdev = Netdev::new(options(ifname));
            let queue = netdev.take_over().pop().unwrap_or_else(|| panic!("{:?}", netdev.state()));
            (netdev, Queue::Packet(queue))
        });
        let [(_, ingress), (_, egress)] = &mut open;
        let (mut ring, mut batch, counters) = (Batcher::new().ok(), Batch::new(), PortCounters::default());
        let mut transmitter = Transmitter::default();
        let mut plan = Vec::with_capacity(BATCH);
        for round in 0..ROUNDS {
            for _ in 0..EACH {
                from.send(&frame(mac(9), mac(1), &[], EXPERIMENTAL, &[1; 50])).expect("sends");
                from.send(&frame(mac(9), mac(1), &[tag(0, false, 7)], EXPERIMENTAL, &[2; 500]))
                    .expect("sends");
                from.send_with(tcp4_vnet(1400), &tcp4(mac(9), mac(1), &[3; 30_000])).expect("sends");
            }
            batch.clear();
            let mut spent = 0;
            wait_until("all have come", Duration::from_secs(5), || {
                spent += allocations(|| {
                    ingress.recv(&mut batch, &counters, ring.as_mut());
                });
                batch.len() == 3 * EACH
            });
            spent += allocations(|| {
                plan.clear();
                plan.extend((0..batch.len()).map(|slot| TxFrame {
                    slot: slot as u8,
                    // Each third is split, whatever the interface takes.
                    split: slot % 3 == 2,
                    port: PortIdx(0),
                    rewrite: Rewrite::KEEP,
                    hop: None,
                }));
                transmitter.next_batch();
                let lost = |port| panic!("{port:?} is there");
                transmitter.send_all(&plan, &mut batch, ring.as_mut(), |_| Some((&*egress, &counters)), lost);
            });
            assert!(round < WARM_UP || spent == 0, "{spent} allocations in round {round}");
            let arrived = to.drain(Duration::from_millis(50)).len();
            assert_eq!(arrived, EACH * (1 + 1 + 30_000_usize.div_ceil(1400)), "round {round}");
        }
    });
}
