//! Ports between two changes of an operator's: what their backends have to do, and what becomes of them when their device does.

use std::{io, mem};

use super::{
    Engine,
    backend::{Bare, Desk},
    ports::Oper,
};
use crate::{config::PortName, counters::DropReason, port::Queue};

/// That of a port whose queues are all back; a worker's report of a loss is of none.
const NO_DEAL: u64 = 0;

/// The desk at which the backend of one port gives and takes.
struct PortDesk<'a> {
    engine: &'a mut Engine,
    name: &'a PortName,
    /// How the port was before its queues were taken back.
    was: Option<Oper>,
}

impl Desk for PortDesk<'_> {
    fn take_back(&mut self) -> Vec<Queue> {
        let Some(state) = self.engine.ports.get_mut(self.name) else { return Vec::new() };
        let idx = state.idx;
        (state.queues, state.deal) = (0, NO_DEAL);
        state.lost = false;
        let oper = mem::replace(&mut state.oper, Oper::Down("its queues are taken back".into()));
        if oper == Oper::Up {
            // Before the queues are gone, so that what is sent to it meanwhile is counted.
            self.engine.touch_bridge_of(self.name);
            self.engine.publish();
        }
        self.was.get_or_insert(oper);
        self.engine.workers.detach(idx)
    }

    fn hand_out(&mut self, queues: Vec<Queue>) -> io::Result<()> {
        if self.engine.ports.get(self.name).is_some_and(|state| state.queues > 0) {
            drop(self.take_back());
        }
        let Some(state) = self.engine.ports.get_mut(self.name) else { return Ok(()) };
        let count = queues.len() as u16;
        state.deal = self.engine.workers.attach(state.idx, queues)?;
        state.queues = count;
        state.lost = false;
        Ok(())
    }
}

impl Engine {
    /// A worker has lost a queue of the port, of this deal.
    pub(super) fn port_lost(&mut self, name: &PortName, deal: u64) {
        if let Some(state) = self.ports.get_mut(name).filter(|state| state.deal == deal) {
            state.lost = true;
            self.tend(name);
        }
    }

    /// Lets what is behind a port do what has become possible.
    pub(super) fn tend(&mut self, name: &PortName) {
        let Some(state) = self.ports.get_mut(name) else { return };
        let (idx, away) = (state.idx, Box::new(Bare(state.caps)));
        // It is looked at again when it is back; what the workers know of it stands in the port.
        let mut backend = mem::replace(&mut state.backend, away);
        self.watch.end(&backend.watched());
        let mut desk = PortDesk { engine: self, name, was: None };
        backend.tend(&mut desk);
        let was = desk.was;
        self.watch.begin(idx, &backend.watched());
        let overflowed = backend.overflowed();
        if let Some(state) = self.ports.get_mut(name) {
            state.stats.of_control().drop_many(DropReason::RxOverflow, overflowed);
            state.backend = backend;
        }
        self.follow_backend(name, was);
    }

    /// Looks how what is behind a port is, and acts when that has changed. `was` is how the port was when its queues were taken back,
    /// where they were.
    fn follow_backend(&mut self, name: &PortName, was: Option<Oper>) {
        let way = self.ports.get(name).and_then(|state| self.broken_way(state.tunnel.as_ref()?));
        let Some(state) = self.ports.get_mut(name) else { return };
        let oper = match state.backend.health() {
            Ok(()) if way.is_some() => Oper::Down(way.unwrap_or_default()),
            Ok(()) if state.lost => {
                Oper::Down("the kernel closed its queue; delete the port and add it again".into())
            }
            Ok(()) => Oper::Up,
            Err(reason) => Oper::Down(reason),
        };
        // Behind queues that were taken back there may be somebody else by now.
        let forget = was.is_some() || (oper != state.oper && oper != Oper::Up);
        let published = mem::replace(&mut state.oper, oper.clone());
        let changed = state.look() || oper != published;
        if oper != was.unwrap_or(published) {
            let text = match &oper {
                Oper::Up => {
                    tracing::info!(port = %name, "port is up");
                    "it is up".to_owned()
                }
                Oper::Down(reason) => {
                    tracing::warn!(port = %name, reason, "port is down");
                    format!("it is down: {reason}")
                }
            };
            self.note("port", name, text);
        }
        if changed {
            self.touch_bridge_of(name);
            self.publish();
        }
        if forget {
            self.forget_learned(name);
        }
    }
}
