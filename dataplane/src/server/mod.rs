//! The control socket: Varlink for `tapwayctl` and every other client.
//!
//! Owns the listener, the connections, their limits and the `org.varlink.service` interface; hands requests to a
//! [`Control`] and sends its replies. It knows no bridge and no port.
//! It never blocks: it lives in the control thread's own mio loop, which calls [`Server::handle`] for each event whose
//! token [`Server::owns`], and [`Server::timers`] before each poll.
//!
//! What a client can cost is bounded ([`Limits`]):
//! 1. A request above the size limit is refused while it arrives, not buffered.
//! 2. Nothing is computed for a client whose replies pile up, so a client that does not read holds at most
//!    `max_output` octets and one reply; it is disconnected when it has taken nothing for `stall`.
//! 3. A client gets a few requests at a time and then waits for the others.
//! 4. At most `max_clients` are connected; the next is told so and disconnected.
//!
//! The envelopes are the `varlink` crate's; the framing is not. Its `sansio::Server` parses everything it is fed at
//! once, without a bound on size or number, looks through the whole buffer again for each piece that arrives, and
//! loses the request where a client asks for an upgrade.

mod connection;
mod dispatch;
mod framing;
mod socket;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token};
use serde_json::json;

pub use self::socket::BindError;
use self::{
    connection::{Connection, Next},
    dispatch::Failure,
    socket::Listener,
};
use crate::api::Control;

/// The first token of the server; it uses this one and those above, and the rest of the loop those below.
pub const FIRST_TOKEN: usize = 1 << 20;

/// Clients let in, or told why not, before the others have their turn.
const ACCEPTS_PER_TURN: usize = 32;
/// How long accepting rests after it failed, mostly for want of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// What clients may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients connected at once.
    pub max_clients: usize,
    /// Octets of a request; the greatest are topology files.
    pub max_request: usize,
    /// Octets of replies waiting, above which a client gets no further one.
    pub max_output: usize,
    /// How long a client with replies waiting may take nothing.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_clients: 256, max_request: 4 << 20, max_output: 256 << 10, stall: Duration::from_secs(10) }
    }
}

/// The control socket and its clients.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    limits: Limits,
    registry: Option<Registry>,
    /// A connection's place is its token less [`FIRST_TOKEN`] less one.
    clients: Vec<Option<Connection>>,
    /// Clients with more to do than one turn allowed.
    backlog: VecDeque<usize>,
    accept_again: Option<Instant>,
}

impl Server {
    /// Listens on a Unix socket: makes the directory, takes the place of a socket nobody listens on, sets mode 0660.
    ///
    /// # Errors
    /// Another daemon answers there, the path is something else than a socket, or the kernel refused.
    pub fn bind(path: &Path, limits: Limits) -> Result<Self, BindError> {
        Ok(Self {
            listener: Listener::bind(path)?,
            limits,
            registry: None,
            clients: Vec::new(),
            backlog: VecDeque::new(),
            accept_again: None,
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &PathBuf {
        self.listener.path()
    }

    /// Joins the caller's loop.
    ///
    /// # Errors
    /// The kernel's.
    pub fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(self.listener.source(), Token(FIRST_TOKEN), Interest::READABLE)?;
        self.registry = Some(registry.try_clone()?);
        Ok(())
    }

    /// Whether an event with this token is for [`Server::handle`].
    pub fn owns(token: Token) -> bool {
        token.0 >= FIRST_TOKEN
    }

    /// Clients connected now.
    pub fn clients(&self) -> usize {
        self.clients.iter().flatten().count()
    }

    /// Does what an event calls for.
    pub fn handle(&mut self, token: Token, control: &mut dyn Control) {
        match token.0.checked_sub(FIRST_TOKEN) {
            Some(0) => self.accept(),
            Some(place) => self.turn(place - 1, Instant::now(), control),
            None => {}
        }
    }

    /// Does what is due without an event: streams, turns that were cut short, clients that stopped reading.
    /// Says how long the loop may sleep at most.
    pub fn timers(&mut self, now: Instant, control: &mut dyn Control) -> Option<Duration> {
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept();
        }
        for _ in 0..self.backlog.len() {
            if let Some(place) = self.backlog.pop_front() {
                self.turn(place, now, control);
            }
        }
        for place in 0..self.clients.len() {
            let deadline = self.clients[place].as_ref().and_then(|c| c.deadline(&self.limits));
            if deadline.is_some_and(|at| at <= now) {
                self.turn(place, now, control);
            }
        }
        if !self.backlog.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadlines = self.clients.iter().flatten().filter_map(|c| c.deadline(&self.limits));
        deadlines.chain(self.accept_again).min().map(|at| at.saturating_duration_since(now))
    }

    fn turn(&mut self, place: usize, now: Instant, control: &mut dyn Control) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return };
        match client.turn(now, &self.limits, control) {
            Next::Wait => {}
            Next::Again => {
                if !self.backlog.contains(&place) {
                    self.backlog.push_back(place);
                }
            }
            Next::Close => {
                self.backlog.retain(|&p| p != place);
                self.close(place);
            }
        }
    }

    fn accept(&mut self) {
        self.accept_again = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let mut stream = match self.listener.accept() {
                Ok(Some(stream)) => stream,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control client");
                    // The listener's event does not come again for clients that wait already.
                    self.accept_again = Some(Instant::now() + ACCEPT_REST);
                    return;
                }
            };
            match self.listener.peer_may(&stream) {
                Ok(()) => {}
                Err(uid) => {
                    tracing::warn!(uid, "refused a control client: its user may not");
                    let message = "this user may not control the switch: use root, the daemon's user, or a member \
                                   of the socket's group";
                    let parameters = json!({ "uid": uid, "message": message });
                    Failure::tapway("PermissionDenied", parameters).send_last(&mut stream);
                    continue;
                }
            }
            if self.clients() >= self.limits.max_clients {
                let limit = self.limits.max_clients;
                tracing::warn!(limit, "refused a control client: too many");
                let message = format!("{limit} clients are connected, more may not be; end one of them");
                let parameters = json!({ "limit": limit, "message": message });
                Failure::tapway("TooManyClients", parameters).send_last(&mut stream);
                continue;
            }
            let place = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
            let Some(registry) = &self.registry else { return };
            let token = Token(FIRST_TOKEN + 1 + place);
            if let Err(error) = registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
            {
                tracing::warn!(%error, "cannot poll a control client");
                continue;
            }
            if place == self.clients.len() {
                self.clients.push(None);
            }
            self.clients[place] = Some(Connection::new(stream));
        }
        self.accept_again = Some(Instant::now()); // There may be more.
    }

    fn close(&mut self, place: usize) {
        let Some(mut client) = self.clients[place].take() else { return };
        if let Some(registry) = &self.registry {
            let _ = registry.deregister(client.source()); // The descriptor is closed next, which does the same.
        }
    }
}
