//! What is behind a port, seen from the control thread.

use std::{
    fmt::{self, Debug},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
};

use ipnet::IpNet;

use super::{
    devices::{DeviceKernel, MemoryKernel, NetlinkDevices},
    underlay::{Group, SocketSet, VtepAddress},
};
use crate::{
    config::{Netns, PortOptions, PortSpec, PortType},
    frame::Caps,
    netlink::Socket,
    port::{
        MemoryPeer, MemoryQueue, Queue, UnderlayRx, UnderlayTx, memory,
        tap::{Health, Tap, TapOptions},
        underlay::{self, MemoryNet, RxOptions, TxSet, TxSetOptions, UdpRx},
    },
    sys,
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
    /// The namespace and the number of an interface that ends with it: whoever ends many of them deletes the interfaces first, all
    /// at once, which the kernel does in a hundredth of the time.
    fn own_interface(&self) -> Option<(OwnedFd, u32)> {
        None
    }
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

/// The world outside as the control thread opens it.
trait World: Send {
    /// Opens what is behind a port.
    fn port(&mut self, spec: &PortSpec, queues: u16) -> Result<Opened, BackendError>;
    /// Opens the sockets of a local tunnel endpoint, one for each worker.
    fn listen(
        &mut self,
        at: &VtepAddress,
        zero_csum6: bool,
        workers: usize,
    ) -> Result<Vec<UnderlayRx>, BackendError>;
    /// Opens the socket of a multicast group.
    fn join(&mut self, at: &VtepAddress, group: &Group, zero_csum6: bool)
    -> Result<UnderlayRx, BackendError>;
    /// Opens a set of sockets for each worker to send by; none of them takes a port of `avoid`.
    fn sockets(
        &mut self,
        set: &SocketSet,
        avoid: Vec<u16>,
        workers: usize,
    ) -> Result<Vec<UnderlayTx>, BackendError>;
    /// Octets of the longest packet from a local endpoint to a remote.
    fn path_mtu(
        &mut self,
        at: &VtepAddress,
        remote: IpAddr,
        device: Option<&str>,
    ) -> Result<u32, BackendError>;
}

/// Opens what is behind ports, what tunnels need of the underlay, and the kernel's devices.
pub struct Opener {
    world: Box<dyn World>,
    devices: Box<dyn DeviceKernel>,
}

impl Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

impl Opener {
    /// Opens everything in the kernel.
    pub fn kernel() -> Self {
        Self { world: Box::new(Kernel), devices: Box::new(NetlinkDevices::default()) }
    }

    /// Opens ports by `open`, and tunnels on `net`: for simulations.
    pub fn simulated(
        open: impl FnMut(&PortSpec, u16) -> Result<Opened, BackendError> + Send + 'static,
        net: MemoryNet,
    ) -> Self {
        Self { world: Box::new(Simulation { open, net }), devices: Box::new(MemoryKernel::default()) }
    }

    /// As [`simulated`](Self::simulated), on a network of its own.
    pub fn with(open: impl FnMut(&PortSpec, u16) -> Result<Opened, BackendError> + Send + 'static) -> Self {
        Self::simulated(open, MemoryNet::new())
    }

    /// The same with other kernel devices.
    #[must_use]
    pub fn with_devices(self, devices: impl DeviceKernel + 'static) -> Self {
        Self { devices: Box::new(devices), ..self }
    }

    pub(super) fn devices(&mut self) -> &mut dyn DeviceKernel {
        &mut *self.devices
    }

    pub(super) fn open(&mut self, spec: &PortSpec, queues: u16) -> Result<Opened, BackendError> {
        self.world.port(spec, queues)
    }

    pub(super) fn listen(
        &mut self,
        at: &VtepAddress,
        zero_csum6: bool,
        workers: usize,
    ) -> Result<Vec<UnderlayRx>, BackendError> {
        self.world.listen(at, zero_csum6, workers)
    }

    pub(super) fn join(
        &mut self,
        at: &VtepAddress,
        group: &Group,
        zero_csum6: bool,
    ) -> Result<UnderlayRx, BackendError> {
        self.world.join(at, group, zero_csum6)
    }

    pub(super) fn sockets(
        &mut self,
        set: &SocketSet,
        avoid: Vec<u16>,
        workers: usize,
    ) -> Result<Vec<UnderlayTx>, BackendError> {
        self.world.sockets(set, avoid, workers)
    }

    pub(super) fn path_mtu(
        &mut self,
        at: &VtepAddress,
        remote: IpAddr,
        device: Option<&str>,
    ) -> Result<u32, BackendError> {
        self.world.path_mtu(at, remote, device)
    }
}

/// The kernel beneath the daemon.
#[derive(Debug)]
struct Kernel;

/// Does `work` in a network namespace, the daemon's own for `None`.
fn within<T: Send>(netns: Option<&Netns>, work: impl FnOnce() -> T + Send) -> Result<T, BackendError> {
    let Some(netns) = netns else { return Ok(work()) };
    let fd = netns.open().map_err(|e| format!("namespace {netns}: {e}"))?;
    Ok(sys::netns::within(fd.as_fd(), work)?)
}

/// The index of a device in the calling thread's namespace.
fn device_index(name: &str) -> Result<u32, BackendError> {
    match Socket::open()?.link_by_name(name)? {
        Some(link) => Ok(link.index),
        None => Err(format!("there is no device {name}").into()),
    }
}

impl World for Kernel {
    fn port(&mut self, spec: &PortSpec, queues: u16) -> Result<Opened, BackendError> {
        TapBackend::open(spec, queues)
    }

    fn listen(
        &mut self,
        at: &VtepAddress,
        zero_checksum: bool,
        workers: usize,
    ) -> Result<Vec<UnderlayRx>, BackendError> {
        let options = RxOptions { local: at.local, zero_checksum, exclusive: true };
        let sockets = within(at.netns.as_ref(), || UdpRx::open(&options, workers))??;
        Ok(sockets.into_iter().map(UnderlayRx::Socket).collect())
    }

    fn join(
        &mut self,
        at: &VtepAddress,
        group: &Group,
        zero_checksum: bool,
    ) -> Result<UnderlayRx, BackendError> {
        let options = RxOptions { local: at.local, zero_checksum, exclusive: true };
        let socket = within(at.netns.as_ref(), || -> Result<UdpRx, BackendError> {
            let group = underlay::Group { address: group.address, device: device_index(&group.device)? };
            Ok(UdpRx::join(&options, group)?)
        })??;
        Ok(UnderlayRx::Socket(socket))
    }

    fn sockets(
        &mut self,
        set: &SocketSet,
        avoid: Vec<u16>,
        workers: usize,
    ) -> Result<Vec<UnderlayTx>, BackendError> {
        let sets = within(set.netns.as_ref(), || -> Result<Vec<TxSet>, BackendError> {
            let options = TxSetOptions {
                local: set.local,
                ports: set.ports.clone(),
                avoid,
                df: set.df,
                checksum: set.udp_csum,
                multicast: set.device.as_deref().map(device_index).transpose()?,
            };
            Ok(TxSet::open(&options, workers)?)
        })??;
        Ok(sets.into_iter().map(UnderlayTx::Sockets).collect())
    }

    fn path_mtu(
        &mut self,
        at: &VtepAddress,
        remote: IpAddr,
        device: Option<&str>,
    ) -> Result<u32, BackendError> {
        let remote = SocketAddr::new(remote, at.local.port());
        within(at.netns.as_ref(), || {
            let device = device.map(device_index).transpose()?;
            Ok(underlay::path_mtu(at.local.ip(), remote, device)?)
        })?
    }
}

/// A world in memory.
struct Simulation<F> {
    open: F,
    net: MemoryNet,
}

impl<F: FnMut(&PortSpec, u16) -> Result<Opened, BackendError> + Send> World for Simulation<F> {
    fn port(&mut self, spec: &PortSpec, queues: u16) -> Result<Opened, BackendError> {
        (self.open)(spec, queues)
    }

    fn listen(&mut self, at: &VtepAddress, _: bool, _: usize) -> Result<Vec<UnderlayRx>, BackendError> {
        Ok(vec![UnderlayRx::Memory(self.net.bind(at.local))])
    }

    fn join(&mut self, at: &VtepAddress, group: &Group, _: bool) -> Result<UnderlayRx, BackendError> {
        let group = SocketAddr::new(group.address, at.local.port());
        self.net.join(group, at.local);
        Ok(UnderlayRx::Memory(self.net.bind(at.local)))
    }

    fn sockets(
        &mut self,
        set: &SocketSet,
        _: Vec<u16>,
        workers: usize,
    ) -> Result<Vec<UnderlayTx>, BackendError> {
        Ok((0..workers).map(|_| UnderlayTx::Memory(self.net.tx(set.local))).collect())
    }

    fn path_mtu(&mut self, _: &VtepAddress, _: IpAddr, _: Option<&str>) -> Result<u32, BackendError> {
        Ok(self.net.mtu().unwrap_or(1500))
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

    fn own_interface(&self) -> Option<(OwnedFd, u32)> {
        self.0.own_interface()
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
