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

mod places;
mod verify;

#[cfg(test)]
mod tests;

pub use verify::verify;

use places::Places;
use verify::{Packet, TCP_LEN, Verdict};

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

/// The state of a plain frame whose checksum is right.
const GOOD: Offload = Offload { csum: Checksum::Good, gso: None };

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
/// - Unknown: it is verified, as in [`verify()`]. A super-frame of [`GsoKind::Udp`] beside it is not the frame's state but a hint: the control
///   message `UDP_GRO` of its datagram, which says the octets of payload of each inner datagram where a kernel on this machine has
///   left the inner super-frame whole. It becomes the frame's state where the frame turns out to be that, and vanishes otherwise.
/// - Good: it is believed of the transport checksum, and the frame may be merged.
/// - Partial, with or without a super-frame: it stays as it is.
pub fn merge(batch: &mut Batch, limits: &Limits) {
    let mut merging = Merging::new(batch);
    for n in 0..batch.len() {
        let frame = batch.bytes(n);
        let packet = Packet::of(frame);
        let Offload { csum, gso: hint } = &batch.frame(n).offload;
        let verdict = match (csum, &packet) {
            (Checksum::Partial { .. }, _) => None,
            (Checksum::Good, Some(packet)) if packet.has_good_header(frame) => Some(Verdict::Good),
            (Checksum::Unknown, Some(packet)) => Some(packet.verdict(frame)),
            _ => Some(Verdict::Unknown),
        };
        let state = match (verdict, &packet) {
            (None, _) => batch.frame(n).offload,
            (Some(Verdict::Good), _) => GOOD,
            (Some(Verdict::Unfinished), Some(packet)) => packet.unfinished(frame, *hint, limits),
            (Some(_), _) => Offload::NONE,
        };
        let good = state.csum == Checksum::Good;
        batch.frame_mut(n).offload = state;
        if let Some(packet) = packet
            && (packet.tcp || limits.udp)
        {
            merging.take(batch, n, &packet, good);
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
        let transport = frame.get(l4..)?;
        let (header_len, alone, sequence, flags) = if tcp {
            let header = transport.first_chunk::<TCP_LEN>()?;
            let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let header_len = usize::from(header[12] >> 4) * 4;
            let alone = header_len < TCP_LEN || header[13] & ALONE != 0 || header[16..18] == [0xff; 2];
            (header_len, alone, sequence, header[13] & (PSH | FIN))
        } else {
            // "requires non zero csum, for symmetry with GSO" (`udp_gro_receive_segment`).
            let header = transport.first_chunk::<UDP_LEN>()?;
            let len = u16::from_be_bytes([header[4], header[5]]);
            (UDP_LEN, header[6..8] == [0; 2] || usize::from(len) != transport.len(), 0, 0)
        };
        if alone || transport.len() <= header_len {
            return None;
        }
        Some(Self { payload: l4 + header_len, len: transport.len() - header_len, sequence, flags })
    }

    /// The sequence number of the segment behind it; 0 for UDP.
    #[inline]
    fn next(&self, tcp: bool) -> u32 {
        if tcp { self.sequence.wrapping_add(self.len as u32) } else { 0 }
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

/// The open super-frames of a batch.
#[derive(Debug)]
struct Merging {
    /// The hash of the flow of each open super-frame; 0 where there is none.
    hashes: [u32; OPEN],
    /// What it is; left behind where there is none any more.
    open: [Option<Open>; OPEN],
    /// The next slot that makes room for another.
    oldest: usize,
    places: Places,
    /// A bit for each frame that stays in the batch.
    keep: u64,
}

impl Merging {
    fn new(batch: &Batch) -> Self {
        Self { hashes: [0; OPEN], open: [None; OPEN], oldest: 0, places: Places::new(batch), keep: !0 }
    }

    /// Frame `n` continues a super-frame, begins one, or stays alone, as it does where its checksum is not `good`.
    #[inline]
    fn take(&mut self, batch: &mut Batch, n: usize, packet: &Packet, good: bool) {
        let frame = batch.bytes(n);
        let Some(hash) = hash(frame, packet) else {
            return self.close_hosts(batch, n, packet);
        };
        let segment = if good { Segment::of(frame, packet) } else { None };
        let found = self.find(batch, frame, packet, hash);
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
            let slot = found.or_else(|| first(self.slots_of(0))).unwrap_or_else(|| {
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
                next: segment.next(packet.tcp),
            });
        }
    }

    /// The open super-frame of the flow of `frame`.
    #[inline]
    fn find(&self, batch: &Batch, frame: &[u8], packet: &Packet, hash: u32) -> Option<usize> {
        let mut slots = self.slots_of(hash);
        while let Some(slot) = first(slots) {
            if let Some(open) = &self.open[slot]
                && is_same_flow(batch.bytes(open.frame.into()), &open.packet, frame, packet)
            {
                return Some(slot);
            }
            slots &= slots - 1;
        }
        None
    }

    /// A bit for each slot with that hash. All are compared, without a branch: most frames of many flows find none.
    #[inline]
    fn slots_of(&self, hash: u32) -> u32 {
        self.hashes.iter().enumerate().fold(0, |slots, (n, &other)| slots | u32::from(other == hash) << n)
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
        open.next = segment.next(open.packet.tcp);
        if segment.flags != 0 || segment.len < open.size {
            self.close(batch, slot);
        }
        true
    }

    /// The super-frame takes in no more: its headers get to say what it is.
    #[inline]
    fn close(&mut self, batch: &mut Batch, slot: usize) {
        self.hashes[slot] = 0;
        if let Some(open) = &mut self.open[slot]
            && open.count > 1
        {
            open.close(batch);
            open.count = 0;
        }
    }

    /// Frame `n` is a fragment, or the ports are behind options: it may be of any flow between these hosts.
    #[cold]
    fn close_hosts(&mut self, batch: &mut Batch, n: usize, packet: &Packet) {
        for slot in 0..OPEN {
            if self.hashes[slot] != 0
                && let Some(open) = &self.open[slot]
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
        // "flush |= (len - 1) >= mss" (`tcp_gro_receive`), "ulen > ntohs(uh2->len)" (`udp_gro_receive_segment`).
        if segment.len > self.size || segment.payload != self.payload || segment.sequence != self.next {
            return None;
        }
        // "All fields must match except length and checksum" (`inet_gro_flush`); addresses do already.
        let (same, fixed_id) = match version {
            Version::V4 => {
                let [a, b] = [octets::<12>(head, l3)?, octets::<12>(frame, l3)?];
                let [first, id] = [a, b].map(|h| u16::from_be_bytes([h[4], h[5]]));
                // "When we receive our second frame we can make a decision on if we continue this flow as an atomic flow with a
                // fixed ID or if we use an incrementing ID" (`inet_gro_flush`).
                let atomic = a[6] & DONT_FRAGMENT.to_be_bytes()[0] != 0;
                let fixed = if self.count == 1 { atomic && id == first } else { self.fixed_id };
                let expected = first.wrapping_add(if fixed { 0 } else { u16::from(self.count) });
                (a[..2] == b[..2] && a[6..10] == b[6..10] && id == expected, fixed)
            }
            Version::V6 => {
                let [a, b] = [octets::<8>(head, l3)?, octets::<8>(frame, l3)?];
                (a[..4] == b[..4] && a[6..] == b[6..], false)
            }
        };
        if !same || !tcp {
            return same.then_some(fixed_id);
        }
        let [a, b] = [octets::<TCP_LEN>(head, l4)?, octets::<TCP_LEN>(frame, l4)?];
        // The word at 12 has the window in it: Linux wants it equal too (`tcp_flag_word`), and the acknowledgement before it.
        let same = a[8..13] == b[8..13]
            && a[13] == b[13] & !(PSH | FIN)
            && a[14..16] == b[14..16]
            && a[18..] == b[18..]
            && are_equal(head.get(l4 + TCP_LEN..self.payload)?, frame.get(l4 + TCP_LEN..self.payload)?);
        same.then_some(fixed_id)
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

/// The lowest slot of which `slots` has the bit.
#[inline]
fn first(slots: u32) -> Option<usize> {
    (slots != 0).then(|| slots.trailing_zeros() as usize)
}

/// The `N` octets at `at`.
#[inline]
fn octets<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

/// Whether the options of two TCP headers are equal, of the same length: in place, as a call takes longer than to compare 12 octets.
#[inline]
fn are_equal(a: &[u8], b: &[u8]) -> bool {
    a.as_chunks::<4>().0.iter().zip(b.as_chunks::<4>().0).all(|(a, b)| a == b)
}

/// A number that packets of one flow have in common, and not 0. `None` where the ports are not known, or not where they are looked for.
#[inline]
fn hash(frame: &[u8], packet: &Packet) -> Option<u32> {
    /// The golden ratio's first 64 bits, made odd: multiplying by it spreads every bit upwards (Knuth, TAOCP 3, §6.4).
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    if !packet.plain {
        return None;
    }
    let ports = u64::from(u32::from_ne_bytes(*octets(frame, packet.l4)?));
    // The addresses stand directly before them; two of IPv6 differ in the second half of either, mostly.
    let addresses = match packet.version {
        Version::V4 => u64::from_ne_bytes(*octets(frame, packet.l4 - 8)?),
        Version::V6 => {
            let [source, destination] = [*octets(frame, packet.l4 - 24)?, *octets(frame, packet.l4 - 8)?];
            u64::from_ne_bytes(source).rotate_left(32) ^ u64::from_ne_bytes(destination)
        }
    };
    let mixed = (addresses ^ ports.wrapping_mul(SPREAD)).wrapping_mul(SPREAD);
    Some((mixed >> 32) as u32 | 1)
}

/// Whether two frames are of one flow: same addresses and tags of Ethernet, same addresses of IP, same ports.
///
/// Frames of different tags or stations may pass each other: a bridge keeps the order of each pair of stations, VLAN and priority
/// (802.1Q-2018 §6.5.3).
#[inline]
fn is_same_flow(a: &[u8], of_a: &Packet, b: &[u8], of_b: &Packet) -> bool {
    let &Packet { version, tcp, l3, l4, .. } = of_a;
    let same_addresses = match version {
        Version::V4 => octets::<12>(a, l4 - 8) == octets(b, l4 - 8),
        Version::V6 => octets::<36>(a, l4 - 32) == octets(b, l4 - 32),
    };
    same_addresses
        && l3 == of_b.l3
        && tcp == of_b.tcp
        && version == of_b.version
        && octets::<HEADER_LEN>(a, 0) == octets(b, 0)
        && (l3 == HEADER_LEN || a.get(HEADER_LEN..l3) == b.get(HEADER_LEN..l3))
}
