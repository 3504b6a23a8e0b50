//! What a worker is about to send over the underlay: datagrams are collected here, and leave by as few system calls as can be.
//!
//! A datagram is a head, copied into the scratch memory, and a body, which stays where it is in the batch. Datagrams of one size
//! to one place join one message, which the kernel cuts up again (`UDP_SEGMENT`); all messages of a socket leave by one `sendmmsg`.
//!
//! The order within a flow is kept: only the last message to a place is joined, and messages leave in the order in which they were begun.
//! Messages to different places are open at once, so flows that alternate in a batch do not end each other's messages.

use std::{iter, net::SocketAddr, ops::Range};

use super::{Delivery, LANES, Sent, To, UnderlayTx, Who};
use crate::{
    index::TxSetIdx,
    sys::udp::{Envelope, SendScratch},
};

/// The longest head: Geneve's 8 octets and its options (252), the headers of a segment (`offload::MAX_HEADERS`), and a tag between them.
pub const HEAD_MAX: usize = 8 + 252 + 256 + 4;
/// A body up to this size is copied behind its head: one part instead of two, and one for a whole run of such datagrams. The kernel
/// takes about as long over a part as over a copy of this size.
const COPY_MAX: usize = 256;
/// The most datagrams of a message (`UDP_MAX_SEGMENTS`; 128 since Linux 6.9).
const SEGMENTS_MAX: u16 = 64;
/// The most octets of a message: an IP packet, less room for its headers and options.
const MESSAGE_MAX: u32 = 65_000;
/// Room for heads and copied bodies; no more, so that it stays in the L2 cache between writing and sending.
const SCRATCH: usize = 128 << 10;
/// Room for parts: twice what the kernel takes in one message (`UIO_MAXIOV`).
const PARTS: usize = 2048;
/// Room for messages.
const MESSAGES: usize = 256;
/// Places whose last message can be joined at the same time.
const OPEN: usize = 64;
/// Ends a chain.
const NONE: u16 = u16::MAX;
const _: () = assert!(MESSAGES <= PARTS && PARTS < NONE as usize);

/// Octets of a message.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// In the scratch memory, or else in the batch.
    scratch: bool,
    at: u32,
    len: u32,
    /// The message's next part.
    next: u16,
}

/// Datagrams that leave together.
#[derive(Debug)]
struct Message {
    to: To,
    who: Who,
    /// Octets of each datagram but the last.
    size: u32,
    /// The last one is shorter: no more can follow.
    ended: bool,
    datagrams: u16,
    octets: u32,
    first: u16,
    last: u16,
    /// The next message of the lane.
    next: u16,
}

impl Message {
    fn takes(&self, to: &To, who: Who, size: u32) -> bool {
        let (mine, theirs) = (&self.to, to);
        !self.ended
            && size <= self.size
            && self.datagrams < SEGMENTS_MAX
            && self.octets + size <= MESSAGE_MAX
            && mine.set == theirs.set
            && lane(mine) == lane(theirs)
            && mine.addr == theirs.addr
            && mine.tos == theirs.tos
            && mine.ttl == theirs.ttl
            && self.who == who
    }
}

/// What the kernel is asked to send at once: a message, or one datagram of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) message: u16,
    /// The part it begins in.
    pub(super) part: u16,
    /// Octets of that part before it.
    pub(super) skip: u32,
    pub(super) octets: u32,
    pub(super) datagrams: u16,
    /// The size of its datagrams, where there are several.
    pub(super) segment: Option<u16>,
}

impl Unit {
    /// What it came to.
    pub(super) fn came_to(&self, delivery: Delivery) -> Sent {
        let (datagrams, octets) = (self.datagrams.into(), self.octets.into());
        Sent { datagrams, octets, delivery, fallback: false }
    }

    /// Whether it is of the same message, and not shorter.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.message == other.message && self.octets >= other.octets
    }
}

/// What has been collected, to be read by who sends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Post<'a> {
    messages: &'a [Message],
    parts: &'a [Part],
    scratch: &'a [u8],
    memory: &'a [u8],
}

impl<'a> Post<'a> {
    pub(super) fn who(&self, unit: &Unit) -> Who {
        self.messages[usize::from(unit.message)].who
    }

    pub(super) fn envelope(&self, unit: &Unit) -> Envelope {
        let to = &self.messages[usize::from(unit.message)].to;
        Envelope { to: to.addr, tos: to.tos, ttl: to.ttl, segment: unit.segment }
    }

    /// The octets of a unit.
    pub(super) fn octets(self, unit: &Unit) -> impl Iterator<Item = &'a [u8]> {
        let (mut part, mut skip, mut left) = (unit.part, unit.skip as usize, unit.octets as usize);
        iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let Part { scratch, at, len, next } = self.parts[usize::from(part)];
            let source = if scratch { self.scratch } else { self.memory };
            let octets = &source[at as usize..][..len as usize][skip..];
            let octets = &octets[..octets.len().min(left)];
            (part, skip, left) = (next, 0, left - octets.len());
            Some(octets)
        })
    }

    /// A message as one unit.
    fn whole(&self, n: u16) -> Unit {
        let message = &self.messages[usize::from(n)];
        Unit {
            message: n,
            part: message.first,
            skip: 0,
            octets: message.octets,
            datagrams: message.datagrams,
            segment: (message.datagrams > 1).then_some(message.size as u16),
        }
    }

    /// The datagrams of a unit, each as a unit of its own.
    pub(super) fn apart(self, unit: &Unit) -> impl Iterator<Item = Unit> {
        let size = unit.segment.map_or(unit.octets, u32::from);
        let (mut part, mut skip, mut left) = (unit.part, unit.skip, unit.octets);
        let message = unit.message;
        iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let octets = size.min(left);
            let one = Unit { message, part, skip, octets, datagrams: 1, segment: None };
            left -= octets;
            let mut ahead = octets;
            while left > 0 && ahead > 0 {
                let rest = self.parts[usize::from(part)].len - skip;
                if ahead < rest {
                    (skip, ahead) = (skip + ahead, 0);
                } else {
                    (part, skip, ahead) = (self.parts[usize::from(part)].next, 0, ahead - rest);
                }
            }
            Some(one)
        })
    }
}

/// The memory that sending needs beside what is sent.
#[derive(Debug, Default)]
pub(super) struct Tools {
    pub(super) scratch: SendScratch,
    /// Datagrams of a message that the kernel did not want to cut up.
    pub(super) apart: Vec<Unit>,
}

/// First and last message of a lane.
#[derive(Clone, Copy, Debug)]
struct Lane {
    first: u16,
    last: u16,
}

const EMPTY: Lane = Lane { first: NONE, last: NONE };

/// Datagrams that wait to be sent.
#[derive(Debug)]
pub struct Outbox {
    scratch: Box<[u8]>,
    used: usize,
    parts: Vec<Part>,
    messages: Vec<Message>,
    lanes: [Lane; LANES],
    /// The last message to each place; places share an entry by chance, and then end each other's messages.
    open: [u16; OPEN],
    units: Vec<Unit>,
    tools: Tools,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            scratch: vec![0; SCRATCH].into(),
            used: 0,
            parts: Vec::with_capacity(PARTS),
            messages: Vec::with_capacity(MESSAGES),
            lanes: [EMPTY; LANES],
            open: [NONE; OPEN],
            units: Vec::with_capacity(MESSAGES),
            tools: Tools { scratch: SendScratch::default(), apart: Vec::with_capacity(SEGMENTS_MAX.into()) },
        }
    }
}

/// Which socket of its set a datagram leaves by.
#[inline]
fn lane(to: &To) -> usize {
    to.flow as usize % LANES
}

/// Where the last message to a place is noted. Takes nothing into account that can differ within a flow.
#[inline]
pub(super) fn place(to: &To) -> usize {
    let low = match to.addr {
        SocketAddr::V4(v4) => v4.ip().octets()[3],
        SocketAddr::V6(v6) => v6.ip().octets()[15],
    };
    (lane(to) + LANES * usize::from(low) + usize::from(low >> 2)) % OPEN
}

impl Outbox {
    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether it must be [flushed](Self::flush) before the next datagram.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.used + HEAD_MAX + COPY_MAX > SCRATCH
            || self.parts.len() + 2 > PARTS
            || self.messages.len() == MESSAGES
    }

    /// Takes a datagram, which is not empty: the octets of `head`, which are copied, and then those of `memory` in `body`, which must stay until
    /// the [flush](Self::flush).
    ///
    /// # Panics
    /// Where it [is full](Self::is_full), the head is longer than [`HEAD_MAX`], or the body is not in the memory.
    #[inline]
    pub fn push(&mut self, to: &To, who: Who, head: &[&[u8]], body: Range<usize>, memory: &[u8]) {
        let start = self.used;
        for octets in head {
            self.copy(octets);
        }
        let body_octets = &memory[body.clone()];
        let copied = body_octets.len() <= COPY_MAX;
        if copied {
            self.copy(body_octets);
        }
        let len = (self.used - start) as u32;
        let size = if copied { len } else { len + body_octets.len() as u32 };

        debug_assert!(size > 0);
        let place = place(to);
        let n = self.open[place];
        let n = match self.messages.get(usize::from(n)) {
            Some(message) if message.takes(to, who, size) => n,
            _ => self.begin(to, who, size),
        };
        self.open[place] = n;
        self.add(n, Part { scratch: true, at: start as u32, len, next: NONE });
        if !copied {
            let part = Part { scratch: false, at: body.start as u32, len: size - len, next: NONE };
            self.add(n, part);
        }
        let message = &mut self.messages[usize::from(n)];
        message.datagrams += 1;
        message.octets += size;
        message.ended = size < message.size;
    }

    #[inline]
    fn copy(&mut self, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        let to = &mut self.scratch[self.used..][..octets.len()];
        // A VXLAN header is a load and a store; a call to copy eight octets takes longer than that.
        match (to.as_mut_array::<8>(), octets.as_array::<8>()) {
            (Some(to), Some(eight)) => *to = *eight,
            _ => self.scratch[self.used..][..octets.len()].copy_from_slice(octets),
        }
        self.used += octets.len();
    }

    /// Begins a message, the last of its lane.
    fn begin(&mut self, to: &To, who: Who, size: u32) -> u16 {
        let n = self.messages.len() as u16;
        self.messages.push(Message {
            to: *to,
            who,
            size,
            ended: false,
            datagrams: 0,
            octets: 0,
            first: NONE,
            last: NONE,
            next: NONE,
        });
        let lane = &mut self.lanes[lane(to)];
        match self.messages.get_mut(usize::from(lane.last)) {
            Some(last) => last.next = n,
            None => lane.first = n,
        }
        lane.last = n;
        n
    }

    /// Adds octets to a message.
    #[inline]
    fn add(&mut self, n: u16, part: Part) {
        let message = &mut self.messages[usize::from(n)];
        let new = self.parts.len() as u16;
        match self.parts.get_mut(usize::from(message.last)) {
            Some(last) if last.scratch && part.scratch && last.at + last.len == part.at => {
                last.len += part.len;
                return;
            }
            Some(last) => last.next = new,
            None => message.first = new,
        }
        message.last = new;
        self.parts.push(part);
    }

    /// Sends all that waits. `memory` is where the bodies lie; `tx` gives the sockets of a set, `None` where they are gone; `done`
    /// is told what came of each message, or of each datagram where those of a message did not fare alike.
    pub fn flush<'t>(
        &mut self,
        memory: &[u8],
        tx: impl Fn(TxSetIdx) -> Option<&'t UnderlayTx>,
        mut done: impl FnMut(Who, Sent),
    ) {
        let post = Post { messages: &self.messages, parts: &self.parts, scratch: &self.scratch, memory };
        for (lane, Lane { first, .. }) in self.lanes.iter().enumerate() {
            let mut next = *first;
            while let Some(first) = self.messages.get(usize::from(next)) {
                // The messages of one lane are nearly always of one set.
                let set = first.to.set;
                let tx = tx(set);
                let joined = tx.is_none_or(UnderlayTx::segments);
                self.units.clear();
                while let Some(message) = self.messages.get(usize::from(next)).filter(|m| m.to.set == set) {
                    let whole = post.whole(next);
                    if joined {
                        self.units.push(whole);
                    } else {
                        self.units.extend(post.apart(&whole));
                    }
                    next = message.next;
                }
                match tx {
                    Some(UnderlayTx::Sockets(set)) => {
                        set.send(lane, post, &self.units, &mut self.tools, &mut done);
                    }
                    Some(UnderlayTx::Memory(tx)) => tx.send(lane, post, &self.units, &mut done),
                    None => {
                        for unit in &self.units {
                            done(post.who(unit), unit.came_to(Delivery::Gone));
                        }
                    }
                }
            }
        }
        self.used = 0;
        self.parts.clear();
        self.messages.clear();
        self.lanes = [EMPTY; LANES];
        self.open = [NONE; OPEN];
    }
}
