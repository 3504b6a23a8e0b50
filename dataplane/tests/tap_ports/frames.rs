//! Frames through the queues of real TAPs.

use std::{
    io::{IoSlice, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec};
use tapway_dataplane::{
    counters::{DropReason, PortCounters},
    frame::{Batch, Checksum, Offload},
    port::{
        Received, SendResult,
        tap::{Tap, TapOptions, TapQueue},
    },
    wire::MacAddr,
};
use zerocopy::IntoBytes;

use crate::topo::{Container, in_netns, open, t0, wait_until};

const HERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const BROADCAST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 255);
const ANSWER: &[u8] = b"from the switch";
/// Where the payload stands in a frame with Ethernet, IPv4 and UDP headers.
const PAYLOAD: usize = 14 + 20 + 8;

/// The sum of 16-bit words (RFC 1071), folded.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words =
        bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)])));
    let sum = start + words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Whether the UDP checksum of an IPv4 frame is complete and right.
fn udp_checksum_is_right(frame: &[u8]) -> bool {
    let (addresses, datagram) = (&frame[26..34], &frame[34..]);
    sum(datagram, u32::from(sum(addresses, 17 + datagram.len() as u32))) == 0xffff
}

/// A datagram from the peer to port 5000 inside, without UDP checksum.
fn datagram(to: MacAddr, payload: &[u8]) -> Vec<u8> {
    let mut frame = to.octets().to_vec();
    frame.extend([2, 0, 0, 0, 0, 2, 8, 0]);
    frame.extend([0x45, 0, 0, (28 + payload.len()) as u8, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(PEER.octets());
    frame.extend(HERE.octets());
    let checksum = !sum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(5001u16.to_be_bytes());
    frame.extend(5000u16.to_be_bytes());
    frame.extend([0, (8 + payload.len()) as u8, 0, 0]);
    frame.extend(payload);
    frame
}

fn with_address(options: TapOptions, address: Ipv4Addr) -> TapOptions {
    TapOptions { addresses: vec![format!("{address}/24").parse().unwrap()], ..options }
}

/// Has the kernel send a broadcast datagram inside, and receives the frame that carries it. Its number in the batch.
fn broadcast(
    container: &Container,
    queue: &mut TapQueue,
    batch: &mut Batch,
    counters: &PortCounters,
) -> usize {
    container.run(|| {
        let socket = UdpSocket::bind((HERE, 5000)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.send_to(b"from the container", (BROADCAST, 5001)).unwrap();
    });
    let mut found = None;
    wait_until("received", || {
        assert_eq!(queue.recv(batch, counters, None), Received::Drained);
        found = (0..batch.len()).find(|&n| batch.bytes(n).get(PAYLOAD..) == Some(b"from the container"));
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_frame_from_the_interface_is_received_with_its_partial_checksum() {
    in_netns(|| {
        let container = Container::new();
        let mut tap = open(&with_address(t0(&container), HERE));
        let mut queues = tap.take_queues();
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        let n = broadcast(&container, &mut queues[0], &mut batch, &counters);
        assert_eq!(&batch.bytes(n)[..6], [0xff; 6]);
        assert_eq!(&batch.bytes(n)[6..12], tap.mac().octets());
        assert_eq!(batch.frame(n).offload.csum, Checksum::Partial { start: 34, offset: 6 });
        assert!(!udp_checksum_is_right(batch.bytes(n)));
        let bytes: usize = (0..batch.len()).map(|n| batch.bytes(n).len()).sum();
        assert_eq!((counters.rx_frames.get(), counters.rx_bytes.get()), (batch.len() as u64, bytes as u64));
    });
}

#[test]
fn a_plain_tap_gives_complete_frames_also_where_it_was_left_with_offloads() {
    in_netns(|| {
        let container = Container::new();
        let options = TapOptions { persist: true, ..with_address(t0(&container), HERE) };
        drop(open(&options)); // leaves the mask of a port with offloads on the persistent device
        let mut tap = open(&TapOptions { offload: false, ..options });
        assert!(tap.is_adopted());
        let mut queues = tap.take_queues();
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        let n = broadcast(&container, &mut queues[0], &mut batch, &counters);
        assert_eq!(batch.frame(n).offload, Offload::NONE);
        assert!(udp_checksum_is_right(batch.bytes(n)));
    });
}

#[test]
fn a_frame_sent_in_parts_arrives_whole_on_any_queue() {
    in_netns(|| {
        let container = Container::new();
        for (queues, offload) in [(1, true), (2, true), (1, false), (2, false)] {
            let mut tap = open(&TapOptions { queues, offload, ..with_address(t0(&container), HERE) });
            let taken = tap.take_queues();
            let socket = container.run(|| UdpSocket::bind((HERE, 5000)).unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let frame = datagram(tap.mac(), ANSWER);
            let header = Offload::NONE.to_vnet(0);
            for queue in &taken {
                let header = &header.as_bytes()[..queue.vnet_header_len()];
                let parts = [IoSlice::new(header), IoSlice::new(&frame[..12]), IoSlice::new(&frame[12..])];
                assert_eq!(queue.send(&parts[usize::from(header.is_empty())..]), SendResult::Sent);
                let mut read = [0; 64];
                assert_eq!(socket.recv(&mut read).unwrap(), ANSWER.len());
                assert_eq!(&read[..ANSWER.len()], ANSWER);
            }
        }
    });
}

#[test]
fn a_frame_with_a_wrong_header_is_refused_and_the_queue_lives_on() {
    in_netns(|| {
        let container = Container::new();
        let mut tap = open(&t0(&container));
        let queues = tap.take_queues();
        let mut header = Offload::NONE.to_vnet(0);
        let frame = [0xff; 60];
        let send = |header: &[u8]| queues[0].send(&[IoSlice::new(header), IoSlice::new(&frame)]);
        header.gso_type = 77;
        assert!(matches!(send(header.as_bytes()), SendResult::Refused(_)));
        header.gso_type = 0;
        assert_eq!(send(header.as_bytes()), SendResult::Sent);
    });
}

/// Copies frames both ways between two queues with the same offloads until told to stop. The longest frame seen.
fn copy(mut queues: [TapQueue; 2], stop: &AtomicBool) -> usize {
    let (mut batch, counters, mut longest) = (Batch::new(), PortCounters::default(), 0);
    while !stop.load(Relaxed) {
        let mut more = false;
        for from in [0, 1] {
            batch.clear();
            more |= queues[from].recv(&mut batch, &counters, None) == Received::Full;
            for n in 0..batch.len() {
                let before = queues[from].vnet_header_len();
                let header = batch.frame(n).offload.to_vnet(0);
                let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(batch.bytes(n))];
                let parts = &parts[usize::from(before == 0)..];
                assert_eq!(queues[1 - from].send(parts), SendResult::Sent);
                longest = longest.max(batch.bytes(n).len());
            }
        }
        if !more {
            let mut poll = [PollFd::new(&queues[0], PollFlags::IN), PollFd::new(&queues[1], PollFlags::IN)];
            let timeout = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            rustix::event::poll(&mut poll, Some(&timeout)).unwrap();
        }
    }
    for reason in DropReason::ALL {
        assert_eq!(counters.dropped(*reason), 0, "{reason}");
    }
    longest
}

#[test]
fn a_tcp_transfer_between_two_taps_arrives_unharmed_in_super_frames_where_they_are_agreed() {
    in_netns(|| {
        for offload in [true, false] {
            let (left, right) = (Container::new(), Container::new());
            let mut taps: [Tap; 2] = [(&left, HERE), (&right, PEER)].map(|(container, address)| {
                open(&TapOptions { offload, ..with_address(t0(container), address) })
            });
            let queues = [0, 1].map(|n: usize| taps[n].take_queues().remove(0));
            let stop = AtomicBool::new(false);
            let sent: Vec<u8> = (0..4_000_000u32).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
            thread::scope(|scope| {
                let copying = scope.spawn(|| copy(queues, &stop));
                let listener = right.run(|| TcpListener::bind((PEER, 6000)).unwrap());
                let sending = scope.spawn(|| {
                    let mut stream = left.run(|| TcpStream::connect((PEER, 6000)).unwrap());
                    stream.write_all(&sent).unwrap();
                });
                let mut received = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
                sending.join().unwrap();
                stop.store(true, Relaxed);
                assert!(received == sent, "{} of {} octets", received.len(), sent.len());
                let longest = copying.join().unwrap();
                match offload {
                    true => assert!(longest > 9000, "the longest frame had {longest} octets"),
                    false => assert_eq!(longest, 1514),
                }
            });
        }
    });
}
