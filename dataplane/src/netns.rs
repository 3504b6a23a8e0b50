//! How an operator names a network namespace.

use std::{fmt, io, os::fd::OwnedFd, path::PathBuf, str::FromStr};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::sys::netns;

/// Where `ip netns add` puts its namespaces; the second is the older name of the first.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A network namespace, as in `--netns NAME|PID|PATH`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Netns {
    /// One that `ip netns add` made.
    Name(String),
    /// That of a process.
    Pid(u32),
    /// A file: `/proc/PID/ns/net`, or something it is mounted on.
    Path(PathBuf),
}

/// A text that names no network namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network namespace: give a name, a process number or a path")]
pub struct NetnsError(String);

impl FromStr for Netns {
    type Err = NetnsError;

    fn from_str(s: &str) -> Result<Self, NetnsError> {
        let error = || NetnsError(s.to_owned());
        if s.is_empty() || s == "." || s == ".." || s.contains(char::is_control) {
            return Err(error());
        }
        if s.bytes().all(|b| b.is_ascii_digit()) {
            return s.parse().ok().filter(|&pid| pid > 0).map(Self::Pid).ok_or_else(error);
        }
        if s.contains('/') { Ok(Self::Path(s.into())) } else { Ok(Self::Name(s.to_owned())) }
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Pid(pid) => pid.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl From<Netns> for String {
    fn from(netns: Netns) -> Self {
        netns.to_string()
    }
}

impl TryFrom<String> for Netns {
    type Error = NetnsError;

    fn try_from(s: String) -> Result<Self, NetnsError> {
        s.parse()
    }
}

impl Netns {
    /// Opens the namespace. The descriptor keeps it alive: drop it soon.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let fd = match self {
            Self::Name(name) => {
                let [first, second] = NAMED.map(|dir| PathBuf::from(dir).join(name));
                match open(&first) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => open(&second)?,
                    result => result?,
                }
            }
            Self::Pid(pid) => open(&format!("/proc/{pid}/ns/net").into())?,
            Self::Path(path) => open(path)?,
        };
        match netns::is_network(&fd) {
            Ok(true) => Ok(fd),
            Ok(false) | Err(_) => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "this file is not a network namespace"))
            }
        }
    }
}

fn open(path: &PathBuf) -> io::Result<OwnedFd> {
    // Not blocking: a path may lead to a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_process_a_slash_makes_a_path_and_the_rest_is_a_name() {
        for (text, netns) in [
            ("c1", Netns::Name("c1".into())),
            ("1c", Netns::Name("1c".into())),
            ("4711", Netns::Pid(4711)),
            ("/proc/1/ns/net", Netns::Path("/proc/1/ns/net".into())),
            ("./4711", Netns::Path("./4711".into())),
        ] {
            assert_eq!(text.parse(), Ok(netns.clone()), "{text}");
            assert_eq!(netns.to_string(), text);
        }
        for text in ["", ".", "..", "0", "99999999999", "a\0b"] {
            assert!(text.parse::<Netns>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_network_namespace_is_refused() {
        for path in ["/dev/null", "/proc/self/ns/mnt", "/"] {
            let error = Netns::Path(path.into()).open().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}: {error}");
        }
        let error = Netns::Name("tapway-test-no-such".into()).open().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
