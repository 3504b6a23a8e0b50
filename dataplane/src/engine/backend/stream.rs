//! Stream and dgram ports: the socket of a VM monitor, which carries frames.
//!
//! A stream port has one peer at a time: it lets one in, or goes to it. Who comes second waits until the first is gone. When a peer
//! goes its queue is taken back and what was learned behind it forgotten; the port, its settings and its counters stay, and wait for
//! the next. A peer that comes and goes is let in once a second, so that it does not keep the control thread busy.
//! A dgram port looks each second whether its peer is there.
//!
//! None of it needs a privilege but the right to make the socket's file.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::{Backend, BackendError, Desk, Opened};
use crate::{
    config::{PortName, PortOptions, PortSpec, PortType},
    frame::Caps,
    port::{
        Queue, StreamQueue,
        dgram::DgramSocket,
        stream::{Connection, Ended, Listener, connect},
    },
    wire::MacAddr,
};

/// A peer is let in, or gone to, at most as often.
const PAUSE: Duration = Duration::from_secs(1);

/// Opens what is behind a port.
///
/// # Errors
/// Where the port's socket cannot be made, or its path is none; that the peer is away is no error.
pub(super) fn open(spec: &PortSpec, _queues: u16) -> Result<Opened, BackendError> {
    let options = &spec.options;
    let path = Path::new(options.path.as_deref().ok_or("path is missing")?);
    let name = spec.name.clone();
    match options.kind_or_default() {
        PortType::Dgram => DgramBackend::open(name, path, options.peer_path.as_deref().map(Path::new)),
        _ if options.listens() => StreamBackend::open(name, Way::Listen(Listener::bind(path)?)),
        _ => StreamBackend::open(name, Way::Connect(path.to_owned())),
    }
}

/// How a stream port comes to its peer.
#[derive(Debug)]
enum Way {
    Listen(Listener),
    Connect(PathBuf),
}

impl Way {
    fn path(&self) -> &Path {
        match self {
            Self::Listen(listener) => listener.path(),
            Self::Connect(path) => path,
        }
    }

    /// A new connection. `Ok(None)` where there is nobody; an error is what an operator has to look at.
    fn meet(&self) -> Result<Option<Arc<Connection>>, String> {
        match self {
            Self::Listen(listener) => listener.accept().map_err(|e| format!("cannot let it in: {e}")),
            Self::Connect(path) => match connect(path) {
                Ok(connection) => Ok(Some(connection)),
                Err(error) if error.is_absence() => Ok(None),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

#[derive(Debug)]
struct StreamBackend {
    port: PortName,
    way: Way,
    connection: Option<Arc<Connection>>,
    /// Why there is none, where that is not simply that nobody has come yet.
    reason: Option<String>,
    /// When the next may be let in.
    next: Instant,
    /// Somebody waits behind the peer, and that was said.
    is_told: bool,
}

impl StreamBackend {
    fn open(port: PortName, way: Way) -> Result<Opened, BackendError> {
        let mut backend =
            Self { port, way, connection: None, reason: None, next: Instant::now(), is_told: false };
        let queues = backend.meet().into_iter().collect();
        Ok(Opened { backend: Box::new(backend), queues })
    }

    /// Lets the next peer in, or goes to it; the queue to it.
    fn meet(&mut self) -> Option<Queue> {
        let now = Instant::now();
        if now < self.next {
            return None;
        }
        match self.way.meet() {
            Ok(Some(connection)) => {
                tracing::info!(port = %self.port, path = %self.way.path().display(), "peer connected");
                self.next = now + PAUSE;
                self.is_told = false;
                self.reason = None;
                self.connection = Some(Arc::clone(&connection));
                Some(Queue::Stream(StreamQueue::new(connection)))
            }
            Ok(None) => None,
            Err(reason) => {
                self.next = now + PAUSE;
                self.reason = Some(reason);
                None
            }
        }
    }

    /// What can be done for the peer that is there.
    fn look_after(&mut self, connection: &Connection) {
        connection.finish_frame();
        if let Way::Listen(listener) = &self.way
            && !self.is_told
            && listener.is_waited_at()
        {
            self.is_told = true;
            tracing::warn!(port = %self.port, path = %listener.path().display(),
                "another peer has to wait until the one that is connected is gone");
        }
    }

    fn part(&mut self, ended: Ended) {
        tracing::info!(port = %self.port, path = %self.way.path().display(), reason = %ended, "peer gone");
        self.reason = Some(format!("the last one is gone: {ended}"));
        self.connection = None;
    }
}

impl Backend for StreamBackend {
    fn caps(&self) -> Caps {
        Caps::NONE
    }

    fn ifname(&self) -> String {
        String::new()
    }

    fn mac(&self) -> Option<MacAddr> {
        None
    }

    fn health(&self) -> Result<(), String> {
        if self.connection.is_some() {
            return Ok(());
        }
        let reason = self.reason.as_ref().map_or(String::new(), |reason| format!("; {reason}"));
        Err(format!("waiting for a peer at {}{reason}", self.way.path().display()))
    }

    fn change(&mut self, _: &PortOptions, _: &PortOptions) -> Result<(), BackendError> {
        Ok(())
    }

    fn watched(&self) -> Vec<BorrowedFd<'_>> {
        match &self.way {
            Way::Listen(listener) if self.connection.is_none() && Instant::now() >= self.next => {
                vec![listener.as_fd()]
            }
            _ => Vec::new(),
        }
    }

    fn tend(&mut self, desk: &mut dyn Desk) {
        if let Some(connection) = self.connection.clone() {
            match connection.ended() {
                None => return self.look_after(&connection),
                Some(ended) => {
                    drop(desk.take_back());
                    self.part(ended);
                }
            }
        }
        if let Some(queue) = self.meet()
            && let Err(error) = desk.hand_out(vec![queue])
        {
            self.connection = None;
            self.reason = Some(error.to_string());
        }
    }

    fn destroy(self: Box<Self>) -> Result<(), BackendError> {
        Ok(())
    }
}

#[derive(Debug)]
struct DgramBackend {
    port: PortName,
    socket: DgramSocket,
    peer: Option<PathBuf>,
    /// Why there is no peer; `None` while there is one.
    away: Option<String>,
    /// Others have sent while there was none: one that keeps sending is listened to once a second.
    is_disturbed: bool,
}

impl DgramBackend {
    fn open(port: PortName, path: &Path, peer: Option<&Path>) -> Result<Opened, BackendError> {
        let socket = DgramSocket::open(path, peer)?;
        let peer = peer.map(Path::to_owned);
        let mut backend = Self { port, socket, peer, away: None, is_disturbed: false };
        backend.meet();
        let queues = match backend.away {
            None => vec![Queue::Dgram(backend.socket.queue()?)],
            Some(_) => Vec::new(),
        };
        Ok(Opened { backend: Box::new(backend), queues })
    }

    /// Looks who is there.
    fn meet(&mut self) {
        let met = self.socket.meet();
        self.is_disturbed = met.is_err_and(|away| away.discarded > 0);
        self.away = met.err().map(|away| {
            let place = match &self.peer {
                Some(peer) => format!("waiting for a peer at {}", peer.display()),
                None => format!("waiting for a peer that sends to {}", self.socket.path().display()),
            };
            match away.reason {
                Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN => place,
                Errno::PERM => format!("{place}; who is there is connected to another socket"),
                errno => format!("{place}: {}", io::Error::from(errno)),
            }
        });
    }
}

impl Backend for DgramBackend {
    fn caps(&self) -> Caps {
        Caps::NONE
    }

    fn ifname(&self) -> String {
        String::new()
    }

    fn mac(&self) -> Option<MacAddr> {
        None
    }

    fn health(&self) -> Result<(), String> {
        self.away.clone().map_or(Ok(()), Err)
    }

    fn change(&mut self, _: &PortOptions, _: &PortOptions) -> Result<(), BackendError> {
        Ok(())
    }

    fn watched(&self) -> Vec<BorrowedFd<'_>> {
        if self.away.is_some() && !self.is_disturbed { vec![self.socket.as_fd()] } else { Vec::new() }
    }

    fn tend(&mut self, desk: &mut dyn Desk) {
        let was_away = self.away.is_some();
        self.meet();
        match (was_away, &self.away) {
            (true, None) => {
                let handed = self.socket.queue().and_then(|queue| desk.hand_out(vec![Queue::Dgram(queue)]));
                match handed {
                    Ok(()) => tracing::info!(port = %self.port, "peer met"),
                    Err(error) => self.away = Some(error.to_string()),
                }
            }
            (false, Some(_)) => drop(desk.take_back()),
            _ => {}
        }
    }

    fn destroy(self: Box<Self>) -> Result<(), BackendError> {
        Ok(())
    }
}
