//! FDB entries: add, delete, list, flush.

use super::{Engine, invalid, not_found};
use crate::{
    api::{FdbView, Refusal, Reply},
    config::{BridgeName, FdbSpec, PortName},
    fdb::{Cursor, Dest, EntryKind, FdbKey, Flush},
    index::BridgeIdx,
    wire::{MacAddr, Vid},
};

/// Entries of a page where nothing else is asked for.
const PAGE: u32 = 4096;
/// The most entries of a page: a reply stays below a megabyte.
const MAX_PAGE: u32 = 8192;
/// Bits of a cursor that belong to the table; above them the bridge.
const CURSOR_BITS: u32 = 48;

impl Engine {
    pub(super) fn fdb_add(&mut self, spec: &FdbSpec) -> Result<bool, Refusal> {
        let name = spec.key();
        let mistakes = spec.check();
        if !mistakes.is_empty() {
            return Err(invalid("fdb", name, mistakes.join("; ")));
        }
        self.bridge(&spec.bridge)?;
        let port = self.port(&spec.port)?;
        if port.spec.bridge != spec.bridge {
            let reason =
                format!("port {} belongs to bridge {}, not to {}", spec.port, port.spec.bridge, spec.bridge);
            return Err(invalid("fdb", name, reason));
        }
        if let Some(reason) = spec.remote_at(&port.spec) {
            return Err(invalid("fdb", name, reason));
        }
        let key = FdbKey::new(spec.vlan, spec.mac);
        let kind = if spec.sticky { EntryKind::Sticky } else { EntryKind::Static };
        let vtep = port.tunnel.as_ref().map(|tunnel| tunnel.lease.vtep);
        let remote = match (spec.remote, vtep) {
            (Some(ip), Some(vtep)) => {
                let pinned = self.underlay.remotes.pin(vtep, ip);
                Some(pinned.ok_or_else(|| invalid("fdb", &name, "there are 65,536 remotes, no more fit"))?)
            }
            _ => None,
        };
        let (port, dest) = (port.idx, Dest { port: port.idx, remote });
        let known = remote.is_none_or(|remote| !self.fdb_remotes.insert((port, remote)));
        if !known && let Some(vtep) = vtep {
            // The remote may send to this tunnel from now on.
            self.underlay.touch(vtep);
            self.publish();
        } else if let Some(remote) = remote {
            self.underlay.remotes.unpin(remote); // one pin is enough for all entries behind it
        }
        let bridge = self.bridge(&spec.bridge)?;
        if let Some(entry) = bridge.fdb.get(key).filter(|e| e.kind != EntryKind::Dynamic) {
            if entry.dest == dest && entry.kind == kind {
                return Ok(false);
            }
            let difference = format!("it is {} on {}", entry.kind, self.place_of(entry.dest));
            return Err(Refusal::Exists { kind: "fdb", name, difference, replace: true });
        }
        match bridge.fdb.insert(key, dest, kind, self.clock.now()) {
            Ok(_) => Ok(true),
            Err(full) => Err(invalid(
                "fdb",
                name,
                format!("{full}; raise it with tapwayctl bridge set {} --fdb-limit N", spec.bridge),
            )),
        }
    }

    pub(super) fn fdb_del(&mut self, mac: MacAddr, bridge: &BridgeName, vlan: u16) -> Result<(), Refusal> {
        let state = self.bridge(bridge)?;
        check_vlan(Some(vlan))?;
        match state.fdb.remove(FdbKey::new(vlan, mac)) {
            Some(_) => Ok(()),
            None => Err(not_found("fdb", format!("{bridge} vlan {vlan} {mac}"))),
        }
    }

    pub(super) fn fdb_flush(
        &mut self,
        bridge: Option<&BridgeName>,
        port: Option<&PortName>,
        vlan: Option<u16>,
    ) -> Result<Reply, Refusal> {
        check_vlan(vlan)?;
        let (bridge, port) = self.scope(bridge, port)?;
        let flush = Flush { port: port.map(|p| p.0), vlan, ..Flush::default() };
        let flushed = self
            .bridges
            .iter()
            .filter(|(name, _)| bridge.as_ref().is_none_or(|b| b == *name))
            .map(|(_, state)| state.fdb.flush(&flush) as u64)
            .sum();
        Ok(Reply::Flushed { flushed })
    }

    /// Checks the names of a filter; a port restricts it to its bridge.
    #[allow(clippy::type_complexity)]
    fn scope(
        &self,
        bridge: Option<&BridgeName>,
        port: Option<&PortName>,
    ) -> Result<(Option<BridgeName>, Option<(crate::index::PortIdx, BridgeName)>), Refusal> {
        if let Some(name) = bridge {
            self.bridge(name)?;
        }
        let Some(name) = port else { return Ok((bridge.cloned(), None)) };
        let state = self.port(name)?;
        let of = state.spec.bridge.clone();
        if let Some(bridge) = bridge.filter(|b| **b != of) {
            return Err(invalid("port", name, format!("it belongs to bridge {of}, not to {bridge}")));
        }
        Ok((Some(of.clone()), Some((state.idx, of))))
    }

    pub(super) fn fdb_page(
        &self,
        bridge: Option<&BridgeName>,
        port: Option<&PortName>,
        vlan: Option<u16>,
        cursor: Option<u64>,
        limit: Option<u32>,
    ) -> Result<Reply, Refusal> {
        check_vlan(vlan)?;
        let (bridge, port) = self.scope(bridge, port)?;
        let limit = limit.unwrap_or(PAGE).clamp(1, MAX_PAGE) as usize;
        let cursor = cursor.unwrap_or(0);
        let mut at = usize::try_from(cursor >> CURSOR_BITS).unwrap_or(usize::MAX);
        let mut within = Cursor::from_bits(cursor & ((1 << CURSOR_BITS) - 1));
        let (mut entries, mut raw) = (Vec::new(), Vec::new());
        let now = self.clock.now();
        while let Some(name) = self.bridge_names.get(at) {
            let state = name.as_ref().and_then(|name| self.bridges.get(name));
            let wanted = state.filter(|_| bridge.as_ref().is_none_or(|b| Some(b) == name.as_ref()));
            let (Some(state), Some(name)) = (wanted, name) else {
                (at, within) = (at + 1, Cursor::default());
                continue;
            };
            debug_assert_eq!(state.idx, BridgeIdx(at as u16));
            raw.clear();
            let next = state.fdb.page(within, &mut raw, limit - entries.len().min(limit - 1));
            for entry in &raw {
                let fits = vlan.is_none_or(|v| v == entry.key.vlan())
                    && port.as_ref().is_none_or(|p| p.0 == entry.dest.port);
                if let (true, Some(port)) = (fits, self.port_name(entry.dest.port)) {
                    entries.push(FdbView {
                        bridge: name.clone(),
                        vlan: entry.key.vlan(),
                        mac: entry.key.mac(),
                        port: port.clone(),
                        remote: entry.dest.remote.and_then(|remote| self.underlay.remotes.address(remote)),
                        kind: entry.kind.name().to_owned(),
                        age_s: entry.age(now).as_secs() as u32,
                        damped: entry.damped,
                    });
                }
            }
            match next {
                Some(cursor) => within = cursor,
                None => (at, within) = (at + 1, Cursor::default()),
            }
            if entries.len() >= limit {
                let more = self.bridge_names.get(at).is_some();
                let next = more.then(|| (at as u64) << CURSOR_BITS | within.bits());
                return Ok(Reply::Fdb { entries, next });
            }
        }
        Ok(Reply::Fdb { entries, next: None })
    }

    /// The static and sticky entries, as an operator would write them.
    pub(super) fn fdb_specs(&self) -> Vec<FdbSpec> {
        let (mut specs, mut raw) = (Vec::new(), Vec::new());
        for (name, state) in &self.bridges {
            let mut cursor = Some(Cursor::default());
            while let Some(at) = cursor {
                raw.clear();
                cursor = state.fdb.page(at, &mut raw, PAGE as usize);
                for entry in raw.iter().filter(|e| e.kind != EntryKind::Dynamic) {
                    if let Some(port) = self.port_name(entry.dest.port) {
                        specs.push(FdbSpec {
                            mac: entry.key.mac(),
                            bridge: name.clone(),
                            vlan: entry.key.vlan(),
                            port: port.clone(),
                            remote: entry
                                .dest
                                .remote
                                .and_then(|remote| self.underlay.remotes.address(remote)),
                            sticky: entry.kind == EntryKind::Sticky,
                        });
                    }
                }
            }
        }
        specs.sort_by(|a, b| (&a.bridge, a.vlan, a.mac).cmp(&(&b.bridge, b.vlan, b.mac)));
        specs
    }
}

/// A filter for a VLAN that cannot be finds nothing, and the operator would believe it.
fn check_vlan(vlan: Option<u16>) -> Result<(), Refusal> {
    match vlan.filter(|&vlan| vlan > Vid::MAX) {
        Some(vlan) => Err(invalid("vlan", vlan, format!("is not allowed: 0 to {}", Vid::MAX))),
        None => Ok(()),
    }
}
