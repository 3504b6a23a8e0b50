//! Carries out the part of a plan that leaves through tunnels.
//!
//! Owns what stands in front of a frame: the tunnel header, and the choice of the socket by the flow of the frame. Decides nothing else:
//! the plan says to whom, the tunnel how.
//! A super-frame leaves as the datagrams of its segments, whose payload is sent from where it was received.

mod uplink;

use std::net::SocketAddr;

pub use uplink::Exit as UplinkExit;

use super::underlay::{Delivery, Outbox, Sent, To, UnderlayTx, Who};
use crate::{
    counters::{DropReason, PortCounters},
    forward::TxFrame,
    frame::Batch,
    index::{PortIdx, RemoteIdx, TxSetIdx},
    offload::{MAX_HEADERS, Split},
    overlay::{Hop, OuterFields, Remotes, Tunnel, Via, entropy, tunnel::MAX_HEADER},
    wire::ethernet::ADDRS_LEN,
};

/// How tunnelled frames get out.
pub trait Exits {
    /// The tunnel behind a port, and the port's counters.
    fn tunnel(&self, port: PortIdx) -> Option<(&Tunnel, &PortCounters)>;
    /// All far ends.
    fn remotes(&self) -> &Remotes;
    /// A set of sockets.
    fn sockets(&self, set: TxSetIdx) -> Option<&UnderlayTx>;
    /// An uplink.
    fn uplink(&self, port: PortIdx) -> Option<UplinkExit<'_>>;
}

/// What a frame says of its outer packet: whether that may be fragmented, its flow, and the fields of the outer header.
type Said = (bool, u32, OuterFields);

/// The scratch memory of a worker's encapsulation.
#[derive(Debug)]
pub struct Encapsulator {
    outbox: Outbox,
    /// The tunnel header of the frame at hand: room for the longest, which is not to be emptied for each.
    header: Box<[u8; MAX_HEADER]>,
    /// What was found out about the last frame that left by a port: copies of a frame stand together in a plan.
    last: Option<((u8, PortIdx), Said)>,
    uplinks: uplink::Sender,
}

impl Default for Encapsulator {
    fn default() -> Self {
        Self {
            outbox: Outbox::default(),
            header: Box::new([0; MAX_HEADER]),
            last: None,
            uplinks: uplink::Sender::default(),
        }
    }
}

impl Encapsulator {
    /// Must be called when there is a new snapshot.
    pub fn forget(&mut self) {
        self.uplinks.forget();
    }

    /// Sends what a plan sends through tunnels. `narrow` is told the remotes to which a datagram was longer than the path takes.
    #[inline]
    pub fn send_all<E: Exits>(
        &mut self,
        plan: &[TxFrame],
        batch: &Batch,
        exits: &E,
        mut narrow: impl FnMut(RemoteIdx),
    ) {
        self.last = None;
        for out in plan {
            if let Some(hop) = out.hop
                && let Some((tunnel, counters)) = exits.tunnel(out.port)
                && let Err(reason) = self.send(out, hop, tunnel, counters, batch, exits, &mut narrow)
            {
                counters.drop(reason);
            }
        }
        if !self.outbox.is_empty() {
            self.flush(batch, exits, &mut narrow);
        }
    }

    fn flush<E: Exits>(&mut self, batch: &Batch, exits: &E, narrow: &mut impl FnMut(RemoteIdx)) {
        self.outbox.flush(
            batch.memory(),
            |set| exits.sockets(set),
            |who, sent| {
                if let Some((tunnel, counters)) = exits.tunnel(who.port) {
                    account(who, sent, tunnel, counters, narrow);
                }
            },
        );
    }

    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn send<E: Exits>(
        &mut self,
        out: &TxFrame,
        hop: Hop,
        tunnel: &Tunnel,
        counters: &PortCounters,
        batch: &Batch,
        exits: &E,
        narrow: &mut impl FnMut(RemoteIdx),
    ) -> Result<(), DropReason> {
        let slot = usize::from(out.slot);
        let frame = batch.bytes(slot);
        let address = exits.remotes().address(hop.remote).ok_or(DropReason::NoRemote)?;
        let (fragmenting, whole) = match tunnel.via {
            Via::Sockets { fragmenting, whole } => (fragmenting, whole),
            Via::Uplink(port) => {
                let exit = exits.uplink(port).ok_or(DropReason::EgressDown)?;
                return self.uplinks.send(out, hop, address, (port, exit), (tunnel, counters), batch);
            }
        };
        let copy_of = (out.slot, out.port);
        let (may_fragment, flow, fields) = match self.last {
            Some((of, said)) if of == copy_of => said,
            _ => {
                let may_fragment = tunnel.may_fragment(frame, ADDRS_LEN);
                let said = (may_fragment, entropy::flow_hash(frame), tunnel.outer_fields(frame));
                self.last = Some((copy_of, said));
                said
            }
        };
        let to = To {
            set: if may_fragment { fragmenting } else { whole },
            flow,
            addr: SocketAddr::new(address, tunnel.dst_port),
            tos: fields.tos,
            ttl: fields.ttl,
        };
        let who = Who { port: out.port, remote: hop.remote };
        let header_len = tunnel.write_header(hop.vni, &mut self.header[..]);
        let tag = out.rewrite.push.map(|tag| tag.to_bytes());
        let tag = tag.as_ref().map_or(&[][..], |tag| tag);
        let keep = ADDRS_LEN + usize::from(out.rewrite.pop);
        let range = batch.frame(slot).range();
        if !out.split {
            if self.outbox.is_full() {
                self.flush(batch, exits, narrow);
            }
            // The addresses stand in front of the tag and are copied with it; a frame that keeps its tag stays in one piece.
            let (head, body) = if tag.is_empty() && out.rewrite.pop == 0 {
                (&[][..], range)
            } else {
                (&frame[..ADDRS_LEN], range.start + keep..range.end)
            };
            self.outbox.push(&to, who, &[&self.header[..header_len], head, tag], body, batch.memory());
            return Ok(());
        }
        let split = Split::plan(frame, &batch.frame(slot).offload)?;
        let mut segment = [0; MAX_HEADERS];
        for n in 0..split.count() {
            if self.outbox.is_full() {
                self.flush(batch, exits, narrow);
            }
            let payload = split.segment(n, &mut segment);
            let body = range.start + payload.start..range.start + payload.end;
            let (addresses, rest) = (&segment[..ADDRS_LEN], &segment[keep..split.header_len()]);
            self.outbox.push(
                &to,
                who,
                &[&self.header[..header_len], addresses, tag, rest],
                body,
                batch.memory(),
            );
        }
        Ok(())
    }
}

/// Counts what came of datagrams.
fn account(
    who: Who,
    sent: Sent,
    tunnel: &Tunnel,
    counters: &PortCounters,
    narrow: &mut impl FnMut(RemoteIdx),
) {
    if sent.fallback {
        counters.offload_fallbacks.add(1);
    }
    let reason = match sent.delivery {
        Delivery::Sent => {
            counters.tx_frames.add(sent.datagrams.into());
            // The frames' own octets, as on every port.
            counters
                .tx_bytes
                .add(sent.octets.saturating_sub(u64::from(sent.datagrams) * tunnel.header_len() as u64));
            return;
        }
        Delivery::Full => DropReason::EgressFull,
        Delivery::TooBig => {
            narrow(who.remote);
            DropReason::TunnelMtuExceeded
        }
        Delivery::Unreachable => DropReason::UnderlayUnreachable,
        Delivery::Gone => DropReason::EgressDown,
        Delivery::Refused(_) => DropReason::EgressRefused,
    };
    counters.drop_many(reason, sent.datagrams.into());
}

#[cfg(test)]
pub(crate) mod tests;
