//! What is pushed arrives, once and in order, by as few messages as can be; over a network in memory, and what the kernel refuses over its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    thread,
};

use proptest::prelude::*;

use super::*;
use crate::{frame::BATCH, netlink, sys};

const ALICE: &str = "198.51.100.1";
const BOB: &str = "198.51.100.2";
const CAROL: &str = "198.51.100.18"; // shares an entry of the table of open messages with Bob
const DAVE: &str = "2001:db8::4";
const REMOTES: [&str; 3] = [BOB, CAROL, DAVE];

fn vtep(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 4789)
}

fn to(address: &str, flow: u32) -> To {
    To { set: TxSetIdx(0), flow, addr: vtep(address), tos: 0, ttl: 0 }
}

fn who(port: u16) -> Who {
    Who { port: PortIdx(port), remote: RemoteIdx(0) }
}

/// Pushes datagrams of these sizes for port 0, each numbered in its first octets, and flushes them.
fn send(tx: &UnderlayTx, datagrams: &[(To, usize)]) -> Vec<Sent> {
    let datagrams: Vec<_> = datagrams.iter().map(|&(to, size)| (to, who(0), size)).collect();
    send_for(tx, &datagrams).into_iter().map(|(_, sent)| sent).collect()
}

fn send_for(tx: &UnderlayTx, datagrams: &[(To, Who, usize)]) -> Vec<(Who, Sent)> {
    let (mut outbox, mut all) = (Outbox::default(), Vec::new());
    let memory: Vec<u8> = (0..70_000).map(|n| n as u8).collect();
    for (n, (to, who, size)) in datagrams.iter().enumerate() {
        if outbox.is_full() {
            outbox.flush(&memory, |_| Some(tx), |who, sent| all.push((who, sent)));
        }
        outbox.push(to, *who, &[&(n as u32).to_be_bytes(), b"head"], 8..*size, &memory);
    }
    assert!(!outbox.is_empty());
    outbox.flush(&memory, |_| Some(tx), |who, sent| all.push((who, sent)));
    assert!(outbox.is_empty());
    all
}

/// What waits at an endpoint: the datagrams, each with its number, its size and its TOS; and in how many pieces they came.
fn fetch(rx: &mut UnderlayRx) -> (Vec<(u32, usize, u8)>, usize) {
    let (mut batch, mut all, mut pieces) = (Batch::new(), Vec::new(), 0);
    loop {
        let mut datagrams = Vec::new();
        let received = rx.recv(&mut batch, &mut datagrams, &PortCounters::default());
        pieces += datagrams.len();
        for datagram in datagrams {
            let octets = &batch.memory()[datagram.range()];
            let stride = if datagram.stride == 0 { octets.len() } else { datagram.stride as usize };
            for one in octets.chunks(stride) {
                assert_eq!(&one[4..8], b"head");
                assert!(one[8..].iter().enumerate().all(|(n, &octet)| octet == (n + 8) as u8));
                let number = u32::from_be_bytes(*one.first_chunk().unwrap());
                all.push((number, one.len(), datagram.tos));
            }
        }
        if received == Received::Drained {
            return (all, pieces);
        }
    }
}

fn endpoints(net: &MemoryNet) -> (UnderlayTx, BTreeMap<&'static str, UnderlayRx>) {
    let tx = UnderlayTx::Memory(net.tx(ALICE.parse().unwrap()));
    let rx = REMOTES.map(|r| (r, UnderlayRx::Memory(net.bind(vtep(r)))));
    (tx, rx.into())
}

/// The sizes of the messages that these datagrams become.
fn messages(datagrams: &[(To, usize)]) -> Vec<u32> {
    let (tx, _rx) = endpoints(&MemoryNet::new());
    send(&tx, datagrams).iter().map(|s| s.datagrams).collect()
}

proptest! {
    #[test]
    fn everything_arrives_once_and_each_flow_in_its_order(
        datagrams in proptest::collection::vec(
            (0_usize..3, 0_u32..40, prop_oneof![Just(8_usize), Just(60), Just(264), Just(265), Just(1450), 8..2000_usize],
                prop_oneof![9 => Just(0_u8), 1 => Just(3)], 0_u8..2, 0_u16..2),
            1..300,
        ),
        trains: bool,
    ) {
        let net = MemoryNet::new();
        net.deliver_trains(trains);
        let (tx, mut rx) = endpoints(&net);
        let pushed: Vec<_> = datagrams.iter().map(|&(remote, flow, size, tos, ttl, port)| {
            (To { tos, ttl, ..to(REMOTES[remote], flow) }, who(port), size)
        }).collect();
        let sent = send_for(&tx, &pushed);
        for port in 0..2 {
            let told = sent.iter().filter(|(w, _)| *w == who(port)).map(|(_, s)| (u64::from(s.datagrams), s.octets));
            let told = told.fold((0, 0), |(n, o), (datagrams, octets)| (n + datagrams, o + octets));
            let own = pushed.iter().filter(|(_, w, _)| *w == who(port));
            let own = own.fold((0, 0), |(n, o), (_, _, size)| (n + 1, o + *size as u64));
            prop_assert_eq!(told, own, "port {}", port);
        }
        for (remote, rx) in &mut rx {
            let (arrived, _) = fetch(rx);
            let addressed = pushed.iter().enumerate().filter(|(_, (to, ..))| to.addr == vtep(remote));
            prop_assert_eq!(arrived.len(), addressed.clone().count());
            for flow in 0..40 {
                let of_flow = |n: usize| pushed[n].0.flow == flow;
                let arrived: Vec<_> = arrived.iter().filter(|(n, ..)| of_flow(*n as usize)).copied().collect();
                let addressed = addressed.clone().filter(|(n, _)| of_flow(*n));
                let expected: Vec<_> = addressed.map(|(n, (to, _, size))| (n as u32, *size, to.tos)).collect();
                prop_assert_eq!(arrived, expected, "flow {} to {}", flow, remote);
            }
        }
        prop_assert_eq!(net.waiting(), 0);
    }
}

#[test]
fn datagrams_of_one_size_share_a_message_which_a_shorter_one_ends() {
    let one = to(BOB, 1);
    assert_eq!(messages(&[(one, 100); 10]), [10]);
    assert_eq!(messages(&[(one, 100), (one, 100), (one, 60), (one, 60), (one, 100)]), [3, 1, 1]);
    assert_eq!(messages(&[(one, 100), (one, 101), (one, 101)]), [1, 2]);
}

#[test]
fn a_message_has_at_most_64_datagrams_and_65000_octets() {
    assert_eq!(messages(&[(to(BOB, 1), 100); 130]), [64, 64, 2]);
    assert_eq!(messages(&[(to(BOB, 1), 1300); 51]), [50, 1]);
    assert_eq!(messages(&[(to(BOB, 1), 1301); 51]), [49, 2]);
}

#[test]
fn flows_that_alternate_do_not_end_each_others_messages() {
    let alternating: Vec<_> = (0..60).map(|n| (to(BOB, n % 3), 100)).collect();
    assert_eq!(messages(&alternating), [20, 20, 20]);
    let remotes: Vec<_> = (0..60).map(|n| (to(REMOTES[n % 2 * 2], 5), 100)).collect();
    assert_eq!(messages(&remotes), [30, 30]);
}

#[test]
fn what_differs_in_anything_does_not_share_a_message_and_does_not_overtake() {
    let one = to(BOB, 1);
    for other in [To { tos: 3, ..one }, To { ttl: 9, ..one }, To { addr: vtep(CAROL), ..one }, to(BOB, 2)] {
        assert_eq!(messages(&[(one, 100), (one, 100), (other, 100)]).len(), 2, "{other:?}");
    }
    // A mark that comes and goes within a flow ends a message each time.
    let marked = To { tos: 3, ..one };
    assert_eq!(messages(&[(one, 100), (marked, 100), (one, 100)]), [1, 1, 1]);
    let (tx, _rx) = endpoints(&MemoryNet::new());
    let accounts = send_for(&tx, &[(one, who(1), 100), (one, who(2), 100)]);
    assert_eq!(accounts.iter().map(|(w, _)| *w).collect::<Vec<_>>(), [who(1), who(2)]);
}

#[test]
fn an_outbox_takes_a_whole_batch_of_small_frames_before_it_is_full() {
    let (mut outbox, memory) = (Outbox::default(), [0; 256]);
    for n in 0..BATCH as u32 {
        assert!(!outbox.is_full());
        outbox.push(&to(BOB, n), who(0), &[&[0; HEAD_MAX]], 0..256, &memory);
    }
    let mut count = 0;
    outbox.flush(
        &memory,
        |_| None,
        |_, sent| {
            assert_eq!(sent.delivery, Delivery::Gone);
            count += sent.datagrams;
        },
    );
    assert_eq!(count, BATCH as u32, "without sockets each is told of all the same");
}

#[test]
fn each_set_of_sockets_gets_what_is_its_own() {
    let net = MemoryNet::new();
    let (_, mut rx) = endpoints(&net);
    let senders = [ALICE, CAROL].map(|a| UnderlayTx::Memory(net.tx(a.parse().unwrap())));
    let mut outbox = Outbox::default();
    for n in 0..6_u32 {
        let set = TxSetIdx(n as u16 % 2);
        outbox.push(&To { set, ..to(BOB, 1) }, who(0), &[&n.to_be_bytes(), b"head"], 0..0, &[]);
    }
    outbox.flush(&[], |set| senders.get(set.at()), |_, _| {});
    let (mut batch, mut datagrams) = (Batch::new(), Vec::new());
    rx.get_mut(BOB).unwrap().recv(&mut batch, &mut datagrams, &PortCounters::default());
    let from: Vec<IpAddr> = datagrams.iter().map(|d| d.from).collect();
    let [alice, carol]: [IpAddr; 2] = [ALICE, CAROL].map(|a| a.parse().unwrap());
    assert_eq!(from, [alice, carol, alice, carol, alice, carol]);
}

#[test]
fn a_network_in_memory_has_trains_groups_losses_and_an_mtu() {
    let net = MemoryNet::new();
    let (tx, mut rx) = endpoints(&net);
    let run = [(to(BOB, 1), 500); 5];
    send(&tx, &run);
    assert_eq!(fetch(rx.get_mut(BOB).unwrap()).1, 5, "one by one");
    net.deliver_trains(true);
    send(&tx, &run);
    assert_eq!(fetch(rx.get_mut(BOB).unwrap()).1, 1, "joined");

    net.set_mtu(528);
    assert!(send(&tx, &run).iter().all(|s| s.delivery == Delivery::Sent));
    net.set_mtu(527);
    assert!(send(&tx, &run).iter().all(|s| s.delivery == Delivery::TooBig));

    let group = "239.1.1.1";
    for member in [ALICE, BOB, CAROL] {
        net.join(vtep(group), vtep(member));
    }
    let mut own = UnderlayRx::Memory(net.bind(vtep(ALICE)));
    fetch(rx.get_mut(BOB).unwrap());
    send(&tx, &[(to(group, 1), 100)]);
    let counts = [BOB, CAROL, DAVE].map(|r| fetch(rx.get_mut(r).unwrap()).0.len());
    assert_eq!((counts, fetch(&mut own).0.len()), ([1, 1, 0], 0));

    net.set_loss(|parcel| parcel.to == vtep(BOB));
    send(&tx, &[(to(BOB, 1), 100), (to(CAROL, 1), 100)]);
    assert_eq!([BOB, CAROL].map(|r| fetch(rx.get_mut(r).unwrap()).0.len()), [0, 1]);
}

#[test]
fn the_last_octet_of_an_address_and_the_lane_choose_an_entry() {
    // Places that share an entry end each other's messages; neighbours with one lane must not.
    let lanes = |address: &str| (0..LANES as u32).map(|flow| outbox::place(&to(address, flow))).collect();
    let of_one: BTreeSet<usize> = lanes(BOB);
    assert_eq!(of_one.len(), LANES);
    let neighbour: BTreeSet<usize> = lanes("198.51.100.3");
    assert!(of_one.is_disjoint(&neighbour));
}

/// Runs a test on a thread in a namespace of its own, whose loopback interface is up.
fn in_netns(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let inside = thread::spawn(|| {
        sys::netns::unshare().unwrap();
        let mut socket = netlink::Socket::open().unwrap();
        let lo = socket.link_by_name("lo").unwrap().unwrap();
        socket.set_link_up(&lo, true).unwrap();
        test();
    });
    if let Err(failure) = inside.join() {
        std::panic::resume_unwind(failure);
    }
}

#[test]
fn when_the_kernel_refuses_to_segment_the_datagrams_leave_one_by_one_and_soon_it_is_not_asked_any_more() {
    in_netns(|| {
        // A socket that sends without checksum is one that refuses (EINVAL); this set does not know that it is.
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        let fd = std::os::fd::AsFd::as_fd(&socket);
        sys::udp::set_option(fd, sys::udp::SocketOption::NO_CHECKSUM_V4, 1).unwrap();
        let tx = UnderlayTx::Sockets(TxSet::new(vec![socket], true));
        let UnderlayTx::Sockets(set) = &tx else { unreachable!() };
        let at = SocketAddr::new(local, 4789);
        let options = RxOptions { local: at, zero_checksum: false, exclusive: true };
        let mut rx = UnderlayRx::Socket(UdpRx::open(&options, 1).unwrap().remove(0));

        let to = To { addr: at, ..to(BOB, 1) };
        let run: Vec<_> = [100; 20].into_iter().chain([60, 300, 300, 40]).map(|size| (to, size)).collect();
        for round in 1..=5_u64 {
            let sent = send(&tx, &run);
            assert!(sent.iter().all(|s| s.delivery == Delivery::Sent), "{sent:?}");
            assert_eq!(sent.iter().map(|s| s.datagrams).sum::<u32>(), 24);
            let expected: Vec<_> =
                run.iter().enumerate().map(|(n, (_, size))| (n as u32, *size, 0)).collect();
            assert_eq!(fetch(&mut rx).0, expected, "in order");
            let asked = round <= 4; // two messages a round, and eight refusals are enough
            assert_eq!(sent.iter().filter(|s| s.fallback).count(), if asked { 2 } else { 0 });
            assert_eq!(set.gso_refused(), 2 * round.min(4));
            assert_eq!(set.segments(), round < 4);
        }
    });
}

#[test]
fn every_errno_of_a_send_has_its_meaning() {
    for (errno, delivery) in [
        (Errno::AGAIN, Delivery::Full),
        (Errno::NOBUFS, Delivery::Full),
        (Errno::NOMEM, Delivery::Full),
        (Errno::MSGSIZE, Delivery::TooBig),
        (Errno::NETUNREACH, Delivery::Unreachable),
        (Errno::HOSTUNREACH, Delivery::Unreachable),
        (Errno::NETDOWN, Delivery::Unreachable),
        (Errno::ACCESS, Delivery::Unreachable),
        (Errno::PERM, Delivery::Unreachable),
        (Errno::INVAL, Delivery::Refused(Errno::INVAL)),
    ] {
        assert_eq!(Delivery::from_errno(errno), delivery, "{errno}");
    }
}
