//! A frame's life: admit, learn, look up, plan. Read this file first.
//!
//! Owns the order of the steps and the plan. Performs no I/O, reads no clock, takes no lock while nothing changes,
//! allocates nothing, logs nothing.
//!
//! ```text
//!            ┌───────┐   ┌───────┐   ┌────────┐   ┌────────┐
//!  Batch ──▶ │ admit │──▶│ learn │──▶│ lookup │──▶│ egress │──▶ TxPlan
//!            └───────┘   └───────┘   └────────┘   └────────┘
//!            VLAN, MAC    source      destination   policy, MTU,
//!            security     address     or members    tag, offload
//!                └───────────┴─────────────┴─────────────┴──▶ Drop(reason): counted on a port
//! ```
//!
//! Each step goes over the whole batch before the next begins. Two things follow. The loads of the forwarding database
//! for all frames are under way at once instead of one after the other. And a lookup sees everything the batch has
//! learned: a frame can be forwarded to a station whose first frame stands behind it in the same batch.
//!
//! The plan says what leaves where; nothing has been sent. A frame's octets change in one place only, the completion
//! of a checksum that some egress cannot be left with, and tags are put in and taken out while sending, so that a frame
//! flooded to a hundred ports is a hundred plan entries and no copy.

mod exit;
mod observe;
mod plan;
#[cfg(test)]
mod tests;

use exit::Exit;
pub use observe::{Foresight, Observer, Silent, Step};
pub use plan::{TxFrame, TxPlan};

use crate::{
    bridge::{Admitted, Class, Member, Rewrite, VlanMode},
    counters::DropReason,
    fdb::{Dest, FdbKey, Hashed, Learn, LearnRefusal},
    frame::{BATCH, Batch, Checksum},
    index::PortIdx,
    offload,
    overlay::Ingress,
    snapshot::{Bridge, Port, Snapshot},
    tick::Tick,
    wire::{EtherType, MacAddr, dot1q::TAG_LEN, ethernet::HEADER_LEN},
};

/// What the path knows beside the frames.
#[derive(Clone, Copy, Debug)]
pub struct Env<'a> {
    /// The state of the switch.
    pub snapshot: &'a Snapshot,
    /// The worker whose counters are written.
    pub worker: usize,
    /// When the batch was received.
    pub now: Tick,
}

/// A frame between the steps.
#[derive(Clone, Copy, Debug)]
struct Pending {
    slot: u8,
    admitted: Admitted,
    /// Where its sender is.
    here: Dest,
    source: Hashed,
    destination: Hashed,
    to: MacAddr,
    /// Octets of the longest IP packet that it is or is made of: what is compared with an MTU.
    packet: u32,
}

impl Pending {
    /// Octets of the frame, or of the longest frame that it is made of, as it leaves.
    #[inline]
    fn longest(&self, frame: &[u8], rewrite: &Rewrite) -> u32 {
        let l2 = packet_at(frame, self.admitted.payload_type_at()) as u32;
        (l2 + self.packet).saturating_add_signed(rewrite.shift().into())
    }
}

/// The frames between the steps; kept by the worker so that the path allocates nothing.
#[derive(Debug)]
pub struct Scratch {
    pending: Vec<Pending>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { pending: Vec::with_capacity(BATCH) }
    }
}

/// Decides what happens to every frame in `rx`, all of which came by `ingress` (a port, or what decapsulation says), and adds what
/// leaves to `tx`.
///
/// Every frame ends as one counted drop on the ingress port, as a question that the switch answered itself, or as copies, each of which
/// is an entry of the plan or a counted drop on the egress port that cannot take it.
pub fn forward<O: Observer>(
    env: &Env<'_>,
    ingress: impl Into<Ingress>,
    rx: &mut Batch,
    scratch: &mut Scratch,
    tx: &mut TxPlan,
    seen: &mut O,
) {
    let Ingress { port: ingress, vlan, learn } = ingress.into();
    let Some(port) = env.snapshot.port(ingress) else { return }; // deleted while the batch was received
    let Some(bridge) = env.snapshot.bridge(port.bridge) else { return };
    let path = Path {
        env,
        ingress,
        port,
        bridge,
        vlan: vlan.map(VlanMode::Access),
        learning: port.learning && learn,
        asks: bridge.neighbours.active(),
    };
    scratch.pending.clear();
    path.admit(rx, &mut scratch.pending, seen);
    path.learn(&mut scratch.pending, seen);
    path.plan(rx, &scratch.pending, tx, seen);
}

/// One batch on its way: what is the same for all its frames.
struct Path<'a> {
    env: &'a Env<'a>,
    ingress: PortIdx,
    port: &'a Port,
    bridge: &'a Bridge,
    /// How frames are admitted whose VNI says their VLAN.
    vlan: Option<VlanMode>,
    learning: bool,
    /// Whether the bridge wants to see questions about neighbours.
    asks: bool,
}

impl Path<'_> {
    #[inline]
    fn drop<O: Observer>(&self, slot: u8, reason: DropReason, seen: &mut O) {
        if !O::DRY {
            self.port.stats.of(self.env.worker).drop(reason);
        }
        seen.observe(slot, Step::Dropped { reason, port: self.ingress });
    }

    /// Parses what the bridge needs to know, and lets in what the ingress port lets in.
    #[inline]
    fn admit<O: Observer>(&self, rx: &mut Batch, pending: &mut Vec<Pending>, seen: &mut O) {
        let mut warmth = 0;
        for slot in 0..rx.len() as u8 {
            match self.admit_one(slot, rx) {
                Ok(frame) => {
                    // Brings the buckets into the cache while the other frames are parsed.
                    warmth ^= self.bridge.fdb.warm(&frame.source) ^ self.bridge.fdb.warm(&frame.destination);
                    seen.observe(slot, Step::Admitted(frame.admitted));
                    pending.push(frame);
                }
                Err(reason) => self.drop(slot, reason, seen),
            }
        }
        std::hint::black_box(warmth);
    }

    #[inline]
    fn admit_one(&self, slot: u8, rx: &mut Batch) -> Result<Pending, DropReason> {
        let bytes = rx.bytes(slot.into());
        let Some((&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, _, _], _)) =
            bytes.split_first_chunk::<HEADER_LEN>()
        else {
            return Err(DropReason::Runt);
        };
        if !self.port.is_up() {
            return Err(DropReason::PortDown);
        }
        let to = MacAddr::from_octets([d0, d1, d2, d3, d4, d5]);
        let from = MacAddr::from_octets([s0, s1, s2, s3, s4, s5]);
        if !from.is_station() {
            return Err(DropReason::SourceInvalid);
        }
        if to.is_reserved_group() {
            return Err(DropReason::ReservedGroup);
        }
        let admitted = self.vlan.as_ref().unwrap_or(&self.port.vlan).admit(bytes)?;
        if let Some(secure) = &self.port.secure {
            let type_at = admitted.payload_type_at();
            finish_stray_checksum(rx, slot.into(), type_at)?;
            secure.check(rx.bytes(slot.into()), type_at)?;
        }
        let bytes = rx.bytes(slot.into());
        let packet = match offload::validate(bytes, &rx.frame(slot.into()).offload)? {
            Some(segment) => segment,
            None => packet_len(bytes, admitted.payload_type_at()),
        };
        let fdb = &self.bridge.fdb;
        let source = fdb.prepare(FdbKey::new(admitted.vlan, from));
        let destination = fdb.prepare(FdbKey::new(admitted.vlan, to));
        let here = Dest { port: self.ingress, remote: rx.frame(slot.into()).remote };
        Ok(Pending { slot, admitted, here, source, destination, to, packet: packet as u32 })
    }

    /// Learns where the senders are; turns away those that a locked port, a sticky entry or a station held elsewhere
    /// does not let in.
    #[inline]
    fn learn<O: Observer>(&self, pending: &mut Vec<Pending>, seen: &mut O) {
        if !self.learning && !self.port.locked {
            return;
        }
        pending.retain(|frame| match self.learn_one(frame, seen) {
            Ok(()) => true,
            Err(reason) => {
                self.drop(frame.slot, reason, seen);
                false
            }
        });
    }

    #[inline]
    fn learn_one<O: Observer>(&self, frame: &Pending, seen: &mut O) -> Result<(), DropReason> {
        let fdb = &self.bridge.fdb;
        if self.port.locked && fdb.lookup_hashed(&frame.source).is_none_or(|dest| dest.port != self.ingress) {
            return Err(DropReason::Locked);
        }
        if !self.learning {
            return Ok(());
        }
        let learned = if O::DRY {
            self.foresee(frame)
        } else {
            fdb.learn_hashed(&frame.source, frame.here, self.port.mac_limit, self.env.now)
        };
        seen.observe(frame.slot, Step::Learned(learned));
        match learned {
            Learn::Refused(LearnRefusal::Sticky) => Err(DropReason::StickyViolation),
            // It came round a loop, or from one of two with the address; forwarded, the loop would go on.
            Learn::Refused(LearnRefusal::Damped) => Err(DropReason::MacDamped),
            // What a tenant's own limit refuses is more than it was given.
            Learn::Refused(LearnRefusal::PortLimit) if self.port.secure.is_some() => {
                Err(DropReason::SecureMacLimit)
            }
            // Another refused address is forwarded all the same: it is unknown, not unwelcome.
            Learn::Known | Learn::New | Learn::Moved { .. } | Learn::Refused(_) => Ok(()),
        }
    }

    fn foresee(&self, frame: &Pending) -> Learn {
        Foresight::of(&self.bridge.fdb, &frame.source, frame.here, self.port.mac_limit)
    }

    /// Whether the entry that the lookup finds is the one that this very frame makes, and that a dry run has not made.
    fn is_for_its_sender(&self, frame: &Pending) -> bool {
        self.learning
            && frame.source.key() == frame.destination.key()
            && !matches!(self.foresee(frame), Learn::Refused(_))
    }

    /// Looks up where the frames go and plans what leaves.
    #[inline]
    fn plan<O: Observer>(&self, rx: &mut Batch, pending: &[Pending], tx: &mut TxPlan, seen: &mut O) {
        for frame in pending {
            if self.asks && self.answer(frame, rx, tx, seen) {
                continue;
            }
            let planned = match self.classify::<O>(frame) {
                Ok(dest) => {
                    seen.observe(frame.slot, Step::Found(dest));
                    self.unicast(dest, frame, rx, tx, seen)
                }
                Err(class) => {
                    seen.observe(frame.slot, Step::Flooded(class));
                    self.flood(class, frame, rx, tx, seen)
                }
            };
            if let Err(reason) = planned {
                self.drop(frame.slot, reason, seen);
            }
        }
    }

    /// The known destination of a frame, or the class in which it is flooded.
    #[inline]
    fn classify<O: Observer>(&self, frame: &Pending) -> Result<Dest, Class> {
        if frame.to.is_group() {
            return Err(if frame.to.is_broadcast() { Class::Broadcast } else { Class::Multicast });
        }
        if O::DRY && self.is_for_its_sender(frame) {
            return Ok(frame.here);
        }
        self.bridge.fdb.lookup_hashed(&frame.destination).ok_or(Class::UnknownUnicast)
    }

    #[inline]
    fn unicast<O: Observer>(
        &self,
        dest: Dest,
        frame: &Pending,
        rx: &mut Batch,
        tx: &mut TxPlan,
        seen: &mut O,
    ) -> Result<(), DropReason> {
        if dest.port == self.ingress && !self.port.hairpin {
            return Err(DropReason::SamePort);
        }
        // The entry can outlive its port for as long as it takes to flush it.
        let egress = self.env.snapshot.port(dest.port).ok_or(DropReason::NoMember)?;
        if egress.isolated && self.port.isolated {
            return Err(DropReason::Isolated);
        }
        if egress.tunnel.is_some() && self.port.tunnel.is_some() {
            return Err(DropReason::SplitHorizon);
        }
        let tagged = egress.vlan.tags(frame.admitted.vlan).ok_or(DropReason::DestinationNotMember)?;
        match &egress.tunnel {
            None => self.egress(dest.port, egress, tagged, frame, rx, tx, seen),
            Some(tunnel) => {
                let exit = Exit { port: dest.port, egress, tunnel, tagged };
                match &dest.remote {
                    Some(remote) => self.encap(&exit, std::slice::from_ref(remote), frame, rx, tx, seen),
                    None => self.encap(&exit, &tunnel.flood, frame, rx, tx, seen),
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn flood<O: Observer>(
        &self,
        class: Class,
        frame: &Pending,
        rx: &mut Batch,
        tx: &mut TxPlan,
        seen: &mut O,
    ) -> Result<(), DropReason> {
        if !O::DRY && self.port.storm.as_ref().is_some_and(|storm| !storm.admit(self.env.now)) {
            return Err(DropReason::StormLimit);
        }
        let mut reached = false;
        for member in self.bridge.members.of(frame.admitted.vlan) {
            if !self.floods_to(member, class) {
                continue;
            }
            let Some(egress) = self.env.snapshot.port(member.port) else { continue };
            match &egress.tunnel {
                None => self.egress(member.port, egress, member.tagged, frame, rx, tx, seen),
                // Split horizon: every site has been sent its own copy by the site the frame came from.
                Some(_) if self.port.tunnel.is_some() => continue,
                Some(tunnel) => {
                    let exit = Exit { port: member.port, egress, tunnel, tagged: member.tagged };
                    self.flood_through(&exit, frame, rx, tx, seen);
                }
            }
            reached = true;
        }
        if reached { Ok(()) } else { Err(DropReason::NoMember) }
    }

    #[inline]
    fn floods_to(&self, member: &Member, class: Class) -> bool {
        member.takes(class)
            && (member.port != self.ingress || self.port.hairpin)
            && !(member.isolated && self.port.isolated)
    }

    /// Plans one copy, or counts it on the egress port where that cannot take it.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn egress<O: Observer>(
        &self,
        port: PortIdx,
        egress: &Port,
        tagged: bool,
        frame: &Pending,
        rx: &mut Batch,
        tx: &mut TxPlan,
        seen: &mut O,
    ) {
        let slot = frame.slot.into();
        let rewrite = frame.admitted.rewrite(tagged, rx.bytes(slot));
        let offload = rx.frame(slot).offload;
        let refused = if !egress.is_up() {
            Some(DropReason::EgressDown)
        } else if frame.packet > egress.mtu {
            Some(DropReason::MtuExceeded)
        } else {
            None
        };
        if let Some(reason) = refused {
            return self.refuse(frame.slot, port, egress, reason, seen);
        }
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
        let out = TxFrame { slot: frame.slot, split, port, rewrite, hop: None };
        tx.push(out);
        seen.observe(frame.slot, Step::Planned { vlan: frame.admitted.vlan, tagged, out });
    }

    /// Counts a copy that does not leave.
    #[cold]
    fn refuse<O: Observer>(&self, slot: u8, port: PortIdx, egress: &Port, reason: DropReason, seen: &mut O) {
        if !O::DRY {
            egress.stats.of(self.env.worker).drop(reason);
        }
        seen.observe(slot, Step::Dropped { reason, port });
    }
}

/// What is checked must be what the receiver sees: a partial checksum that is not TCP's or UDP's own is finished before.
/// (That of a super-frame is looked at with its headers.)
#[inline]
fn finish_stray_checksum(rx: &mut Batch, slot: usize, type_at: usize) -> Result<(), DropReason> {
    let offload = rx.frame(slot).offload;
    if let (Checksum::Partial { start, offset }, None) = (offload.csum, offload.gso)
        && !offload::is_transport_checksum(rx.bytes(slot), type_at, start, offset)
    {
        offload::checksum::complete(rx.bytes_mut(slot), start.into(), offset.into())?;
        rx.frame_mut(slot).offload.csum = Checksum::Good;
    }
    Ok(())
}

/// Where the packet of a frame begins whose type stands at `type_at`; a further tag there is no part of it, as tags do not count
/// against an MTU.
#[inline]
fn packet_at(frame: &[u8], type_at: usize) -> usize {
    let tag = match frame.get(type_at..type_at + 2) {
        Some(&[a, b]) if EtherType(u16::from_be_bytes([a, b])).is_tag() => TAG_LEN,
        _ => 0,
    };
    type_at + 2 + tag
}

/// Octets of the packet of such a frame.
#[inline]
fn packet_len(frame: &[u8], type_at: usize) -> usize {
    frame.len().saturating_sub(packet_at(frame, type_at))
}
