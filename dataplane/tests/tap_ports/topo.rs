//! The small words the tests are written in: namespaces that end by themselves, and looking at what is in them.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    panic,
    path::PathBuf,
    process::{self, Child, Command},
    sync::{
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tapway_dataplane::{
    netlink::{Link, Socket},
    netns::Netns,
    port::tap::{Tap, TapOptions},
    sys::netns,
};

/// Runs a test on a thread in a namespace of its own, which stands for the daemon's.
pub(crate) fn in_netns(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let thread = thread::spawn(|| {
        netns::unshare().unwrap();
        test();
    });
    if let Err(failure) = thread.join() {
        panic::resume_unwind(failure);
    }
}

/// A namespace that lives as long as a thread: the container.
pub(crate) struct Container {
    path: PathBuf,
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Container {
    pub(crate) fn new() -> Self {
        let (end, wait) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            netns::unshare().unwrap();
            tell.send(rustix::thread::gettid()).unwrap();
            let _ = wait.recv();
        });
        let tid = told.recv().unwrap().as_raw_nonzero();
        let path = format!("/proc/{}/task/{tid}/ns/net", process::id()).into();
        Self { path, end: Some(end), thread: Some(thread) }
    }

    pub(crate) fn netns(&self) -> Netns {
        Netns::Path(self.path.clone())
    }

    pub(crate) fn fd(&self) -> OwnedFd {
        self.netns().open().unwrap()
    }

    /// Runs `f` inside.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        netns::within(self.fd().as_fd(), f).unwrap()
    }

    /// A netlink socket inside.
    pub(crate) fn netlink(&self) -> Socket {
        Socket::open_in(self.fd().as_fd()).unwrap()
    }

    /// The link of this name inside.
    pub(crate) fn link(&self, name: &str) -> Link {
        self.netlink().link_by_name(name).unwrap().unwrap_or_else(|| panic!("no {name} in the container"))
    }

    /// Ends the last process in it, which is what a container runtime does.
    pub(crate) fn end(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.stop();
    }
}

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
