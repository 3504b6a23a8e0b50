//! The workers, seen from the control thread: starting them, and mail that is known to have been read.

use std::{io, sync::Arc, thread, time::Duration};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use mio::Waker;

use crate::{
    clock::Clock,
    index::{PortIdx, TxSetIdx, VtepIdx},
    port::{Queue, UnderlayRx, UnderlayTx},
    snapshot::Snapshot,
    worker::{Mail, Post, Report, Returned, Upstream, Worker},
};

/// A worker that has not read its mail in this time hangs; a batch takes microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// All workers.
#[derive(Debug)]
pub(super) struct Workers {
    posts: Vec<Post>,
    threads: Vec<thread::JoinHandle<io::Result<()>>>,
    inline: Vec<Worker>,
    done: Receiver<Report>,
    events: Receiver<Report>,
    unread: usize,
    /// Times that queues were dealt out.
    deals: u64,
}

impl Workers {
    pub(super) fn start(
        count: usize,
        threads: bool,
        clock: &Clock,
        bell: Option<Arc<Waker>>,
    ) -> io::Result<Self> {
        let (done_tx, done) = crossbeam::channel::unbounded();
        let (events_tx, events) = crossbeam::channel::unbounded();
        let mut all =
            Self { posts: vec![], threads: vec![], inline: vec![], done, events, unread: 0, deals: 0 };
        for index in 0..count {
            let upstream = Upstream { done: done_tx.clone(), events: events_tx.clone(), bell: bell.clone() };
            let (worker, post) = Worker::new(index, clock.clone(), upstream)?;
            all.posts.push(post);
            if threads {
                let thread = thread::Builder::new().name(format!("worker-{index}"));
                all.threads.push(thread.spawn(move || worker.run())?);
            } else {
                all.inline.push(worker);
            }
        }
        Ok(all)
    }

    pub(super) fn len(&self) -> usize {
        self.posts.len()
    }

    pub(super) fn posts(&self) -> &[Post] {
        &self.posts
    }

    /// What workers have reported since the last call.
    pub(super) fn events(&self) -> impl Iterator<Item = Report> + '_ {
        self.events.try_iter()
    }

    fn post(&mut self, worker: usize, mail: Mail) {
        let post = &self.posts[worker];
        if post.mail.send(mail).is_ok() {
            self.unread += 1;
        }
        if let Err(error) = post.bell.wake() {
            tracing::error!(worker, %error, "the worker cannot be woken");
        }
        if let Some(worker) = self.inline.get_mut(worker) {
            worker.open_mail();
        }
    }

    /// Waits until all mail has been read and done: every worker is between two batches that know nothing of before. What came back
    /// is the caller's to close.
    fn wait(&mut self) -> Vec<Returned> {
        let mut all = Vec::new();
        while self.unread > 0 {
            match self.done.recv_timeout(PATIENCE) {
                Ok(report) => {
                    self.unread -= 1;
                    if let Report::Done { returned } = report {
                        all.extend(returned);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    tracing::error!(unread = self.unread, "a worker does not read its mail");
                    self.unread = 0;
                }
            }
        }
        all
    }

    /// Hands a snapshot to all workers and waits until all work with it.
    pub(super) fn publish(&mut self, snapshot: &Arc<Snapshot>) {
        for worker in 0..self.len() {
            self.post(worker, Mail::Snapshot(Arc::clone(snapshot)));
        }
        self.wait();
    }

    /// Deals the queues of a port out: each is polled by one worker, and every worker has one to send by, its own where
    /// it polls one, so that the kernel steers the answers to it (`tun_flow_update`). Says which deal it was.
    pub(super) fn attach(&mut self, port: PortIdx, queues: Vec<Queue>) -> io::Result<u64> {
        self.deals += 1;
        let deal = self.deals;
        if queues.is_empty() {
            return Ok(deal); // a tunnel: what it needs is shared with others; or a port whose queues come later
        }
        let workers = self.len();
        let mut tx =
            (0..workers).map(|w| queues[w % queues.len()].share()).collect::<io::Result<Vec<_>>>()?;
        let mut rx: Vec<Vec<Queue>> = (0..workers).map(|_| Vec::new()).collect();
        for (n, queue) in queues.into_iter().enumerate() {
            rx[n % workers].push(queue);
        }
        for (worker, rx) in rx.into_iter().enumerate().rev() {
            if let Some(tx) = tx.pop() {
                self.post(worker, Mail::Attach { port, deal, rx, tx });
            }
        }
        self.wait();
        Ok(deal)
    }

    /// Hands the sockets of a local endpoint to the workers, one to each as long as there are any.
    pub(super) fn attach_vtep(&mut self, vtep: VtepIdx, sockets: Vec<UnderlayRx>) {
        for (n, rx) in sockets.into_iter().enumerate() {
            self.post(n % self.len(), Mail::AttachVtep { vtep, rx: vec![rx] });
        }
        self.wait();
    }

    /// Takes the sockets of a local endpoint from all workers and closes them.
    pub(super) fn detach_vtep(&mut self, vtep: VtepIdx) {
        for worker in 0..self.len() {
            self.post(worker, Mail::DetachVtep(vtep));
        }
        self.wait();
    }

    /// Hands each worker its own of a set of sockets.
    pub(super) fn attach_sockets(&mut self, set: TxSetIdx, sockets: Vec<UnderlayTx>) {
        for (worker, tx) in sockets.into_iter().enumerate().take(self.len()) {
            self.post(worker, Mail::AttachSockets { set, tx });
        }
        self.wait();
    }

    /// Takes a set of sockets from all workers and closes them.
    pub(super) fn detach_sockets(&mut self, set: TxSetIdx) {
        for worker in 0..self.len() {
            self.post(worker, Mail::DetachSockets(set));
        }
        self.wait();
    }

    /// Takes the queues of a port from all workers: those they polled come back, the others are closed.
    pub(super) fn detach(&mut self, port: PortIdx) -> Vec<Queue> {
        for worker in 0..self.len() {
            self.post(worker, Mail::Detach(port));
        }
        let polled = |returned| match returned {
            Returned::Queue(queue) => Some(queue),
            Returned::Share(_) | Returned::Rx(_) | Returned::Tx(_) => None,
        };
        self.wait().into_iter().filter_map(polled).collect()
    }

    pub(super) fn run_inline(&mut self) {
        self.inline.iter_mut().for_each(Worker::serve_all);
    }

    pub(super) fn stop(&mut self) {
        for worker in 0..self.len() {
            self.post(worker, Mail::Stop);
        }
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a worker ended early"),
                Err(_) => tracing::error!("a worker panicked"),
            }
        }
        self.inline.clear();
        self.unread = 0;
    }
}
