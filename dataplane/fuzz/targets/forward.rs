//! Ports of any kind and frames of any octets: the path and the way out. Every frame leaves or is counted, no port gets what
//! it must not have, and what arrives has no more left to do than the port takes.
//!
//! The first octet is the number of ports, three octets are a port, then come frames: port, kind, length, octets.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use tapway_dataplane::{
    bridge::{Member, Members, Secure, Storm, VlanMode},
    counters::{DropReason, Side},
    fdb::Fdb,
    forward::{Env, Scratch, Silent, TxPlan, forward},
    frame::{BATCH, Batch, Caps, Checksum, Offload},
    index::{BridgeIdx, PortIdx},
    offload::checksum,
    port::{MemoryPeer, Outcome, Queue, Transmitter, memory},
    snapshot::{Bridge, Port, Snapshot},
    tick::Tick,
    wire::{MacAddr, Vid, VirtioNetHdr},
};

/// The addresses of a secured port.
const SOURCES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

pub fn run(input: &[u8]) {
    let Some((&count, mut rest)) = input.split_first() else { return };
    let mut ports = Vec::new();
    for _ in 0..=count % 6 {
        let Some((octets, after)) = rest.split_first_chunk() else { return };
        ports.push(port(*octets));
        rest = after;
    }
    let mut switch = Switch::new(ports);
    let (mut second, mut last) = (1, None);
    while let Some(([port, kind, len], after)) = rest.split_first_chunk() {
        let port = usize::from(*port) % switch.snapshot.ports.len();
        // A frame from another port, or a kind that says so, ends the batch.
        if last.is_some_and(|last| last != port || kind & 4 != 0) {
            switch.serve(second);
            second += u64::from(*kind >> 4);
        }
        last = Some(port);
        let (frame, after) = after.split_at(after.len().min(usize::from(*len)));
        switch.put(port, *kind, frame);
        rest = after;
    }
    switch.serve(second);
}

fn port([mode, flags, more]: [u8; 3]) -> Port {
    let vid = Vid::new(1 + u16::from(more & 3)).expect("1 to 4");
    let trunk = |native| VlanMode::Trunk { tagged: Arc::new("1-3,100".parse().expect("a list")), native };
    let vlan = match mode % 6 {
        0 | 1 => VlanMode::Transparent,
        2 => VlanMode::Access(vid),
        3 => trunk(None),
        4 => trunk(Some(vid)),
        _ => VlanMode::Qinq(vid),
    };
    let has = |bit: u8| flags & 1 << bit != 0;
    Port {
        bridge: BridgeIdx(0),
        vlan,
        admin_up: mode & 0xf0 != 0xf0,
        oper_up: true,
        learning: !has(0),
        hairpin: has(1),
        isolated: has(2),
        locked: has(3),
        mac_limit: u32::from(more >> 6),
        mtu: if has(4) { 100 } else { 1500 },
        caps: [
            Caps::ALL,
            Caps::NONE,
            Caps { vnet_hdr: true, csum: true, ..Caps::NONE },
            Caps { uso: false, ..Caps::ALL },
        ][usize::from(more >> 2 & 3)],
        storm: has(5).then(|| Arc::new(Storm::new(20))),
        secure: has(6)
            .then(|| Arc::new(Secure { mac: MacAddr::from_octets([2, 0, 0, 0, 0, 1]), ips: SOURCES.into() })),
        ..Port::new(BridgeIdx(0), 1)
    }
}

/// What the receiver sees once it has finished the checksum is still what a secured port lets in.
/// (A further tag may be one too many to look through.)
fn check(secure: &Secure, mut frame: Vec<u8>, offload: &Offload) {
    if let Checksum::Partial { start, offset } = offload.csum {
        checksum::complete(&mut frame, start.into(), offset.into()).expect("it is inside the frame");
    }
    let checked = secure.check(&frame, 12);
    assert!(matches!(checked, Ok(()) | Err(DropReason::SecureMalformed)), "{checked:?}");
}

struct Switch {
    snapshot: Snapshot,
    queues: Vec<Queue>,
    peers: Vec<MemoryPeer>,
    batch: Batch,
    plan: TxPlan,
    transmitter: Transmitter,
    waiting: (usize, usize),
}

impl Switch {
    fn new(ports: Vec<Port>) -> Self {
        let (queues, peers) = ports
            .iter()
            .map(|p| memory::pair(p.caps))
            .map(|(queue, peer)| (Queue::Memory(queue), peer))
            .unzip();
        let indexed: Vec<(usize, &Port)> = ports.iter().enumerate().collect();
        let members = Members::new(&indexed, ports.iter().flat_map(|p| p.vlan.named()), |(n, p), vlan| {
            let tagged = p.vlan.tags(vlan).filter(|_| p.is_up())?;
            let classes = Member::classes(true, true, true);
            Some(Member { port: PortIdx(*n as u16), tagged, classes, isolated: p.isolated })
        });
        let bridge = Arc::new(Bridge {
            fdb: Arc::new(Fdb::new(16).expect("small")),
            members,
            neighbours: Arc::default(),
        });
        let ports = ports.into_iter().map(Some).collect();
        Self {
            snapshot: Snapshot { generation: 1, bridges: vec![Some(bridge)], ports, ..Snapshot::default() },
            queues,
            peers,
            batch: Batch::new(),
            plan: TxPlan::default(),
            transmitter: Transmitter::default(),
            waiting: (0, 0),
        }
    }

    fn port(&self, n: usize) -> &Port {
        self.snapshot.port(PortIdx(n as u16)).expect("all ports are there")
    }

    /// A host sends `octets`: with a virtio header before them, or repeated until they are long, as `kind` says.
    fn put(&mut self, port: usize, kind: u8, octets: &[u8]) {
        let (header, frame) = match octets.split_first_chunk::<12>() {
            Some((header, frame)) if kind & 1 != 0 => (*header, frame),
            _ => ([0; 12], octets),
        };
        let mut frame = frame.to_vec();
        if kind & 2 != 0 {
            frame.resize(frame.len() + 40 * usize::from(kind), 0x5a);
        }
        let header: VirtioNetHdr = zerocopy::transmute!(header);
        let offload = Offload::from_vnet(&header, frame.len()).unwrap_or(Offload::NONE);
        if self.waiting.1 == BATCH {
            return;
        }
        assert!(self.peers[port].send(&frame, offload));
        self.waiting = (port, self.waiting.1 + 1);
    }

    /// The drops of all ports on one side.
    fn drops(&self, side: Side) -> u64 {
        let of =
            |p: &Port| p.stats.total().drops().filter(|(r, _)| r.side() == side).map(|(_, n)| n).sum::<u64>();
        self.snapshot.ports.iter().flatten().map(of).sum()
    }

    /// Receives, forwards and sends what waits.
    fn serve(&mut self, second: u64) {
        let (port, count) = std::mem::take(&mut self.waiting);
        let mut left = count as u64;
        while left > 0 {
            self.batch.clear();
            self.plan.clear();
            self.transmitter.next_batch();
            let (before, refused) = (self.drops(Side::Ingress), self.drops(Side::Egress));
            let stats = Arc::clone(&self.port(port).stats);
            let received = stats.of(0).rx_frames.get();
            self.queues[port].recv(&mut self.batch, stats.of(0), None);
            let received = stats.of(0).rx_frames.get() - received;
            left -= received;
            let env = Env { snapshot: &self.snapshot, worker: 0, now: Tick::from_secs(second) };
            let ingress = PortIdx(port as u16);
            forward(&env, ingress, &mut self.batch, &mut Scratch::default(), &mut self.plan, &mut Silent);

            let mut slots: Vec<u8> = self.plan.frames().iter().map(|out| out.slot).collect();
            slots.dedup();
            let lost = self.drops(Side::Ingress) - before;
            let refused = self.drops(Side::Egress) - refused;
            let planned = slots.len() as u64;
            assert!(planned + lost <= received, "a frame that leaves is no drop of its ingress");
            assert!(received <= planned + lost + refused, "a frame went nowhere and was not counted");
            self.send(port);
        }
    }

    fn send(&mut self, ingress: usize) {
        let from = self.port(ingress).clone();
        for at in 0..self.plan.frames().len() {
            let out = self.plan.frames()[at];
            let n = usize::from(out.port.0);
            let to = self.port(n).clone();
            assert!(n != ingress || from.hairpin, "back where it came from");
            assert!(!(from.isolated && to.isolated) && from.is_up() && to.is_up());
            let counters = to.stats.of(0);
            let (sent, lost) = (counters.tx_frames.get(), self.drops(Side::Egress));
            let done = self.transmitter.send(&out, &mut self.batch, &self.queues[n], counters);
            assert_eq!(done, Outcome::Done);
            let sent = counters.tx_frames.get() - sent;
            assert!(sent + self.drops(Side::Egress) - lost >= 1, "neither sent nor counted");
            assert_eq!(counters.dropped(DropReason::EgressRefused), 0, "a frame that no port takes");
            let arrived = self.peers[n].drain();
            assert_eq!(arrived.len() as u64, sent);
            for (frame, offload) in arrived {
                assert!(to.caps.take(&offload), "more left to do than the port takes");
                if let Some(secure) = &from.secure {
                    check(secure, frame.clone(), &offload);
                }
                // Two tags at most do not count: that of the switch and one of the customer.
                assert!(offload.gso.is_some() || frame.len() <= 14 + 8 + to.mtu as usize);
                if let VlanMode::Trunk { native: None, .. } = to.vlan {
                    assert!(matches!(frame[12..14], [0x81, 0] | [0x88, 0xa8]), "untagged out of a trunk");
                }
            }
        }
    }
}
