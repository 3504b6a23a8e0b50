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

#[cfg(test)]
pub(crate) mod tests {
    use std::{net::IpAddr, sync::Arc};

    use hashbrown::HashMap;

    use super::*;
    use crate::{
        counters::{PortCounters, PortStats},
        frame::{Caps, Offload},
        overlay::{Host, Remotes, Uplink, Vtep},
        port::{Queue, memory},
        tick::Tick,
        wire::{EtherType, MacAddr, sample},
    };

    /// The drop reason that only the endpoint behind an uplink gives.
    pub(crate) const REASONS: &[DropReason] = &[DropReason::UdpZeroChecksum];

    /// What becomes of a datagram without checksum, over IPv6 or IPv4, for a port where VXLAN's has an endpoint.
    fn without_checksum(six: bool, zero_csum6: bool, port: u16) -> Result<(), DropReason> {
        let udp = sample::udp(50_000, port, &[8, 0, 0, 0, 0, 0, 42, 0]);
        let (local, frame) = match six {
            true => ("2001:db8::2", sample::ethernet(&[], EtherType::IPV6, &sample::ipv6(17, &udp))),
            false => ("198.51.100.2", sample::ethernet(&[], EtherType::IPV4, &sample::ipv4(17, &udp))),
        };
        let local: IpAddr = local.parse().unwrap();
        let mac = MacAddr::from_bits(2);
        let host = Arc::new(Host::new(local.into(), mac, None, MacAddr::from_bits(1)));
        let uplink = Uplink { address: local, mac, caps: Caps::NONE, mtu: 1500, host };
        let vtep = Vtep {
            idx: VtepIdx(0),
            local,
            zero_csum6,
            segments: HashMap::default(),
            entrances: Box::default(),
            stats: Arc::new(PortStats::new(1)),
        };
        let snapshot = Snapshot {
            generation: 1,
            bridges: Vec::new(),
            ports: Vec::new(),
            vteps: vec![Some(Arc::new(vtep))],
            remotes: Arc::new(Remotes::default()),
        };
        let mut batch = Batch::new();
        assert!(batch.append(&frame, Offload::NONE));
        let (queue, _peer) = memory::pair(Caps::NONE);
        let (queue, counters) = (Queue::Memory(queue), PortCounters::default());
        let exit = UplinkExit { queue: &queue, uplink: &uplink, counters: &counters, now: Tick::default() };
        let end = UplinkEnd { uplink: uplink.clone(), vteps: [(4789, VtepIdx(0))].into() };
        let mut arrivals = UplinkArrivals::default();
        let taken = arrivals.take(0, &batch, &exit, &end, &snapshot);
        assert_eq!(arrivals.next(&mut Vec::new()).is_some(), taken.is_ok(), "what is taken waits");
        taken
    }

    /// "receivers must discard UDP packets containing a zero checksum" over IPv6 (RFC 8200 §8.1), but for tunnels that consent (RFC 6936).
    #[test]
    fn a_datagram_without_checksum_over_ipv6_needs_the_tunnels_consent() {
        assert_eq!(without_checksum(true, false, 4789), Err(DropReason::UdpZeroChecksum));
        assert_eq!(without_checksum(true, true, 4789), Ok(()));
        assert_eq!(without_checksum(false, false, 4789), Ok(()), "over IPv4 it may be left out (RFC 768)");
    }

    #[test]
    fn a_datagram_for_a_port_without_a_tunnel_is_for_nobody() {
        assert_eq!(without_checksum(false, false, 4790), Err(DropReason::NotForUs));
        assert_eq!(without_checksum(true, false, 4790), Err(DropReason::NotForUs));
    }
}
