//! The device that a front end sets up, message by message: features, memory, rings.
//!
//! Lives as long as a connection: a front end that connects again says everything again. What a message changes takes effect at once:
//! rings that run are stopped under their locks, and go on where they were, in their new place, before the message is answered.
//! Requests are given in the order of the protocol, not trusted to make sense together: a ring runs when there is everything that it needs.

use std::{fs::File, mem, sync::Arc};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
    message::{
        VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
        VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
        VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
    },
};

use super::{
    features,
    memory::{Memory, REGIONS_MAX, Region},
    queue::{Running, Slot, State, VhostQueue, tell},
    ring::{Fault, Layout, Ring},
};
use crate::frame::Caps;

/// A ring as the front end has described it.
#[derive(Debug, Default)]
struct Vring {
    slot: Arc<Slot>,
    layout: Layout,
    /// The entry that is next, as it was when it was stopped or as the front end has said.
    base: u16,
    /// Whether the front end has said where it lies.
    placed: bool,
    enabled: bool,
    kick: Option<Arc<File>>,
    call: Option<Arc<File>>,
    err: Option<Arc<File>>,
    /// Counts what makes a worker's view of the ring another one: a new descriptor to poll, or an end of a fault.
    deal: u64,
    /// The front end was told of the fault.
    fault_told: bool,
}

/// The device.
#[derive(Debug)]
pub(super) struct Device {
    offered: u64,
    features: u64,
    protocol: u64,
    pairs: u16,
    memory: Arc<Memory>,
    /// The guest's receive rings are the even ones, its transmit rings the odd ones (Virtual I/O Device 1.2 §5.1.2).
    vrings: Vec<Vring>,
}

impl Device {
    pub(super) fn new(pairs: u16, offload: bool) -> Self {
        Self {
            offered: features::offered(pairs, offload),
            features: 0,
            protocol: 0,
            pairs,
            memory: Arc::default(),
            vrings: (0..2 * pairs).map(|_| Vring::default()).collect(),
        }
    }

    /// Whether a message that wants an answer gets one although it asks for nothing.
    pub(super) fn answers(&self) -> bool {
        self.protocol & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0
    }

    /// What the guest takes.
    pub(super) fn caps(&self) -> Caps {
        features::caps(self.features)
    }

    /// The first ring that made no sense, and why.
    pub(super) fn fault(&self) -> Option<(usize, Fault)> {
        self.vrings.iter().enumerate().find_map(|(n, vring)| match &*vring.slot.lock() {
            State::Broken(fault) => Some((n, *fault)),
            _ => None,
        })
    }

    /// Tells the front end of rings that made no sense, each once.
    pub(super) fn report_faults(&mut self) {
        for vring in &mut self.vrings {
            if matches!(&*vring.slot.lock(), State::Broken(_)) && !mem::replace(&mut vring.fault_told, true) {
                tell(vring.err.clone());
            }
        }
    }

    /// The pairs of rings that run and are enabled, as queues.
    pub(super) fn queues(&self) -> Vec<VhostQueue> {
        let pairs = self.vrings.chunks_exact(2);
        pairs
            .filter_map(|pair| {
                let [send, receive] = pair else { return None };
                if !send.is_up() || !receive.is_up() {
                    return None;
                }
                let kick = Arc::clone(receive.kick.as_ref()?);
                let deal = (send.deal, receive.deal);
                Some(VhostQueue::new(Arc::clone(&receive.slot), Arc::clone(&send.slot), kick, deal))
            })
            .collect()
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring> {
        usize::try_from(index).ok().and_then(|at| self.vrings.get_mut(at)).ok_or(Error::InvalidParam)
    }

    /// Stops all rings, changes something, and starts those again that have what they need.
    fn change(&mut self, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.vrings.iter_mut().for_each(Vring::stop);
        let changed = change(self);
        for index in 0..self.vrings.len() {
            self.start(index);
        }
        changed
    }

    /// Stops a ring, changes something of it, and starts it again if it has what it needs.
    fn change_one(&mut self, index: u32, change: impl FnOnce(&mut Vring)) -> Result<()> {
        let vring = self.vring(index)?;
        vring.clear();
        change(vring);
        self.start(index as usize);
        Ok(())
    }

    fn start(&mut self, index: usize) {
        let Some(vring) = self.vrings.get_mut(index) else { return };
        if !matches!(&*vring.slot.lock(), State::Stopped) {
            return;
        }
        let (Some(kick), true, true) = (&vring.kick, vring.placed, vring.layout.size > 0) else { return };
        let layout = Layout {
            event_idx: self.features & features::EVENT_IDX != 0,
            indirect: self.features & features::INDIRECT_DESC != 0,
            ..vring.layout
        };
        let state = match Ring::new(Arc::clone(&self.memory), &layout, vring.call.clone()) {
            Ok(mut ring) => {
                if index.is_multiple_of(2) {
                    ring.hush(); // buffers to receive into are looked for when there is a frame
                }
                State::Running(Box::new(Running {
                    ring,
                    enabled: vring.enabled,
                    caps: features::caps(self.features),
                    header: features::header_len(self.features),
                    mergeable: self.features & features::NET_MRG_RXBUF != 0,
                }))
            }
            Err(fault) => State::Broken(fault),
        };
        vring.fault_told = false;
        *vring.slot.lock() = state;
        // What came while it was stopped was looked for in vain by the worker that was told of it.
        tell(Some(Arc::clone(kick)));
    }

    fn replace_memory(&mut self, regions: Vec<Region>) -> Result<()> {
        let memory = Arc::new(Memory::new(regions)?);
        self.change(|device| {
            device.memory = memory;
            Ok(())
        })
    }

    /// As the guest's driver finds it before it says anything.
    fn reset(&mut self) -> Result<()> {
        self.change(|device| {
            for vring in &mut device.vrings {
                vring.clear();
                *vring = Vring { slot: Arc::clone(&vring.slot), deal: vring.deal, ..Vring::default() };
            }
            device.features = 0;
            Ok(())
        })
    }
}

impl Drop for Device {
    /// Workers may have the queues a moment longer than there is a front end.
    fn drop(&mut self) {
        self.vrings.iter_mut().for_each(Vring::stop);
    }
}

impl Vring {
    fn is_up(&self) -> bool {
        matches!(&*self.slot.lock(), State::Running(running) if running.enabled)
    }

    /// Takes the ring from the workers; it goes on where it was. One that made no sense does not, unless all that was wrong is that
    /// its memory was not there.
    fn stop(&mut self) {
        let mut state = self.slot.lock();
        match &mut *state {
            State::Running(running) => {
                tell(running.ring.publish());
                self.base = running.ring.base();
            }
            State::Broken(Fault::Outside) => self.deal += 1,
            State::Broken(_) | State::Stopped => return,
        }
        *state = State::Stopped;
    }

    /// Takes the ring from the workers, whatever it was: what comes is another one.
    fn clear(&mut self) {
        self.stop();
        self.deal += 1;
        *self.slot.lock() = State::Stopped;
    }

    /// Does something with the ring while it runs.
    fn with_running(&self, work: impl FnOnce(&mut Running)) {
        if let State::Running(running) = &mut *self.slot.lock() {
            work(running);
        }
    }
}

/// A descriptor that the switch writes to must not hold up a worker, whatever it is. The flag belongs to the description, which the
/// front end has too: one that takes it away holds up its own port's worker, as it can by taking its memory away.
fn shared(file: Option<File>) -> Option<Arc<File>> {
    let file = file?;
    if let Ok(flags) = fcntl_getfl(&file) {
        let _ = fcntl_setfl(&file, flags | OFlags::NONBLOCK);
    }
    Some(Arc::new(file))
}

const fn unsupported(what: &'static str) -> Error {
    Error::InvalidOperation(what)
}

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset()
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered)
    }

    fn set_features(&mut self, accepted: u64) -> Result<()> {
        if accepted & !self.offered != 0 {
            return Err(Error::FeatureMismatch);
        }
        self.change(|device| {
            device.features = accepted;
            if accepted & features::PROTOCOL_FEATURES == 0 {
                // Nobody will enable them ("Ring states").
                device.vrings.iter_mut().for_each(|vring| vring.enabled = true);
            }
            Ok(())
        })
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(features::PROTOCOL)
    }

    fn set_protocol_features(&mut self, accepted: u64) -> Result<()> {
        if accepted & !features::PROTOCOL.bits() != 0 {
            return Err(Error::FeatureMismatch);
        }
        self.protocol = accepted;
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.pairs.into())
    }

    fn set_mem_table(
        &mut self,
        table: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let regions = table.iter().zip(files).map(|(region, file)| Region::map(region, file));
        self.replace_memory(regions.collect::<std::result::Result<_, _>>()?)?;
        Ok(None)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS_MAX as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let mut regions = self.memory.regions().to_vec();
        match regions.iter_mut().find(|known| known.is(region)) {
            Some(known) => known.add(),
            None => regions.push(Region::map(region, file)?),
        }
        self.replace_memory(regions)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let mut regions = self.memory.regions().to_vec();
        let at = regions.iter().position(|known| known.is(region)).ok_or(Error::InvalidParam)?;
        if !regions[at].remove() {
            regions.remove(at);
        }
        self.replace_memory(regions)
    }

    fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        self.change_one(index, |vring| vring.layout.size = size)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        self.change_one(index, |vring| {
            vring.layout = Layout { descriptors, used, available, ..vring.layout };
            vring.placed = true;
        })
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.change_one(index, |vring| vring.base = base)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let vring = self.vring(index)?;
        vring.clear();
        vring.kick = None;
        vring.call = None;
        Ok(VhostUserVringState::new(index, vring.base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        // Without one the ring would have to be looked at all the time.
        let kick = shared(file).ok_or(unsupported("a ring without a kick descriptor"))?;
        self.change_one(index.into(), |vring| vring.kick = Some(kick))
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let call = shared(file);
        let vring = self.vring(index.into())?;
        vring.call.clone_from(&call);
        vring.with_running(|running| running.ring.set_call(call.clone()));
        // A guest that asks for the first time may wait for what was used before it could be told.
        tell(call);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.vring(index.into())?.err = shared(file);
        Ok(())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let vring = self.vring(index)?;
        vring.enabled = enable;
        vring.with_running(|running| running.enabled = enable);
        Ok(())
    }

    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Err(unsupported("the device has no configuration of its own"))
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(unsupported("the device has no configuration of its own"))
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(unsupported("the device is a network interface"))
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(unsupported("the device shares no objects"))
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(unsupported("what is in flight is not tracked"))
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(unsupported("what is in flight is not tracked"))
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(unsupported("the device has no state to transfer"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(unsupported("the device has no state to transfer"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(unsupported("the device has no shared memory of its own"))
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(unsupported("what is written is not logged"))
    }
}
