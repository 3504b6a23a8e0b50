//! Frames through the queues of netdev ports.

use std::{
    io::{IoSlice, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
};
use socket2::Socket as Raw;
use tapway_dataplane::{
    counters::{DropReason, PortCounters},
    frame::{Batch, Checksum, GsoKind, Offload},
    port::{PacketQueue, Received, SendResult, netdev::NetdevOptions},
    sys::uring::{Batcher, MAX_OPS},
    wire::{VirtioNetHdr, virtio_net},
};
use zerocopy::IntoBytes;

use crate::topo::{Container, in_netns, ip, options, raw, receive, silent, taken, wait_until};

const LEFT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Octets of Ethernet, IPv4 and TCP.
const TCP_HEADERS: usize = 14 + 20 + 20;

/// A frame of a kind that nobody answers, from station `from`.
fn frame(tags: &[[u8; 4]], from: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, from]);
    frame.extend(tags.as_flattened());
    frame.extend([0x88, 0xb5]);
    frame.extend((frame.len()..len).map(|n| n as u8));
    frame
}

/// A TCP super-frame over IPv4, as far as the kernel looks at it.
fn superframe(tags: &[[u8; 4]], payload: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(tags.as_flattened());
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((40 + payload as u16).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(LEFT.octets());
    frame.extend(RIGHT.octets());
    frame.extend([0x10, 0, 0x10, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend((0..payload).map(|n| n as u8));
    frame
}

/// The virtio header of a [`superframe`] in segments of 1400 octets whose IPv4 header begins `behind` octets later.
fn gso(behind: u16) -> VirtioNetHdr {
    VirtioNetHdr {
        flags: virtio_net::F_NEEDS_CSUM,
        gso_type: virtio_net::GSO_TCPV4,
        hdr_len: (TCP_HEADERS as u16 + behind).into(),
        gso_size: 1400.into(),
        csum_start: (34 + behind).into(),
        csum_offset: 16.into(),
        num_buffers: 0.into(),
    }
}

/// The octets of the next frame that a raw socket receives.
fn read(raw: &Raw) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let len = (&mut &*raw).read(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

#[test]
fn a_frame_from_the_far_end_is_received_and_one_that_leaves_is_not() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        let far = raw(&container, false);
        for queues in [1, 2] {
            let (_netdev, mut queues) = taken(NetdevOptions { queues, ..options("n0") });
            let (mut batch, counters) = (Batch::new(), PortCounters::default());
            let leaving = frame(&[], 2, 60);
            for queue in &queues {
                let header = VirtioNetHdr::default();
                let parts = [header.as_bytes(), &leaving[..12], &leaving[12..]].map(IoSlice::new);
                assert_eq!(queue.send(&parts), SendResult::Sent);
                assert_eq!(read(&far), leaving);
            }
            far.send(&frame(&[], 1, 77)).unwrap();
            let mut receiving = |queue: &mut PacketQueue| {
                queue.recv(&mut batch, &counters);
                batch.len() == 1
            };
            wait_until("received", || queues.iter_mut().any(&mut receiving));
            assert_eq!(batch.bytes(0), frame(&[], 1, 77));
            assert_eq!(batch.frame(0).offload.gso, None);
            for queue in &mut queues {
                assert_eq!(queue.recv(&mut batch, &counters), Received::Drained);
            }
            assert_eq!((counters.rx_frames.get(), counters.rx_bytes.get()), (1, 77), "nothing twice");
        }
    });
}

#[test]
fn tags_are_received_where_they_stood_whatever_their_kind() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        let (_netdev, mut queues) = taken(options("n0"));
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        let far = raw(&container, false);
        const C: [u8; 4] = [0x81, 0, 0x60, 10];
        const S: [u8; 4] = [0x88, 0xa8, 0xf0, 20];
        const PRIORITY: [u8; 4] = [0x81, 0, 0xe0, 0];
        let sent = [&[][..], &[C], &[S], &[S, C], &[C, C], &[PRIORITY]].map(|tags| frame(tags, 1, 100));
        for frame in &sent {
            far.send(frame).unwrap();
        }
        receive(&mut queues[0], &mut batch, &counters, sent.len());
        for (n, frame) in sent.iter().enumerate() {
            assert_eq!(batch.bytes(n), frame);
            assert!(batch.has_headroom(n, virtio_net::LEN), "it leaves in one piece");
        }
        assert_eq!(counters.rx_bytes.get(), 600, "tags are octets of the frame");
    });
}

#[test]
fn a_super_frame_is_received_and_sent_whole_with_its_tag() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        let (_netdev, mut queues) = taken(options("n0"));
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        let far = raw(&container, true);
        for (tags, behind) in [(&[][..], 0), (&[[0x81, 0, 0x60, 10]][..], 4)] {
            let frame = superframe(tags, 30_000);
            far.send(&[gso(behind).as_bytes(), &frame].concat()).unwrap();
            batch.clear();
            receive(&mut queues[0], &mut batch, &counters, 1);
            assert_eq!(batch.bytes(0), frame);
            let offload = batch.frame(0).offload;
            assert_eq!(offload.csum, Checksum::Partial { start: 34 + behind, offset: 16 });
            let found = offload.gso.map(|g| (g.kind, g.size, g.hdr_len));
            assert!(matches!(found, Some((GsoKind::TcpV4, 1400, _))), "{found:?}");

            let header = gso(behind);
            assert_eq!(
                queues[0].send(&[header.as_bytes(), &frame].map(IoSlice::new)),
                SendResult::Sent,
                "what is longer than the MTU may leave where it is a super-frame"
            );
            // The kernel has taken the tag out; the header's positions are those without it.
            let arrived = read(&far);
            assert_eq!(arrived.len(), virtio_net::LEN + TCP_HEADERS + 30_000);
            assert_eq!(arrived[1], virtio_net::GSO_TCPV4);
            assert_eq!(arrived[6..8], 34u16.to_le_bytes());
        }
    });
}

#[test]
fn what_the_kernel_does_not_send_is_refused_by_its_reason_and_the_queue_lives_on() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        let (_netdev, queues) = taken(options("n0"));
        let send = |header: VirtioNetHdr, frame: &[u8]| {
            queues[0].send(&[header.as_bytes(), frame].map(IoSlice::new))
        };
        let plain = VirtioNetHdr::default();
        assert_eq!(send(plain, &frame(&[], 1, 1519)), SendResult::Refused(Errno::MSGSIZE));
        let unknown = VirtioNetHdr { gso_type: 77, ..gso(0) };
        assert_eq!(send(unknown, &superframe(&[], 9000)), SendResult::Refused(Errno::INVAL));
        assert_eq!(send(plain, &frame(&[], 1, 1514)), SendResult::Sent);
        assert_eq!(
            send(plain, &frame(&[[0x81, 0, 0, 1]], 1, 1518)),
            SendResult::Sent,
            "a tag is beyond the MTU"
        );
        ip("link set n0 down");
        assert_eq!(send(plain, &frame(&[], 1, 60)), SendResult::Down);
        ip("link set n0 up");
        // The socket tells once more what was, to whoever asks it first.
        assert_eq!(send(plain, &frame(&[], 1, 60)), SendResult::Down);
        assert_eq!(send(plain, &frame(&[], 1, 60)), SendResult::Sent);
        ip("link del n0");
        assert!(matches!(send(plain, &frame(&[], 1, 60)), SendResult::Gone(_)));
    });
}

#[test]
fn a_ring_writes_what_single_calls_would() {
    in_netns(|| {
        let Ok(mut ring) = Batcher::new() else {
            println!("skipped: no io_uring here");
            return;
        };
        let container = Container::new();
        container.plug("n0");
        let (_netdev, queues) = taken(options("n0"));
        let Some(fd) = queues[0].ring_fd() else {
            println!("skipped: this kernel's virtio header is the short one");
            return;
        };
        ring.check(fd).unwrap();
        let far = raw(&container, false);
        let (header, frames) = (VirtioNetHdr::default(), [frame(&[], 1, 60), frame(&[], 2, 1514)]);
        let whole = [header.as_bytes(), &frames[0]].concat();
        let one = [IoSlice::new(&whole)];
        let parts = [header.as_bytes(), &frames[1][..12], &frames[1][12..]].map(IoSlice::new);
        let too_long = [0; 12 + 1600];
        let wrong = [IoSlice::new(&too_long)];
        let mut results = [0; MAX_OPS];
        let writes = [(fd, &one[..]), (fd, &wrong[..]), (fd, &parts[..])];
        assert_eq!(ring.write(writes.into_iter(), &mut results), 3);
        assert_eq!(results[..3], [12 + 60, -Errno::MSGSIZE.raw_os_error(), 12 + 1514]);
        assert_eq!([read(&far), read(&far)], frames);
    });
}

#[test]
fn a_flow_stays_on_one_queue_and_all_queues_have_some() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        let (_netdev, mut queues) = taken(NetdevOptions { queues: 2, ..options("n0") });
        let far = raw(&container, false);
        let counters = PortCounters::default();
        const FLOWS: usize = 32;
        let mut homes = [None; FLOWS];
        for round in 0..3 {
            for (flow, known) in homes.iter_mut().enumerate() {
                let mut frame = superframe(&[], 100);
                frame[35] = flow as u8; // the source port
                if round == 1 {
                    // The answers: both addresses and both ports the other way round.
                    let swapped = [&frame[30..34], &frame[26..30], &frame[36..38], &frame[34..36]].concat();
                    frame[26..38].copy_from_slice(&swapped);
                }
                far.send(&frame).unwrap();
                let mut home = None;
                wait_until("received", || {
                    for (n, queue) in queues.iter_mut().enumerate() {
                        let mut batch = Batch::new();
                        queue.recv(&mut batch, &counters);
                        if !batch.is_empty() {
                            home = Some(n);
                        }
                    }
                    home.is_some()
                });
                assert!(known.is_none() || *known == home, "flow {flow} has moved");
                *known = home;
            }
        }
        assert_eq!(counters.rx_frames.get(), 3 * FLOWS as u64, "each once");
        for queue in [0, 1] {
            assert!(homes.contains(&Some(queue)), "{homes:?}");
        }
    });
}

#[test]
fn frames_for_which_there_is_no_room_are_counted_by_the_kernel() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        let (mut netdev, mut queues) = taken(options("n0"));
        let far = raw(&container, true);
        assert_eq!(netdev.lost(), 0);
        let frame = [gso(0).as_bytes(), &superframe(&[], 60_000)].concat();
        const SENT: u64 = 600;
        for _ in 0..SENT {
            far.send(&frame).unwrap();
        }
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        let mut lost = 0;
        wait_until("all received or counted as lost", || {
            lost += netdev.lost();
            batch.clear();
            queues[0].recv(&mut batch, &counters);
            counters.rx_frames.get() + lost == SENT
        });
        assert!(lost > 100 && counters.rx_frames.get() > 100, "{lost} lost");
        assert_eq!(netdev.lost(), 0, "each once");
    });
}

#[test]
fn after_the_interface_was_down_the_queue_goes_on() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        for queues in [1, 2] {
            let (_netdev, mut queues) = taken(NetdevOptions { queues, ..options("n0") });
            let (mut batch, counters) = (Batch::new(), PortCounters::default());
            ip("link set n0 down");
            for queue in &mut queues {
                assert_eq!(queue.recv(&mut batch, &counters), Received::Full, "told once");
                assert_eq!(queue.recv(&mut batch, &counters), Received::Drained);
            }
            ip("link set n0 up");
            let far = raw(&container, false);
            wait_until("received", || {
                // Until the kernel has noticed the carrier it sends nothing.
                far.send(&frame(&[], 1, 60)).unwrap();
                for queue in &mut queues {
                    queue.recv(&mut batch, &counters);
                }
                !batch.is_empty()
            });
        }
    });
}

/// Copies frames both ways between two queues with the same offloads until told to stop. The longest frame seen.
fn copy(mut queues: [PacketQueue; 2], stop: &AtomicBool) -> usize {
    let (mut batch, counters, mut longest) = (Batch::new(), PortCounters::default(), 0);
    while !stop.load(Relaxed) {
        let mut more = false;
        for from in [0, 1] {
            batch.clear();
            more |= queues[from].recv(&mut batch, &counters) == Received::Full;
            for n in 0..batch.len() {
                let header = batch.frame(n).offload.to_vnet(0);
                let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(batch.bytes(n))];
                assert_eq!(queues[1 - from].send(&parts), SendResult::Sent);
                longest = longest.max(batch.bytes(n).len());
            }
        }
        if !more {
            let fds = [queues[0].as_fd(), queues[1].as_fd()];
            let mut poll = fds.each_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
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
fn a_tcp_transfer_between_two_ports_arrives_unharmed_in_super_frames() {
    in_netns(|| {
        for qdisc_bypass in [false, true] {
            let (left, right) = (Container::new(), Container::new());
            let mut open = Vec::new();
            let ports = [["n0", "n1"], ["n2", "n3"]][usize::from(qdisc_bypass)];
            for (container, port, address) in [(&left, ports[0], LEFT), (&right, ports[1], RIGHT)] {
                container.plug(port);
                container.run(|| ip(&format!("address add {address}/24 dev eth0")));
                open.push(taken(NetdevOptions { qdisc_bypass, ..options(port) }));
            }
            let queues = [0, 1].map(|n: usize| open[n].1.remove(0));
            let stop = AtomicBool::new(false);
            let sent: Vec<u8> = (0..4_000_000u32).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
            thread::scope(|scope| {
                let copying = scope.spawn(|| copy(queues, &stop));
                let listener = right.run(|| TcpListener::bind((RIGHT, 6000)).unwrap());
                let sending = scope.spawn(|| {
                    let mut stream = left.run(|| TcpStream::connect((RIGHT, 6000)).unwrap());
                    stream.write_all(&sent).unwrap();
                });
                let mut received = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
                sending.join().unwrap();
                stop.store(true, Relaxed);
                assert!(received == sent, "{} of {} octets", received.len(), sent.len());
                let longest = copying.join().unwrap();
                assert!(longest > 9000, "the longest frame had {longest} octets");
            });
        }
    });
}

#[test]
fn a_port_without_offloads_sends_none_and_takes_all() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        let (_netdev, mut queues) = taken(NetdevOptions { offload: false, ..options("n0") });
        assert!(!queues[0].caps().csum && !queues[0].caps().tso4, "nothing but plain frames is to be sent");
        // What comes is as it is all the same: nobody segments it for us.
        let far = raw(&container, true);
        far.send(&[gso(0).as_bytes(), &superframe(&[], 9000)].concat()).unwrap();
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        receive(&mut queues[0], &mut batch, &counters, 1);
        assert!(batch.frame(0).offload.gso.is_some());
        assert_ne!(batch.frame(0).offload, Offload::NONE);
        assert!(silent(&far));
    });
}
