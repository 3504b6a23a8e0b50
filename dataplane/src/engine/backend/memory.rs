//! Ports in memory: for simulations.

use super::{Backend, BackendError, Opened};
use crate::{
    config::PortOptions,
    frame::Caps,
    port::{MemoryPeer, MemoryQueue, Queue, memory},
    wire::MacAddr,
};

/// A port in memory, for simulations.
#[derive(Debug)]
pub struct MemoryBackend(Caps);

impl MemoryBackend {
    /// A port whose far end takes what `caps` says, and that far end.
    pub fn open(caps: Caps) -> (Opened, MemoryPeer) {
        let (queue, peer): (MemoryQueue, _) = memory::pair(caps);
        (Opened { backend: Box::new(Self(caps)), queues: vec![Queue::Memory(queue)] }, peer)
    }
}

impl Backend for MemoryBackend {
    fn caps(&self) -> Caps {
        self.0
    }

    fn ifname(&self) -> String {
        "memory".to_owned()
    }

    fn mac(&self) -> Option<MacAddr> {
        None
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }

    fn change(&mut self, _: &PortOptions, _: &PortOptions) -> Result<(), BackendError> {
        Ok(())
    }

    fn destroy(self: Box<Self>) -> Result<(), BackendError> {
        Ok(())
    }
}
