//! The socket file and who may use it.
//!
//! One daemon serves one path. A lock beside the socket decides between daemons that start at once, and ends with the
//! process that holds it; a socket file without a holder is what a daemon that died left, and is replaced. It is asked first
//! whether somebody else's server answers on it.
//!
//! The file's mode lets in its owner and its group. The kernel's word on who connected (`SO_PEERCRED`) is asked too,
//! so that a mode changed by mistake opens nothing: root, the daemon's user, and processes of the file's group may.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
};

use mio::net::{UnixListener, UnixStream};
use rustix::{
    fs::{FlockOperation, flock},
    net::sockopt::socket_peercred,
};

/// Why the control socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon serves it.
    #[error("another daemon answers on {}; stop it, or choose another path with --socket", .0.display())]
    InUse(PathBuf),
    /// There is something else than a socket.
    #[error("{} exists and is no socket; remove it, or choose another path with --socket", .0.display())]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BindError {
    let path = path.to_owned();
    move |source| BindError::Io { what, path, source }
}

/// The listening socket; its file goes with it.
#[derive(Debug)]
pub(super) struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file, to remove no other.
    file: (u64, u64),
    /// Held as long as the daemon serves the path.
    _lock: File,
}

impl Listener {
    pub(super) fn bind(path: &Path) -> Result<Self, BindError> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir).map_err(io_error("make directory", dir))?;
        }
        let lock = lock(path)?;
        clear(path)?;
        let listener = UnixListener::bind(path).map_err(io_error("listen on", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o660))
            .map_err(io_error("set the mode of", path))?;
        let meta = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
        Ok(Self { listener, path: path.to_owned(), file: (meta.dev(), meta.ino()), _lock: lock })
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    pub(super) fn source(&mut self) -> &mut UnixListener {
        &mut self.listener
    }

    /// The next client that waits, if any.
    pub(super) fn accept(&self) -> io::Result<Option<UnixStream>> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // The client went away before it was let in.
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Whether the peer may use the socket; its user where it may not, if the kernel says who it is.
    pub(super) fn peer_may(&self, stream: &UnixStream) -> Result<(), Option<u32>> {
        let peer = socket_peercred(stream).map_err(|_| None)?;
        let uid = peer.uid.as_raw();
        let group = || fs::symlink_metadata(&self.path).ok().map(|meta| meta.gid());
        let in_group = |group: u32| {
            peer.gid.as_raw() == group || supplementary_groups(peer.pid.as_raw_pid()).contains(&group)
        };
        if uid == 0 || uid == rustix::process::geteuid().as_raw() || group().is_some_and(in_group) {
            Ok(())
        } else {
            Err(Some(uid))
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if ours {
            let _ = fs::remove_file(&self.path); // The next daemon replaces what stays.
        }
    }
}

/// Takes the lock of a socket path; the file stays, because removing it would let two daemons hold "the" lock.
fn lock(path: &Path) -> Result<File, BindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&name)
        .map_err(io_error("open the lock file", &name))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BindError::InUse(path.to_owned())),
        Err(e) => Err(io_error("lock", &name)(e.into())),
    }
}

/// Removes a socket file that nobody listens on.
fn clear(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error("look at", path)(e)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io_error("remove the stale socket", path))
        }
        Err(e) => Err(io_error("ask whether somebody listens on", path)(e)),
    }
}

/// The groups of a process beside its own, as `/proc` lists them: there is no safe call for `SO_PEERGROUPS`.
/// A process that ended after it connected has none, and its number may be another's by now; both had passed the mode
/// of the socket file before.
fn supplementary_groups(pid: i32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().filter_map(|gid| gid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_serves_a_path_and_a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/on/the/way/tapway.sock");
        let first = Listener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert!(matches!(Listener::bind(&path), Err(BindError::InUse(_))));
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "what a daemon that died leaves");
        drop(Listener::bind(&path).unwrap());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tapway.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::bind(&path), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        let _foreign = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path), Err(BindError::InUse(_))));
    }
}
