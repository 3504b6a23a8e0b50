//! Vhost-user: a guest's network device, whose rings the switch works on in memory that the guest's monitor shares.
//!
//! Owns the socket, the protocol, the mapped memory and the rings. The front end (QEMU, Cloud Hypervisor, DPDK's virtio-user) speaks
//! the protocol over a Unix socket, to the control thread; the workers see nothing but [queues](VhostQueue).
//! `docs/design/vhost-user.md` says who is trusted with what: the guest with nothing, the front end with its own memory.

mod device;
mod features;
mod memory;
mod queue;
mod ring;
mod session;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

pub use queue::VhostQueue;
pub use ring::Fault;
use session::{Ended, Session};

use crate::frame::Caps;

/// What a port is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostUserOptions {
    /// The socket.
    pub path: PathBuf,
    /// Whether the switch makes the socket and waits; else the front end does.
    pub server: bool,
    /// The most pairs of queues.
    pub pairs: u16,
    /// Whether offloads are offered.
    pub offload: bool,
}

/// Why a port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", .path.display())]
pub struct VhostUserError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A vhost-user port, seen from the control thread.
#[derive(Debug)]
pub struct VhostUser {
    options: VhostUserOptions,
    /// Where front ends connect; `None` where the switch connects itself.
    listener: Option<Listener>,
    session: Option<Session>,
    /// Why there is no session.
    absent: String,
}

/// What has become of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The queues that are out are right.
    None,
    /// They are to be taken back, and those that [`VhostUser::queues`] gives now to be handed out.
    Queues,
}

impl VhostUser {
    /// Opens the port; nobody is there yet.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn open(options: VhostUserOptions) -> Result<Self, VhostUserError> {
        let listener = options.server.then(|| Listener::bind(&options.path)).transpose()?;
        let mut port =
            Self { options, listener, session: None, absent: "no front end is connected".to_owned() };
        if port.listener.is_none() {
            port.connect();
        }
        Ok(port)
    }

    /// What the control thread is to be told of.
    pub fn watched(&self) -> Vec<BorrowedFd<'_>> {
        let listener = self.listener.as_ref().map(|listener| listener.socket.as_fd());
        listener.into_iter().chain(self.session.as_ref().map(Session::as_fd)).collect()
    }

    /// Does what has become possible: takes a connection, answers messages, notices who has gone.
    pub fn tend(&mut self) -> Change {
        let mut change = Change::None;
        if let Some(session) = &mut self.session {
            match session.serve() {
                Ok(changed) => change = changed,
                Err(ended) => {
                    self.end_session(&ended);
                    change = Change::Queues;
                }
            }
        }
        if self.listener.is_none() {
            if self.session.is_none() {
                self.connect();
            }
        } else {
            self.accept();
        }
        change
    }

    /// The pairs of rings that run.
    pub fn queues(&self) -> Vec<VhostQueue> {
        self.session.as_ref().map(Session::queues).unwrap_or_default()
    }

    /// What the guest takes.
    pub fn caps(&self) -> Caps {
        self.session.as_ref().map_or(Caps { vnet_hdr: true, ..Caps::NONE }, Session::caps)
    }

    /// Whether frames pass; if not, why.
    ///
    /// # Errors
    /// The reason.
    pub fn health(&self) -> Result<(), String> {
        self.session.as_ref().map_or_else(|| Err(self.absent.clone()), Session::health)
    }

    fn end_session(&mut self, ended: &Ended) {
        self.session = None;
        self.absent = match ended {
            Ended::Left => "the front end has left".to_owned(),
            Ended::Error(error) => format!("the front end was sent away: {error}"),
        };
    }

    fn begin_session(&mut self, stream: UnixStream) {
        match Session::begin(stream, self.options.pairs, self.options.offload) {
            Ok(session) => self.session = Some(session),
            Err(error) => self.absent = format!("a connection cannot be used: {error}"),
        }
    }

    /// Takes the first connection that waits; who comes while there is one already is sent away.
    fn accept(&mut self) {
        while let Some(stream) = self.listener.as_ref().and_then(Listener::accept) {
            if self.session.is_none() {
                self.begin_session(stream);
            }
        }
    }

    fn connect(&mut self) {
        match connect(&self.options.path) {
            Ok(stream) => self.begin_session(stream),
            Err(errno) => self.absent = format!("cannot connect to {}: {errno}", self.options.path.display()),
        }
    }
}

/// Connects without waiting: a listener whose backlog is full is asked again later (EAGAIN).
fn connect(path: &Path) -> Result<UnixStream, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(OwnedFd::into(socket))
}

/// A listening socket; its file goes with it.
#[derive(Debug)]
struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file, to remove no other.
    file: (u64, u64),
}

impl Listener {
    /// Makes the socket, for its owner and group. One that nobody answers on is what a daemon that died left, and is replaced.
    fn bind(path: &Path) -> Result<Self, VhostUserError> {
        let failed = |what| move |source| VhostUserError { what, path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(failed("listen on")(io::Error::other("it exists and is no socket")));
            }
            Ok(_) if matches!(connect(path), Err(Errno::CONNREFUSED)) => {
                fs::remove_file(path).map_err(failed("replace"))?;
            }
            _ => {}
        }
        let socket = UnixListener::bind(path).map_err(failed("listen on"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed("set the mode of"))?;
        socket.set_nonblocking(true).map_err(failed("listen on"))?;
        let there = fs::symlink_metadata(path).map_err(failed("look at"))?;
        Ok(Self { socket, path: path.to_owned(), file: (there.dev(), there.ino()) })
    }

    fn accept(&self) -> Option<UnixStream> {
        // Who went away before being let in has lost nothing; without descriptors the next call may do better.
        self.socket.accept().ok().map(|(stream, _)| stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.file);
        if ours {
            let _ = fs::remove_file(&self.path); // The next daemon replaces what stays.
        }
    }
}
