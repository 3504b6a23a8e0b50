//! Framing, and what becomes of frames for which the peer leaves no room.

use std::{
    io::{ErrorKind, IoSlice, Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    thread,
};

use rustix::{io::Errno, net::sockopt};
use tapway_dataplane::{
    counters::{DropReason, PortCounters},
    frame::{BATCH, Batch, MAX_FRAME},
    port::{
        Outcome, Received, SendResult, StreamQueue,
        stream::{Connection, Ended},
    },
    wire::stream::FRAME_MAX,
};

use crate::{drops, framed, frames_of};

fn pair() -> (Arc<Connection>, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (Connection::new(OwnedFd::from(near)).unwrap(), far)
}

/// A connection whose kernel buffer is as small as the kernel makes one.
fn narrow_pair() -> (Arc<Connection>, UnixStream) {
    let (connection, far) = pair();
    sockopt::set_socket_send_buffer_size(&connection, 1).unwrap();
    (connection, far)
}

fn hold(queue: &StreamQueue, frame: &[u8]) {
    let (head, rest) = frame.split_at(6.min(frame.len()));
    let held = queue.hold(&[IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(rest)]);
    assert_eq!(held, SendResult::Held);
}

/// All that waits at the far end.
fn read_waiting(far: &mut UnixStream) -> Vec<u8> {
    let mut octets = Vec::new();
    far.set_nonblocking(true).unwrap();
    let end = far.read_to_end(&mut octets);
    assert!(end.is_ok() || end.is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
    octets
}

#[test]
fn frames_arrive_whole_however_their_octets_come() {
    let (connection, mut far) = pair();
    let (mut queue, mut batch, counters) =
        (StreamQueue::new(connection), Batch::new(), PortCounters::default());
    let frames = [vec![1; 14], vec![2; 60], vec![3; 1514]];
    let octets = framed(&[&frames[0], &frames[1], &frames[2]]);
    for octet in &octets {
        far.write_all(&[*octet]).unwrap();
        assert_eq!(queue.recv(&mut batch, &counters), Received::Drained);
    }
    assert_eq!(frames_of(&batch), frames);
    batch.clear();
    far.write_all(&octets.repeat(2)).unwrap();
    assert_eq!(queue.recv(&mut batch, &counters), Received::Drained);
    assert_eq!(frames_of(&batch), [&frames[..], &frames].concat());
    assert_eq!((counters.rx_frames.get(), counters.rx_bytes.get()), (9, 3 * (14 + 60 + 1514)));
    assert_eq!(drops(&counters), []);
}

#[test]
fn a_full_batch_leaves_the_other_frames_for_the_next() {
    let (connection, mut far) = pair();
    let (mut queue, mut batch, counters) =
        (StreamQueue::new(connection), Batch::new(), PortCounters::default());
    let frames: Vec<_> = (0..BATCH * 2 + 5).map(|n| vec![n as u8; 60 + n]).collect();
    let all: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    far.write_all(&framed(&all)).unwrap();
    let mut seen = Vec::new();
    for expected in [Received::Full, Received::Full, Received::Drained] {
        batch.clear();
        assert_eq!(queue.recv(&mut batch, &counters), expected);
        seen.extend(frames_of(&batch));
    }
    assert_eq!(seen, frames);
}

#[test]
fn a_frame_that_a_guest_made_too_short_or_too_long_is_dropped_and_the_next_one_is_not_harmed() {
    let (connection, mut far) = pair();
    let (mut queue, mut batch, counters) =
        (StreamQueue::new(Arc::clone(&connection)), Batch::new(), PortCounters::default());
    let (longest, giant, cut) = (vec![7; MAX_FRAME], vec![8; MAX_FRAME + 1], vec![9; FRAME_MAX]);
    let octets = framed(&[&[], &[1; 14], &[2; 13], &giant, &longest, &cut, &[3; 60]]);
    let writer = thread::spawn(move || far.write_all(&octets).map(|()| far).unwrap());
    while batch.len() < 3 {
        assert!(!matches!(queue.recv(&mut batch, &counters), Received::Gone(_)));
        thread::yield_now();
    }
    assert_eq!(frames_of(&batch), [vec![1; 14], longest, vec![3; 60]]);
    assert_eq!(drops(&counters), [(DropReason::Runt, 2), (DropReason::Giant, 2)]);
    assert_eq!(counters.rx_frames.get(), 7, "dropped frames are received frames too");
    assert_eq!(connection.ended(), None);
    drop(writer.join().unwrap());
}

#[test]
fn a_length_that_nobody_can_mean_ends_the_connection_behind_the_frames_before_it() {
    for (len, words) in [
        (u32::MAX, "it announced a frame of 4294967295 octets; at most 69632 can be meant"),
        (FRAME_MAX as u32 + 1, "it announced a frame of 69633 octets; at most 69632 can be meant"),
    ] {
        let (connection, mut far) = pair();
        let (mut queue, mut batch, counters) =
            (StreamQueue::new(Arc::clone(&connection)), Batch::new(), PortCounters::default());
        let lie = [&framed(&[&[1; 60]])[..], &len.to_be_bytes(), &framed(&[&[2; 60]])].concat();
        far.write_all(&lie).unwrap();
        assert_eq!(queue.recv(&mut batch, &counters), Received::Gone(Errno::PROTO));
        assert_eq!(frames_of(&batch), [[1; 60]]);
        assert_eq!(connection.ended(), Some(Ended::Absurd(len)));
        assert_eq!(connection.ended().unwrap().to_string(), words);
        // Nothing is sent into a stream whose other direction is lost: it is about to be closed.
        hold(&queue, &[4; 60]);
        assert_eq!(queue.flush(&counters), Outcome::Gone);
        assert_eq!(drops(&counters), [(DropReason::EgressDown, 1)]);
    }
}

#[test]
fn a_peer_that_goes_is_noticed_by_whoever_receives_and_whoever_sends() {
    let (connection, mut far) = pair();
    let (mut queue, mut batch, counters) =
        (StreamQueue::new(Arc::clone(&connection)), Batch::new(), PortCounters::default());
    far.write_all(&framed(&[&[1; 60]])).unwrap();
    far.write_all(&[0, 0]).unwrap();
    drop(far);
    assert_eq!(queue.recv(&mut batch, &counters), Received::Gone(Errno::PIPE));
    assert_eq!(batch.len(), 1, "what it sent before is received");
    assert_eq!(connection.ended(), Some(Ended::Closed));

    let (connection, far) = pair();
    let (queue, counters) = (StreamQueue::new(Arc::clone(&connection)).share(), PortCounters::default());
    drop(far);
    hold(&queue, &[1; 60]);
    hold(&queue, &[2; 60]);
    assert_eq!(queue.flush(&counters), Outcome::Gone);
    assert_eq!(connection.ended(), Some(Ended::Closed));
    assert_eq!(drops(&counters), [(DropReason::EgressDown, 2)]);
    assert_eq!(counters.tx_frames.get(), 0);
}

#[test]
fn frames_that_are_held_leave_by_one_write_in_their_order() {
    let (connection, mut far) = pair();
    let (queue, counters) = (StreamQueue::new(connection), PortCounters::default());
    for n in 1..=20 {
        hold(&queue, &[n; 100]);
    }
    assert_eq!(read_waiting(&mut far), [0; 0], "nothing leaves before the end of a plan");
    assert_eq!(queue.flush(&counters), Outcome::Done);
    let frames: Vec<_> = (1..=20).map(|n| [n; 100]).collect();
    let all: Vec<&[u8]> = frames.iter().map(|f| &f[..]).collect();
    assert_eq!(read_waiting(&mut far), framed(&all));
    assert_eq!((counters.tx_frames.get(), counters.tx_bytes.get()), (20, 2000));
    assert_eq!(queue.flush(&counters), Outcome::Done, "nothing is held any more");
    assert_eq!((counters.tx_frames.get(), read_waiting(&mut far)), (20, vec![]));
}

#[test]
fn a_burst_of_a_batch_full_of_super_frames_finds_room() {
    let (connection, mut far) = pair();
    let room = sockopt::socket_send_buffer_size(&connection).unwrap();
    if room < 2 << 20 {
        println!("skipped: needs CAP_NET_ADMIN or a greater net.core.wmem_max, the buffer has {room} octets");
        return;
    }
    let (queue, counters) = (StreamQueue::new(connection), PortCounters::default());
    let burst = (2 << 20) / 1514;
    for n in 0..burst {
        hold(&queue, &[n as u8; 1514]);
    }
    assert_eq!(queue.flush(&counters), Outcome::Done);
    assert_eq!((counters.tx_frames.get(), drops(&counters)), (burst, vec![]));
    assert_eq!(read_waiting(&mut far).len() as u64, burst * 1518);
}

#[test]
fn a_peer_that_stops_reading_costs_its_own_frames_and_gets_whole_ones_when_it_reads_again() {
    let (connection, mut far) = narrow_pair();
    let (queue, counters) = (StreamQueue::new(Arc::clone(&connection)), PortCounters::default());
    let mut sent = Vec::new();
    // Frames longer than what the kernel takes at once: it takes the beginning of one.
    for n in 0..100 {
        let before = counters.tx_frames.get();
        let frame = vec![n; 50_000 + usize::from(n)];
        hold(&queue, &frame);
        assert_eq!(queue.flush(&counters), Outcome::Done);
        if counters.tx_frames.get() > before {
            sent.push(frame);
        }
    }
    let dropped = counters.dropped(DropReason::EgressFull);
    assert!(!sent.is_empty() && dropped > 90, "{} sent, {dropped} dropped", sent.len());
    assert_eq!(counters.tx_frames.get() + dropped, 100, "each is counted once");
    assert_eq!(counters.tx_bytes.get(), sent.iter().map(|f| f.len() as u64).sum::<u64>());

    let all: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
    let (whole, mut seen) = (framed(&all), read_waiting(&mut far));
    assert!(seen.len() < whole.len(), "the end of a frame is still to come: {} octets", seen.len());
    // It reads again, and nothing is sent: the end of the frame does not wait for another.
    while seen.len() < whole.len() {
        connection.finish_frame();
        let more = read_waiting(&mut far);
        assert!(!more.is_empty());
        seen.extend(more);
    }
    assert_eq!(seen, whole);
    hold(&queue, &[200; 60]);
    assert_eq!(queue.flush(&counters), Outcome::Done);
    assert_eq!(read_waiting(&mut far), framed(&[&[200; 60]]));
}

#[test]
fn the_end_of_a_frame_comes_before_what_another_worker_sends() {
    let (connection, mut far) = narrow_pair();
    let (one, other) = (StreamQueue::new(Arc::clone(&connection)), StreamQueue::new(connection));
    let (counters, others) = (PortCounters::default(), PortCounters::default());
    let mut sent = 0;
    while counters.dropped(DropReason::EgressFull) == 0 {
        hold(&one, &[1; 60_000]);
        one.flush(&counters);
        sent = counters.tx_frames.get();
    }
    let mut seen = read_waiting(&mut far);
    assert_ne!(seen.len() as u64, sent * 60_004, "the last one is cut in two");
    hold(&other, &[2; 60]);
    while others.tx_frames.get() == 0 {
        other.flush(&others);
        seen.extend(read_waiting(&mut far));
        if others.tx_frames.get() == 0 {
            hold(&other, &[2; 60]);
        }
    }
    let mut expected = framed(&vec![&[1; 60_000][..]; sent as usize]);
    expected.extend(framed(&[&[2; 60]]));
    assert_eq!(seen, expected);
}

#[test]
fn workers_that_send_at_once_do_not_mix_their_frames() {
    const FRAMES: usize = 400;
    let (connection, mut far) = narrow_pair();
    let workers: Vec<_> = (0..3u8)
        .map(|worker| {
            let queue = StreamQueue::new(Arc::clone(&connection));
            thread::spawn(move || {
                let counters = PortCounters::default();
                for n in 0..FRAMES {
                    // Lengths on both sides of what the kernel takes whole; each frame is its worker's number all through.
                    hold(&queue, &vec![worker; [60, 1514, 9014, 40_000][n % 4]]);
                    if n % 3 == 0 {
                        queue.flush(&counters);
                    }
                }
                queue.flush(&counters);
                (counters.tx_frames.get(), counters.dropped(DropReason::EgressFull))
            })
        })
        .collect();
    let finisher = Arc::clone(&connection);
    drop(connection);
    let reader = thread::spawn(move || {
        let mut octets = Vec::new();
        far.read_to_end(&mut octets).unwrap();
        octets
    });
    let (mut sent, mut dropped) = (0, 0);
    for worker in workers {
        let (s, d) = worker.join().unwrap();
        sent += s;
        dropped += d;
    }
    assert_eq!(sent + dropped, 3 * FRAMES as u64);
    while finisher.has_rest() {
        finisher.finish_frame();
        thread::yield_now();
    }
    drop(finisher);
    let octets = reader.join().unwrap();
    let (mut at, mut frames) = (0, 0);
    while at < octets.len() {
        let len = u32::from_be_bytes(octets[at..at + 4].try_into().unwrap()) as usize;
        let frame = &octets[at + 4..at + 4 + len];
        assert!([60, 1514, 9014, 40_000].contains(&len) && frame.iter().all(|&octet| octet == frame[0]));
        at += 4 + len;
        frames += 1;
    }
    assert_eq!(frames, sent, "as many arrive as are counted");
}
