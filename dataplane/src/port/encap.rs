//! Carries out the part of a plan that leaves through tunnels.
//!
//! Owns what stands in front of a frame: the tunnel header, and the choice of the socket by the flow of the frame. Decides nothing else:
//! the plan says to whom, the tunnel how.
//! A super-frame leaves as the datagrams of its segments, whose payload is sent from where it was received.

use std::{net::SocketAddr, ops::Range};

use super::{Outbox, Queue, Sent, To, UnderlayTx, Who};
use crate::{
    counters::{DropReason, PortCounters},
    forward::TxFrame,
    frame::Batch,
    index::{PortIdx, RemoteIdx, TxSetIdx},
    offload::{MAX_HEADERS, Split},
    overlay::{Hop, Remotes, Tunnel, Via, entropy, tunnel::MAX_HEADER},
    wire::ethernet::{ADDRS_LEN, HEADER_LEN},
};

/// How tunnelled frames get out.
pub trait Exits {
    /// The tunnel behind a port, and the port's counters.
    fn tunnel(&self, port: PortIdx) -> Option<(&Tunnel, &PortCounters)>;
    /// All far ends.
    fn remotes(&self) -> &Remotes;
    /// A set of sockets.
    fn sockets(&self, set: TxSetIdx) -> Option<&UnderlayTx>;
    /// The queue of an uplink, and its counters.
    fn queue(&self, uplink: PortIdx) -> Option<(&Queue, &PortCounters)>;
}

/// The scratch memory of a worker's encapsulation.
#[derive(Debug, Default)]
pub struct Encapsulator {
    outbox: Outbox,
}

impl Encapsulator {
    /// Sends what a plan sends through tunnels. `narrow` is told the remotes to which a datagram was too long for the kernel.
    #[inline]
    pub fn send_all<E: Exits>(
        &mut self,
        plan: &[TxFrame],
        batch: &Batch,
        exits: &E,
        mut narrow: impl FnMut(RemoteIdx),
    ) {
        for out in plan {
            let Some(hop) = out.hop else { continue };
            let Some((tunnel, counters)) = exits.tunnel(out.port) else { continue };
            if let Err(reason) = self.send(out, hop, tunnel, batch, exits, &mut narrow) {
                counters.drop(reason);
            }
        }
        self.flush(batch, exits, &mut narrow);
    }

    fn flush<E: Exits>(&mut self, batch: &Batch, exits: &E, narrow: &mut impl FnMut(RemoteIdx)) {
        self.outbox.flush(batch.memory(), |set| exits.sockets(set), |who, sent| {
            if let Some((_, counters)) = exits.tunnel(who.port) {
                account(who, sent, counters, narrow);
            }
        });
    }

    #[inline]
    fn send<E: Exits>(
        &mut self,
        out: &TxFrame,
        hop: Hop,
        tunnel: &Tunnel,
        batch: &Batch,
        exits: &E,
        narrow: &mut impl FnMut(RemoteIdx),
    ) -> Result<(), DropReason> {
        let frame = batch.bytes(out.slot.into());
        let address = exits.remotes().address(hop.remote).ok_or(DropReason::NoRemote)?;
        let fields = tunnel.outer_fields(frame);
        let set = match tunnel.via {
            Via::Sockets { fragmenting, whole } => {
                if tunnel.may_fragment(frame, ADDRS_LEN) { fragmenting } else { whole }
            }
            Via::Uplink(_) => todo_uplink(),
        };
        let to = To {
            set,
            flow: entropy::flow_hash(frame),
            addr: SocketAddr::new(address, tunnel.dst_port),
            tos: fields.tos,
            ttl: fields.ttl,
        };
        let who = Who { port: out.port, remote: hop.remote };
        let mut header = [0; MAX_HEADER];
        let len = tunnel.write_header(hop.vni, &mut header);
        Ok(())
    }
}
