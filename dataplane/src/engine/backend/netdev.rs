//! Netdev ports: an interface that exists already, taken over by packet sockets. Its queues come and go with it.

use std::os::fd::BorrowedFd;

use super::{Backend, BackendError, Desk, Opened};
use crate::{
    config::{PortOptions, PortSpec},
    frame::Caps,
    port::{
        Queue,
        netdev::{Netdev, NetdevOptions, Turn},
    },
    wire::MacAddr,
};

/// An interface that is taken over, or waited for.
#[derive(Debug)]
struct NetdevBackend(Netdev);

/// Takes the interface of a port over, or waits for it.
///
/// # Errors
/// Where it is there and cannot be taken over.
pub(super) fn open(spec: &PortSpec, queues: u16) -> Result<Opened, BackendError> {
    let options = &spec.options;
    let mut backend = NetdevBackend(Netdev::new(NetdevOptions {
        ifname: spec.ifname_or_default().to_owned(),
        netns: options.netns.clone(),
        mtu: options.mtu,
        queues: queues.into(),
        offload: options.offload_or_default().0,
        qdisc_bypass: options.qdisc_bypass_or_default().0,
    }));
    let queues = backend.take_over();
    match backend.0.state() {
        Err(error) if !error.may_pass() => Err(error.to_string().into()),
        _ => Ok(Opened { backend: Box::new(backend), queues }),
    }
}

impl NetdevBackend {
    fn take_over(&mut self) -> Vec<Queue> {
        let queues = self.0.take_over();
        if let Some(reason) = self.0.unguarded() {
            tracing::warn!(ifname = self.0.ifname(), %reason, "the host's own stack still answers on the interface");
        }
        queues.into_iter().map(Queue::Packet).collect()
    }
}

impl Backend for NetdevBackend {
    fn caps(&self) -> Caps {
        self.0.caps()
    }

    fn ifname(&self) -> String {
        self.0.ifname().to_owned()
    }

    fn mac(&self) -> Option<MacAddr> {
        self.0.mac()
    }

    fn mtu(&self) -> Option<u32> {
        self.0.mtu()
    }

    fn health(&self) -> Result<(), String> {
        self.0.state().map_err(ToString::to_string)
    }

    fn change(&mut self, from: &PortOptions, to: &PortOptions) -> Result<(), BackendError> {
        if to.mtu != from.mtu {
            self.0.set_mtu(to.mtu)?;
        }
        Ok(())
    }

    fn watched(&self) -> Vec<BorrowedFd<'_>> {
        self.0.watched().into_iter().collect()
    }

    fn tend(&mut self, desk: &mut dyn Desk) {
        match self.0.look() {
            Turn::Stay => return,
            Turn::LetGo => {
                drop(desk.take_back());
                self.0.let_go();
            }
            Turn::TakeOver => {}
        }
        let queues = self.take_over();
        if !queues.is_empty()
            && let Err(error) = desk.hand_out(queues)
        {
            self.0.give_up(error);
        }
    }

    fn overflowed(&mut self) -> u64 {
        self.0.lost()
    }

    fn destroy(mut self: Box<Self>) -> Result<(), BackendError> {
        self.0.let_go();
        Ok(())
    }
}
