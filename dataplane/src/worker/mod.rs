//! One loop, one core: receive, forward, send, report the snapshot it works with.
//!
//! Owns its poll, its queues, its batch and its plan; shares with other workers only what a snapshot refers to.
//! Run to completion: a frame is received, decided and sent by the same thread, so frames of one flow stay in order.
//! What the control thread wants arrives in the mailbox and is looked at between batches, never within one.
//! Descriptors come and go by the mailbox too, by value: who holds a queue is who closes it.

pub(crate) mod uplink;

use std::{collections::VecDeque, io, os::fd::AsRawFd, sync::Arc, time::Duration};

use crossbeam::{
    channel::{Receiver, Sender},
    utils::CachePadded,
};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};

use uplink::UplinkArrivals;

use crate::{
    clock::Clock,
    counters::{Counter, DropReason, PortCounters},
    forward::{Env, Scratch, Silent, TxPlan, forward},
    frame::{BATCH, Batch, Datagram},
    index::{PortIdx, RemoteIdx, TxSetIdx, VtepIdx},
    offload::merge::{Limits, merge},
    overlay::{Arrivals, Decapsulator, Ingress, Remotes, Tunnel},
    port::{Encapsulator, Exits, Queue, Received, Transmitter, UnderlayRx, UnderlayTx, UplinkExit, tap},
    snapshot::Snapshot,
    sys::uring::Batcher,
    tick::Tick,
};

/// The mailbox's token; queues have smaller ones.
const MAILBOX: Token = Token(usize::MAX);
/// Bits of a token that number the queues of a port: as many as a TAP can have (`MAX_TAP_QUEUES`).
const QUEUE_BITS: u32 = 8;
/// Set in the tokens of the sockets of local tunnel endpoints; above the bits of a port's number.
const VTEP_BIT: usize = 1 << (QUEUE_BITS + 16);

/// What the control thread sends a worker.
#[derive(Debug)]
pub enum Mail {
    /// Work with this from now on.
    Snapshot(Arc<Snapshot>),
    /// Poll these queues, and send by that one.
    Attach {
        /// The port.
        port: PortIdx,
        /// Which deal of queues this is: those of before are lost without harm.
        deal: u64,
        /// Queues that only this worker polls.
        rx: Vec<Queue>,
        /// The queue by which this worker sends.
        tx: Queue,
    },
    /// Give back all queues of this port.
    Detach(PortIdx),
    /// Poll these sockets of a local tunnel endpoint.
    AttachVtep {
        /// The endpoint.
        vtep: VtepIdx,
        /// Sockets that only this worker polls.
        rx: Vec<UnderlayRx>,
    },
    /// Give back the sockets of this endpoint.
    DetachVtep(VtepIdx),
    /// Send tunnelled frames by these sockets.
    AttachSockets {
        /// Their number.
        set: TxSetIdx,
        /// The sockets.
        tx: UnderlayTx,
    },
    /// Give back these sockets.
    DetachSockets(TxSetIdx),
    /// End.
    Stop,
}

/// What a worker tells the control thread.
#[derive(Debug)]
pub enum Report {
    /// One piece of mail is done.
    Done {
        /// Queues that it took from the worker. Whoever receives them closes them: closing waits for the kernel's RTNL
        /// lock and for RCU, tens of milliseconds in which a worker has frames to forward.
        returned: Vec<Returned>,
    },
    /// A queue of this port has lost its device.
    Gone {
        /// The port.
        port: PortIdx,
        /// The deal that the queue came with.
        deal: u64,
    },
    /// The way to a remote takes only shorter packets than was known.
    PathTooNarrow {
        /// The remote.
        remote: RemoteIdx,
    },
}

/// What a worker gives back.
#[derive(Debug)]
pub enum Returned {
    /// A queue of a port that it polled.
    Queue(Queue),
    /// The queue of a port that it sent by.
    Share(Queue),
    /// A socket of a local tunnel endpoint.
    Rx(UnderlayRx),
    /// Sockets by which it sent.
    Tx(UnderlayTx),
}

/// What a worker has counted; written by it, read by anybody.
#[derive(Debug, Default)]
pub struct Gauge {
    /// The newest snapshot it works with.
    pub generation: Counter,
    /// Times it woke up.
    pub wakeups: Counter,
    /// Batches it has handled.
    pub batches: Counter,
    /// Frames it has received.
    pub frames: Counter,
}

/// The control thread's ends of a worker's channels.
#[derive(Clone, Debug)]
pub struct Post {
    /// Where mail is put.
    pub mail: Sender<Mail>,
    /// Rings the bell.
    pub bell: Arc<Waker>,
    /// What the worker counts.
    pub gauge: Arc<CachePadded<Gauge>>,
}

/// How a worker reaches the control thread.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Acknowledgements of mail.
    pub done: Sender<Report>,
    /// Everything else.
    pub events: Sender<Report>,
    /// Rings the control thread's bell for an event.
    pub bell: Option<Arc<Waker>>,
}

/// The queues of a port that a worker holds.
#[derive(Debug)]
struct Attached {
    deal: u64,
    rx: Vec<Polled>,
    tx: Queue,
    /// No snapshot has said yet that the port is up: what has come stays in the queues, for what a peer sends first is not to be lost.
    fresh: bool,
    /// The device is gone; the queues wait to be taken back.
    gone: bool,
}

#[derive(Debug)]
struct Polled {
    queue: Queue,
    /// Whether it stands in the list of those that may have frames.
    ready: bool,
}

/// A socket of a local tunnel endpoint.
#[derive(Debug)]
struct Listening {
    rx: UnderlayRx,
    /// Whether it stands in the list of those that may have datagrams.
    ready: bool,
}

/// What a token stands for.
#[derive(Clone, Copy)]
enum Source {
    /// A queue of a port.
    Port(PortIdx, usize),
    /// A socket of a local tunnel endpoint.
    Vtep(VtepIdx, usize),
}

/// A worker.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    clock: Clock,
    poll: Poll,
    mailbox: Receiver<Mail>,
    upstream: Upstream,
    gauge: Arc<CachePadded<Gauge>>,
    snapshot: Arc<Snapshot>,
    ports: Vec<Option<Attached>>,
    vteps: Vec<Vec<Listening>>,
    sockets: Vec<Option<UnderlayTx>>,
    ready: VecDeque<Token>,
    batch: Batch,
    datagrams: Vec<Datagram>,
    arrivals: UplinkArrivals,
    decapsulator: Decapsulator,
    scratch: Scratch,
    plan: TxPlan,
    transmitter: Transmitter,
    encapsulator: Encapsulator,
    /// Batches system calls, where the kernel has io_uring.
    ring: Option<Batcher>,
}

const fn token(port: PortIdx, queue: usize) -> Token {
    Token((port.0 as usize) << QUEUE_BITS | queue)
}

const fn vtep_token(vtep: VtepIdx, socket: usize) -> Token {
    Token(VTEP_BIT | (vtep.0 as usize) << QUEUE_BITS | socket)
}

const fn source_of(token: Token) -> Source {
    let (idx, n) = ((token.0 >> QUEUE_BITS) as u16, token.0 & ((1 << QUEUE_BITS) - 1));
    if token.0 & VTEP_BIT == 0 { Source::Port(PortIdx(idx), n) } else { Source::Vtep(VtepIdx(idx), n) }
}

impl Worker {
    /// Worker number `index`, and the control thread's ends of its channels.
    ///
    /// # Errors
    /// Where the kernel has no more descriptors.
    pub fn new(index: usize, clock: Clock, upstream: Upstream) -> io::Result<(Self, Post)> {
        let poll = Poll::new()?;
        let bell = Arc::new(Waker::new(poll.registry(), MAILBOX)?);
        let (mail, mailbox) = crossbeam::channel::unbounded();
        let gauge = Arc::<CachePadded<Gauge>>::default();
        let worker = Self {
            index,
            clock,
            poll,
            mailbox,
            upstream,
            gauge: Arc::clone(&gauge),
            snapshot: Arc::default(),
            ports: Vec::new(),
            vteps: Vec::new(),
            sockets: Vec::new(),
            ready: VecDeque::with_capacity(1024),
            batch: Batch::new(),
            datagrams: Vec::with_capacity(BATCH),
            arrivals: UplinkArrivals::default(),
            decapsulator: Decapsulator::default(),
            scratch: Scratch::default(),
            plan: TxPlan::default(),
            transmitter: Transmitter::default(),
            encapsulator: Encapsulator::default(),
            ring: None,
        };
        Ok((worker, Post { mail, bell, gauge }))
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// Where the kernel's poll fails, which it does not.
    pub fn run(mut self) -> io::Result<()> {
        // Here, because a ring belongs to the thread that makes it. Without one every frame is a system call.
        self.ring = tap::batcher().ok();
        let mut events = Events::with_capacity(256);
        loop {
            // With queues still to be drained only look; otherwise sleep until something comes.
            let timeout = (!self.ready.is_empty()).then_some(Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            if timeout.is_none() {
                self.gauge.wakeups.add(1);
            }
            for event in &events {
                if event.token() == MAILBOX {
                    if !self.open_mail() {
                        return Ok(());
                    }
                } else {
                    self.mark_ready(event.token());
                }
            }
            // One batch of each queue, then look for mail and for others again.
            for _ in 0..self.ready.len() {
                self.serve_next();
            }
        }
    }

    /// Does what the mail says and reports it done; `false` where it says to stop.
    pub fn open_mail(&mut self) -> bool {
        while let Ok(mail) = self.mailbox.try_recv() {
            let mut returned = Vec::new();
            match mail {
                Mail::Snapshot(snapshot) => self.take_up(snapshot),
                Mail::Attach { port, deal, rx, tx } => self.attach(port, deal, rx, tx),
                Mail::Detach(port) => returned = self.detach(port),
                Mail::AttachVtep { vtep, rx } => self.attach_vtep(vtep, rx),
                Mail::DetachVtep(vtep) => returned = self.detach_vtep(vtep),
                Mail::AttachSockets { set, tx } => returned = self.exchange_sockets(set, Some(tx)),
                Mail::DetachSockets(set) => returned = self.exchange_sockets(set, None),
                Mail::Stop => return false,
            }
            let _ = self.upstream.done.send(Report::Done { returned });
        }
        true
    }

    fn take_up(&mut self, snapshot: Arc<Snapshot>) {
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        self.encapsulator.forget();
        self.gauge.generation.add(self.snapshot.generation - before.generation);
        for n in 0..self.ports.len() {
            let port = PortIdx(n as u16);
            let is_up = |snapshot: &Snapshot| snapshot.port(port).is_some_and(|port| port.oper_up);
            if !is_up(&before) && is_up(&self.snapshot) {
                self.mark_all_ready(port);
            }
        }
        for n in 0..self.vteps.len() {
            let vtep = VtepIdx(n as u16);
            if before.vtep(vtep).is_none() && self.snapshot.vtep(vtep).is_some() {
                (0..self.vteps[n].len()).for_each(|socket| self.mark_ready(vtep_token(vtep, socket)));
            }
        }
    }

    /// Frames may have come before the poll knew the queues, or before the snapshot knew that the port is up: the poll tells once.
    fn mark_all_ready(&mut self, port: PortIdx) {
        let queues =
            self.ports.get(port.at()).and_then(Option::as_ref).map_or(0, |attached| attached.rx.len());
        (0..queues).for_each(|n| self.mark_ready(token(port, n)));
    }

    fn attach(&mut self, port: PortIdx, deal: u64, rx: Vec<Queue>, tx: Queue) {
        let mut polled = Vec::with_capacity(rx.len());
        for (n, queue) in rx.into_iter().enumerate() {
            if let Some(fd) = queue.fd() {
                let registered = self.poll.registry().register(
                    &mut SourceFd(&fd.as_raw_fd()),
                    token(port, n),
                    Interest::READABLE,
                );
                if registered.is_err() {
                    self.tell(Report::Gone { port, deal });
                }
            }
            polled.push(Polled { queue, ready: false });
        }
        if self.ports.len() <= port.at() {
            self.ports.resize_with(port.at() + 1, || None);
        }
        self.ports[port.at()] = Some(Attached { deal, rx: polled, tx, fresh: true, gone: false });
        self.mark_all_ready(port);
    }

    fn detach(&mut self, port: PortIdx) -> Vec<Returned> {
        let Some(attached) = self.ports.get_mut(port.at()).and_then(Option::take) else { return Vec::new() };
        attached.forget(&self.poll);
        let polled = attached.rx.into_iter().map(|polled| Returned::Queue(polled.queue));
        polled.chain([Returned::Share(attached.tx)]).collect()
    }

    fn attach_vtep(&mut self, vtep: VtepIdx, rx: Vec<UnderlayRx>) {
        if self.vteps.len() <= vtep.at() {
            self.vteps.resize_with(vtep.at() + 1, Vec::new);
        }
        for rx in rx {
            let token = vtep_token(vtep, self.vteps[vtep.at()].len());
            if let Some(fd) = rx.fd()
                && let Err(error) =
                    self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)
            {
                tracing::error!(%error, "a tunnel's socket cannot be polled");
            }
            self.vteps[vtep.at()].push(Listening { rx, ready: false });
            self.mark_ready(token);
        }
    }

    fn detach_vtep(&mut self, vtep: VtepIdx) -> Vec<Returned> {
        let sockets = self.vteps.get_mut(vtep.at()).map(std::mem::take).unwrap_or_default();
        for fd in sockets.iter().filter_map(|socket| socket.rx.fd()) {
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
        sockets.into_iter().map(|socket| Returned::Rx(socket.rx)).collect()
    }

    fn exchange_sockets(&mut self, set: TxSetIdx, tx: Option<UnderlayTx>) -> Vec<Returned> {
        if self.sockets.len() <= set.at() {
            self.sockets.resize_with(set.at() + 1, || None);
        }
        let before = std::mem::replace(&mut self.sockets[set.at()], tx);
        before.into_iter().map(Returned::Tx).collect()
    }

    fn tell(&self, report: Report) {
        let _ = self.upstream.events.send(report);
        if let Some(bell) = &self.upstream.bell {
            let _ = bell.wake();
        }
    }

    /// Whether what a token stands for stands in the list of those to be served; `None` where it stands for nothing (any more).
    fn ready_mark(&mut self, token: Token) -> Option<&mut bool> {
        match source_of(token) {
            Source::Port(port, queue) => {
                Some(&mut self.ports.get_mut(port.at())?.as_mut()?.rx.get_mut(queue)?.ready)
            }
            Source::Vtep(vtep, socket) => Some(&mut self.vteps.get_mut(vtep.at())?.get_mut(socket)?.ready),
        }
    }

    fn mark_ready(&mut self, token: Token) {
        if let Some(ready) = self.ready_mark(token)
            && !std::mem::replace(ready, true)
        {
            self.ready.push_back(token);
        }
    }

    /// Handles one batch of the queue that has waited longest; it goes to the end of the list if it may have more.
    fn serve_next(&mut self) {
        let Some(next) = self.ready.pop_front() else { return };
        let received = match source_of(next) {
            Source::Port(port, queue) => self.serve(port, queue),
            Source::Vtep(vtep, socket) => self.serve_vtep(vtep, socket),
        };
        let more = received == Received::Full;
        if let Some(ready) = self.ready_mark(next) {
            *ready = more;
            if more {
                self.ready.push_back(next);
            }
        }
    }

    /// Handles one batch of every queue it holds, until all are empty: what a simulation does instead of [`run`](Self::run).
    pub fn serve_all(&mut self) {
        for port in 0..self.ports.len() {
            let queues = self.ports[port].as_ref().map_or(0, |a| a.rx.len());
            for queue in 0..queues {
                while self.serve(PortIdx(port as u16), queue) == Received::Full {}
            }
        }
        for vtep in 0..self.vteps.len() {
            for socket in 0..self.vteps[vtep].len() {
                while self.serve_vtep(VtepIdx(vtep as u16), socket) == Received::Full {}
            }
        }
    }

    fn serve(&mut self, port: PortIdx, queue: usize) -> Received {
        let Some(Some(attached)) = self.ports.get_mut(port.at()) else { return Received::Drained };
        // A queue is attached before the snapshot that knows its port, and detached after the one that does not.
        let Some(known) = self.snapshot.port(port) else { return Received::Drained };
        if attached.fresh && !known.oper_up {
            return Received::Drained;
        }
        attached.fresh = false;
        let Some(polled) = attached.rx.get_mut(queue) else { return Received::Drained };
        self.batch.clear();
        let received = polled.queue.recv(&mut self.batch, known.stats.of(self.index), self.ring.as_mut());
        if !self.batch.is_empty() {
            self.gauge.batches.add(1);
            if known.uplink.is_some() {
                self.arrive_by_uplink(port);
            } else {
                self.handle(port.into());
            }
        }
        if matches!(received, Received::Gone(_)) {
            self.lose(port);
        }
        received
    }

    /// Receives datagrams of a local tunnel endpoint once, and forwards the frames in them.
    fn serve_vtep(&mut self, vtep: VtepIdx, socket: usize) -> Received {
        let Some(listening) = self.vteps.get_mut(vtep.at()).and_then(|all| all.get_mut(socket)) else {
            return Received::Drained;
        };
        let Some(known) = self.snapshot.vtep(vtep) else { return Received::Drained };
        self.batch.clear();
        self.datagrams.clear();
        let received = listening.rx.recv(&mut self.batch, &mut self.datagrams, known.stats.of(self.index));
        let lost = listening.rx.overflowed();
        if lost > 0 {
            known.stats.of(self.index).drop_many(DropReason::UnderlayOverflow, lost);
        }
        if !self.datagrams.is_empty() {
            self.gauge.batches.add(1);
            self.decapsulate(vtep);
        }
        received
    }

    /// Answers what came by an uplink for the switch itself, and forwards the frames in the tunnel packets.
    fn arrive_by_uplink(&mut self, port: PortIdx) {
        let now = self.clock.now();
        self.arrivals.clear();
        let Some(known) = self.snapshot.port(port) else { return };
        let Some(end) = known.uplink.as_deref() else { return };
        let Some(Some(attached)) = self.ports.get(port.at()) else { return };
        let counters = known.stats.of(self.index);
        let exit = UplinkExit { queue: &attached.tx, uplink: &end.uplink, counters, now };
        for slot in 0..self.batch.len() {
            match self.arrivals.take(slot, &self.batch, &exit, end, &self.snapshot) {
                Ok(()) => {}
                Err(reason) => counters.drop(reason),
            }
        }
        while let Some(vtep) = self.arrivals.next(&mut self.datagrams) {
            self.decapsulate(vtep);
        }
    }

    /// Forwards the frames in the datagrams that lie in the batch's memory, run by run.
    fn decapsulate(&mut self, idx: VtepIdx) {
        let now = self.clock.now();
        self.decapsulator.begin();
        loop {
            let Some(vtep) = self.snapshot.vtep(idx) else { return };
            let remotes = &self.snapshot.remotes;
            let arrivals = Arrivals { vtep, remotes, worker: self.index, now };
            let run = self.decapsulator.next(&arrivals, &self.datagrams, &mut self.batch);
            let Some(ingress) = run else { return };
            let limits = Limits { mtu: self.inner_mtu(ingress), udp: true };
            merge(&mut self.batch, &limits);
            self.handle(ingress);
        }
    }

    /// Octets of the longest inner packet that a wire can have brought by this tunnel.
    fn inner_mtu(&self, ingress: Ingress) -> usize {
        let tunnel = self.snapshot.port(ingress.port).and_then(|port| port.tunnel.as_deref());
        tunnel.map_or(0, |tunnel| tunnel.inner_mtu() as usize)
    }

    /// Forwards and sends the batch that came by `ingress`.
    fn handle(&mut self, ingress: Ingress) {
        self.gauge.frames.add(self.batch.len() as u64);
        let now = self.clock.now();
        let env = Env { snapshot: &self.snapshot, worker: self.index, now };
        self.plan.clear();
        self.transmitter.next_batch();
        forward(&env, ingress, &mut self.batch, &mut self.scratch, &mut self.plan, &mut Silent);
        let (snapshot, ports, index) = (&self.snapshot, &self.ports, self.index);
        let egress = |port: PortIdx| {
            let counters = snapshot.port(port)?.stats.of(index);
            let attached = ports.get(port.at())?.as_ref()?;
            Some((&attached.tx, counters))
        };
        let mut gone = None;
        let plan = self.plan.frames();
        self.transmitter
            .send_all(plan, &mut self.batch, self.ring.as_mut(), egress, |port| gone = Some(port));
        let reach = Reach { snapshot, ports, sockets: &self.sockets, worker: index, now };
        let mut narrow = None;
        self.encapsulator.send_all(plan, &self.batch, &reach, |remote| narrow = Some(remote));
        if let Some(remote) = narrow {
            self.tell(Report::PathTooNarrow { remote });
        }
        if let Some(port) = gone {
            self.lose(port);
        }
    }

    /// A port's device is gone: polls it no more and says so, once. Frames for it are counted until the engine takes it out.
    fn lose(&mut self, port: PortIdx) {
        let Some(Some(attached)) = self.ports.get_mut(port.at()) else { return };
        if !std::mem::replace(&mut attached.gone, true) {
            attached.forget(&self.poll);
            let deal = attached.deal;
            self.tell(Report::Gone { port, deal });
        }
    }
}

/// How tunnelled frames get out of a worker.
struct Reach<'a> {
    snapshot: &'a Snapshot,
    ports: &'a [Option<Attached>],
    sockets: &'a [Option<UnderlayTx>],
    worker: usize,
    now: Tick,
}

impl Exits for Reach<'_> {
    #[inline]
    fn tunnel(&self, port: PortIdx) -> Option<(&Tunnel, &PortCounters)> {
        let port = self.snapshot.port(port)?;
        Some((port.tunnel.as_deref()?, port.stats.of(self.worker)))
    }

    #[inline]
    fn remotes(&self) -> &Remotes {
        &self.snapshot.remotes
    }

    #[inline]
    fn sockets(&self, set: TxSetIdx) -> Option<&UnderlayTx> {
        self.sockets.get(set.at())?.as_ref()
    }

    #[inline]
    fn uplink(&self, port: PortIdx) -> Option<UplinkExit<'_>> {
        let known = self.snapshot.port(port)?;
        let end = known.uplink.as_deref()?;
        let queue = &self.ports.get(port.at())?.as_ref()?.tx;
        Some(UplinkExit { queue, uplink: &end.uplink, counters: known.stats.of(self.worker), now: self.now })
    }
}

impl Attached {
    /// Takes its queues out of the poll: the control thread holds a handle on each, which would keep them in it.
    fn forget(&self, poll: &Poll) {
        for fd in self.rx.iter().filter_map(|polled| polled.queue.fd()) {
            let _ = poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
    }
}
