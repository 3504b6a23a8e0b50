//! The file of a Unix socket at which a port can be reached.
//!
//! A file that a process which died has left is replaced; one behind which somebody is, and whatever is no socket, is left alone.
//! The file ends with the value, if it is still the one that was made.
//!
//! Its mode lets in its owner and its group, and its group is that of its directory where that has the set-group-ID bit: so
//! monitors that run as another user are let in.

use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, fchmod},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with},
};

/// The longest path: `sun_path` has 108 octets, and other programs end it with a zero.
pub const PATH_MAX: usize = 107;
/// Owner and group may connect, which for a socket is to write.
const MODE: u32 = 0o660;

/// Why a socket's file could not be made or reached; a sentence that names it.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    /// No socket can have such a path.
    #[error("{} has {} octets; the path of a Unix socket has at most {PATH_MAX}", .0.display(), .0.as_os_str().len())]
    TooLong(PathBuf),
    /// Somebody is behind the socket that is there.
    #[error("another process is at {}; stop it, or choose another path", .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{} exists and is no socket; remove it, or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("cannot {operation} {}: {source}", .path.display())]
    Io {
        /// What was to be done, as a verb.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SocketFileError {
    /// Whether it only says that nobody is there, or has time.
    pub fn is_absence(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(
            source.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
        )
    }
}

pub(super) fn io_error<E: Into<io::Error>>(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> SocketFileError {
    let path = path.to_owned();
    move |source| SocketFileError::Io { operation, path, source: source.into() }
}

/// The address of a path.
pub(super) fn address(path: &Path) -> Result<SocketAddrUnix, SocketFileError> {
    if path.as_os_str().as_bytes().len() > PATH_MAX {
        return Err(SocketFileError::TooLong(path.to_owned()));
    }
    SocketAddrUnix::new(path).map_err(io_error("use the path", path))
}

/// The file of a socket that this process has bound.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, to remove no other.
    file: (u64, u64),
}

impl SocketFile {
    /// A socket of this type, not blocking, bound to `path`.
    ///
    /// # Errors
    /// Where somebody is there, something that is no socket is, or the kernel refuses.
    pub fn bind(path: &Path, kind: SocketType) -> Result<(OwnedFd, Self), SocketFileError> {
        let address = address(path)?;
        clear(path, &address)?;
        let fd = open(kind).map_err(io_error("make a socket for", path))?;
        // What the socket has, less the umask, its file gets (`unix_bind_bsd`): at no time may others connect.
        fchmod(&fd, Mode::from_raw_mode(MODE)).map_err(io_error("set the mode of the socket for", path))?;
        bind(&fd, &address).map_err(|errno| match errno {
            Errno::ADDRINUSE => SocketFileError::InUse(path.to_owned()), // made since it was looked for
            errno => io_error("make the socket", path)(errno),
        })?;
        let meta = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
        let file = Self { path: path.to_owned(), file: (meta.dev(), meta.ino()) };
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(io_error("set the mode of", path))?;
        Ok((fd, file))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if ours {
            let _ = fs::remove_file(&self.path); // Whoever binds the path next replaces what stays.
        }
    }
}

fn open(kind: SocketType) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
}

/// Removes the file of a socket behind which nobody is. That is asked by a socket of a kind which streams and datagrams do not
/// speak with: the kernel finds the other end first and refuses then (`unix_find_bsd`), so nobody sees a connection.
fn clear(path: &Path, address: &SocketAddrUnix) -> Result<(), SocketFileError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error("look at", path)(e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(SocketFileError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let probe = open(SocketType::SEQPACKET).map_err(io_error("make a socket for", path))?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(io_error("remove the stale socket", path)),
        Ok(()) | Err(Errno::PROTOTYPE | Errno::AGAIN) => Err(SocketFileError::InUse(path.to_owned())),
        Err(errno) => Err(io_error("ask who is at", path)(errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn a_file_that_nobody_is_behind_is_replaced_and_ends_with_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        for kind in [SocketType::STREAM, SocketType::DGRAM] {
            let path = dir.path().join("vm.sock");
            drop(UnixListener::bind(&path).unwrap());
            assert!(path.exists(), "what a process that died leaves");
            let (fd, file) = SocketFile::bind(&path, kind).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
            assert_eq!(file.path(), path);
            drop((fd, file));
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_somebody_is_behind_is_left_alone_and_sees_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let error = SocketFile::bind(&path, SocketType::STREAM).unwrap_err();
        assert!(matches!(error, SocketFileError::InUse(_)), "{error}");
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        fs::remove_file(&path).unwrap();
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        assert!(matches!(SocketFile::bind(&path, SocketType::DGRAM), Err(SocketFileError::InUse(_))));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        let error = SocketFile::bind(&path, SocketType::STREAM).unwrap_err();
        assert!(matches!(error, SocketFileError::NotASocket(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_file_that_took_the_place_of_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let (_fd, file) = SocketFile::bind(&path, SocketType::STREAM).unwrap();
        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused_in_words() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(103)));
        let error = SocketFile::bind(&path, SocketType::STREAM).unwrap_err();
        assert!(
            error.to_string().ends_with("has 108 octets; the path of a Unix socket has at most 107"),
            "{error}"
        );
    }
}
