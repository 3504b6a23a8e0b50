//! TAP ports: the switch owns the descriptor end, and the queues stay as long as the port.

use std::os::fd::OwnedFd;

use ipnet::IpNet;

use super::{Backend, BackendError, Opened};
use crate::{
    config::{PortOptions, PortSpec},
    frame::Caps,
    port::{
        Queue,
        tap::{Health, Tap, TapOptions},
    },
    wire::MacAddr,
};

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

    fn own_interface(&self) -> Option<(OwnedFd, u32)> {
        self.0.own_interface()
    }

    fn destroy(self: Box<Self>) -> Result<(), BackendError> {
        Ok(self.0.destroy()?)
    }
}
