//! Merging the segments of a flow into a super-frame: the reverse of [`Split`](super::Split).
//!
//! What came out of a tunnel was segments on the wire. A TAP takes a super-frame for the price of one frame, so consecutive segments
//! of a TCP connection, and datagrams of one size of a UDP flow, become one again before the frames are looked at.
//! What may be merged is what Linux merges (`inet_gro_receive`, `ipv6_gro_receive`, `tcp_gro_receive`,
//! `udp_gro_receive_segment`), less what could not be split again into the very same octets.
//!
//! Invariants:
//! 1. [`Split`](super::Split) of a super-frame gives the segments it was made of, octet for octet. One exception, which Linux makes
//!    too: where all segments had the same IPv4 identification and "don't fragment", they count up afterwards. "The IPv4 ID field
//!    MUST NOT be used for purposes other than fragmentation and reassembly" (RFC 6864 §4.1).
//! 2. The order within a flow stays: a frame that cannot continue the open super-frame of its flow closes it.
//! 3. Payload moves only to where no other frame lies: to the gap behind the super-frame and over what it has taken in.
//!
//! Super-frames stay where their first segment lies, and grow behind it: there is no memory to be found for them, and where segments
//! came in one receive their payload moves by no more than some headers.

mod verify;

#[cfg(test)]
mod tests;

pub use verify::verify;

use verify::{Packet, TCP_LEN};

use super::{
    checksum::Sum,
    headers::UDP_LEN,
    split::{CWR, FIN, PSH, put},
};
use crate::{
    frame::{BATCH, Batch, Checksum, Gso, GsoKind, Offload},
    wire::{
        ethernet::HEADER_LEN,
        layers::{Version, be16},
    },
};

/// The most octets of an IP packet (RFC 791 §3.1: total length), also of IPv6: Linux stops there for both (`GRO_LEGACY_MAX_SIZE`).
const MAX_PACKET: usize = 65_535;
/// Super-frames that are open at a time, as in Linux (`MAX_GRO_SKBS`). Each further one closes one of them, in turn.
const OPEN: usize = 8;
// Linux merges no more datagrams than 64 (`UDP_GRO_CNT_MAX`), and a batch has no more.
const _: () = assert!(BATCH <= 64);

/// The flags of TCP with which a segment is never merged. Linux keeps URG, SYN and RST alone too, but merges them first where all other
/// segments have them; CWR it refuses (`tcp_gro_receive`), as [`Split`](super::Split) leaves it on the first segment alone.
const ALONE: u8 = SYN | RST | URG | CWR;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const URG: u8 = 0x20;
/// "Don't fragment" in the word at 6 of an IPv4 header (RFC 791 §3.1).
const DONT_FRAGMENT: u16 = 0x4000;

/// What a super-frame may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest IP packet that a wire could have carried through the tunnel. What is longer is a super-frame already.
    pub mtu: usize,
    /// Whether UDP datagrams are merged: only worth it where an egress takes them merged.
    pub udp: bool,
}

/// Verifies the checksums of all frames of a batch, and merges what follows each other in a flow.
///
/// All frames came by one port and out of one network: octets alone tell flows apart. Frames of different remotes are not merged.
/// They do not overlap; behind each, up to the next or to the end of its slot, are octets that nobody needs.
///
/// Of the offload state that a frame has beforehand:
/// - Unknown: it is verified, as in [`verify`]. A super-frame of [`GsoKind::Udp`] beside it is not the frame's state but a hint: the control
///   message `UDP_GRO` of its datagram, which says the octets of payload of each inner datagram where a kernel on this machine has
///   left the inner super-frame whole. It becomes the frame's state where the frame turns out to be that, and vanishes otherwise.
/// - Good: it is believed of the transport checksum, and the frame may be merged.
/// - Partial, with or without a super-frame: it stays as it is.
pub fn merge(batch: &mut Batch, limits: &Limits) {
    let mut merging = Merging::new(batch);
    for n in 0..batch.len() {
        let offload = batch.frame(n).offload;
        let packet = Packet::of(batch.bytes(n));
        let state = match (offload.csum, &packet) {
            (Checksum::Partial { .. }, _) => offload,
            (Checksum::Good, Some(packet)) if packet.has_good_header(batch.bytes(n)) => {
                Offload { gso: None, ..offload }
            }
            (Checksum::Unknown, Some(packet)) => packet.verify(batch.bytes(n), offload.gso, limits),
            _ => Offload::NONE,
        };
        batch.frame_mut(n).offload = state;
        if let Some(packet) = packet
            && (packet.tcp || limits.udp)
        {
            merging.take(batch, n, &packet);
        }
    }
    merging.finish(batch);
}

/// A segment that may be merged with those before and after it.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Where its payload begins.
    payload: usize,
    /// Octets of payload; not 0.
    len: usize,
    /// Its first sequence number, in TCP.
    sequence: u32,
    /// PSH and FIN, in TCP.
    flags: u8,
}

impl Segment {
    /// The segment, or `None` where it is to stay alone.
    #[inline]
    fn of(frame: &[u8], packet: &Packet) -> Option<Self> {
        let &Packet { version, tcp, l3, l4, end, plain, .. } = packet;
        // Padding would be lost ("Do not deal with padded or malicious packets, sorry !", `udp_gro_receive_segment`).
        if !plain || end != frame.len() {
            return None;
        }
        if version == Version::V4 {
            let fragment = be16(frame, l3 + 6)?;
            if fragment & !DONT_FRAGMENT != 0 || be16(frame, l3 + 10)? == 0xffff {
                return None; // the bit that must be zero, or a checksum in the form that a split does not write
            }
        }
        if !tcp {
            // "requires non zero csum, for symmetry with GSO" (`udp_gro_receive_segment`).
            let alone = be16(frame, l4 + 6)? == 0 || usize::from(be16(frame, l4 + 4)?) != end - l4;
            let payload = l4 + UDP_LEN;
            return (!alone && end > payload).then(|| Self {
                payload,
                len: end - payload,
                sequence: 0,
                flags: 0,
            });
        }
        let [offset, flags] = be16(frame, l4 + 12)?.to_be_bytes();
        let header_len = usize::from(offset >> 4) * 4;
        let payload = l4 + header_len;
        let alone = header_len < TCP_LEN || flags & ALONE != 0 || be16(frame, l4 + 16)? == 0xffff;
        (!alone && end > payload).then_some(Self {
            payload,
            len: end - payload,
            sequence: u32::from_be_bytes(octets(frame, l4 + 4)?),
            flags: flags & (PSH | FIN),
        })
    }
}

/// A super-frame that may still grow, or the lone segment that would be its first.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// The number of the frame.
    frame: u8,
    /// Segments in it.
    count: u8,
    /// All segments have the IPv4 identification of the first.
    fixed_id: bool,
    /// PSH and FIN of the last segment.
    flags: u8,
    packet: Packet,
    /// Where the payload begins.
    payload: usize,
    /// Octets of payload of each segment but the last.
    size: usize,
    /// The sequence number after the last octet, in TCP.
    next: u32,
}

/// Where the frames of a batch lie, as far as they are still there.
#[derive(Debug)]
struct Places {
    /// The frames in the order of their octets in the memory.
    order: [u8; BATCH],
    /// The place of each frame in that order.
    rank: [u8; BATCH],
    /// A bit for each place whose frame is still there.
    live: u64,
}

impl Places {
    fn new(batch: &Batch) -> Self {
        let mut order = [0; BATCH];
        // Nearly always in order already; otherwise insertion, of no more than 64.
        for n in 0..batch.len() {
            let start = batch.frame(n).range().start;
            let mut place = n;
            while place > 0 && batch.frame(usize::from(order[place - 1])).range().start > start {
                order[place] = order[place - 1];
                place -= 1;
            }
            order[place] = n as u8;
        }
        let mut rank = [0; BATCH];
        for (place, &n) in order.iter().enumerate().take(batch.len()) {
            rank[usize::from(n)] = place as u8;
        }
        Self { order, rank, live: !0 >> (BATCH - batch.len()).min(BATCH - 1) }
    }

    /// Where the octets end that frame `n` can grow over when it takes in frame `taken`.
    #[inline]
    fn room_end(&self, batch: &Batch, n: usize, taken: usize) -> usize {
        let behind = !1 << self.rank[n];
        let next = self.live & behind & !(1 << self.rank[taken]);
        let slot_end = Batch::slot_end(batch.frame(n).range().start);
        match self.order.get(next.trailing_zeros() as usize) {
            Some(&next) => slot_end.min(batch.frame(usize::from(next)).range().start),
            None => slot_end,
        }
    }

    /// Frame `n` was taken in.
    #[inline]
    fn remove(&mut self, n: usize) {
        self.live &= !(1 << self.rank[n]);
    }
}

/// The open super-frames of a batch.
#[derive(Debug)]
struct Merging {
    /// The hash of the flow of each open super-frame; 0 where there is none.
    hashes: [u32; OPEN],
    open: [Option<Open>; OPEN],
    /// The next that makes room for another.
    oldest: usize,
    places: Places,
    /// A bit for each frame that stays in the batch.
    keep: u64,
}

impl Merging {
    fn new(batch: &Batch) -> Self {
        Self { hashes: [0; OPEN], open: [None; OPEN], oldest: 0, places: Places::new(batch), keep: !0 }
    }

    /// Frame `n` continues a super-frame, begins one, or stays alone.
    #[inline]
    fn take(&mut self, batch: &mut Batch, n: usize, packet: &Packet) {
        let frame = batch.bytes(n);
        let Some(hash) = hash(frame, packet) else {
            return self.close_hosts(batch, n, packet);
        };
        let segment = match batch.frame(n).offload {
            Offload { csum: Checksum::Good, gso: None } => Segment::of(frame, packet),
            _ => None,
        };
        let found = self.find(batch, n, packet, hash);
        let Some(segment) = segment else {
            if let Some(slot) = found {
                self.close(batch, slot);
            }
            return;
        };
        if let Some(slot) = found {
            if self.append(batch, slot, n, &segment) {
                return;
            }
            self.close(batch, slot);
        }
        // "Force a flush if last segment is smaller than mss" or has PSH or FIN (`tcp_gro_receive`): nothing comes behind it.
        if segment.flags == 0 {
            let slot = found.or_else(|| self.hashes.iter().position(|&h| h == 0)).unwrap_or_else(|| {
                self.oldest = (self.oldest + 1) % OPEN;
                self.oldest
            });
            self.close(batch, slot);
            self.hashes[slot] = hash;
            self.open[slot] = Some(Open {
                frame: n as u8,
                count: 1,
                fixed_id: false,
                flags: 0,
                packet: *packet,
                payload: segment.payload,
                size: segment.len,
                next: segment.sequence.wrapping_add(segment.len as u32),
            });
        }
    }

    /// The open super-frame of the flow of frame `n`.
    #[inline]
    fn find(&self, batch: &Batch, n: usize, packet: &Packet, hash: u32) -> Option<usize> {
        let (mut same, mut bit) = (0u32, 1);
        for &h in &self.hashes {
            if h == hash {
                same |= bit;
            }
            bit <<= 1;
        }
        while same != 0 {
            let slot = same.trailing_zeros() as usize;
            if let Some(open) = &self.open[slot]
                && is_same_flow(batch.bytes(open.frame.into()), &open.packet, batch.bytes(n), packet)
            {
                return Some(slot);
            }
            same &= same - 1;
        }
        None
    }

    /// Takes frame `n`, of the same flow, into a super-frame, where it continues it and there is room.
    #[inline]
    fn append(&mut self, batch: &mut Batch, slot: usize, n: usize, segment: &Segment) -> bool {
        let Some(open) = &mut self.open[slot] else { return false };
        let head = usize::from(open.frame);
        let Some(fixed_id) = open.is_continued_by(batch.bytes(head), batch.bytes(n), segment) else {
            return false;
        };
        let (place, source) = (batch.frame(head).range(), batch.frame(n).range());
        let end = place.end + segment.len;
        if batch.frame(head).remote != batch.frame(n).remote
            || end - place.start - open.packet.l3 > MAX_PACKET
            || end > self.places.room_end(batch, head, n)
        {
            return false;
        }
        batch.extend(head, source.start + segment.payload..source.end);
        self.places.remove(n);
        self.keep &= !(1 << n);
        open.count += 1;
        open.fixed_id = fixed_id;
        open.flags = segment.flags;
        open.next = open.next.wrapping_add(segment.len as u32);
        if segment.flags != 0 || segment.len < open.size {
            self.close(batch, slot);
        }
        true
    }

    /// The super-frame takes in no more: its headers get to say what it is.
    #[inline]
    fn close(&mut self, batch: &mut Batch, slot: usize) {
        self.hashes[slot] = 0;
        if let Some(open) = self.open[slot].take()
            && open.count > 1
        {
            open.close(batch);
        }
    }

    /// Frame `n` is a fragment, or the ports are behind options: it may be of any flow between these hosts.
    #[cold]
    fn close_hosts(&mut self, batch: &mut Batch, n: usize, packet: &Packet) {
        for slot in 0..OPEN {
            if let Some(open) = &self.open[slot]
                && open.packet.tcp == packet.tcp
                && open.packet.addresses(batch.bytes(open.frame.into())) == packet.addresses(batch.bytes(n))
            {
                self.close(batch, slot);
            }
        }
    }

    fn finish(mut self, batch: &mut Batch) {
        for slot in 0..OPEN {
            self.close(batch, slot);
        }
        if self.keep != !0 {
            batch.retain(self.keep);
        }
    }
}

impl Open {
    /// Whether `segment` of `frame` is what comes next in the super-frame `head`, and if so, whether all have one IPv4 identification.
    #[inline]
    fn is_continued_by(&self, head: &[u8], frame: &[u8], segment: &Segment) -> Option<bool> {
        let &Packet { version, tcp, l3, l4, .. } = &self.packet;
        let equal = |a: Option<[u8; 4]>, b| a.is_some() && a == b;
        // "flush |= (len - 1) >= mss" (`tcp_gro_receive`), "ulen > ntohs(uh2->len)" (`udp_gro_receive_segment`).
        if segment.len > self.size || segment.payload != self.payload {
            return None;
        }
        // "All fields must match except length and checksum" (`inet_gro_flush`); addresses do already.
        let (network, fixed_id) = match version {
            Version::V4 => {
                let [first, id] = [be16(head, l3 + 4)?, be16(frame, l3 + 4)?];
                // "When we receive our second frame we can make a decision on if we continue this flow as an atomic flow with a
                // fixed ID or if we use an incrementing ID" (`inet_gro_flush`).
                let atomic = be16(head, l3 + 6)? & DONT_FRAGMENT != 0;
                let fixed = if self.count == 1 { atomic && id == first } else { self.fixed_id };
                let expected = first.wrapping_add(if fixed { 0 } else { u16::from(self.count) });
                let same = be16(head, l3) == be16(frame, l3)
                    && equal(octets(head, l3 + 6), octets(frame, l3 + 6))
                    && id == expected;
                (same, fixed)
            }
            Version::V6 => {
                let same =
                    equal(octets(head, l3), octets(frame, l3)) && be16(head, l3 + 6) == be16(frame, l3 + 6);
                (same, false)
            }
        };
        if !network {
            return None;
        }
        if tcp {
            // The word at 12 has the window in it: Linux wants it equal too (`tcp_flag_word`).
            let mask = !u32::from_be_bytes([0, PSH | FIN, 0, 0]);
            let word = |bytes| Some(u32::from_be_bytes(octets(bytes, l4 + 12)?) & mask);
            let same = segment.sequence == self.next
                && equal(octets(head, l4 + 8), octets(frame, l4 + 8))
                && word(head)? == word(frame)?
                && are_equal(head.get(l4 + 18..self.payload)?, frame.get(l4 + 18..self.payload)?);
            return same.then_some(fixed_id);
        }
        Some(fixed_id)
    }

    /// Writes the headers of a super-frame, and its state.
    fn close(&self, batch: &mut Batch) {
        let n = usize::from(self.frame);
        let &Packet { version, tcp, l3, l4, .. } = &self.packet;
        let checksum_at = self.packet.checksum_at();
        let kind = match (tcp, version) {
            (false, _) => GsoKind::Udp,
            (true, Version::V4) => GsoKind::TcpV4,
            (true, Version::V6) => GsoKind::TcpV6,
        };
        let frame = batch.bytes_mut(n);
        let (len, transport_len) = (frame.len() - l3, frame.len() - l4);
        match version {
            Version::V4 => {
                let header = &mut frame[l3..l4];
                put(header, 2, len as u16);
                put(header, 10, 0);
                let sum = !Sum::of(header).fold();
                put(header, 10, sum);
            }
            Version::V6 => put(&mut frame[l3..l4], 4, transport_len as u16),
        }
        let addresses = Sum::of(self.packet.addresses(frame).unwrap_or_default());
        let pseudo = addresses.add(u16::from(self.packet.protocol())).add32(transport_len as u32).fold();
        let transport = &mut frame[l4..];
        put(transport, checksum_at, pseudo);
        if tcp {
            transport[13] |= self.flags;
        } else {
            put(transport, 4, transport_len as u16);
        }
        batch.frame_mut(n).offload = Offload {
            csum: Checksum::Partial { start: l4 as u16, offset: checksum_at as u16 },
            gso: Some(Gso { kind, size: self.size as u16, hdr_len: self.payload as u16, ecn: false }),
        };
    }
}

/// The `N` octets at `at`.
#[inline]
fn octets<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Whether two headers of one length are equal: in place, as a call to compare 12 octets takes longer than comparing them.
#[inline]
fn are_equal(a: &[u8], b: &[u8]) -> bool {
    let (a, b) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    a.0.iter().zip(b.0).fold(true, |equal, (a, b)| equal & (a == b)) && a.1 == b.1
}

/// A number that packets of one flow have in common, and not 0. `None` where the ports are not known, or not where they are looked for.
#[inline]
fn hash(frame: &[u8], packet: &Packet) -> Option<u32> {
    /// The golden ratio's first 64 bits, made odd: multiplying by it spreads every bit upwards (Knuth, TAOCP 3, §6.4).
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    if !packet.plain {
        return None;
    }
    let ports = u64::from(u32::from_ne_bytes(octets(frame, packet.l4)?));
    let words = packet.addresses(frame)?.as_chunks::<8>().0;
    let sum = words.iter().fold(ports, |sum, word| (sum ^ u64::from_ne_bytes(*word)).wrapping_mul(SPREAD));
    Some((sum >> 32) as u32 | 1)
}

/// Whether two frames are of one flow: same addresses and tags of Ethernet, same addresses of IP, same ports.
///
/// Frames of different tags or stations may pass each other: a bridge keeps the order of each pair of stations, VLAN and priority
/// (802.1Q-2018 §6.5.3).
#[inline]
fn is_same_flow(a: &[u8], of_a: &Packet, b: &[u8], of_b: &Packet) -> bool {
    of_a.l3 == of_b.l3
        && of_a.tcp == of_b.tcp
        && of_a.version == of_b.version
        && octets::<HEADER_LEN>(a, 0) == octets(b, 0)
        && a.get(HEADER_LEN..of_a.l3) == b.get(HEADER_LEN..of_b.l3)
        && of_a.addresses(a) == of_b.addresses(b)
        && octets::<4>(a, of_a.l4) == octets(b, of_b.l4)
}
