//! The small words the tests are written in: making ports, and looking at what is in a namespace.

use std::{
    fs, panic,
    process::{self, Child, Command},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tapway_dataplane::{
    netlink::Socket,
    port::tap::{Tap, TapOptions},
};

#[path = "../container/mod.rs"]
mod container;

pub(crate) use container::{Container, in_netns};

/// A name in /run/netns for a container, as `ip netns add` makes it.
pub(crate) struct Named(pub(crate) String);

impl Named {
    pub(crate) fn new(container: &Container) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tapway-test-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed));
        fs::create_dir_all("/run/netns").unwrap();
        let path = format!("/run/netns/{name}");
        fs::write(&path, "").unwrap();
        let named = Self(name);
        rustix::mount::mount_bind(&container.path, &path).unwrap();
        named
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let path = format!("/run/netns/{}", self.0);
        let _ = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_file(path);
    }
}

/// A process in a container.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn new(container: &Container) -> Self {
        Self(container.run(|| Command::new("sleep").arg("60").spawn().unwrap()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Options for a TAP t0 in the container.
pub(crate) fn t0(container: &Container) -> TapOptions {
    TapOptions { ifname: Some("t0".into()), netns: Some(container.netns()), ..TapOptions::default() }
}

/// Opens a TAP that is to work.
pub(crate) fn open(options: &TapOptions) -> Tap {
    Tap::open(options).unwrap_or_else(|e| panic!("{e}"))
}

/// The names of all interfaces of the calling thread's namespace.
pub(crate) fn names() -> Vec<String> {
    names_by(Socket::open().unwrap())
}

/// The names of all interfaces that a socket sees.
pub(crate) fn names_by(mut socket: Socket) -> Vec<String> {
    let mut names: Vec<String> = socket.links().unwrap().into_iter().map(|link| link.name).collect();
    names.sort();
    names
}

/// Waits until `done` says so, 10 seconds at most.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "10 s later: not {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
