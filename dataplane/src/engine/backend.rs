//! What is behind a port, seen from the control thread.

use std::fmt::{self, Debug};

use ipnet::IpNet;

use crate::{
    config::{PortOptions, PortSpec, PortType},
    frame::Caps,
    port::{
        MemoryPeer, MemoryQueue, Queue, memory,
        tap::{Health, Tap, TapOptions},
    },
    wire::MacAddr,
};

/// Why something behind a port cannot be made or changed; a sentence that names the object.
pub type BackendError = Box<dyn std::error::Error + Send + Sync>;

/// The control thread's end of what is behind a port.
pub trait Backend: Debug + Send {
    /// What the far side takes.
    fn caps(&self) -> Caps;
    /// Name of the interface.
    fn ifname(&self) -> String;
    /// Address of the interface, where it has one.
    fn mac(&self) -> Option<MacAddr>;
    /// Whether it is there; if not, why.
    ///
    /// # Errors
    /// The reason.
    fn health(&self) -> Result<(), String>;
    /// Changes what can be changed while frames pass: MTU, MAC address, addresses.
    ///
    /// # Errors
    /// What could not be changed; the rest may have been.
    fn change(&mut self, from: &PortOptions, to: &PortOptions) -> Result<(), BackendError>;
    /// Ends it for good; the queues are closed already.
    ///
    /// # Errors
    /// What could not be ended.
    fn destroy(self: Box<Self>) -> Result<(), BackendError>;
}

/// A backend and its queues.
#[derive(Debug)]
pub struct Opened {
    /// Stays with the control thread.
    pub backend: Box<dyn Backend>,
    /// Go to the workers; at least one.
    pub queues: Vec<Queue>,
}

type Open = dyn FnMut(&PortSpec, u16) -> Result<Opened, BackendError> + Send;

/// Opens what is behind a port, with as many queues as the number says.
pub struct Opener(Box<Open>);

impl Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

impl Opener {
    /// Opens what the specification says, in the kernel.
    pub fn kernel() -> Self {
        Self(Box::new(TapBackend::open))
    }

    /// Opens by `open`: for simulations.
    pub fn with(open: impl FnMut(&PortSpec, u16) -> Result<Opened, BackendError> + Send + 'static) -> Self {
        Self(Box::new(open))
    }

    pub(super) fn open(&mut self, spec: &PortSpec, queues: u16) -> Result<Opened, BackendError> {
        (self.0)(spec, queues)
    }
}

/// A TAP.
#[derive(Debug)]
pub struct TapBackend(Tap);

impl TapBackend {
    /// Opens the TAP of a port.
    ///
    /// # Errors
    /// Where the kernel refuses; nothing is left behind.
    pub fn open(spec: &PortSpec, queues: u16) -> Result<Opened, BackendError> {
        let options = &spec.options;
        match options.kind_or_default() {
            PortType::Tap => {}
            kind @ (PortType::Vxlan | PortType::Geneve) => {
                return Err(format!("ports of type {kind} are not built in yet").into());
            }
        }
        let mut tap = Tap::open(&TapOptions {
            ifname: Some(spec.ifname_or_default().to_owned()),
            netns: options.netns.clone(),
            addresses: options.address.clone(),
            mac: options.mac,
            mtu: Some(options.mtu_or_default()),
            queues: queues.into(),
            persist: options.persist_or_default().0,
            offload: options.offload_or_default().0,
            uplink: false,
        })?;
        let queues = tap.take_queues().into_iter().map(Queue::Tap).collect();
        Ok(Opened { backend: Box::new(Self(tap)), queues })
    }
}

impl Backend for TapBackend {
    fn caps(&self) -> Caps {
        *self.0.caps()
    }

    fn ifname(&self) -> String {
        self.0.ifname().to_owned()
    }

    fn mac(&self) -> Option<MacAddr> {
        Some(self.0.mac())
    }

    fn health(&self) -> Result<(), String> {
        match self.0.health() {
            Ok(Health::Up) => Ok(()),
            Ok(ill) => Err(ill.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn change(&mut self, from: &PortOptions, to: &PortOptions) -> Result<(), BackendError> {
        if to.mtu_or_default() != from.mtu_or_default() {
            self.0.set_mtu(to.mtu_or_default())?;
        }
        if let Some(mac) = to.mac.filter(|_| to.mac != from.mac) {
            self.0.set_mac(mac)?;
        }
        let sorted = |list: &[IpNet]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list
        };
        if sorted(&to.address) != sorted(&from.address) {
            self.0.set_addresses(&to.address)?;
        }
        Ok(())
    }

    fn destroy(self: Box<Self>) -> Result<(), BackendError> {
        Ok(self.0.destroy()?)
    }
}

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
