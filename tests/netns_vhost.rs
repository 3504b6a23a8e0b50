//! A second front end: DPDK's virtio-user, in testpmd, on the other side of a vhost-user port.
//!
//! ```text
//!   a ── eth0 ── tap port ┐
//!                         br0 ── vhost-user port ══ rings in memory ══ virtio-user ── testpmd
//!                         switch                                       sends back what comes, addresses swapped
//! ```
//!
//! testpmd keeps its memory in files of its own instead of huge pages (`--no-huge`), so that it needs nothing of the machine.

mod topo;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use tempfile::TempDir;
use topo::{
    Host, Net,
    frame::{self, EXPERIMENTAL, mac},
    packet::PacketSocket,
    skipped,
    switch::Switch,
    wait_until,
};

const TESTPMD: &str = "dpdk-testpmd";
const LONG: Duration = Duration::from_secs(20);
const FRAMES: u16 = 3000;

/// Frames that are under way at once: fewer than a ring has entries.
const WINDOW: usize = 32;

/// A running testpmd; it ends with the value.
struct Testpmd {
    child: Child,
    /// While it is open, testpmd goes on.
    stdin: Option<ChildStdin>,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Testpmd {
    /// Whether there is one; else the test is skipped.
    fn is_there() -> bool {
        let found = Command::new(TESTPMD).arg("-v").stdin(Stdio::null()).output();
        if let Err(error) = &found {
            skipped(&format!("no {TESTPMD} (Debian has it in dpdk-dev): {error}"));
        }
        found.is_ok()
    }

    /// Starts one at the socket of a port, with more words for its device and for itself; it sends back what comes.
    fn start(home: &Host, socket: &Path, device: &str, words: &str) -> Self {
        let directory = TempDir::new().expect("a directory");
        // It says into a pipe what it does only when that fills a buffer, otherwise.
        let mut command = Command::new("stdbuf");
        command.args(["--output=L", TESTPMD]);
        command.args(["--no-pci", "--no-telemetry", "--no-huge", "-m", "256", "--single-file-segments"]);
        command.args(["--lcores", "0@1,1@1", "--file-prefix", "tapway"]);
        command.arg(format!("--vdev=net_virtio_user0,path={}{device}", socket.display()));
        command.args(["--", "--no-lsc-interrupt", "--auto-start", "--forward-mode=macswap"]);
        command.args(["--total-num-mbufs=8192"]).args(words.split_whitespace());
        // Two of them do not meet there.
        command.env("RUNTIME_DIRECTORY", directory.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = home.run(|| command.spawn()).expect(TESTPMD);
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
        let said = Arc::new(Mutex::new(String::new()));
        let hears = Arc::clone(&said);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut said = hears.lock().expect("no panic");
                said.push_str(&line);
                said.push('\n');
            }
        });
        Self { child, stdin, said, reader: Some(reader), _directory: directory }
    }

    /// Waits until it forwards: its rings run before they have buffers to receive into.
    fn wait_ready(&self) {
        wait_until("testpmd forwards", LONG, || {
            self.said.lock().expect("no panic").contains("Press enter to exit")
        });
    }

    /// Ends it as its user does; what it has said, its statistics at the end.
    fn stop(&mut self) -> String {
        drop(self.stdin.take());
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM); // it may have ended
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.said.lock().expect("no panic").clone()
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let said = self.stop();
        if thread::panicking() {
            println!("{said}");
        }
    }
}

/// The number behind `what` in the sums that testpmd says at its end.
fn counted(said: &str, what: &str) -> u64 {
    let sums = said.split("Accumulated forward statistics").nth(1).expect("it has said its sums");
    let number = sums.split(what).nth(1).and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{what} in:\n{sums}"))
}

struct Rig {
    switch: Switch,
    net: Net,
    a: Host,
    directory: TempDir,
}

impl Rig {
    fn new(workers: usize) -> Option<Self> {
        if !Testpmd::is_there() {
            return None;
        }
        let (net, switch) = Switch::new(workers)?;
        switch.bridge("br0");
        let a = net.host("a");
        switch.silent_tap("a", &a, "--queues 1");
        a.ip("link set dev eth0 mtu 1500 up");
        Some(Self { switch, net, a, directory: TempDir::new().expect("a directory") })
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the ports have counted, for a test that fails.
    fn report(&self, name: &str) -> String {
        format!("{:?}\n{:?}", self.switch.show("a"), self.switch.show(name))
    }

    fn port(&self, name: &str, flags: &str) {
        let path = self.socket(name);
        self.switch.port(&format!("{name} --bridge br0 --type vhost-user --path {} {flags}", path.display()));
    }
}

fn numbered(n: u16) -> Vec<u8> {
    let len = [46, 100, 777, 1500][usize::from(n) % 4];
    let mut payload = vec![n as u8; len];
    payload[..2].copy_from_slice(&n.to_be_bytes());
    payload
}

/// Sends frames of several lengths to a station behind testpmd, a few at once; each comes back as it was, in order.
fn there_and_back(socket: &PacketSocket, count: u16, report: impl Fn() -> String) {
    let (near, far) = (mac(1), mac(2));
    let mut next = 0;
    for n in 0..count {
        while next < count && usize::from(next - n) < WINDOW {
            socket.send(&frame::frame(far, near, &[], EXPERIMENTAL, &numbered(next))).expect("send");
            next += 1;
        }
        let back = socket.recv_where(LONG, |frame| frame[12..14] == EXPERIMENTAL.to_be_bytes());
        let back = back.unwrap_or_else(|| panic!("frame {n} came back: {}", report())).frame;
        assert!(back == frame::frame(near, far, &[], EXPERIMENTAL, &numbered(n)), "frame {n}: {back:02x?}");
    }
}

#[test]
fn virtio_user_gets_every_frame_and_its_frames_arrive_whatever_it_has_agreed_to() {
    let Some(rig) = Rig::new(1) else { return };
    let socket = rig.a.packet_socket("eth0");
    for (name, device, words, flags) in [
        ("plain", "", "", ""),
        ("single", ",mrg_rxbuf=0", "", ""),
        ("small", ",queue_size=64", "", ""),
        ("pairs", ",queues=2", "--rxq=2 --txq=2", "--queues 2"),
        ("bare", "", "", "--offload off"),
        ("client", ",server=1", "", "--client"),
    ] {
        let path = rig.socket(name);
        rig.port(name, flags);
        let mut testpmd = Testpmd::start(rig.net.home(), &path, device, words);
        testpmd.wait_ready();
        let pairs = if name == "pairs" { 2 } else { 1 };
        wait_until(&format!("{name} is up"), LONG, || {
            let view = rig.switch.show(name);
            view.oper == "up" && view.queues == pairs
        });
        there_and_back(&socket, FRAMES, || rig.report(name));
        wait_until("all are counted", LONG, || rig.switch.show(name).rx.frames >= FRAMES.into());
        let view = rig.switch.show(name);
        assert_eq!((view.rx.frames, view.tx.frames), (FRAMES.into(), FRAMES.into()), "{name}");
        assert!(view.drops.is_empty(), "{name}: {:?}", view.drops);
        let said = testpmd.stop();
        assert_eq!(counted(&said, "RX-packets:"), u64::from(FRAMES), "{name}: {said}");
        assert_eq!(counted(&said, "TX-packets:"), u64::from(FRAMES), "{name}: {said}");
        let why = rig.switch.wait_oper(name, "down").expect("a reason");
        assert!(why == "the front end has left" || why.starts_with("cannot connect to"), "{name}: {why}");
        rig.switch.del(name);
        assert!(!fs::exists(&path).expect("look"), "{name}: the socket goes with who made it");
    }
}

#[test]
fn a_front_end_that_comes_back_finds_its_port_as_it_was() {
    let Some(rig) = Rig::new(2) else { return };
    let socket = rig.a.packet_socket("eth0");
    rig.port("vm", "");
    for round in 1..=3 {
        let testpmd = Testpmd::start(rig.net.home(), &rig.socket("vm"), "", "");
        testpmd.wait_ready();
        rig.switch.wait_oper("vm", "up");
        there_and_back(&socket, 200, || rig.report("vm"));
        wait_until("all are counted", LONG, || rig.switch.show("vm").rx.frames == round * 200);
    }
    rig.switch.wait_oper("vm", "down");
}

#[test]
fn a_super_frame_reaches_a_front_end_without_offloads_as_its_segments() {
    let Some(rig) = Rig::new(1) else { return };
    let socket = rig.a.vnet_socket("eth0");
    rig.port("vm", "");
    let testpmd = Testpmd::start(rig.net.home(), &rig.socket("vm"), "", "");
    testpmd.wait_ready();
    rig.switch.wait_oper("vm", "up");
    let payload: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
    socket.send_with(frame::tcp4_vnet(1000), &frame::tcp4(mac(2), mac(1), &payload)).expect("send");
    let mut back = Vec::new();
    for n in 0..10 {
        let segment = socket.recv_where(LONG, |frame| frame[12..14] == frame::IPV4.to_be_bytes());
        let segment = segment.unwrap_or_else(|| panic!("segment {n}")).frame;
        assert!(frame::checksums_are_right(&segment), "segment {n}");
        back.extend_from_slice(&segment[frame::TCP4_HEADERS..]);
    }
    assert!(back == payload, "the payload is that of the super-frame");
}
