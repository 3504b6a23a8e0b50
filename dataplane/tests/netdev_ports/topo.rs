//! The small words the tests are written in: namespaces that end by themselves, cables, and raw frames at their far ends.

use std::{
    io,
    os::fd::AsFd,
    panic,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket as Raw, Type};
use tapway_dataplane::{
    counters::PortCounters,
    frame::Batch,
    netlink::{Link, Socket},
    port::{
        PacketQueue, Received,
        netdev::{Netdev, NetdevError, NetdevOptions},
    },
    sys::{packet, udp},
};

#[path = "../container/mod.rs"]
mod container;

pub(crate) use container::{Container, in_netns};

impl Container {
    /// A cable from `port` in the calling thread's namespace to eth0 inside; both up, neither with IPv6.
    pub(crate) fn plug(&self, port: &str) {
        ip(&format!("link add {port} type veth peer name eth0 netns {}", self.path.display()));
        no_ipv6(port);
        ip(&format!("link set {port} up"));
        self.run(|| {
            no_ipv6("eth0");
            ip("link set eth0 up");
        });
    }
}

/// Runs `ip WORDS` in the calling thread's namespace.
#[track_caller]
pub(crate) fn ip(words: &str) {
    let out = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Keeps an interface of the calling thread's namespace from speaking by itself.
pub(crate) fn no_ipv6(ifname: &str) {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6"), "1").unwrap();
}

/// An interface of the calling thread's namespace.
pub(crate) fn link(name: &str) -> Link {
    Socket::open().unwrap().link_by_name(name).unwrap().unwrap_or_else(|| panic!("no {name}"))
}

/// What a port at an interface of the calling thread's namespace is opened with.
pub(crate) fn options(ifname: &str) -> NetdevOptions {
    NetdevOptions {
        ifname: ifname.into(),
        netns: None,
        mtu: None,
        queues: 1,
        offload: true,
        qdisc_bypass: false,
    }
}

/// Takes over what is there to be taken over.
#[track_caller]
pub(crate) fn taken(options: NetdevOptions) -> (Netdev, Vec<PacketQueue>) {
    let mut netdev = Netdev::new(options);
    let queues = take_over(&mut netdev);
    netdev.state().unwrap_or_else(|e| panic!("{e}"));
    assert!(netdev.unguarded().is_none(), "{:?}", netdev.unguarded());
    (netdev, queues)
}

/// Takes over what may have been let go of a moment ago: a process that another test starts has our descriptors too, between its
/// fork and its exec, and the interface with them.
#[track_caller]
pub(crate) fn take_over(netdev: &mut Netdev) -> Vec<PacketQueue> {
    let mut queues = Vec::new();
    wait_until("let go of by all", || {
        queues = netdev.take_over();
        !matches!(netdev.state(), Err(NetdevError::InUse { .. }))
    });
    queues
}

/// A socket that sends and receives whole frames at eth0 of a container, with a virtio header of 12 octets before each where
/// `vnet` says so.
pub(crate) fn raw(container: &Container, vnet: bool) -> Raw {
    container.run(|| {
        let raw = Raw::new(Domain::PACKET, Type::RAW, None).unwrap();
        udp::set_option(raw.as_fd(), udp::SocketOption::IGNORE_OUTGOING, 1).unwrap();
        if vnet {
            udp::set_option(raw.as_fd(), udp::SocketOption::VNET_HDR_SIZE, 12).unwrap();
        }
        packet::bind(raw.as_fd(), link("eth0").index).unwrap();
        raw.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        raw
    })
}

/// Receives until the frames of the batch are as many as `wanted`. A veth delivers at once, but not always on this processor.
#[track_caller]
pub(crate) fn receive(queue: &mut PacketQueue, batch: &mut Batch, counters: &PortCounters, wanted: usize) {
    wait_until(&format!("{wanted} frames received"), || {
        assert!(!matches!(queue.recv(batch, counters), Received::Gone(_)));
        batch.len() >= wanted
    });
    assert_eq!(batch.len(), wanted);
}

/// The error of a read that is to find nothing.
pub(crate) fn silent(raw: &Raw) -> bool {
    raw.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let found = raw.recv(&mut [std::mem::MaybeUninit::uninit(); 128]);
    found.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

/// Waits until `done` says so, 10 seconds at most.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "10 s later: not {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
