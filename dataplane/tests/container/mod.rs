//! Namespaces that end by themselves: one for a test, and containers beside it. Shared by the tests of ports and devices.
#![allow(dead_code, reason = "each test binary compiles this module for itself and speaks a part of it")]

use std::{
    env,
    os::fd::{AsFd, OwnedFd},
    panic,
    path::PathBuf,
    process,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use tapway_dataplane::{
    netlink::{Link, Socket},
    netns::Netns,
    sys::netns,
};

/// Says why a test is not run, which `TAPWAY_TEST_REQUIRE=1` does not allow outside of the guest.
#[track_caller]
pub(crate) fn skipped(why: &str) {
    let required = env::var_os("TAPWAY_TEST_REQUIRE").is_some_and(|value| value == "1");
    assert!(!required || env::var_os("TAPWAY_TEST_GUEST").is_some(), "may not be skipped here: {why}");
    println!("skipped: {why}");
}

/// Runs a test on a thread in a namespace of its own, which stands for the daemon's.
pub(crate) fn in_netns(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        skipped("needs root");
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
    pub(crate) path: PathBuf,
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
