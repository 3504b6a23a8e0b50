//! Datagrams of any octets from any sender at an endpoint of tunnels: decapsulation, merge, the path and the way out. Every part of a
//! datagram is a frame or counted, every frame leaves or is counted, and none goes into a tunnel again.
//!
//! The first octet says which kind of endpoint it is, then come datagrams: kind, stride (two octets), length (two octets), octets.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use tapway_dataplane::{
    bridge::{Member, Members, VlanMode},
    counters::{DropReason, PortStats, Side},
    fdb::Fdb,
    forward::{Env, Scratch, Silent, TxPlan, forward},
    frame::{BATCH, Batch, Caps, Datagram, Offload},
    index::{BridgeIdx, PortIdx, RemoteIdx, TxSetIdx, VtepIdx},
    offload::{Limits, merge},
    overlay::{
        Arrivals, Decapsulator, Encap, Entrance, Fragmentation, Inherit, Remotes, Segment, Tunnel, Via, Vtep,
        decap::Rules,
    },
    port::{MemoryPeer, Outcome, Queue, Transmitter, memory},
    snapshot::{Bridge, Port, Snapshot},
    tick::Tick,
    wire::{
        Vid, Vni,
        vxlan::{self, Reserved},
    },
};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const NOW: Tick = Tick::from_secs(1);
/// Datagrams of one receive: so many that a batch is not the end.
const DATAGRAMS: usize = 24;

/// What became of an input.
#[derive(Debug, Default)]
pub struct Fate {
    /// Frames out of datagrams.
    pub frames: usize,
    /// What they were when they had been merged.
    pub merged: usize,
    /// Why others went nowhere.
    pub dropped: BTreeSet<&'static str>,
}

pub fn run(input: &[u8]) {
    fate(input);
}

/// Runs an input, and tells what became of it.
pub fn fate(input: &[u8]) -> Fate {
    let mut fate = Fate::default();
    let Some((&kind, mut rest)) = input.split_first() else { return fate };
    let mut switch = Switch::new(kind);
    while let Some(([kind, s0, s1, l0, l1], after)) = rest.split_first_chunk() {
        let (octets, after) = after.split_at(after.len().min(u16::from_be_bytes([*l0, *l1]).into()));
        switch.put(*kind, u16::from_be_bytes([*s0, *s1]).into(), octets);
        rest = after;
        if switch.datagrams.len() == DATAGRAMS {
            switch.serve(&mut fate);
        }
    }
    switch.serve(&mut fate);
    let all = switch.stats().flat_map(|stats| stats.total().drops().collect::<Vec<_>>());
    fate.dropped = all.map(|(reason, _)| reason.name()).collect();
    fate
}

fn vni(n: u32) -> Vni {
    Vni::new(n).expect("small")
}

/// Ports 0 and 1 are plain, 2 and 3 are tunnels: VNI 1 is the network of tunnel 2, VNI 2 that of VLAN 10 in tunnel 3, VNI 3 that of
/// its other VLANs.
struct Switch {
    snapshot: Snapshot,
    vtep: Vtep,
    queues: Vec<Queue>,
    peers: Vec<MemoryPeer>,
    batch: Batch,
    datagrams: Vec<Datagram>,
    decapsulator: Decapsulator,
    plan: TxPlan,
    transmitter: Transmitter,
}

fn tunnel(vlan_vni: &[(u16, Vni)], rest: Vni) -> Tunnel {
    Tunnel {
        vtep: VtepIdx(0),
        via: Via::Sockets { fragmenting: TxSetIdx(0), whole: TxSetIdx(1) },
        v6: false,
        src_ports: 49152..=65535,
        dst_port: vxlan::PORT,
        encap: Encap::Vxlan { gbp: None },
        vni: Some(rest),
        vlan_vni: vlan_vni.into(),
        flood: [RemoteIdx(0)].into(),
        ttl: Inherit::Inherit,
        tos: Inherit::Inherit,
        df: Fragmentation::AsInner,
        udp_csum: true,
        underlay_mtu: 1500,
    }
}

impl Switch {
    fn new(kind: u8) -> Self {
        let has = |bit: u8| kind & 1 << bit != 0;
        let remotes = Remotes::default();
        remotes.pin(VtepIdx(0), Ipv4Addr::new(198, 51, 100, 2).into()).expect("room");
        let plain = |caps| Port { caps, ..Port::new(BridgeIdx(0), 1) };
        let mapped = VlanMode::Mapped { vlans: Arc::new("10".parse().expect("a list")), rest: true };
        let through = |tunnel, vlan| Port { tunnel: Some(Arc::new(tunnel)), vlan, ..plain(Caps::NONE) };
        let ports = vec![
            plain(Caps::ALL),
            Port { mtu: if has(3) { 600 } else { 9000 }, ..plain(Caps::NONE) },
            through(tunnel(&[], vni(1)), VlanMode::Transparent),
            through(tunnel(&[(10, vni(2))], vni(3)), mapped),
        ];
        let rules = || {
            if has(0) {
                Rules::Geneve([(0x0102, 0x80)].into())
            } else {
                let reserved = if has(1) { Reserved::Refuse } else { Reserved::Ignore };
                Rules::Vxlan(vxlan::Rules { reserved, gbp: has(2) })
            }
        };
        let entrance = |port: u16| Entrance {
            port: PortIdx(port),
            rules: rules(),
            known: (has(4) && port == 3)
                .then(|| [Ipv4Addr::new(198, 51, 100, 2).into()].into_iter().collect()),
            stats: Arc::clone(&ports[usize::from(port)].stats),
        };
        let segments = [
            (vni(1), Segment { entrance: 0, vlan: None }),
            (vni(2), Segment { entrance: 1, vlan: Vid::new(10) }),
            (vni(3), Segment { entrance: 1, vlan: None }),
        ];
        let vtep = Vtep {
            idx: VtepIdx(0),
            local: LOCAL,
            zero_csum6: false,
            segments: segments.into_iter().collect(),
            entrances: [entrance(2), entrance(3)].into(),
            stats: Arc::new(PortStats::new(1)),
        };
        let indexed: Vec<(usize, &Port)> = ports.iter().enumerate().collect();
        let members = Members::new(&indexed, ports.iter().flat_map(|p| p.vlan.named()), |(n, p), vlan| {
            let (port, tagged) = (PortIdx(*n as u16), p.vlan.tags(vlan)?);
            Some(Member { port, tagged, classes: Member::classes(true, true, true), isolated: false })
        });
        let fdb = Arc::new(Fdb::new(16).expect("small"));
        let bridge = Arc::new(Bridge { fdb, members, neighbours: Arc::default() });
        let (queues, peers) = ports[..2]
            .iter()
            .map(|p| memory::pair(p.caps))
            .map(|(queue, peer)| (Queue::Memory(queue), peer))
            .unzip();
        Self {
            snapshot: Snapshot {
                generation: 1,
                bridges: vec![Some(bridge)],
                ports: ports.into_iter().map(Some).collect(),
                remotes: Arc::new(remotes),
                ..Snapshot::default()
            },
            vtep,
            queues,
            peers,
            batch: Batch::new(),
            datagrams: Vec::new(),
            decapsulator: Decapsulator::default(),
            plan: TxPlan::default(),
            transmitter: Transmitter::default(),
        }
    }

    fn stats(&self) -> impl Iterator<Item = &PortStats> {
        self.snapshot.ports.iter().flatten().map(|p| &*p.stats).chain([&*self.vtep.stats])
    }

    fn drops(&self, side: Side) -> u64 {
        let of = |stats: &PortStats| {
            stats.total().drops().filter(|(reason, _)| reason.side() == side).map(|(_, n)| n).sum::<u64>()
        };
        self.stats().map(of).sum()
    }

    /// A datagram arrives, repeated as often as `kind` says.
    fn put(&mut self, kind: u8, stride: u32, octets: &[u8]) {
        let octets = octets.repeat(1 + usize::from(kind >> 6));
        let at = Batch::slot_at(self.datagrams.len());
        self.batch.memory_mut()[at..][..octets.len().min(65_000)]
            .copy_from_slice(&octets[..octets.len().min(65_000)]);
        self.datagrams.push(Datagram {
            at: at as u32,
            len: octets.len().min(65_000) as u32,
            stride,
            from: Ipv4Addr::new(198, 51, 100, 1 + (kind & 7)).into(),
            tos: kind >> 3 & 7,
            offload: Offload::NONE,
        });
    }

    fn serve(&mut self, fate: &mut Fate) {
        let datagrams = std::mem::take(&mut self.datagrams);
        let parts: u64 = datagrams
            .iter()
            .map(|d| if d.stride == 0 { 1 } else { u64::from(d.len.div_ceil(d.stride).max(1)) })
            .sum();
        let before = self.drops(Side::Ingress);
        let (mut frames, mut lost_later) = (0, 0);
        self.decapsulator.begin();
        loop {
            let arrivals =
                Arrivals { vtep: &self.vtep, remotes: &self.snapshot.remotes, worker: 0, now: NOW };
            let Some(ingress) = self.decapsulator.next(&arrivals, &datagrams, &mut self.batch) else { break };
            assert!((1..=BATCH).contains(&self.batch.len()));
            frames += self.batch.len() as u64;
            let octets: usize = (0..self.batch.len()).map(|n| self.batch.bytes(n).len()).sum();
            merge(&mut self.batch, &Limits { mtu: 1450, udp: true });
            let merged = self.batch.len();
            assert!(merged > 0 && (0..merged).map(|n| self.batch.bytes(n).len()).sum::<usize>() <= octets);
            fate.merged += merged;
            let (lost, refused) = (self.drops(Side::Ingress), self.drops(Side::Egress));
            self.plan.clear();
            self.transmitter.next_batch();
            let env = Env { snapshot: &self.snapshot, worker: 0, now: NOW };
            forward(&env, ingress, &mut self.batch, &mut Scratch::default(), &mut self.plan, &mut Silent);
            let mut slots: Vec<u8> = self.plan.frames().iter().map(|out| out.slot).collect();
            slots.dedup();
            let (lost, refused) = (self.drops(Side::Ingress) - lost, self.drops(Side::Egress) - refused);
            lost_later += lost;
            let (planned, merged) = (slots.len() as u64, merged as u64);
            assert!(planned + lost <= merged, "a frame that leaves is no drop of its ingress");
            assert!(merged <= planned + lost + refused, "a frame went nowhere and was not counted");
            self.send();
        }
        // A datagram whose parts are not what the kernel said is one.
        let accounted = frames + self.drops(Side::Ingress) - before - lost_later;
        assert!((datagrams.len() as u64..=parts).contains(&accounted), "{accounted} of {parts}");
        fate.frames += frames as usize;
    }

    fn send(&mut self) {
        for at in 0..self.plan.frames().len() {
            let out = self.plan.frames()[at];
            assert!(out.hop.is_none() && out.port.at() < 2, "into a tunnel again");
            let port = self.snapshot.port(out.port).expect("it is there").clone();
            let counters = port.stats.of(0);
            let (sent, lost) = (counters.tx_frames.get(), self.drops(Side::Egress));
            let done = self.transmitter.send(&out, &mut self.batch, &self.queues[out.port.at()], counters);
            assert_eq!(done, Outcome::Done);
            let sent = counters.tx_frames.get() - sent;
            assert!(sent + self.drops(Side::Egress) - lost >= 1, "neither sent nor counted");
            assert_eq!(counters.dropped(DropReason::EgressRefused), 0, "a frame that no port takes");
            let arrived = self.peers[out.port.at()].drain();
            assert_eq!(arrived.len() as u64, sent);
            for (frame, offload) in arrived {
                assert!(port.caps.take(&offload), "more left to do than the port takes");
                assert!(offload.gso.is_some() || frame.len() <= 14 + 8 + port.mtu as usize);
            }
        }
    }
}
