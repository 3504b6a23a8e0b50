//! Named network namespaces, made as `ip netns add` makes them: a file in `/run/netns` that the namespace is mounted on.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags},
};

use crate::{netns::Netns, sys::netns};

/// Where `ip netns add` puts its namespaces (iproute2: `NETNS_RUN_DIR`).
const DIR: &str = "/run/netns";

/// Makes the namespace `name`. `AlreadyExists` says that there is one, or a file in its place.
pub fn add_netns(name: &str) -> io::Result<()> {
    let path = path(name)?;
    share_dir()?;
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o000).open(&path)?;
    let inside = |path: PathBuf| {
        netns::unshare()?;
        Ok(rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)?)
    };
    let target = path.clone();
    let mounted =
        thread::Builder::new().name("netns".to_owned()).spawn(move || inside(target)).and_then(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that was to make it panicked")))
        });
    if mounted.is_err() {
        let _ = fs::remove_file(&path); // the first error is the one to tell
    }
    mounted
}

/// Takes the name of a namespace away; the namespace ends with its last user.
pub fn delete_netns(name: &str) -> io::Result<()> {
    let path = path(name)?;
    match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
        // Only a file: what `ip netns add` left when it was killed half way.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    fs::remove_file(path)
}

fn path(name: &str) -> io::Result<PathBuf> {
    match name.parse() {
        Ok(Netns::Name(name)) => Ok(Path::new(DIR).join(name)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no name for a network namespace")),
    }
}

/// Makes mounts in the directory visible in other mount namespaces, so that a name can be deleted for all of them.
fn share_dir() -> io::Result<()> {
    fs::create_dir_all(DIR)?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match rustix::mount::mount_change(DIR, shared) {
        // It is not a mount point yet.
        Err(Errno::INVAL) => {
            rustix::mount::mount_bind_recursive(DIR, DIR)?;
            Ok(rustix::mount::mount_change(DIR, shared)?)
        }
        result => Ok(result?),
    }
}
