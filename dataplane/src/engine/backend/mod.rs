//! What is behind a port, seen from the control thread.
//!
//! A kind of port is one file here and one [`Backend`]. The queues of some are there as long as the port; those of others come and go
//! with a peer or an interface: [`Backend::tend`] hands them out and takes them back, and the port is up while [`Backend::health`] says so.

mod memory;
mod netdev;
mod stream;
mod tap;
mod vhost_user;

use std::{
    fmt::{self, Debug},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

pub use memory::MemoryBackend;
pub use tap::TapBackend;

use super::{
    devices::{DeviceKernel, MemoryKernel, NetlinkDevices},
    underlay::{Group, SocketSet, VtepAddress},
};
use crate::{
    config::{Netns, PortOptions, PortSpec, PortType},
    frame::Caps,
    netlink::Socket,
    port::{
        Queue, UnderlayRx, UnderlayTx,
        underlay::{self, MemoryNet, RxOptions, TxSet, TxSetOptions, UdpRx},
    },
    sys,
    wire::MacAddr,
};

/// Why something behind a port cannot be made or changed; a sentence that names the object.
pub type BackendError = Box<dyn std::error::Error + Send + Sync>;

/// Where the queues of a port are handed to the workers and taken back: what [`Backend::tend`] may do with them.
pub trait Desk {
    /// The queues that are out, in no order, once no worker uses any of them. Until the port is up again, which is looked at when
    /// [`Backend::tend`] returns, frames for it are counted as lost.
    fn take_back(&mut self) -> Vec<Queue>;
    /// Hands queues out. What is still out is taken back first, and closed.
    ///
    /// # Errors
    /// Where a worker that has none of the queues to poll cannot be given one to send by. All queues are closed then.
    fn hand_out(&mut self, queues: Vec<Queue>) -> io::Result<()>;
}

/// The control thread's end of what is behind a port.
pub trait Backend: Debug + Send {
    /// What the far side takes.
    fn caps(&self) -> Caps;
    /// Name of the interface; empty where there is none.
    fn ifname(&self) -> String;
    /// Address of the interface, where it has one.
    fn mac(&self) -> Option<MacAddr>;
    /// Octets of the longest IP packet that the interface takes, where that is its own to say and no setting of the port's.
    fn mtu(&self) -> Option<u32> {
        None
    }
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
    /// Descriptors of which the control thread is to be told when they are readable. Asked for after each [`tend`](Self::tend), so
    /// what is still readable then is told again.
    fn watched(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
    /// Does what has become possible: called when a watched descriptor is readable, when a worker has lost a queue of the port, and
    /// each second. Capabilities, MTU and health are asked for again when it returns.
    fn tend(&mut self, _desk: &mut dyn Desk) {}
    /// Frames that the kernel had no room for, since the last question.
    fn overflowed(&mut self) -> u64 {
        0
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
    /// Go to the workers; none where they come later.
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
        match spec.options.kind_or_default() {
            PortType::Tap => TapBackend::open(spec, queues),
            PortType::Netdev => netdev::open(spec, queues),
            PortType::Stream | PortType::Dgram => stream::open(spec, queues),
            PortType::VhostUser => vhost_user::open(spec, queues),
            kind @ (PortType::Vxlan | PortType::Geneve) => {
                Err(format!("a {kind} tunnel has no queues").into())
            }
        }
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

/// What has neither an interface nor queues of its own, and cannot vanish: a tunnel.
#[derive(Debug)]
pub(super) struct Bare(pub(super) Caps);

impl Backend for Bare {
    fn caps(&self) -> Caps {
        self.0
    }

    fn ifname(&self) -> String {
        String::new()
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
