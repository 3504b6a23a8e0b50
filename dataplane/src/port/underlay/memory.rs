//! An underlay in memory: switches in one process exchange datagrams, in the time of a simulation.
//!
//! Speaks to a worker as sockets do, joined messages and trains included. No thread, no clock: what was sent waits until it is fetched.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    super::Received,
    Delivery, Sent, Who,
    outbox::{Post, Unit},
};
use crate::{
    counters::PortCounters,
    frame::{BATCH, Batch, Datagram, Offload},
};

/// The first source port; a flow's lane is added to it.
const PORTS: u16 = 49_152;
/// Octets of an IP header, without options, and a UDP header.
const HEADERS_V4: u32 = 20 + 8;
/// As [`HEADERS_V4`], for IPv6.
const HEADERS_V6: u32 = 40 + 8;

/// A datagram on its way, or a train of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Who sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// TOS, or traffic class.
    pub tos: u8,
    /// Time to live, or hop limit; 0 where the sender left it to the kernel.
    pub ttl: u8,
    /// What is behind the UDP header.
    pub octets: Vec<u8>,
    /// The size of each datagram of a train but the last; 0 for one.
    pub stride: u32,
}

/// A network to which endpoints in memory are attached.
#[derive(Clone, Debug, Default)]
pub struct MemoryNet(Arc<Mutex<Hub>>);

#[derive(Default)]
struct Hub {
    inboxes: HashMap<SocketAddr, Inbox>,
    groups: HashMap<SocketAddr, Vec<SocketAddr>>,
    trains: bool,
    mtu: Option<u32>,
    depth: Option<usize>,
    lose: Option<Loss>,
}

/// What waits at an address.
#[derive(Default)]
struct Inbox {
    parcels: VecDeque<Parcel>,
    /// Endpoints that fetch it.
    owners: usize,
    /// What came and found no room, since somebody asked.
    lost: u64,
}

impl Inbox {
    fn put(&mut self, parcel: Parcel, depth: Option<usize>) {
        if depth.is_some_and(|depth| self.parcels.len() >= depth) {
            self.lost += 1;
        } else {
            self.parcels.push_back(parcel);
        }
    }
}

type Loss = Box<dyn FnMut(&Parcel) -> bool + Send>;

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("inboxes", &self.inboxes.keys()).finish_non_exhaustive()
    }
}

impl MemoryNet {
    /// A network without endpoints, that loses nothing and delivers each datagram by itself.
    pub fn new() -> Self {
        Self::default()
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers messages as they were sent, as a train of datagrams (`UDP_GRO`), or each datagram by itself.
    pub fn deliver_trains(&self, on: bool) {
        self.hub().trains = on;
    }

    /// Refuses IP packets that are longer.
    pub fn set_mtu(&self, mtu: u32) {
        self.hub().mtu = Some(mtu);
    }

    /// The longest IP packet it takes, where that was set.
    pub fn mtu(&self) -> Option<u32> {
        self.hub().mtu
    }

    /// Loses what comes for an endpoint at which so many wait.
    pub fn set_depth(&self, depth: usize) {
        self.hub().depth = Some(depth);
    }

    /// Loses what `lose` says.
    pub fn set_loss(&self, lose: impl FnMut(&Parcel) -> bool + Send + 'static) {
        self.hub().lose = Some(Box::new(lose));
    }

    /// The receiving end of an endpoint. A second one at the same address takes from the same queue.
    pub fn bind(&self, local: SocketAddr) -> MemoryRx {
        self.hub().inboxes.entry(local).or_default().owners += 1;
        MemoryRx { net: self.clone(), local }
    }

    /// What is sent to `group` also comes to the endpoint at `member`, except from itself.
    pub fn join(&self, group: SocketAddr, member: SocketAddr) {
        let mut hub = self.hub();
        let members = hub.groups.entry(group).or_default();
        if !members.contains(&member) {
            members.push(member);
        }
    }

    /// The sending end of an endpoint.
    pub fn tx(&self, local: IpAddr) -> MemoryTx {
        MemoryTx { net: self.clone(), local }
    }

    /// Datagrams and trains that nobody has fetched.
    pub fn waiting(&self) -> usize {
        self.hub().inboxes.values().map(|inbox| inbox.parcels.len()).sum()
    }
}

impl Hub {
    fn send(&mut self, parcel: Parcel) {
        if self.lose.as_mut().is_some_and(|lose| lose(&parcel)) {
            return;
        }
        let Self { inboxes, groups, depth, .. } = self;
        let members = groups.get(&parcel.to).map_or(&[][..], Vec::as_slice);
        for member in members.iter().filter(|m| m.ip() != parcel.from.ip()) {
            if let Some(inbox) = inboxes.get_mut(member) {
                inbox.put(parcel.clone(), *depth);
            }
        }
        if let Some(inbox) = inboxes.get_mut(&parcel.to) {
            inbox.put(parcel, *depth);
        }
    }
}

/// Where an endpoint in memory receives.
#[derive(Debug)]
pub struct MemoryRx {
    net: MemoryNet,
    local: SocketAddr,
}

/// Nobody can fetch what waits where the last endpoint has gone.
impl Drop for MemoryRx {
    fn drop(&mut self) {
        let mut hub = self.net.hub();
        if let Some(inbox) = hub.inboxes.get_mut(&self.local) {
            inbox.owners -= 1;
            if inbox.owners == 0 {
                hub.inboxes.remove(&self.local);
            }
        }
    }
}

impl MemoryRx {
    /// See [`UnderlayRx::overflowed`](super::UnderlayRx::overflowed).
    pub fn overflowed(&mut self) -> u64 {
        self.net.hub().inboxes.get_mut(&self.local).map_or(0, |inbox| std::mem::take(&mut inbox.lost))
    }

    /// See [`UnderlayRx::recv`](super::UnderlayRx::recv).
    pub fn recv(
        &mut self,
        batch: &mut Batch,
        datagrams: &mut Vec<Datagram>,
        counters: &PortCounters,
    ) -> Received {
        let mut hub = self.net.hub();
        let Some(inbox) = hub.inboxes.get_mut(&self.local) else { return Received::Drained };
        debug_assert!(batch.is_empty());
        datagrams.clear();
        let mut room = batch.room();
        for (n, slot) in batch.vacancies(0, BATCH).enumerate() {
            if room == 0 {
                return Received::Full;
            }
            let Some(parcel) = inbox.parcels.pop_front() else { return Received::Drained };
            let len = parcel.octets.len();
            slot[..len].copy_from_slice(&parcel.octets);
            room = room.saturating_sub(len);
            counters.rx_frames.add(1);
            counters.rx_bytes.add(len as u64);
            datagrams.push(Datagram {
                at: Batch::slot_at(n) as u32,
                len: len as u32,
                stride: parcel.stride,
                from: parcel.from.ip(),
                tos: parcel.tos,
                offload: Offload::NONE,
            });
        }
        Received::Full
    }
}

/// Where an endpoint in memory sends.
#[derive(Debug)]
pub struct MemoryTx {
    net: MemoryNet,
    local: IpAddr,
}

impl MemoryTx {
    pub(super) fn send(&self, lane: usize, post: Post<'_>, units: &[Unit], done: &mut impl FnMut(Who, Sent)) {
        let mut hub = self.net.hub();
        let headers = if self.local.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
        for unit in units {
            let size = unit.segment.map_or(unit.octets, u32::from);
            if hub.mtu.is_some_and(|mtu| size + headers > mtu) {
                done(post.who(unit), unit.came_to(Delivery::TooBig));
                continue;
            }
            let envelope = post.envelope(unit);
            let octets: Vec<u8> = post.octets(unit).flatten().copied().collect();
            let parcel = |octets, stride| Parcel {
                from: SocketAddr::new(self.local, PORTS + lane as u16),
                to: envelope.to,
                tos: envelope.tos,
                ttl: envelope.ttl,
                octets,
                stride,
            };
            if hub.trains {
                hub.send(parcel(octets, unit.segment.map_or(0, u32::from)));
            } else {
                octets.chunks(size.max(1) as usize).for_each(|one| hub.send(parcel(one.to_vec(), 0)));
            }
            done(post.who(unit), unit.came_to(Delivery::Sent));
        }
    }
}
