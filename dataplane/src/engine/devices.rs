//! Kernel devices: add, set, delete, list; and what becomes of them behind our back.
//!
//! Owns which devices are desired. What the kernel has is asked for when it is needed, never kept: of a device only its drift
//! is remembered, which is said once and again when it has changed.
//!
//! A device that is there already is taken over where it is ours, and refused where it is not; nothing that somebody else
//! made is changed or deleted. Devices outlive the daemon.

mod kernel;
mod memory;

use std::{collections::BTreeSet, os::fd::OwnedFd};

pub(super) use kernel::NetlinkDevices;
pub use memory::{MemoryDevice, MemoryKernel};

use super::{BackendError, Engine, invalid, not_found};
use crate::{
    api::{DeviceSeen, DeviceView, Refusal},
    config::{
        Change, DeviceName, DeviceOptions, DeviceSpec, Difference, Netns, PortName, PortType,
        device::{Sysctl, needed_first, needing},
    },
    wire::MacAddr,
};

/// Whose the device is that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Made by us.
    Ours,
    /// Made by us, but not to its end: it can only be deleted.
    Unfinished,
    /// Made by somebody else.
    Foreign,
}

/// What the kernel has under the name of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Whose it is.
    pub whose: Whose,
    /// What it is.
    pub device: DeviceSeen,
    /// In what it is not as described, each as `key: desired -> observed`.
    pub drift: Vec<Difference>,
    /// Whether the kernel can make it so; otherwise it is deleted and made again.
    pub in_place: bool,
}

/// The kernel as far as it has devices. Every description is one that [`DeviceSpec::check`] finds no fault with.
pub trait DeviceKernel: Send {
    /// What it has under the name of a device.
    ///
    /// # Errors
    /// Why that cannot be known.
    fn look(&mut self, spec: &DeviceSpec) -> Result<Option<Seen>, BackendError>;
    /// Makes a device whose name is free.
    ///
    /// # Errors
    /// Why it is not made; nothing is left of it.
    fn create(&mut self, spec: &DeviceSpec) -> Result<(), BackendError>;
    /// Changes a device of ours until it is as described.
    ///
    /// # Errors
    /// Why it is not; it is as it was, as far as the kernel let it be put back.
    fn change(&mut self, spec: &DeviceSpec) -> Result<(), BackendError>;
    /// Deletes a device of ours.
    ///
    /// # Errors
    /// Why it is still there.
    fn delete(&mut self, spec: &DeviceSpec) -> Result<(), BackendError>;
    /// Deletes devices of ours, those that are on others before those.
    ///
    /// # Errors
    /// How many are gone, and why the next one is not; those after it are left.
    fn delete_all(&mut self, specs: &[&DeviceSpec]) -> Result<(), (usize, BackendError)> {
        specs.iter().enumerate().try_for_each(|(at, spec)| self.delete(spec).map_err(|error| (at, error)))
    }
    /// Deletes interfaces that end anyhow, by namespace and number, as far as it can.
    fn delete_interfaces(&mut self, _: &[(OwnedFd, u32)]) {}
    /// Watches the namespaces of these devices, and those alone.
    fn watch(&mut self, devices: &mut dyn Iterator<Item = &DeviceSpec>);
    /// Those of the watched interfaces that may have changed since this was last asked, by namespace and name.
    fn changed(&mut self) -> BTreeSet<(Option<Netns>, String)>;
}

/// In what the kernel's device is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Drift {
    /// It is gone.
    Missing,
    /// Somebody else's device has its name.
    Foreign,
    /// It differs, each as `key: desired -> observed`.
    Changed(Vec<Difference>),
    /// What the kernel has cannot be known.
    Unknown(String),
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("somebody has deleted it"),
            Self::Foreign => f.write_str("a device that tapway did not make has its name"),
            Self::Changed(how) => write!(f, "somebody has changed it: {}", words(how)),
            Self::Unknown(why) => write!(f, "it cannot be looked at: {why}"),
        }
    }
}

/// What the kernel has chosen for a device.
#[derive(Clone, Debug, Default)]
struct Chosen {
    mac: Option<MacAddr>,
    mtu: Option<u32>,
    sysctl: Vec<Sysctl>,
}

/// A desired device.
#[derive(Debug)]
pub(super) struct DeviceState {
    pub(super) spec: DeviceSpec,
    drift: Option<Drift>,
    /// What the kernel had chosen before an operator did, so that undoing that leads back.
    chosen: Chosen,
    /// Why it could not be repaired, so that it is said once.
    unrepaired: Option<String>,
}

fn words(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join(", ")
}

impl Drift {
    /// What a plan says that repairs it.
    fn repair(&self) -> Vec<Difference> {
        let one = |old: &str| Difference {
            key: "state".to_owned(),
            old: old.to_owned(),
            new: "as described".to_owned(),
        };
        match self {
            Self::Missing => vec![one("missing")],
            Self::Foreign => vec![one("foreign")],
            Self::Unknown(why) => vec![one(why)],
            Self::Changed(how) => how
                .iter()
                .map(|d| Difference { key: d.key.clone(), old: d.new.clone(), new: d.old.clone() })
                .collect(),
        }
    }
}

fn kernel(name: &DeviceName, error: impl ToString) -> Refusal {
    Refusal::Kernel { kind: "device", name: name.to_string(), reason: error.to_string() }
}

fn drift_of(seen: Result<Option<Seen>, BackendError>) -> Option<Drift> {
    match seen {
        Ok(None) => Some(Drift::Missing),
        Ok(Some(seen)) if seen.whose == Whose::Foreign => Some(Drift::Foreign),
        Ok(Some(seen)) if seen.drift.is_empty() => None,
        Ok(Some(seen)) => Some(Drift::Changed(seen.drift)),
        Err(error) => Some(Drift::Unknown(error.to_string())),
    }
}

impl Engine {
    pub(super) fn device_add(&mut self, spec: &DeviceSpec) -> Result<bool, Refusal> {
        check(spec)?;
        if let Some(state) = self.devices.get(&spec.name) {
            let differences = state.spec.difference(spec);
            if differences.is_empty() {
                return Ok(false);
            }
            return Err(Refusal::Exists {
                kind: "device",
                name: spec.name.to_string(),
                difference: differences.join(", "),
                replace: !state.spec.immutable_differences(spec).is_empty(),
            });
        }
        self.refuse_shared_interface(spec)?;
        self.device_make(spec)?;
        tracing::info!(device = %spec.name, kind = %spec.kind, "device added");
        let state =
            DeviceState { spec: spec.clone(), drift: None, chosen: Chosen::default(), unrepaired: None };
        self.devices.insert(spec.name.clone(), state);
        self.watch_devices();
        Ok(true)
    }

    /// Makes what the kernel has equal to what is described, whatever it has.
    fn device_make(&mut self, spec: &DeviceSpec) -> Result<(), Refusal> {
        let devices = self.opener.devices();
        let refused = |error: BackendError| kernel(&spec.name, error);
        match devices.look(spec).map_err(refused)? {
            None => devices.create(spec).map_err(refused),
            Some(seen) => match seen.whose {
                Whose::Foreign => Err(kernel(
                    &spec.name,
                    format!(
                        "this name is taken by a {} that tapway did not make; rename or delete that one, or choose another name",
                        if seen.device.kind.is_empty() { "device" } else { &seen.device.kind },
                    ),
                )),
                Whose::Ours if seen.drift.is_empty() => Ok(()),
                Whose::Ours if seen.in_place => devices.change(spec).map_err(refused),
                Whose::Ours | Whose::Unfinished => {
                    tracing::info!(device = %spec.name, drift = words(&seen.drift), "the device is made again");
                    devices.delete(spec).map_err(refused)?;
                    devices.create(spec).map_err(refused)
                }
            },
        }
    }

    pub(super) fn device_set(
        &mut self,
        name: &DeviceName,
        options: &DeviceOptions,
        unset: &[String],
    ) -> Result<bool, Refusal> {
        let old = &self.device(name)?.spec;
        let merged = old.merge(options, unset).map_err(|e| invalid("device", name, e))?;
        let new = DeviceSpec { options: merged, ..old.clone() };
        let fixed = old.immutable_differences(&new);
        if !fixed.is_empty() {
            let reason = format!(
                "{} cannot be changed while the device exists; delete it and add it again",
                fixed.join(", ")
            );
            return Err(invalid("device", name, reason));
        }
        if old.options.peer.name != new.options.peer.name {
            self.refuse_needed("device", name.as_str())?;
        }
        self.device_replace(&new)
    }

    /// Gives a device other options, or makes the kernel's equal to what is described; says whether anything changed.
    pub(super) fn device_replace(&mut self, new: &DeviceSpec) -> Result<bool, Refusal> {
        check(new)?;
        self.refuse_shared_interface(new)?;
        let DeviceState { spec: old, chosen, .. } = self.device(&new.name)?;
        let (old, mut chosen) = (old.clone(), chosen.clone());
        let seen = self.opener.devices().look(new);
        if let Ok(Some(seen)) = &seen {
            if old.options.mac.is_none() {
                chosen.mac = seen.device.mac;
            }
            if old.options.mtu.is_none() {
                chosen.mtu = Some(seen.device.mtu);
            }
            let had = |one: &Sysctl| old.options.sysctl.iter().any(|s| s.is_of(one));
            let settings = seen.drift.iter().filter(|d| d.key == "sysctl").filter_map(|d| d.new.parse().ok());
            chosen.sysctl.extend(settings.filter(|one| !had(one)));
        }
        let changed = drift_of(seen).is_some() || !old.difference(new).is_empty();
        if changed {
            // The step back from a choice of the operator's leads to the kernel's.
            let (mut whole, o) = (new.clone(), &old.options);
            whole.options.mac = new.options.mac.or(chosen.mac.filter(|_| o.mac.is_some()));
            whole.options.mtu = new.options.mtu.or(chosen.mtu.filter(|_| o.mtu.is_some()));
            let gone = |one: &&Sysctl| {
                let same = |s: &Sysctl| s.is_of(one);
                o.sysctl.iter().any(same) && !new.options.sysctl.iter().any(same)
            };
            whole.options.sysctl.extend(chosen.sysctl.iter().filter(gone).cloned());
            self.device_make(&whole)?;
        }
        if let Some(state) = self.devices.get_mut(&new.name) {
            *state = DeviceState { spec: new.clone(), drift: None, chosen, unrepaired: None };
        }
        self.watch_devices();
        Ok(changed)
    }

    pub(super) fn device_del(&mut self, name: &DeviceName) -> Result<(), Refusal> {
        self.devices_del(&[name]).map_err(|(_, refusal)| refusal)
    }

    /// Deletes devices, those that are on others before those. Where one is refused: how many before it are deleted, and why.
    pub(super) fn devices_del(&mut self, names: &[&DeviceName]) -> Result<(), (usize, Refusal)> {
        let (mut states, mut refused) = (Vec::new(), None);
        for name in names {
            match self.device_leaves(name) {
                Ok(state) => states.push(state),
                Err(refusal) => {
                    refused = Some(refusal);
                    break;
                }
            }
        }
        // Somebody may have deleted it, or have put another in its place.
        let there: Vec<usize> = (0..states.len()).filter(|at| states[*at].1).collect();
        let specs: Vec<&DeviceSpec> = there.iter().map(|at| &states[*at].0.spec).collect();
        let mut gone = states.len();
        if let Err((deleted, error)) = self.opener.devices().delete_all(&specs) {
            gone = there[deleted];
            refused = Some(kernel(&states[gone].0.spec.name, error));
        }
        for (at, (state, _)) in states.into_iter().enumerate() {
            if at < gone {
                tracing::info!(device = %state.spec.name, "device deleted");
            } else {
                self.devices.insert(state.spec.name.clone(), state);
            }
        }
        self.watch_devices();
        refused.map_or(Ok(()), |refusal| Err((gone, refusal)))
    }

    /// Takes a device out of what is desired; says whether the kernel has it and it is to be deleted there.
    fn device_leaves(&mut self, name: &DeviceName) -> Result<(DeviceState, bool), Refusal> {
        self.device(name)?;
        self.refuse_needed("device", name.as_str())?;
        let Some(state) = self.devices.remove(name) else { return Err(not_found("device", name)) };
        match self.opener.devices().look(&state.spec) {
            Ok(Some(seen)) if seen.whose == Whose::Foreign => {
                tracing::warn!(device = %name, "another device has its name by now; that one is left alone");
                Ok((state, false))
            }
            Ok(seen) => Ok((state, seen.is_some())),
            Err(error) => {
                self.devices.insert(name.clone(), state);
                Err(kernel(name, error))
            }
        }
    }

    fn device(&self, name: &DeviceName) -> Result<&DeviceState, Refusal> {
        self.devices.get(name).ok_or_else(|| not_found("device", name))
    }

    /// A device cannot bring an interface that a port, an uplink or another device has.
    fn refuse_shared_interface(&self, spec: &DeviceSpec) -> Result<(), Refusal> {
        for (netns, ifname) in spec.interfaces() {
            let taken = |place: (Option<&Netns>, &str)| place == (netns, ifname);
            let port = self.ports.values().map(|p| &p.spec).find(|p| {
                // That of a netdev port is there already, or a device brings it.
                p.options.kind_or_default() == PortType::Tap
                    && taken((p.options.netns.as_ref(), p.ifname_or_default()))
            });
            let uplink = self.uplinks.values().map(|u| &u.spec);
            let uplink = { uplink }.find(|u| taken((u.options.netns.as_ref(), u.ifname_or_default())));
            let owner = port
                .map(|p| format!("port {}", p.name))
                .or_else(|| uplink.map(|u| format!("uplink {}", u.name)))
                .or_else(|| {
                    let device = self.device_with(netns, ifname).filter(|d| d.name != spec.name)?;
                    Some(format!("device {}", device.name))
                });
            if let Some(owner) = owner {
                let reason = format!("interface \"{ifname}\" is that of {owner}");
                return Err(invalid("device", &spec.name, reason));
            }
        }
        Ok(())
    }

    /// The device that brings an interface.
    fn device_with(&self, netns: Option<&Netns>, ifname: &str) -> Option<&DeviceSpec> {
        let all = self.devices.values().map(|state| &state.spec);
        { all }.find(|spec| spec.interfaces().any(|place| place == (netns, ifname)))
    }

    /// No port or uplink can have the interface of a device.
    pub(super) fn refuse_interface_of_device(
        &self,
        kind: &'static str,
        name: &PortName,
        netns: Option<&Netns>,
        ifname: &str,
    ) -> Result<(), Refusal> {
        match self.device_with(netns, ifname) {
            Some(device) => {
                let reason = format!("interface \"{ifname}\" is that of device {}", device.name);
                Err(invalid(kind, name, reason))
            }
            None => Ok(()),
        }
    }

    /// Nothing goes that a device or a tunnel is on.
    pub(super) fn refuse_needed(&self, kind: &'static str, name: &str) -> Result<(), Refusal> {
        let by = needing(
            self.devices.values().map(|state| &state.spec),
            self.uplinks.values().map(|state| &state.spec),
            self.ports.values().map(|state| &state.spec),
            (kind, name),
        );
        match by {
            Some((by, key)) => {
                let by = format!("{by} is on it ({key})");
                Err(Refusal::InUse { kind, name: name.to_owned(), by })
            }
            None => Ok(()),
        }
    }

    fn watch_devices(&mut self) {
        let mut all = self.devices.values().map(|state| &state.spec);
        self.opener.devices().watch(&mut all);
    }

    /// Looks at what the kernel says has changed, and repairs it where that is wanted.
    pub(super) fn housekeep_devices(&mut self) {
        self.look_at_devices();
        if self.enforce {
            self.repair_devices();
        }
    }

    /// Looks at what the kernel says has changed.
    fn look_at_devices(&mut self) {
        if self.devices.is_empty() {
            return;
        }
        let devices = self.opener.devices();
        let changed = devices.changed();
        let concerned = |spec: &DeviceSpec| {
            let mut places = spec.interfaces().map(|(netns, ifname)| (netns.cloned(), ifname.to_owned()));
            places.any(|place| changed.contains(&place))
        };
        let mut told = Vec::new();
        for (name, state) in &mut self.devices {
            if !concerned(&state.spec) {
                continue;
            }
            let drift = drift_of(devices.look(&state.spec));
            if drift == state.drift {
                continue;
            }
            match &drift {
                Some(drift) => tracing::warn!(device = %name, "the device is not as desired: {drift}"),
                None => tracing::info!(device = %name, "the device is as desired again"),
            }
            told.push((
                name.clone(),
                match &drift {
                    Some(drift) => format!("it is not as desired: {drift}"),
                    None => "it is as desired again".to_owned(),
                },
            ));
            (state.drift, state.unrepaired) = (drift, None);
        }
        told.into_iter().for_each(|(name, text)| self.note("device", name, text));
    }

    /// The steps that repair what is desired further on and is not as described, what others are on first.
    pub(super) fn repairs(&mut self, desired: &[DeviceSpec], planned: &[Change]) -> Vec<Change> {
        self.look_at_devices();
        let is_planned = |name: &DeviceName| {
            planned.iter().any(|change| match change {
                Change::SetDevice { new, .. } => new.name == *name,
                Change::DelDevice { device, .. } => device.name == *name,
                _ => false,
            })
        };
        let wanted =
            |spec: &&DeviceSpec| desired.iter().any(|d| d.name == spec.name) && !is_planned(&spec.name);
        let drifted = self.devices.values().filter(|s| s.drift.is_some()).map(|s| &s.spec);
        let drifted = needed_first(drifted.filter(wanted).cloned().collect());
        let step = |spec: DeviceSpec| {
            let differences = self.devices.get(&spec.name)?.drift.as_ref()?.repair();
            let (old, new) = (Box::new(spec.clone()), Box::new(spec));
            Some(Change::SetDevice { old, new, differences })
        };
        drifted.into_iter().filter_map(step).collect()
    }

    fn repair_devices(&mut self) {
        let drifted = self.devices.values().filter(|s| s.drift.is_some()).map(|s| s.spec.clone());
        // What others are on first.
        for spec in needed_first(drifted.collect()) {
            let result = self.device_make(&spec);
            let Some(state) = self.devices.get_mut(&spec.name) else { continue };
            match result {
                Ok(()) => {
                    (state.drift, state.unrepaired) = (None, None);
                    tracing::info!(device = %spec.name, "the device is repaired");
                    self.note("device", &spec.name, "it is repaired");
                }
                Err(error) => {
                    let error = error.to_string();
                    if state.unrepaired.as_ref() != Some(&error) {
                        tracing::error!(device = %spec.name, error, "the device could not be repaired");
                        state.unrepaired = Some(error.clone());
                        self.note("device", &spec.name, format!("it could not be repaired: {error}"));
                    }
                }
            }
        }
    }

    pub(super) fn device_notices(&self) -> impl Iterator<Item = String> {
        self.devices.iter().filter_map(|(name, state)| {
            let drift = state.drift.as_ref()?;
            Some(match &state.unrepaired {
                Some(why) => {
                    format!("device {name} is not as desired: {drift}; it could not be repaired: {why}")
                }
                None => format!("device {name} is not as desired: {drift}"),
            })
        })
    }

    pub(super) fn device_views(&mut self) -> Vec<DeviceView> {
        let devices = self.opener.devices();
        self.devices.values().map(|state| device_view(devices, &state.spec)).collect()
    }

    pub(super) fn device_show(&mut self, name: &DeviceName) -> Result<DeviceView, Refusal> {
        let spec = self.device(name)?.spec.clone();
        Ok(device_view(self.opener.devices(), &spec))
    }

    /// As an operator would write them.
    pub(super) fn device_specs(&self) -> Vec<DeviceSpec> {
        self.devices.values().map(|state| state.spec.clone()).collect()
    }
}

/// What is desired and what is there at this moment.
fn device_view(devices: &mut dyn DeviceKernel, spec: &DeviceSpec) -> DeviceView {
    let seen = devices.look(spec);
    let observed = seen.as_ref().ok().and_then(Option::as_ref).map(|seen| seen.device.clone());
    let drift = drift_of(seen);
    let state = match &drift {
        None => "ok",
        Some(Drift::Missing) => "missing",
        Some(Drift::Foreign) => "foreign",
        Some(Drift::Changed(_) | Drift::Unknown(_)) => "drifted",
    };
    DeviceView {
        name: spec.name.clone(),
        kind: spec.kind,
        netns: spec.options.netns.clone(),
        state: state.to_owned(),
        drift: match drift {
            Some(Drift::Changed(how)) => how.iter().map(Difference::to_string).collect(),
            Some(Drift::Unknown(why)) => vec![why],
            _ => Vec::new(),
        },
        desired: spec.clone(),
        observed,
    }
}

fn check(spec: &DeviceSpec) -> Result<(), Refusal> {
    match spec.check().as_slice() {
        [] => Ok(()),
        mistakes => Err(invalid("device", &spec.name, mistakes.join("; "))),
    }
}
