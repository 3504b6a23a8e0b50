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
        uplink::{Encapsulation, outbound},
    },
    port::{Queue, SendResult},
    tick::Tick,
    wire::{
        ethernet::{ADDRS_LEN, HEADER_LEN},
        layers::skip_tags,
        neighbour::MAX_ANSWER,
    },
};

/// Octets of a frame that are copied behind its outer headers: all its headers, as a rule, and small frames whole.
const FIRST: usize = MAX_HEADERS;
/// Room for the virtio header, the outer headers, the tunnel header, a tag, and the first octets of a frame.
const SCRATCH: usize = HEADROOM + outer::MAX_LEN + MAX_HEADER + 4 + FIRST;

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
    tunnel: &'a Tunnel,
    hop: Hop,
    outer: Outer,
    fields: Fields,
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
        let front = Front {
            exit,
            tunnel,
            hop,
            outer: Outer::new(exit.uplink.mac, mac, addresses, tunnel.dst_port),
            fields: Fields {
                source_port: entropy::source_port(entropy::flow_hash(frame), &tunnel.src_ports),
                tos: said.tos,
                ttl: said.ttl,
                df: if may_fragment { Df::Unset { id: self.id } } else { Df::Set },
            },
        };
        let offload = batch.frame(slot).offload;
        let first = frame.len().min(FIRST);
        let len = front.outer.len() - HEADER_LEN + tunnel.header_len() + frame.len();
        let whole = !out.split && exit.uplink.caps.take_tunnelled(&offload, len, tunnel.udp_csum);
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
        let Front { exit, tunnel, hop, outer, fields } = front;
        let before = exit.queue.vnet_header_len();
        let (vnet, packet) = self.scratch.split_at_mut(HEADROOM);
        let (ethernet_to_udp, inner) = packet.split_at_mut(outer.len());
        let tunnel_len = tunnel.write_header(hop.vni, inner);
        let tag = out.rewrite.push.map(|tag| tag.to_bytes());
        let tag = tag.as_ref().map_or(&[][..], |tag| tag);
        let mut len = tunnel_len;
        for part in [&first[..ADDRS_LEN], tag, &first[ADDRS_LEN + usize::from(out.rewrite.pop)..]] {
            inner[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        let (header, head) = inner[..len].split_at(tunnel_len);
        let around = Encapsulation {
            v6: tunnel.v6,
            l4: (outer.len() - 8) as u16,
            len: (outer.len() + tunnel_len) as u16,
            udp_csum: tunnel.udp_csum,
        };
        let inner_l3 = skip_tags(head, ADDRS_LEN).map_or(0, |(_, _, l3)| l3 as u16);
        let offload = offload.moved(out.rewrite.shift());
        let (said, checksum) = outbound(&exit.uplink.caps, &around, &offload, inner_l3);
        let mut word = [0; 2];
        let covered = checksum.covers([head, rest], &mut word);
        let slices = [header, covered[0], covered[1]];
        let checksum = checksum.as_udp(&slices);
        let payload = len + rest.len();
        if outer.write(fields, payload, checksum, ethernet_to_udp).is_none() {
            return SendResult::Refused(Errno::INVAL); // the scratch is as long as the longest
        }
        let start = HEADROOM - before;
        vnet[start..].copy_from_slice(&said.to_vnet().as_bytes()[..before]);
        let end = HEADROOM + outer.len() + len;
        let parts = [IoSlice::new(&self.scratch[start..end]), IoSlice::new(rest)];
        let result = exit.queue.send(&parts[..1 + usize::from(!rest.is_empty())]);
        if result == SendResult::Sent {
            counters.tx_frames.add(1);
            counters.tx_bytes.add((payload - tunnel_len) as u64);
            exit.counters.tx_frames.add(1);
            exit.counters.tx_bytes.add((front.outer.len() + payload) as u64);
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
        SendResult::Sent => Ok(()),
        SendResult::Full => Err(DropReason::EgressFull),
        SendResult::Down | SendResult::Gone(_) => Err(DropReason::EgressDown),
        SendResult::Refused(_) => Err(DropReason::EgressRefused),
    }
}
