//! The other ends of tunnels: add, delete, list. They are settings of their ports, and change as these do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Engine, invalid, not_found};
use crate::{
    api::{Refusal, RemoteView},
    config::{PortName, PortOptions, PortSpec, PortType},
    fdb::{Cursor, Dest, EntryKind, Fdb},
};

/// Entries that are looked at at once.
const PAGE: usize = 4096;

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

    /// The remotes of the settings, and those behind which addresses were learned: who is heard by a group is in no settings.
    pub(super) fn remote_views(&self, port: &PortName) -> Result<Vec<RemoteView>, Refusal> {
        let state = self.port(port)?;
        let vtep = state.tunnel.as_ref().map(|tunnel| tunnel.lease.vtep);
        let behind = learned_behind(&self.bridge(&state.spec.bridge)?.fdb);
        let view = |remote: &IpAddr| {
            let idx = vtep.and_then(|vtep| self.underlay.remotes.find(vtep, *remote));
            let path_mtu = idx.map(|idx| self.underlay.remotes.path_mtu(idx)).filter(|&mtu| mtu > 0);
            let learned = idx.map(|idx| behind.get(&Dest::remote(state.idx, idx)).copied().unwrap_or(0));
            RemoteView { port: port.clone(), remote: *remote, path_mtu, learned }
        };
        let mut remotes: BTreeSet<IpAddr> = self.tunnel(port)?.remote.iter().copied().collect();
        let heard = behind.keys().filter(|dest| dest.port == state.idx).filter_map(|dest| dest.remote);
        remotes.extend(heard.filter_map(|remote| self.underlay.remotes.address(remote)));
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
        if spec.options.kind_or_default() == PortType::Netdev {
            let place = (spec.options.netns.as_ref(), spec.ifname_or_default());
            let mut uplinks = self.uplinks.values().map(|state| &state.spec);
            let owner = uplinks.find(|u| (u.options.netns.as_ref(), u.ifname_or_default()) == place);
            if let Some(owner) = owner {
                let reason = format!("interface \"{}\" is that of uplink {}", place.1, owner.name);
                return Err(invalid("port", &spec.name, reason));
            }
        }
        let others = self.ports.values().map(|state| &state.spec).filter(|other| other.name != spec.name);
        match others.into_iter().find_map(|other| spec.clash(other)) {
            Some(why) => Err(invalid("port", &spec.name, why)),
            None => Ok(()),
        }
    }
}

/// How many addresses were learned at each place.
fn learned_behind(fdb: &Fdb) -> BTreeMap<Dest, u64> {
    let mut counts = BTreeMap::new();
    let (mut entries, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(at) = cursor {
        entries.clear();
        cursor = fdb.page(at, &mut entries, PAGE);
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Dynamic) {
            *counts.entry(entry.dest).or_insert(0) += 1;
        }
    }
    counts
}
