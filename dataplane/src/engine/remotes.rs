//! The other ends of tunnels: add, delete, list. They are settings of their ports, and change as these do.

use std::net::IpAddr;

use super::{Engine, invalid, not_found};
use crate::{
    api::{Refusal, RemoteView},
    config::{PortName, PortOptions, PortSpec},
};

impl Engine {
    pub(super) fn remote_add(&mut self, port: &PortName, remote: IpAddr) -> Result<bool, Refusal> {
        let mut options = self.tunnel(port)?.clone();
        if options.remote.contains(&remote) {
            return Ok(false);
        }
        options.remote.push(remote);
        self.port_replace(port, &options)
    }

    pub(super) fn remote_del(&mut self, port: &PortName, remote: IpAddr) -> Result<(), Refusal> {
        let mut options = self.tunnel(port)?.clone();
        let before = options.remote.len();
        options.remote.retain(|other| *other != remote);
        if options.remote.len() == before {
            return Err(not_found("remote", format!("{remote} of port {port}")));
        }
        self.port_replace(port, &options).map(drop)
    }

    pub(super) fn remote_views(&self, port: &PortName) -> Result<Vec<RemoteView>, Refusal> {
        let view = |remote: &IpAddr| RemoteView {
            port: port.clone(),
            remote: *remote,
            path_mtu: None,
            learned: None,
        };
        let mut remotes = self.tunnel(port)?.remote.clone();
        remotes.sort_unstable();
        remotes.dedup();
        Ok(remotes.iter().map(view).collect())
    }

    /// The settings of a port that can have remotes.
    fn tunnel(&self, name: &PortName) -> Result<&PortOptions, Refusal> {
        let options = &self.port(name)?.spec.options;
        let kind = options.kind_or_default();
        if kind.is_tunnel() {
            return Ok(options);
        }
        Err(invalid(
            "port",
            name,
            format!("it is of type {kind} and has no remotes; vxlan and geneve ports have"),
        ))
    }

    /// Refuses a port that has the name of an uplink, or takes the packets of another tunnel.
    pub(super) fn refuse_clash(&self, spec: &PortSpec) -> Result<(), Refusal> {
        if self.uplink_specs().iter().any(|uplink| uplink.name == spec.name) {
            return Err(invalid(
                "port",
                &spec.name,
                "an uplink has that name; ports and uplinks share their names",
            ));
        }
        let others = self.ports.values().map(|state| &state.spec).filter(|other| other.name != spec.name);
        match others.into_iter().find_map(|other| spec.clash(other)) {
            Some(why) => Err(invalid("port", &spec.name, why)),
            None => Ok(()),
        }
    }
}
