//! How the two ends of a stream find each other, and lose each other.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
};

use tapway_dataplane::{
    counters::PortCounters,
    frame::Batch,
    port::{
        Received, StreamQueue,
        socket_file::SocketFileError,
        stream::{Listener, connect},
    },
};

use crate::{framed, frames_of, place};

#[test]
fn peers_are_let_in_one_after_the_other_and_each_starts_a_stream_of_its_own() {
    let (_dir, path) = place("vm.sock");
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(listener.accept().unwrap().is_none() && !listener.is_waited_at());
    let mut first = UnixStream::connect(&path).unwrap();
    let mut second = UnixStream::connect(&path).unwrap();
    assert!(listener.is_waited_at());
    let (mut batch, counters) = (Batch::new(), PortCounters::default());

    let connection = listener.accept().unwrap().unwrap();
    let mut queue = StreamQueue::new(connection);
    // The first leaves in the middle of a frame; what was staged of it is not the second's beginning.
    first.write_all(&framed(&[&[1; 60]])[..30]).unwrap();
    second.write_all(&framed(&[&[2; 60]])).unwrap();
    drop(first);
    assert!(matches!(queue.recv(&mut batch, &counters), Received::Gone(_)));
    assert!(batch.is_empty());

    let mut queue = StreamQueue::new(listener.accept().unwrap().unwrap());
    assert_eq!(queue.recv(&mut batch, &counters), Received::Drained);
    assert_eq!(frames_of(&batch), [[2; 60]]);
    drop(queue);
    assert_eq!(second.read(&mut [0; 8]).unwrap(), 0, "the last handle closes it");
    drop(listener);
    assert!(!path.exists());
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn connecting_says_why_it_does_not_succeed_and_never_waits() {
    let (_dir, path) = place("passt.sock");
    let reason = |error: SocketFileError| match error {
        SocketFileError::Io { source, .. } => source.kind(),
        other => panic!("{other}"),
    };
    assert_eq!(reason(connect(&path).unwrap_err()), ErrorKind::NotFound);
    let listener = UnixListener::bind(&path).unwrap();
    let connection = connect(&path).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(&framed(&[&[5; 60]])).unwrap();
    let (mut batch, counters) = (Batch::new(), PortCounters::default());
    assert_eq!(StreamQueue::new(connection).recv(&mut batch, &counters), Received::Drained);
    assert_eq!(frames_of(&batch), [[5; 60]]);
    // Nobody lets them in: at last the kernel has no place for one more.
    let mut waiting = Vec::new();
    let full = loop {
        match connect(&path) {
            Ok(connection) => waiting.push(connection),
            Err(error) => break error,
        }
    };
    assert_eq!(reason(full), ErrorKind::WouldBlock);
    waiting.clear();
    drop(listener);
    assert_eq!(reason(connect(&path).unwrap_err()), ErrorKind::ConnectionRefused);
}
