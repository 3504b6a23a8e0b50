//! A kernel in memory, for simulations: devices by namespace and name, others' among them, and refusals when they are asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{DeviceKernel, Seen, Whose};
use crate::{
    api::DeviceSeen,
    config::{DeviceSpec, DeviceType, Netns},
    engine::BackendError,
};

/// A namespace and a name.
type Place = (Option<Netns>, String);

/// A device of that kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryDevice {
    /// What it is, in the words of a description.
    pub spec: DeviceSpec,
    /// Whose it is.
    pub whose: Whose,
    index: u32,
}

#[derive(Debug, Default)]
struct State {
    devices: BTreeMap<Place, MemoryDevice>,
    /// The other ends of veths, by where they are: the ends that brought them.
    peers: BTreeMap<Place, Place>,
    changed: BTreeSet<Place>,
    last_index: u32,
    requests: u64,
    /// Requests that still succeed before one does not.
    refuse_after: Option<u64>,
}

/// A kernel in memory. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct MemoryKernel(Arc<Mutex<State>>);

fn place(spec: &DeviceSpec) -> Place {
    (spec.options.netns.clone(), spec.name.to_string())
}

impl State {
    /// Counts a request that changes something, or refuses it.
    fn request(&mut self) -> Result<(), BackendError> {
        self.requests += 1;
        match &mut self.refuse_after {
            Some(0) => {
                self.refuse_after = None;
                Err("the kernel refuses".into())
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn has(&self, place: &Place) -> bool {
        self.devices.contains_key(place) || self.peers.contains_key(place)
    }

    /// What a device is on must be there.
    fn refuse_missing(&self, spec: &DeviceSpec) -> Result<(), BackendError> {
        let o = &spec.options;
        let (below, beside) = (&o.link_netns, &o.netns);
        let on = [("parent", below, &o.parent), ("dev", below, &o.dev), ("master", beside, &o.master)];
        for (key, netns, name) in on {
            if let Some(name) = name
                && !self.has(&(netns.clone(), name.clone()))
            {
                return Err(format!("its {key} {name} is not there").into());
            }
        }
        Ok(())
    }

    /// Takes a device away with what is on it, as the kernel does.
    fn remove(&mut self, at: &Place) {
        let mut gone = vec![at.clone()];
        while let Some(at) = gone.pop() {
            if self.devices.remove(&at).is_none() {
                continue;
            }
            let mut away: Vec<Place> =
                self.peers.iter().filter(|(_, of)| **of == at).map(|(p, _)| p.clone()).collect();
            for peer in &away {
                self.peers.remove(peer);
            }
            away.push(at);
            for (netns, name) in away {
                for (other, device) in &mut self.devices {
                    let o = &mut device.spec.options;
                    let below = |on: &Option<String>| netns == o.link_netns && on.as_ref() == Some(&name);
                    if below(&o.parent) || below(&o.dev) {
                        gone.push(other.clone());
                    }
                    if o.netns == netns && o.master.as_ref() == Some(&name) {
                        o.master = None;
                        self.changed.insert(other.clone());
                    }
                }
                self.changed.insert((netns, name));
            }
        }
    }
}

impl MemoryKernel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a device there that is somebody else's.
    pub fn plant(&self, spec: &DeviceSpec) {
        let mut state = self.state();
        state.last_index += 1;
        let device = MemoryDevice { spec: spec.clone(), whose: Whose::Foreign, index: state.last_index };
        state.devices.insert(place(spec), device);
        state.changed.insert(place(spec));
    }

    /// Lets somebody else change a device.
    pub fn tamper(&self, netns: Option<Netns>, name: &str, change: impl FnOnce(&mut MemoryDevice)) {
        let (mut state, at) = (self.state(), (netns, name.to_owned()));
        if let Some(device) = state.devices.get_mut(&at) {
            change(device);
        }
        state.changed.insert(at);
    }

    /// Lets somebody else delete a device.
    pub fn take_away(&self, netns: Option<Netns>, name: &str) {
        self.state().remove(&(netns, name.to_owned()));
    }

    /// Every device, in the order of namespaces and names.
    pub fn devices(&self) -> Vec<MemoryDevice> {
        self.state().devices.values().cloned().collect()
    }

    /// Requests so far that would have changed something.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// Refuses one request, after so many others.
    pub fn refuse_once_after(&self, requests: u64) {
        self.state().refuse_after = Some(requests);
    }
}

impl DeviceKernel for MemoryKernel {
    fn look(&mut self, spec: &DeviceSpec) -> Result<Option<Seen>, BackendError> {
        let state = self.state();
        let Some(device) = state.devices.get(&place(spec)) else {
            // The name may be that of a veth's other end, which nobody has asked for by that name.
            let taken = state.peers.contains_key(&place(spec)).then(|| Seen {
                whose: Whose::Foreign,
                device: DeviceSeen { kind: "veth".to_owned(), ..DeviceSeen::default() },
                drift: Vec::new(),
                in_place: false,
            });
            return Ok(taken);
        };
        let (o, is) = (device.spec.effective(), &device.spec);
        Ok(Some(Seen {
            whose: device.whose,
            device: DeviceSeen {
                index: device.index,
                kind: is.kind.to_string(),
                mac: o.mac,
                mtu: o.mtu.unwrap_or(1500),
                address: o.address.clone(),
                master: o.master.clone(),
                up: o.up.is_up(),
                oper: if o.up.is_up() { "up" } else { "down" }.to_owned(),
            },
            drift: spec.drift(is.kind, &is.options),
            in_place: spec.kind == is.kind && is.immutable_differences(spec).is_empty(),
        }))
    }

    fn create(&mut self, spec: &DeviceSpec) -> Result<(), BackendError> {
        let mut state = self.state();
        state.request()?;
        state.refuse_missing(spec)?;
        for (netns, name) in spec.interfaces() {
            if state.has(&(netns.cloned(), name.to_owned())) {
                return Err(format!("{name} is taken").into());
            }
        }
        state.last_index += 1;
        let device = MemoryDevice { spec: spec.clone(), whose: Whose::Ours, index: state.last_index };
        if spec.kind == DeviceType::Veth {
            for (netns, name) in spec.interfaces().skip(1) {
                state.peers.insert((netns.cloned(), name.to_owned()), place(spec));
            }
        }
        for (netns, name) in spec.interfaces() {
            state.changed.insert((netns.cloned(), name.to_owned()));
        }
        state.devices.insert(place(spec), device);
        Ok(())
    }

    fn change(&mut self, spec: &DeviceSpec) -> Result<(), BackendError> {
        let mut state = self.state();
        state.request()?;
        state.refuse_missing(spec)?;
        let at = place(spec);
        let device = state.devices.get(&at).ok_or("it is not there")?;
        let fixed = device.spec.immutable_differences(spec);
        let taken = |place: (Option<&Netns>, &str)| {
            let place = (place.0.cloned(), place.1.to_owned());
            state.devices.contains_key(&place) || state.peers.get(&place).is_some_and(|of| *of != at)
        };
        if let Some((_, name)) = spec.interfaces().skip(1).find(|peer| taken(*peer)) {
            return Err(format!("{name} is taken").into());
        }
        if device.whose != Whose::Ours || !fixed.is_empty() {
            return Err(format!("it cannot be changed: {}", fixed.join(", ")).into());
        }
        let device = state.devices.get_mut(&at).ok_or("it is not there")?;
        device.spec = spec.clone();
        if spec.kind == DeviceType::Veth {
            let (of, peer) = (place(spec), spec.interfaces().nth(1));
            state.peers.retain(|_, owner| *owner != of);
            state.peers.extend(peer.map(|(netns, name)| ((netns.cloned(), name.to_owned()), of)));
        }
        state.changed.insert(place(spec));
        Ok(())
    }

    fn delete(&mut self, spec: &DeviceSpec) -> Result<(), BackendError> {
        let mut state = self.state();
        state.request()?;
        match state.devices.get(&place(spec)) {
            None => Err("it is not there".into()),
            Some(device) if device.whose == Whose::Foreign => Err("it is somebody else's".into()),
            Some(_) => {
                state.remove(&place(spec));
                Ok(())
            }
        }
    }

    fn watch(&mut self, _: &mut dyn Iterator<Item = &DeviceSpec>) {}

    fn changed(&mut self) -> BTreeSet<(Option<Netns>, String)> {
        std::mem::take(&mut self.state().changed)
    }
}
