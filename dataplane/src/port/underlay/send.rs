//! The sockets by which one worker sends for an endpoint, and what is done when the kernel refuses.

use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use rustix::io::Errno;
use socket2::Socket;

use super::{
    Delivery, Sent, Who,
    outbox::{Post, Tools, Unit},
};

/// Refusals to segment in a row, none of which was about the size, after which a set no longer asks. One would be too few: the
/// kernel also refuses what a single route cannot take (IPsec).
const REFUSALS_MAX: u32 = 8;

/// A set of sending sockets, one a source port. It belongs to one worker; its counts can be read by anybody.
#[derive(Debug)]
pub struct TxSet {
    sockets: Vec<Socket>,
    /// Whether messages of several datagrams are given to the kernel as one.
    segments: AtomicBool,
    /// Refusals since it last segmented.
    in_a_row: AtomicU32,
    refused: AtomicU64,
}

impl TxSet {
    /// A set of these sockets, which compute checksums or not.
    pub(super) fn new(sockets: Vec<Socket>, checksum: bool) -> Self {
        Self {
            sockets,
            // udp_send_skb (net/ipv4/udp.c): EINVAL where the socket sends without checksum.
            segments: AtomicBool::new(checksum),
            in_a_row: AtomicU32::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The source ports, one a socket.
    pub fn ports(&self) -> Vec<u16> {
        let local = |s: &Socket| s.local_addr().ok()?.as_socket().map(|a| a.port());
        self.sockets.iter().filter_map(local).collect()
    }

    /// Whether the kernel is asked to segment (`UDP_SEGMENT`): not without checksums, and not once it has refused too often.
    pub fn segments(&self) -> bool {
        self.segments.load(Relaxed)
    }

    /// Messages that the kernel refused to segment, and whose datagrams it took one by one.
    pub fn gso_refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Sends in order, and tells what came of each.
    pub(super) fn send(
        &self,
        lane: usize,
        post: Post<'_>,
        units: &[Unit],
        tools: &mut Tools,
        done: &mut impl FnMut(Who, Sent),
    ) {
        let socket = &self.sockets[lane % self.sockets.len()];
        let mut rest = units;
        while let Some(first) = rest.first() {
            let count = match attempt(socket, post, rest, tools) {
                Ok(sent) => {
                    for unit in &rest[..sent] {
                        if unit.segment.is_some() {
                            self.in_a_row.store(0, Relaxed);
                        }
                        done(post.who(unit), unit.came_to(Delivery::Sent));
                    }
                    sent
                }
                // EMSGSIZE too: without DF the kernel fragments a datagram, but never a segment. Before Linux 6.14 that was EINVAL.
                Err(errno @ (Errno::IO | Errno::INVAL | Errno::MSGSIZE)) if first.segment.is_some() => {
                    self.send_apart(socket, post, first, errno, tools, done);
                    1
                }
                Err(errno) => fail(post, rest, errno, done),
            };
            rest = &rest[count..];
        }
    }

    /// The kernel does not want to cut a message up: sends its datagrams one by one, and finds out whether it was their size.
    #[cold]
    fn send_apart(
        &self,
        socket: &Socket,
        post: Post<'_>,
        message: &Unit,
        errno: Errno,
        tools: &mut Tools,
        done: &mut impl FnMut(Who, Sent),
    ) {
        let mut units = std::mem::take(&mut tools.apart);
        units.clear();
        units.extend(post.apart(message));
        let (mut passed, mut too_big) = (Unit { octets: 0, datagrams: 0, ..*message }, false);
        let mut rest = &units[..];
        while !rest.is_empty() {
            let count = match attempt(socket, post, rest, tools) {
                Ok(sent) => {
                    passed.datagrams += sent as u16;
                    passed.octets += rest[..sent].iter().map(|u| u.octets).sum::<u32>();
                    sent
                }
                Err(errno) => {
                    too_big |= errno == Errno::MSGSIZE;
                    fail(post, rest, errno, done)
                }
            };
            rest = &rest[count..];
        }
        tools.apart = units;
        let fallback = passed.datagrams > 0 && !too_big && errno != Errno::MSGSIZE;
        if fallback {
            self.refused.fetch_add(1, Relaxed);
            if self.in_a_row.fetch_add(1, Relaxed) + 1 == REFUSALS_MAX {
                self.segments.store(false, Relaxed);
            }
        }
        if passed.datagrams > 0 {
            done(post.who(message), Sent { fallback, ..passed.came_to(Delivery::Sent) });
        }
    }
}

/// Sends as many as the kernel takes. An error is that of the first.
fn attempt(socket: &Socket, post: Post<'_>, units: &[Unit], tools: &mut Tools) -> Result<usize, Errno> {
    let mut send = || {
        let messages = units.iter().map(|unit| (post.envelope(unit), post.octets(unit)));
        tools.scratch.send(socket.as_fd(), messages)
    };
    match send() {
        // Not about this message: an ICMP error that came for an earlier one waits in the socket, and is gone now that it has been told.
        Err(Errno::CONNREFUSED | Errno::PROTO | Errno::NOPROTOOPT | Errno::HOSTDOWN | Errno::INTR) => send(),
        result => result,
    }
}

/// Tells what the first of `units` failed by, and those that would fail by the same; says how many that are.
#[cold]
fn fail(post: Post<'_>, units: &[Unit], errno: Errno, done: &mut impl FnMut(Who, Sent)) -> usize {
    let delivery = Delivery::from_errno(errno);
    let count = match errno {
        Errno::AGAIN => units.len(), // the socket's buffer is full
        Errno::MSGSIZE => units.iter().take_while(|unit| unit.is_like(&units[0])).count(),
        _ => 1,
    };
    for unit in &units[..count] {
        done(post.who(unit), unit.came_to(delivery));
    }
    count
}
