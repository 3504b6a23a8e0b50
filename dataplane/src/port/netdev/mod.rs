//! A netdev port: an interface that is there already, taken over by packet sockets.
//!
//! ```text
//!   a VM's TAP, a veth end, a NIC                         the switch
//!   ┌─────────┐   PACKET_VNET_HDR, one socket a queue   ┌─────────────┐
//!   │ vnet0   │◀───────────────────────────────────────▶│ PacketQueue │
//!   └────┬────┘                                         └─────────────┘
//!        └ × ─ the host's own stack: nftables ingress, policy drop
//! ```
//!
//! Owns the sockets of the port, and what was changed about the interface for it. [`Netdev`] belongs to the control thread; its
//! [queues](PacketQueue) go to the workers, by value.
//! The interface belongs to somebody else and is known by its name: it may come later, go, and come back as another. Then the port
//! lets go of everything and waits. What the kernel undoes by itself when a socket is closed (promiscuous mode, the rule that
//! keeps the host's stack away) needs no care, also where the daemon is killed.
//!
//! While it is held, the sockets keep the interface's namespace alive. So it is looked for under its name each time, and let go of
//! where it is not found there any more.
//!
//! `docs/design/netdev.md` has the reasons.

mod error;
mod open;
mod queue;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

pub use error::NetdevError;
pub use queue::PacketQueue;

use crate::{
    frame::Caps,
    netlink::{Event, IngressDrop, IngressDropError, Link, Monitor, Socket},
    netns::Netns,
    sys::{
        netns::{self, NetnsId},
        packet,
    },
    wire::MacAddr,
};

/// What a netdev port is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetdevOptions {
    /// Name of the interface.
    pub ifname: String,
    /// Where it is; the daemon's own namespace where there is none.
    pub netns: Option<Netns>,
    /// MTU that the interface is to have; its own where there is none.
    pub mtu: Option<u32>,
    /// How many queues: one a worker.
    pub queues: usize,
    /// Whether super-frames and partial checksums are sent; those that come are always taken.
    pub offload: bool,
    /// Whether frames pass the queueing discipline of the interface by.
    pub qdisc_bypass: bool,
}

/// What is to be done about a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Stay,
    /// The interface is not what it was: take the queues back and [let go](Netdev::let_go) of it.
    LetGo,
    /// The interface is not held, and may be there: [take it over](Netdev::take_over).
    TakeOver,
}

/// A netdev port.
#[derive(Debug)]
pub struct Netdev {
    options: NetdevOptions,
    place: Option<Place>,
    held: Option<Held>,
    state: Result<(), NetdevError>,
    /// What the kernel has counted as lost until the interface was let go of, and nobody has asked for.
    lost: u64,
}

/// The namespace of the interface.
#[derive(Debug)]
struct Place {
    netns: OwnedFd,
    id: NetnsId,
    socket: Socket,
    monitor: Monitor,
}

/// What is open while the interface is taken over.
#[derive(Debug)]
struct Held {
    /// Another handle on the socket of each queue, for the kernel's counts.
    sockets: Vec<OwnedFd>,
    caps: Caps,
    /// The interface as it was found, and as it was seen last.
    found: Link,
    now: Link,
    /// Keeps the host's stack away, or why it does not.
    guard: Result<IngressDrop, IngressDropError>,
}

impl Netdev {
    /// A port that waits for its interface.
    pub fn new(options: NetdevOptions) -> Self {
        let missing = NetdevError::Missing { name: options.ifname.clone() };
        Self { options, place: None, held: None, state: Err(missing), lost: 0 }
    }

    /// Takes the interface over: sets it up, keeps the host's stack away from it and opens a socket for each queue.
    /// Where it cannot be taken over there are no queues, it is as it was, and [`state`](Self::state) says why.
    ///
    /// For the control thread: it waits for the kernel's rtnl lock and for grace periods.
    pub fn take_over(&mut self) -> Vec<PacketQueue> {
        self.let_go();
        let (state, queues) = match self.open() {
            Ok(queues) => (self.seen(), queues), // it may have no carrier yet
            Err(error) => (Err(error), Vec::new()),
        };
        // That it was renamed says more than that it is missing.
        if !matches!(
            (&self.state, &state),
            (Err(NetdevError::Renamed { .. }), Err(NetdevError::Missing { .. }))
        ) {
            self.state = state;
        }
        queues
    }

    fn open(&mut self) -> Result<Vec<PacketQueue>, NetdevError> {
        let Self { options, place, held, .. } = self;
        let place = arrive(options, place)?;
        let name = &options.ifname;
        let missing = || NetdevError::Missing { name: name.clone() };
        let found = place.socket.link_by_name(name)?.filter(|link| link.name == *name).ok_or_else(missing)?;
        if !found.ethernet {
            return Err(NetdevError::NotEthernet { name: name.clone() });
        }
        refuse_master(&found, &mut place.socket)?;
        // First of all: so that the host answers nothing once frames come.
        let guard = match IngressDrop::new(place.netns.as_fd(), name) {
            Err(source @ IngressDropError::Owned { .. }) => {
                return Err(NetdevError::InUse { name: name.clone(), source });
            }
            guard => guard,
        };
        let opened = prepare(options, &found, &mut place.socket).and_then(|()| {
            let failed = |source| NetdevError::Socket { operation: "open", name: name.clone(), source };
            let queues =
                netns::within(place.netns.as_fd(), || open::open(options, found.index)).map_err(failed)??;
            let sockets = queues.iter().map(|q| q.as_fd().try_clone_to_owned());
            let sockets = sockets.collect::<io::Result<Vec<_>>>().map_err(failed)?;
            Ok((queues, sockets, place.socket.link_by_index(found.index)?.ok_or_else(missing)?))
        });
        match opened {
            Ok((queues, sockets, now)) => {
                let caps = queues.first().map_or(Caps::NONE, |queue| *queue.caps());
                *held = Some(Held { sockets, caps, found, now, guard });
                Ok(queues)
            }
            Err(error) => {
                restore(&found, &mut place.socket);
                Err(error)
            }
        }
    }

    /// Looks what has become of the interface. One question to the kernel, and none where it has told of nothing but others.
    pub fn look(&mut self) -> Turn {
        let told = self.place.as_mut().map(|place| place.monitor.read());
        let index = self.held.as_ref().map(|held| held.found.index);
        let ours = |event: &Event| match event {
            Event::Link { index: at, name } | Event::LinkGone { index: at, name } => {
                Some(*at) == index || *name == self.options.ifname
            }
            Event::Lost => true,
            Event::Address { .. } | Event::Route { .. } => false,
        };
        if let Some(Ok(events)) = &told
            && !events.is_empty()
            && !events.iter().any(ours)
        {
            return Turn::Stay;
        }
        if self.held.is_none() {
            return Turn::TakeOver;
        }
        self.state = self.seen();
        match &self.state {
            // The sockets outlive that.
            Ok(()) | Err(NetdevError::Down { .. } | NetdevError::NoCarrier { .. }) => Turn::Stay,
            Err(_) => Turn::LetGo,
        }
    }

    /// How the interface is that was taken over.
    fn seen(&mut self) -> Result<(), NetdevError> {
        let name = || self.options.ifname.clone();
        let missing = || NetdevError::Missing { name: name() };
        let (Some(place), Some(held)) = (&mut self.place, &mut self.held) else { return Err(missing()) };
        if let Some(netns) = &self.options.netns {
            let id = netns.open().and_then(netns::id);
            let id = id.map_err(|source| NetdevError::Netns { netns: netns.clone(), source })?;
            if id != place.id {
                return Err(missing());
            }
        }
        held.now = place.socket.link_by_index(held.found.index)?.ok_or_else(missing)?;
        if held.now.name != self.options.ifname {
            return Err(NetdevError::Renamed { name: name(), now: held.now.name.clone() });
        }
        refuse_master(&held.now, &mut place.socket)?;
        match &held.now {
            Link { up: false, .. } => Err(NetdevError::Down { name: name() }),
            Link { carrier: false, .. } => Err(NetdevError::NoCarrier { name: name() }),
            _ => Ok(()),
        }
    }

    /// Gives the interface back as it was found, where it is still there; the queues are closed already.
    pub fn let_go(&mut self) {
        self.lost += self.lost_now();
        let Some(held) = self.held.take() else { return };
        let Held { sockets, found, guard, .. } = held;
        // The host's stack comes back last: it is to find the interface as it was.
        drop(sockets);
        if let Some(place) = &mut self.place {
            restore(&found, &mut place.socket);
        }
        drop(guard);
    }

    /// Lets go of it because no worker can be given its queues, which are closed.
    pub fn give_up(&mut self, source: io::Error) {
        self.let_go();
        let name = self.options.ifname.clone();
        self.state = Err(NetdevError::Socket { operation: "share", name, source });
    }

    /// Whether frames can pass; if not, why.
    pub fn state(&self) -> Result<(), &NetdevError> {
        self.state.as_ref().copied()
    }

    /// Why the host's own stack still answers on the interface, where the kernel has no means against it.
    pub fn unguarded(&self) -> Option<&IngressDropError> {
        self.held.as_ref()?.guard.as_ref().err()
    }

    /// What can be sent by the interface.
    pub fn caps(&self) -> Caps {
        self.held.as_ref().map_or(Caps::NONE, |held| held.caps)
    }

    /// The name of the interface.
    pub fn ifname(&self) -> &str {
        &self.options.ifname
    }

    /// The number of the interface, while it is held.
    pub fn ifindex(&self) -> Option<u32> {
        Some(self.held.as_ref()?.now.index)
    }

    /// The interface's address, while it is held.
    pub fn mac(&self) -> Option<MacAddr> {
        self.held.as_ref()?.now.mac
    }

    /// The interface's MTU, while it is held.
    pub fn mtu(&self) -> Option<u32> {
        Some(self.held.as_ref()?.now.mtu)
    }

    /// Gives the interface another MTU, its own from before for `None`; one that comes later has it too.
    pub fn set_mtu(&mut self, mtu: Option<u32>) -> Result<(), NetdevError> {
        if let (Some(place), Some(held)) = (&mut self.place, &mut self.held) {
            let mtu = mtu.unwrap_or(held.found.mtu);
            place.socket.set_link_mtu(&held.found, mtu)?;
            held.now.mtu = mtu;
        }
        self.options.mtu = mtu;
        Ok(())
    }

    /// Frames that the kernel had no room for, since the last question.
    pub fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost) + self.lost_now()
    }

    fn lost_now(&self) -> u64 {
        let sockets = self.held.iter().flat_map(|held| &held.sockets);
        sockets.map(|socket| u64::from(packet::lost(socket.as_fd()).unwrap_or(0))).sum()
    }

    /// Becomes readable when something about the interfaces of the namespace has changed.
    pub fn watched(&self) -> Option<BorrowedFd<'_>> {
        Some(self.place.as_ref()?.monitor.as_fd())
    }
}

/// The namespace under its name, with what was opened in it before where it is the same.
fn arrive<'a>(options: &NetdevOptions, place: &'a mut Option<Place>) -> Result<&'a mut Place, NetdevError> {
    let own = Netns::Path("/proc/thread-self/ns/net".into());
    let netns = options.netns.as_ref().unwrap_or(&own);
    let failed = |source| NetdevError::Netns { netns: netns.clone(), source };
    let found = netns.open().and_then(|fd| Ok((netns::id(&fd)?, fd)));
    let there = match found {
        Ok((id, fd)) => match place.take().filter(|place| place.id == id) {
            Some(same) => same,
            None => Place {
                // Before anything is asked, so that nothing happens in between unseen.
                monitor: Monitor::links(fd.as_fd()).map_err(failed)?,
                socket: Socket::open_in(fd.as_fd()).map_err(failed)?,
                netns: fd,
                id,
            },
        },
        Err(source) => {
            *place = None;
            return Err(failed(source));
        }
    };
    Ok(place.insert(there))
}

/// Refuses an interface whose frames go to a bridge or a bond.
fn refuse_master(link: &Link, socket: &mut Socket) -> Result<(), NetdevError> {
    let Some(index) = link.master else { return Ok(()) };
    let master = socket.link_by_index(index)?.map_or_else(|| format!("number {index}"), |link| link.name);
    Err(NetdevError::HasMaster { name: link.name.clone(), master })
}

/// Gives the interface its MTU and sets it up.
fn prepare(options: &NetdevOptions, found: &Link, socket: &mut Socket) -> Result<(), NetdevError> {
    if let Some(mtu) = options.mtu.filter(|&mtu| mtu != found.mtu) {
        socket.set_link_mtu(found, mtu)?;
    }
    if !found.up {
        socket.set_link_up(found, true)?;
    }
    Ok(())
}

/// Puts back what [`prepare`] and [`Netdev::set_mtu`] have changed. An interface that is gone, or that somebody else has changed since so
/// that the kernel refuses, is none of ours any more.
fn restore(found: &Link, socket: &mut Socket) {
    let Ok(Some(now)) = socket.link_by_index(found.index) else { return };
    if now.mtu != found.mtu {
        let _ = socket.set_link_mtu(found, found.mtu);
    }
    if now.up && !found.up {
        let _ = socket.set_link_up(found, false);
    }
}
