//! What is sent, and what the wire and the other end see of it.

use std::collections::BTreeSet;

use super::topo::*;
use tapway_dataplane::port::underlay::{Delivery, To, TxSetOptions, UnderlayTx, path_mtu};

#[test]
fn a_run_of_one_size_leaves_as_one_packet_and_arrives_as_one_train() {
    let Some((a, b)) = hosts() else { return };
    for (local, remote) in [(A4, B4), (A6, B6)] {
        let (tx, mut rx, mut capture) = (a.tx(&tx_options(local)), b.rx(vtep(remote)), b.capture());
        let run: Vec<_> = (0..40).map(|n| (to(vtep(remote), 7), payload(n, 1400))).collect();
        assert_sent(&send(&tx, &run), 1);
        let arrived = receive(&mut rx, 40 * 1400);
        assert_eq!(arrived.len(), 1);
        assert_eq!((arrived[0].0.stride, arrived[0].0.from), (1400, ip(local)));
        let sent: Vec<_> = run.into_iter().map(|(_, p)| p).collect();
        assert_same(&datagrams(&arrived), &sent);
        let packets = capture.udp(PORT);
        assert_eq!(packets.len(), 1, "{packets:?}");
        assert!(packets[0].len > 40 * 1400);
    }
}

#[test]
fn sizes_that_differ_arrive_in_the_order_in_which_they_were_sent() {
    let Some((a, b)) = hosts() else { return };
    let (tx, mut rx) = (a.tx(&tx_options(A4)), b.rx(vtep(B4)));
    let sizes = [1000, 1000, 1000, 200, 1000, 1000, 8, 8, 8, 9, 300, 300, 1400, 50];
    let run: Vec<_> = sizes.iter().enumerate().map(|(n, &s)| (to(vtep(B4), 1), payload(n, s))).collect();
    // 1000×3+200, 1000×2+8, 8×2, 9, 300×2, 1400+50.
    assert_sent(&send(&tx, &run), 6);
    let arrived = receive(&mut rx, sizes.iter().sum());
    let sent: Vec<_> = run.into_iter().map(|(_, p)| p).collect();
    assert_same(&datagrams(&arrived), &sent);
}

#[test]
fn flows_that_alternate_each_keep_their_order_their_port_and_their_message() {
    let Some((a, b)) = hosts() else { return };
    let (tx, mut rx, mut capture) = (a.tx(&tx_options(A4)), b.rx(vtep(B4)), b.capture());
    let numbered = |n: usize| {
        let (flow, turn) = (n % 20, n / 20);
        let mut octets = payload(n, if turn == 5 { 60 } else { 64 });
        octets[..2].copy_from_slice(&[flow as u8, turn as u8]);
        (to(vtep(B4), flow as u32), octets)
    };
    let run: Vec<_> = (0..200).map(numbered).collect();
    // Flows 16 to 19 have the sockets of 0 to 3. A shorter datagram in the middle ends a message.
    assert_sent(&send(&tx, &run), 16 + 16 + 4);
    let arrived = datagrams(&receive(&mut rx, run.iter().map(|(_, p)| p.len()).sum()));
    for flow in 0..20_u8 {
        let of_flow = |p: &&Vec<u8>| p[0] == flow;
        let expected: Vec<_> = run.iter().map(|(_, p)| p).filter(of_flow).collect();
        assert_same(&arrived.iter().filter(of_flow).collect::<Vec<_>>(), &expected);
    }
    let ports: BTreeSet<u16> = capture.udp(PORT).iter().map(|p| p.source_port).collect();
    assert_eq!(ports.len(), 16, "{ports:?}");
    assert!(ports.iter().all(|p| SOURCE_PORTS.contains(p)), "{ports:?}");
}

#[test]
fn without_checksums_each_datagram_is_a_packet_of_its_own_and_its_checksum_is_zero() {
    let Some((a, b)) = hosts() else { return };
    // UDP_SEGMENT on such a socket is EINVAL (udp_send_skb): the set never asks.
    let options = TxSetOptions { checksum: false, ..tx_options(A4) };
    let (tx, mut rx, mut capture) = (a.tx(&options), b.rx(vtep(B4)), b.capture());
    let run: Vec<_> = (0..70).map(|n| (to(vtep(B4), 7), payload(n, 900))).collect();
    assert_sent(&send(&tx, &run), 70);
    let arrived = datagrams(&receive(&mut rx, 70 * 900));
    assert_same(&arrived, &run.into_iter().map(|(_, p)| p).collect::<Vec<_>>());
    let packets = capture.udp(PORT);
    assert_eq!(packets.len(), 70);
    assert!(packets.iter().all(|p| p.checksum == 0), "{packets:?}");
    let UnderlayTx::Sockets(set) = &tx else { unreachable!() };
    assert_eq!((set.segments(), set.gso_refused()), (false, 0));
}

#[test]
fn tos_and_ttl_are_those_of_each_datagram() {
    let Some((a, b)) = hosts() else { return };
    for (local, remote) in [(A4, B4), (A6, B6)] {
        let (tx, mut rx, mut capture) = (a.tx(&tx_options(local)), b.rx(vtep(remote)), b.capture());
        let marks = [(0, 0), (0xb8, 9), (0xba, 9), (0x03, 255), (0, 1)];
        let run = marks.map(|(tos, ttl)| (To { tos, ttl, ..to(vtep(remote), 1) }, payload(0, 100)));
        assert_sent(&send(&tx, &run), marks.len());
        let arrived = receive(&mut rx, 500);
        assert_eq!(arrived.iter().map(|(d, _)| d.tos).collect::<Vec<_>>(), marks.map(|m| m.0));
        let on_wire: Vec<_> = capture.udp(PORT).iter().map(|p| (p.tos, p.ttl)).collect();
        let expected = marks.map(|(tos, ttl)| (tos, if ttl == 0 { 64 } else { ttl }));
        assert_eq!(on_wire, expected, "64 is what the kernel gives by itself");
    }
}

#[test]
fn df_is_on_the_wire_as_asked_for_one_datagram_and_for_a_run() {
    let Some((a, b)) = hosts() else { return };
    // Off in b, so that the kernel cuts the run up before b sees it: DF must be in every packet.
    b.ip("link set dev eth0 gso_max_segs 1");
    a.ip("link set dev eth0 gso_max_segs 1");
    let (mut rx, mut capture) = (b.rx(vtep(B4)), b.capture());
    for df in [true, false] {
        let tx = a.tx(&TxSetOptions { df, ..tx_options(A4) });
        let run: Vec<_> = (0..5).map(|n| (to(vtep(B4), 7), payload(n, 1000))).collect();
        assert_sent(&send(&tx, &run[..1]), 1);
        assert_sent(&send(&tx, &run[1..]), 1);
        receive(&mut rx, 5 * 1000);
        let packets = capture.udp(PORT);
        assert_eq!(packets.len(), 5, "{packets:?}");
        assert!(packets.iter().all(|p| p.df == Some(df)), "{packets:?}");
    }
}

#[test]
fn what_is_longer_than_the_mtu_is_too_big_with_df_and_fragmented_without() {
    let Some((a, b)) = hosts() else { return };
    for (local, remote) in [(A4, B4), (A6, B6)] {
        let long: Vec<_> = (0..3).map(|n| (to(vtep(remote), 7), payload(n, 1600))).collect();
        let short = (to(vtep(remote), 7), payload(9, 100));
        let mut run = long.clone();
        run.push(short.clone());

        let (tx, mut rx) = (a.tx(&tx_options(local)), b.rx(vtep(remote)));
        let sent = send(&tx, &run);
        let counts = |delivery| sent.iter().filter(|s| s.delivery == delivery).map(|s| s.datagrams).sum();
        assert_eq!((counts(Delivery::TooBig), counts(Delivery::Sent)), (3_u32, 1_u32), "{sent:?}");
        assert_same(&datagrams(&receive(&mut rx, 100)), std::slice::from_ref(&short.1));
        let UnderlayTx::Sockets(set) = &tx else { unreachable!() };
        assert_eq!((set.segments(), set.gso_refused()), (true, 0), "it was the size");

        let tx = a.tx(&TxSetOptions { df: false, ..tx_options(local) });
        let sent = send(&tx, &run);
        assert!(sent.iter().all(|s| s.delivery == Delivery::Sent), "{sent:?}");
        let arrived = datagrams(&receive(&mut rx, 3 * 1600 + 100));
        assert_same(&arrived, &run.into_iter().map(|(_, p)| p).collect::<Vec<_>>());
    }
}

#[test]
fn a_router_with_a_smaller_mtu_makes_it_too_big_and_path_mtu_tells_the_new_one() {
    let Some((a, router)) = hosts() else { return };
    let b = Host::new();
    router.cable("eth1", &b, "eth0");
    router.address("eth1", "203.0.113.1/24");
    router.address("eth1", "2001:db8:1::1/64");
    b.address("eth0", "203.0.113.2/24");
    b.address("eth0", "2001:db8:1::2/64");
    for host in [&router, &b] {
        let ifname = if std::ptr::eq(host, &b) { "eth0" } else { "eth1" };
        host.ip(&format!("link set dev {ifname} mtu 1400"));
    }
    router.sysctl("ipv4/ip_forward", "1");
    router.sysctl("ipv6/conf/all/forwarding", "1");
    a.ip(&format!("route add default via {B4}"));
    a.ip(&format!("-6 route add default via {B6}"));
    b.ip("route add default via 203.0.113.1");
    b.ip("-6 route add default via 2001:db8:1::1");

    for (local, remote) in [(A4, "203.0.113.2"), (A6, "2001:db8:1::2")] {
        let (tx, mut rx) = (a.tx(&tx_options(local)), b.rx(vtep(remote)));
        let mtu = || a.run(|| path_mtu(ip(local), vtep(remote), None)).unwrap();
        assert_eq!(mtu(), 1500, "nobody has told yet");
        let run: Vec<_> = (0..10).map(|n| (to(vtep(remote), 3), payload(n, 1400))).collect();
        // The first message leaves, and the router answers by ICMP; from then on the kernel knows.
        assert_sent(&send(&tx, &run), 1);
        let sent = send(&tx, &run);
        assert!(sent.iter().all(|s| s.delivery == Delivery::TooBig), "{sent:?}");
        assert_eq!(mtu(), 1400);
        assert_silent(&mut rx);
        let fits: Vec<_> = (0..10).map(|n| (to(vtep(remote), 3), payload(n, 1340))).collect();
        assert_sent(&send(&tx, &fits), 1);
        let sent: Vec<_> = fits.into_iter().map(|(_, p)| p).collect();
        assert_same(&datagrams(&receive(&mut rx, 10 * 1340)), &sent);
    }
}

#[test]
fn where_there_is_no_way_it_is_said_and_what_follows_is_sent() {
    let Some((a, b)) = hosts() else { return };
    a.ip("route add unreachable 203.0.113.1");
    a.ip("route add prohibit 203.0.113.2");
    let (tx, mut rx) = (a.tx(&tx_options(A4)), b.rx(vtep(B4)));
    let remotes = [B4, "203.0.113.1", "203.0.113.2", "203.0.113.3", B4];
    let run: Vec<_> = remotes.iter().map(|r| (to(vtep(r), 3), payload(0, 100))).collect();
    let sent: Vec<_> = send(&tx, &run).iter().map(|s| s.delivery).collect();
    let unreachable = Delivery::Unreachable;
    assert_eq!(sent, [Delivery::Sent, unreachable, unreachable, unreachable, Delivery::Sent]);
    receive(&mut rx, 200);
}

#[test]
fn when_the_device_does_not_keep_up_the_rest_is_told_as_full() {
    let Some((a, _b)) = hosts() else { return };
    a.tc("qdisc add dev eth0 root tbf rate 1mbit burst 64kb limit 100mb");
    let tx = a.tx(&tx_options(A4));
    let run: Vec<_> = (0..10_000).map(|n| (to(vtep(B4), 3), payload(n, 1400))).collect();
    let sent = send(&tx, &run);
    let first_full = sent.iter().position(|s| s.delivery == Delivery::Full).unwrap();
    assert!(first_full > 0);
    assert!(sent[first_full..].iter().all(|s| s.delivery == Delivery::Full));
}
