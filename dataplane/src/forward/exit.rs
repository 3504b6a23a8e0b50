//! The last step of a frame whose egress is a tunnel, and the answers that the switch gives itself.
//!
//! A copy for a remote is one entry of the plan; no octet of the frame changes, and the header in front of it is written while sending.

use super::{Observer, Path, Pending, Step, TxFrame, TxPlan};
use crate::{
    bridge::{Rewrite, neigh},
    counters::DropReason,
    fdb::FdbKey,
    frame::{Batch, Checksum},
    index::{PortIdx, RemoteIdx},
    offload,
    overlay::{Hop, Tunnel, too_big},
    snapshot::Port,
};

/// A tunnel by which copies of a frame leave.
#[derive(Clone, Copy)]
pub(super) struct Exit<'a> {
    pub(super) port: PortIdx,
    pub(super) egress: &'a Port,
    pub(super) tunnel: &'a Tunnel,
    pub(super) tagged: bool,
}

impl Path<'_> {
    /// Answers a question about a known neighbour instead of flooding it; `false` where it is none of ours.
    pub(super) fn answer<O: Observer>(
        &self,
        frame: &Pending,
        rx: &mut Batch,
        tx: &mut TxPlan,
        seen: &mut O,
    ) -> bool {
        let type_at = frame.admitted.payload_type_at();
        let neighbours = &self.bridge.neighbours;
        if !neigh::concerns(rx.bytes(frame.slot.into()), type_at) {
            return false;
        }
        if !O::DRY && neighbours.snoops() {
            neighbours.snoop(frame.admitted.vlan, rx.bytes(frame.slot.into()), type_at, self.env.now);
        }
        if !frame.to.is_group() {
            return false; // a question to one station costs nobody else anything
        }
        let (question, reply) = rx.answering(frame.slot.into());
        let Some(answer) = neighbours.answer(frame.admitted.vlan, question, type_at, reply) else {
            return false;
        };
        // A neighbour behind the very port that asks can hear the question itself.
        let key = FdbKey::new(frame.admitted.vlan, answer.mac);
        if self.bridge.fdb.get(key).is_some_and(|entry| entry.dest == frame.here) {
            return false;
        }
        seen.observe(frame.slot, Step::Answered { neighbour: answer.mac });
        self.send_back(frame, answer.len, rx, tx);
        true
    }

    /// Sends the answer that was written for a frame back the way that came.
    fn send_back(&self, frame: &Pending, len: usize, rx: &mut Batch, tx: &mut TxPlan) {
        let hop = match (&self.port.tunnel, frame.here.remote) {
            (None, _) => None,
            (Some(tunnel), Some(remote)) => {
                let Some(vni) = tunnel.vni_of(frame.admitted.vlan) else { return };
                Some(Hop { remote, vni })
            }
            (Some(_), None) => return,
        };
        if let Some(slot) = rx.push_reply(len) {
            tx.push(TxFrame { slot, split: false, port: self.ingress, rewrite: Rewrite::KEEP, hop });
        }
    }

    /// Plans the copies of a flooded frame for a tunnel.
    #[inline]
    pub(super) fn flood_through<O: Observer>(
        &self,
        exit: &Exit<'_>,
        frame: &Pending,
        rx: &mut Batch,
        tx: &mut TxPlan,
        seen: &mut O,
    ) {
        if !O::DRY && exit.egress.bum.as_ref().is_some_and(|limit| !limit.admit(self.env.now)) {
            return self.refuse(frame.slot, exit.port, exit.egress, DropReason::BumLimit, seen);
        }
        self.encap(exit, &exit.tunnel.flood, frame, rx, tx, seen);
    }

    /// Plans one copy for each of `remotes`.
    #[inline]
    pub(super) fn encap<O: Observer>(
        &self,
        exit: &Exit<'_>,
        remotes: &[RemoteIdx],
        frame: &Pending,
        rx: &mut Batch,
        tx: &mut TxPlan,
        seen: &mut O,
    ) {
        let &Exit { port, egress, tunnel, tagged } = exit;
        let slot = usize::from(frame.slot);
        let vlan = frame.admitted.vlan;
        let vni = match tunnel.vni_of(vlan) {
            _ if !egress.is_up() => Err(DropReason::EgressDown),
            _ if remotes.is_empty() => Err(DropReason::NoRemote),
            None => Err(DropReason::DestinationNotMember),
            Some(vni) => Ok(vni),
        };
        let vni = match vni {
            Ok(vni) => vni,
            Err(reason) => return self.refuse(frame.slot, port, egress, reason, seen),
        };
        let rewrite = frame.admitted.rewrite(tagged, rx.bytes(slot));
        let offload = rx.frame(slot).offload;
        let split = offload.gso.is_some() && !egress.caps.take(&offload);
        if !split
            && !egress.caps.take(&offload)
            && let Checksum::Partial { start, offset } = offload.csum
        {
            // Once, before fan-out, for this egress and all others.
            match offload::checksum::complete(rx.bytes_mut(slot), start.into(), offset.into()) {
                Ok(()) => rx.frame_mut(slot).offload.csum = Checksum::Good,
                Err(reason) => return self.refuse(frame.slot, port, egress, reason, seen),
            }
        }
        let mut answered = false;
        let longest = frame.longest(rx.bytes(slot), &rewrite);
        if frame.packet > egress.mtu {
            // An operator's limit holds for fragments too; its sender is told all the same.
            let limit = egress.mtu + longest - frame.packet;
            self.passes_all_the_same(exit, limit, frame, &rewrite, rx, tx, &mut answered);
            return self.refuse(frame.slot, port, egress, DropReason::MtuExceeded, seen);
        }
        for &remote in remotes {
            let limit = tunnel.frame_limit(self.env.snapshot.remotes.path_mtu(remote));
            if longest > limit
                && !self.passes_all_the_same(exit, limit, frame, &rewrite, rx, tx, &mut answered)
            {
                self.refuse(frame.slot, port, egress, DropReason::TunnelMtuExceeded, seen);
                continue;
            }
            let out = TxFrame { slot: frame.slot, split, port, rewrite, hop: Some(Hop { remote, vni }) };
            tx.push(out);
            seen.observe(frame.slot, Step::Planned { vlan, tagged, out });
        }
    }

    /// A frame is longer than `limit`, the longest that fits the path whole: tells its sender, once, or lets it through where the outer
    /// packet may be fragmented and the sender cannot be told.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    fn passes_all_the_same(
        &self,
        exit: &Exit<'_>,
        limit: u32,
        frame: &Pending,
        rewrite: &Rewrite,
        rx: &mut Batch,
        tx: &mut TxPlan,
        answered: &mut bool,
    ) -> bool {
        let slot = usize::from(frame.slot);
        let type_at = frame.admitted.payload_type_at();
        let around = frame.longest(rx.bytes(slot), rewrite) - frame.packet;
        if !*answered {
            let (received, reply) = rx.answering(slot);
            if let Some(len) = too_big::reply(received, type_at, limit.saturating_sub(around), reply) {
                *answered = true;
                self.send_back(frame, len, rx, tx);
            }
        }
        !*answered && exit.tunnel.may_fragment(rx.bytes(slot), type_at)
    }
}
