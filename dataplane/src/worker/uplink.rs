//! What comes in by an uplink: answers for the switch's own address, and tunnel packets for the endpoints behind it.

use crate::{
    counters::DropReason,
    frame::{Batch, Datagram, MAX_FRAME},
    index::VtepIdx,
    overlay::uplink::Arrival,
    port::UplinkExit,
    snapshot::{Snapshot, UplinkEnd},
};

/// Tunnel packets that came in by an uplink, on their way to their endpoints.
#[derive(Debug)]
pub(super) struct UplinkArrivals {
    waiting: Vec<(VtepIdx, Datagram)>,
    reply: Box<[u8]>,
}

impl Default for UplinkArrivals {
    fn default() -> Self {
        Self { waiting: Vec::new(), reply: vec![0; MAX_FRAME].into() }
    }
}

impl UplinkArrivals {
    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Takes in the frame in a slot: answers it where it is for the switch itself, keeps it where it is for a tunnel.
    pub(super) fn take(
        &mut self,
        slot: usize,
        batch: &Batch,
        exit: &UplinkExit<'_>,
        end: &UplinkEnd,
        snapshot: &Snapshot,
    ) -> Result<(), DropReason> {
        let before = exit.queue.vnet_header_len();
        let (header, frame) = batch.bytes_with(slot, before).split_at(before);
        let found = match end.uplink.receive(header, frame, exit.now, &mut self.reply) {
            Arrival::Datagrams(found) => found,
            Arrival::Drop(reason) => return Err(reason),
            Arrival::Learned => return Ok(()),
            Arrival::Answer(answer) => {
                exit.send_plain(answer);
                return Ok(());
            }
            Arrival::PathMtu { remote, mtu } => {
                for (_, vtep) in &end.vteps {
                    snapshot.remotes.narrow(*vtep, remote, mtu);
                }
                return Ok(());
            }
        };
        let vtep = end.vtep(found.to_port).ok_or(DropReason::NotForUs)?;
        let takes_zero = || snapshot.vtep(vtep).is_some_and(|vtep| vtep.zero_csum6);
        if !found.has_checksum && found.from.is_ipv6() && !takes_zero() {
            return Err(DropReason::UdpZeroChecksum);
        }
        self.waiting.push((vtep, found.of_batch(batch.frame(slot).range().start)));
        Ok(())
    }

    /// Moves what waits for one endpoint to `datagrams`; `None` where nothing waits.
    pub(super) fn next(&mut self, datagrams: &mut Vec<Datagram>) -> Option<VtepIdx> {
        let &(vtep, _) = self.waiting.first()?;
        datagrams.clear();
        self.waiting.retain(|&(of, datagram)| {
            if of == vtep {
                datagrams.push(datagram);
            }
            of != vtep
        });
        Some(vtep)
    }
}
