//! The way out by an uplink: the switch writes the outer headers itself.
//!
//! What stands in front of a frame, and the first octets of the frame, are put together in scratch memory; the rest is sent from where it
//! was received. A super-frame leaves whole where the kernel takes it so (UDP tunnel GSO), else as its segments.

use std::{io::IoSlice, net::IpAddr, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::{
    counters::{DropReason, PortCounters},
    forward::TxFrame,
    frame::{Batch, HEADROOM, Offload, UplinkOffload},
    index::PortIdx,
    offload::{MAX_HEADERS, Split},
    overlay::{
        Hop, NextHop, Tunnel, Uplink, entropy,
        outer::{self, Addresses, Df, Fields, Outer},
        tunnel::MAX_HEADER,
        uplink::Envelope,
    },
    port::{Queue, SendResult},
    tick::Tick,
    wire::{dot1q::TAG_LEN, ethernet::ADDRS_LEN, layers::skip_tags, neighbour::MAX_ANSWER},
};

/// Octets of a frame that are copied behind its outer headers: all its headers, as a rule, and small frames whole.
const FIRST: usize = MAX_HEADERS;
/// Room for the virtio header, the outer headers and the tunnel header.
const BEFORE: usize = HEADROOM + outer::MAX_LEN + MAX_HEADER;
/// And, behind them, for the first octets of a frame and one more tag.
const SCRATCH: usize = BEFORE + FIRST + TAG_LEN;

/// An uplink, as a worker sends by it.
#[derive(Clone, Copy, Debug)]
pub struct Exit<'a> {
    /// The queue.
    pub queue: &'a Queue,
    /// Address, offloads and next hops.
    pub uplink: &'a Uplink,
    /// The counters of the uplink itself.
    pub counters: &'a PortCounters,
    /// The time.
    pub now: Tick,
}

/// The scratch memory of what a worker sends by uplinks.
#[derive(Debug)]
pub(super) struct Sender {
    scratch: Box<[u8; SCRATCH]>,
    hops: HashMap<(PortIdx, IpAddr), Arc<NextHop>, RandomState>,
    /// Tells the fragments of one packet from those of another.
    id: u16,
}

impl Default for Sender {
    fn default() -> Self {
        Self { scratch: Box::new([0; SCRATCH]), hops: HashMap::default(), id: 0 }
    }
}

/// What all packets of one plan entry have in front.
struct Front<'a> {
    exit: Exit<'a>,
    envelope: Envelope<'a>,
}

impl Sender {
    /// Forgets the next hops: the uplinks may be others now.
    pub(super) fn forget(&mut self) {
        self.hops.clear();
    }

    pub(super) fn send(
        &mut self,
        out: &TxFrame,
        hop: Hop,
        address: IpAddr,
        via: (PortIdx, Exit<'_>),
        (tunnel, counters): (&Tunnel, &PortCounters),
        batch: &Batch,
    ) -> Result<(), DropReason> {
        let (port, exit) = via;
        let slot = usize::from(out.slot);
        let frame = batch.bytes(slot);
        let next = self.hops.entry((port, address)).or_insert_with(|| exit.uplink.host.next_hop(address));
        let Ok(mac) = next.mac(exit.now) else {
            let mut question = [0; MAX_ANSWER];
            if let Some(len) = exit.uplink.host.ask(next, exit.now, &mut question) {
                exit.send_plain(&question[..len]);
            }
            return Err(DropReason::UplinkUnresolved);
        };
        let addresses = match (exit.uplink.address, address) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Addresses::V4 { source, destination },
            (IpAddr::V6(source), IpAddr::V6(destination)) => Addresses::V6 { source, destination },
            _ => return Err(DropReason::UnderlayUnreachable), // configuration has one family for both ends
        };
        let said = tunnel.outer_fields(frame);
        self.id = self.id.wrapping_add(1);
        let may_fragment = tunnel.may_fragment(frame, ADDRS_LEN);
        let outer = Outer::new(exit.uplink.mac, mac, addresses, tunnel.dst_port);
        let fields = Fields {
            source_port: entropy::source_port(entropy::flow_hash(frame), &tunnel.src_ports),
            tos: said.tos,
            ttl: said.ttl,
            df: if may_fragment { Df::Unset { id: self.id } } else { Df::Set },
        };
        let mut header = [0; MAX_HEADER];
        let header_len = tunnel.write_header(hop.vni, &mut header);
        let envelope = Envelope {
            outer: &outer,
            to: mac,
            fields: &fields,
            tunnel: &header[..header_len],
            udp_csum: tunnel.udp_csum,
        };
        let front = Front { exit, envelope };
        let offload = batch.frame(slot).offload;
        let first = frame.len().min(FIRST);
        let whole = !out.split && exit.uplink.takes(&front.envelope, &offload, frame.len());
        if whole {
            match self.send_one(&front, out, &frame[..first], &frame[first..], &offload, counters) {
                // The kernel had agreed to it; what it does not take whole it takes in segments.
                SendResult::Refused(_) if offload.gso.is_some() => counters.offload_fallbacks.add(1),
                result => return settle(result),
            }
        }
        if offload.gso.is_none() {
            return settle(self.send_one(&front, out, &frame[..first], &frame[first..], &offload, counters));
        }
        let split = Split::plan(frame, &offload)?;
        let mut header = [0; MAX_HEADERS];
        for n in 0..split.count() {
            let payload = split.segment(n, &mut header);
            let head = &header[..split.header_len()];
            settle(self.send_one(&front, out, head, &frame[payload], &Offload::NONE, counters))?;
        }
        Ok(())
    }

    /// Sends one packet around a frame of which `first` are the first octets, headers all of them, and `rest` is what follows.
    fn send_one(
        &mut self,
        front: &Front<'_>,
        out: &TxFrame,
        first: &[u8],
        rest: &[u8],
        offload: &Offload,
        counters: &PortCounters,
    ) -> SendResult {
        let Front { exit, envelope } = front;
        let tag = out.rewrite.push.map(|tag| tag.to_bytes());
        let tag = tag.as_ref().map_or(&[][..], |tag| tag);
        // The frame's headers stand where those of the packet will end, whatever the length of these.
        let (before, head) = self.scratch.split_at_mut(BEFORE);
        let mut len = 0;
        for part in [&first[..ADDRS_LEN], tag, &first[ADDRS_LEN + usize::from(out.rewrite.pop)..]] {
            head[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        let head = &head[..len];
        let inner_l3 = skip_tags(head, ADDRS_LEN).map_or(0, |(_, _, l3)| l3 as u16);
        let offload = offload.moved(out.rewrite.shift());
        let start = BEFORE - exit.queue.vnet_header_len() - envelope.len();
        if exit.uplink.seal(envelope, [head, rest], &offload, inner_l3, &mut before[start..]).is_none() {
            return SendResult::Refused(Errno::INVAL); // the scratch is as long as the longest
        }
        let parts = [IoSlice::new(&self.scratch[start..BEFORE + len]), IoSlice::new(rest)];
        let result = exit.queue.send(&parts[..1 + usize::from(!rest.is_empty())]);
        if result == SendResult::Sent {
            counters.tx_frames.add(1);
            counters.tx_bytes.add((len + rest.len()) as u64);
            exit.counters.tx_frames.add(1);
            exit.counters.tx_bytes.add((envelope.len() + len + rest.len()) as u64);
        }
        result
    }
}

impl Exit<'_> {
    /// Sends a frame of the switch's own.
    pub fn send_plain(&self, frame: &[u8]) {
        let before = self.queue.vnet_header_len();
        let header = UplinkOffload::NONE.to_vnet();
        let parts = [IoSlice::new(&header.as_bytes()[..before]), IoSlice::new(frame)];
        if self.queue.send(&parts[usize::from(before == 0)..]) == SendResult::Sent {
            self.counters.tx_frames.add(1);
            self.counters.tx_bytes.add(frame.len() as u64);
        }
    }
}

fn settle(result: SendResult) -> Result<(), DropReason> {
    match result {
        // The queue of an uplink is that of a TAP, which holds nothing.
        SendResult::Sent | SendResult::Held => Ok(()),
        SendResult::Full => Err(DropReason::EgressFull),
        SendResult::Down | SendResult::Gone(_) => Err(DropReason::EgressDown),
        SendResult::Refused(_) => Err(DropReason::EgressRefused),
    }
}
