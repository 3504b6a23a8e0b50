//! What the switch would do with a frame: the packet path itself, on the state that runs, with somebody watching.

use std::net::SocketAddr;

use super::{Engine, invalid};
use crate::{
    api::{Refusal, Trace, TraceOutput, TraceStep},
    bridge::Class,
    config::PortName,
    counters::{DropReason, Side},
    fdb::{Dest, Learn, LearnRefusal},
    forward::{Env, Scratch, Step, TxFrame, TxPlan, forward},
    frame::{Batch, Offload},
    index::PortIdx,
    overlay::{Encap, Hop, Via},
    wire::{EtherType, Tag, Tci, Vid, ethernet::ADDRS_LEN},
};

impl Engine {
    pub(super) fn trace(&self, name: &PortName, frame: &[u8], vlan: Option<Vid>) -> Result<Trace, Refusal> {
        let port = self.port(name)?;
        let mut bytes = frame.to_vec();
        if let Some(vid) = vlan {
            if bytes.len() < ADDRS_LEN {
                return Err(invalid(
                    "port",
                    name,
                    "the frame ends within the addresses, there is no place for a tag",
                ));
            }
            let tag = Tag { tpid: EtherType::VLAN, tci: Tci(vid.get()) };
            bytes.splice(ADDRS_LEN..ADDRS_LEN, tag.to_bytes());
        }
        let mut batch = Batch::new();
        if !batch.append(&bytes, Offload::NONE) {
            return Err(invalid(
                "port",
                name,
                format!("{} octets are more than a frame can have", bytes.len()),
            ));
        }
        let env = Env { snapshot: &self.snapshot, worker: 0, now: self.clock.now() };
        let mut seen: Vec<Step> = Vec::new();
        forward(&env, port.idx, &mut batch, &mut Scratch::default(), &mut TxPlan::default(), &mut seen);
        Ok(self.tell(&seen))
    }

    fn name_of(&self, port: PortIdx) -> &str {
        self.port_name(port).map_or("?", PortName::as_str)
    }

    /// A place as an operator would name it.
    pub(super) fn place_of(&self, dest: Dest) -> String {
        let port = self.name_of(dest.port);
        match dest.remote.and_then(|remote| self.underlay.remotes.address(remote)) {
            Some(remote) => format!("port {port}, remote {remote}"),
            None => format!("port {port}"),
        }
    }

    /// What stands in front of a frame that leaves through a tunnel.
    fn tell_encap(&self, out: &TxFrame, hop: Hop) -> Option<String> {
        let port = self.snapshot.port(out.port)?;
        let tunnel = port.tunnel.as_deref()?;
        let kind = match tunnel.encap {
            Encap::Vxlan { .. } => "VXLAN",
            Encap::Geneve { .. } => "Geneve",
        };
        let remote = self.underlay.remotes.address(hop.remote)?;
        let vtep = self.underlay.vtep(tunnel.vtep)?.address.local;
        let way = match tunnel.via {
            Via::Sockets { .. } => "a UDP socket".to_owned(),
            Via::Uplink(uplink) => format!("uplink {}", self.name_of(uplink)),
        };
        let remote = SocketAddr::new(remote, tunnel.dst_port);
        Some(format!("{kind} VNI {} from {} to {remote}, by {way}", hop.vni, vtep.ip()))
    }

    fn tell(&self, seen: &[Step]) -> Trace {
        let outputs = seen.iter().filter_map(|step| match *step {
            Step::Planned { vlan, tagged, out } => {
                let port = self.port_name(out.port)?.clone();
                let remote = out.hop.and_then(|hop| self.underlay.remotes.address(hop.remote));
                Some(TraceOutput { port, vlan, tagged, remote, vni: out.hop.map(|hop| hop.vni) })
            }
            _ => None,
        });
        let outputs: Vec<TraceOutput> = outputs.collect();
        let flooded = seen.iter().any(|step| matches!(step, Step::Flooded(_)));
        let dropped = seen.iter().find_map(|step| match *step {
            Step::Dropped { reason, .. } if reason.side() == Side::Ingress || outputs.is_empty() => {
                Some(reason)
            }
            _ => None,
        });
        let answered = seen.iter().any(|step| matches!(step, Step::Answered { .. }));
        let verdict = if answered {
            "local"
        } else if dropped.is_some() {
            "drop"
        } else if flooded {
            "flood"
        } else {
            "forward"
        };
        Trace {
            verdict: verdict.to_owned(),
            reason: dropped.map(|reason: DropReason| reason.name().to_owned()),
            steps: seen.iter().map(|step| self.tell_step(step)).collect(),
            outputs,
        }
    }

    fn tell_step(&self, step: &Step) -> TraceStep {
        let place = |dest: Dest| self.place_of(dest);
        let (step, detail) = match *step {
            Step::Admitted(a) => (
                "admit",
                match (a.vlan, a.wears_tag) {
                    (0, _) => "untagged, VLAN 0".to_owned(),
                    (vlan, false) => format!("VLAN {vlan}, which the port gives it"),
                    (vlan, true) => format!("VLAN {vlan} by its tag, priority {}", a.tag.tci.pcp()),
                },
            ),
            Step::Learned(learn) => (
                "learn",
                match learn {
                    Learn::Known => "source known on this port".to_owned(),
                    Learn::New => "source new, would be learned".to_owned(),
                    Learn::Moved { from } => format!("source known on {}, would move here", place(from)),
                    Learn::Refused(LearnRefusal::Sticky) => {
                        "source is a sticky entry of another port".to_owned()
                    }
                    Learn::Refused(LearnRefusal::Damped) => {
                        "source moved too often and is held on another port".to_owned()
                    }
                    Learn::Refused(LearnRefusal::PortLimit) => {
                        "source new, not learned: the port is at its --mac-limit".to_owned()
                    }
                    Learn::Refused(LearnRefusal::TableFull) => {
                        "source new, not learned: the table is full".to_owned()
                    }
                },
            ),
            Step::Found(dest) => ("lookup", format!("destination known on {}", place(dest))),
            Step::Flooded(class) => (
                "lookup",
                match class {
                    Class::Broadcast => "broadcast: to all members of the VLAN that take it".to_owned(),
                    Class::Multicast => "multicast: to all members of the VLAN that take it".to_owned(),
                    Class::UnknownUnicast => {
                        "destination unknown: to all members of the VLAN that take it".to_owned()
                    }
                },
            ),
            Step::Answered { neighbour } => {
                ("answer", format!("the neighbour is known: the switch answers that it has {neighbour}"))
            }
            Step::Planned { vlan, tagged, out } => {
                let how = if tagged { "tagged" } else { "untagged" };
                let port = self.name_of(out.port);
                match out.hop.and_then(|hop| self.tell_encap(&out, hop)) {
                    Some(encap) => ("encap", format!("port {port}, VLAN {vlan}, {how}: {encap}")),
                    None => ("egress", format!("port {port}, VLAN {vlan}, {how}")),
                }
            }
            Step::Dropped { reason, port } => (
                if reason.side() == Side::Ingress { "drop" } else { "egress" },
                format!("port {}: {reason}: {}", self.name_of(port), reason.what()),
            ),
        };
        TraceStep { step: step.to_owned(), detail }
    }
}
