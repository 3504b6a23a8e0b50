//! Datagrams between two sockets that are there in any order.

use std::{
    io::{ErrorKind, IoSlice},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use tapway_dataplane::{
    counters::{DropReason, PortCounters},
    frame::{Batch, MAX_FRAME},
    port::{
        DgramQueue, Received, SendResult,
        dgram::{Away, DgramSocket},
    },
};

use crate::{drops, frames_of, place};

fn open() -> (tempfile::TempDir, DgramSocket, DgramQueue, PathBuf) {
    let (dir, path) = place("switch.sock");
    let peer = dir.path().join("vm.sock");
    let socket = DgramSocket::open(&path, Some(&peer)).unwrap();
    let queue = socket.queue().unwrap();
    (dir, socket, queue, peer)
}

/// A peer as QEMU makes one.
fn peer_at(path: &Path) -> UnixDatagram {
    let _ = std::fs::remove_file(path);
    let peer = UnixDatagram::bind(path).unwrap();
    peer.set_nonblocking(true).unwrap();
    peer
}

fn away(reason: Errno, discarded: usize) -> Result<(), Away> {
    Err(Away { reason, discarded })
}

fn send(queue: &DgramQueue, frame: &[u8]) -> SendResult {
    let (head, rest) = frame.split_at(6);
    queue.send(&[IoSlice::new(head), IoSlice::new(rest)])
}

#[test]
fn a_datagram_is_a_frame_in_both_directions() {
    let (_dir, mut socket, mut queue, path) = open();
    let peer = peer_at(&path);
    assert_eq!(socket.meet(), Ok(()));
    let (mut batch, counters) = (Batch::new(), PortCounters::default());
    for len in [14, 60, 1514, 9014] {
        peer.send_to(&vec![len as u8; len], socket.path()).unwrap();
    }
    assert_eq!(queue.recv(&mut batch, &counters, None), Received::Drained);
    assert_eq!(frames_of(&batch).iter().map(Vec::len).collect::<Vec<_>>(), [14, 60, 1514, 9014]);
    assert_eq!(send(&queue, &[3; 1514]), SendResult::Sent);
    assert_eq!(send(&queue.share().unwrap(), &[4; 60]), SendResult::Sent);
    let mut read = [0; 2000];
    assert_eq!((peer.recv(&mut read).unwrap(), read[1513]), (1514, 3));
    assert_eq!((peer.recv(&mut read).unwrap(), read[59]), (60, 4));
}

#[test]
fn empty_short_and_long_datagrams_are_dropped_by_name_and_end_nothing() {
    let (_dir, mut socket, mut queue, path) = open();
    let peer = peer_at(&path);
    rustix::net::sockopt::set_socket_send_buffer_size(&peer, 400_000).unwrap();
    socket.meet().unwrap();
    let (mut batch, counters) = (Batch::new(), PortCounters::default());
    for frame in [&[][..], &[1; 13], &[2; MAX_FRAME + 1], &[3; MAX_FRAME], &[4; 60]] {
        peer.send_to(frame, socket.path()).unwrap();
    }
    assert_eq!(queue.recv(&mut batch, &counters, None), Received::Drained);
    assert_eq!(frames_of(&batch), [vec![3; MAX_FRAME], vec![4; 60]]);
    assert_eq!(drops(&counters), [(DropReason::Runt, 2), (DropReason::Giant, 1)]);
    assert_eq!(counters.rx_frames.get(), 5);
}

#[test]
fn a_peer_that_is_away_or_does_not_read_costs_its_own_frames_and_is_met_again() {
    let (_dir, mut socket, mut queue, path) = open();
    assert_eq!(socket.meet(), away(Errno::NOENT, 0));
    assert_eq!(send(&queue, &[1; 60]), SendResult::Down);
    let peer = peer_at(&path);
    assert_eq!(socket.meet(), Ok(()));
    let sent = (0..10_000).take_while(|_| send(&queue, &[2; 60]) == SendResult::Sent).count();
    assert!(sent > 0 && sent < 10_000, "{sent} found room");
    assert_eq!(send(&queue, &[2; 60]), SendResult::Full);
    drop(peer);
    assert_eq!(send(&queue, &[3; 60]), SendResult::Down);
    assert_eq!(send(&queue, &[3; 60]), SendResult::Down);
    assert_eq!(socket.meet(), away(Errno::CONNREFUSED, 0), "its file is still there");
    let (mut batch, counters) = (Batch::new(), PortCounters::default());
    assert_eq!(queue.recv(&mut batch, &counters, None), Received::Drained, "a queue waits like its port");

    let peer = peer_at(&path);
    assert_eq!((socket.meet(), socket.meet()), (Ok(()), Ok(())));
    assert_eq!(send(&queue, &[4; 60]), SendResult::Sent);
    assert_eq!(peer.recv(&mut [0; 100]).unwrap(), 60);
    peer.send_to(&[5; 60], socket.path()).unwrap();
    assert_eq!(queue.recv(&mut batch, &counters, None), Received::Drained);
    assert_eq!(frames_of(&batch), [[5; 60]]);
}

#[test]
fn nobody_but_the_peer_sends_to_the_port() {
    let (dir, mut socket, mut queue, path) = open();
    let (peer, stranger) = (peer_at(&path), peer_at(&dir.path().join("stranger.sock")));
    socket.meet().unwrap();
    assert_eq!(stranger.send_to(&[6; 60], socket.path()).unwrap_err().kind(), ErrorKind::PermissionDenied);
    peer.send_to(&[7; 60], socket.path()).unwrap();
    // A peer that turns to somebody else says so to us, which is an error of a read.
    peer.connect(socket.path()).unwrap();
    peer.connect(dir.path().join("stranger.sock")).unwrap();
    let (mut batch, counters) = (Batch::new(), PortCounters::default());
    while queue.recv(&mut batch, &counters, None) != Received::Drained {}
    assert_eq!(socket.meet(), away(Errno::PERM, 0));
    assert!(batch.len() <= 1, "it may be lost with the peer");
}

#[test]
fn what_others_send_while_the_peer_is_away_is_discarded() {
    let (dir, mut socket, mut queue, path) = open();
    let stranger = peer_at(&dir.path().join("stranger.sock"));
    for _ in 0..3 {
        stranger.send_to(&[6; 60], socket.path()).unwrap();
    }
    assert_eq!(socket.meet(), away(Errno::NOENT, 3));
    let _peer = peer_at(&path);
    assert_eq!(socket.meet(), Ok(()));
    let (mut batch, counters) = (Batch::new(), PortCounters::default());
    assert_eq!(queue.recv(&mut batch, &counters, None), Received::Drained);
    assert_eq!((batch.len(), counters.rx_frames.get()), (0, 0));
}

#[test]
fn without_a_name_the_peer_is_who_sends_first_until_it_is_gone() {
    let (dir, path) = place("switch.sock");
    let mut socket = DgramSocket::open(&path, None).unwrap();
    let mut queue = socket.queue().unwrap();
    let (mut batch, counters) = (Batch::new(), PortCounters::default());
    assert_eq!(socket.meet(), away(Errno::AGAIN, 0));
    // Nothing could be sent to one without a name.
    UnixDatagram::unbound().unwrap().send_to(&[9; 60], &path).unwrap();
    assert_eq!(socket.meet(), away(Errno::AGAIN, 1));

    for n in 1..=2 {
        let peer = peer_at(&dir.path().join(format!("vm{n}.sock")));
        let other = peer_at(&dir.path().join("other.sock"));
        peer.send_to(&[n; 60], &path).unwrap();
        assert_eq!((socket.meet(), socket.meet()), (Ok(()), Ok(())));
        assert!(other.send_to(&[9; 60], &path).is_err());
        assert_eq!(queue.recv(&mut batch, &counters, None), Received::Drained);
        assert_eq!(frames_of(&batch), [[n; 60]], "the frame by which it was met is received");
        batch.clear();
        assert_eq!(send(&queue, &[n; 100]), SendResult::Sent);
        assert_eq!(peer.recv(&mut [0; 200]).unwrap(), 100);
        drop(peer);
        assert_eq!(socket.meet(), away(Errno::AGAIN, 0));
    }
}
