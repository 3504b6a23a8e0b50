//! The switch, in the test's own process: an engine with real workers in the home namespace, under a control thread.
//!
//! What is asked of it is said in the words of `tapwayctl`: `switch.port("web --bridge br0 --access 10")`.
//! The switch ends with the value; its interfaces go with it.

use std::{
    fs::OpenOptions,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use clap::Args;
use tapway_dataplane::{
    api::{Control as _, PortView, Refusal, Reply, Request, Status},
    clock::Clock,
    config::{BridgeSpec, FdbSpec, PortName, PortOptions, PortSpec},
    engine::{Engine, Opener, Options},
    port::tap::Features,
};

use super::{Host, Net, skipped, wait_until};

/// How often the control thread looks after what workers have reported; the daemon is woken by a bell instead.
const TICK: Duration = Duration::from_millis(20);

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// A running switch.
#[derive(Debug)]
pub(crate) struct Switch {
    jobs: Option<mpsc::Sender<Job>>,
    control: Option<JoinHandle<()>>,
}

#[derive(Args, Debug)]
struct SetPort {
    name: PortName,
    #[command(flatten)]
    options: PortOptions,
}

/// Reads `words` as `tapwayctl` would.
#[track_caller]
pub(crate) fn parse<T: Args>(words: &str) -> T {
    let command = T::augment_args(clap::Command::new("port").no_binary_name(true));
    // A space that does not break a line stands inside a value.
    let matches = command
        .try_get_matches_from(words.split_ascii_whitespace())
        .unwrap_or_else(|e| panic!("{words}: {e}"));
    T::from_arg_matches(&matches).unwrap_or_else(|e| panic!("{words}: {e}"))
}

impl Switch {
    /// A world and a switch in its home, or `None` (and a line that says why) where this machine has no place for it.
    pub(crate) fn new(workers: usize) -> Option<(Net, Self)> {
        let net = Net::new()?;
        if let Err(e) = OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
            skipped(&format!("no TAP can be made here: /dev/net/tun: {e}"));
            return None;
        }
        let switch = Self::at(&net, workers);
        Some((net, switch))
    }

    /// A switch in the home of a world, perhaps after another.
    pub(crate) fn at(net: &Net, workers: usize) -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let control = net.home().run(|| {
            let options = Options {
                workers,
                threads: true,
                clock: Clock::monotonic(),
                bell: None,
                opener: Opener::kernel(),
                features: Features::probe(),
            };
            let engine = Engine::start(options).expect("an engine");
            thread::spawn(move || control(engine, &todo))
        });
        Self { jobs: Some(jobs), control: Some(control) }
    }

    /// Runs `f` on the control thread.
    pub(crate) fn with<T: Send + 'static>(&self, f: impl FnOnce(&mut Engine) -> T + Send + 'static) -> T {
        let (answer, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |engine| {
            let _ = answer.send(f(engine));
        });
        self.jobs.as_ref().expect("running").send(job).expect("the control thread runs");
        result.recv().expect("the control thread answers")
    }

    /// Asks for one thing, where the answer may be no.
    pub(crate) fn call(&self, request: Request) -> Result<Reply, Refusal> {
        self.with(move |engine| engine.call(request))
    }

    #[track_caller]
    fn done(&self, request: Request) -> Reply {
        let asked = format!("{request:?}");
        self.call(request).unwrap_or_else(|refusal| panic!("{asked}: {refusal}"))
    }

    /// `tapwayctl bridge add WORDS`.
    #[track_caller]
    pub(crate) fn bridge(&self, words: &str) {
        self.done(Request::BridgeAdd(parse::<BridgeSpec>(words)));
    }

    /// `tapwayctl bridge del NAME`.
    #[track_caller]
    pub(crate) fn bridge_del(&self, name: &str) {
        self.done(Request::BridgeDel { name: name.parse().expect("a name") });
    }

    /// `tapwayctl port add WORDS`.
    #[track_caller]
    pub(crate) fn port(&self, words: &str) {
        self.done(Request::PortAdd(Box::new(parse::<PortSpec>(words))));
    }

    /// `tapwayctl port add NAME --bridge br0 … FLAGS`, an interface eth0 in `host`.
    #[track_caller]
    pub(crate) fn tap(&self, name: &str, host: &Host, flags: &str) {
        self.tap_at("br0", name, host, flags);
    }

    /// The same at another bridge.
    #[track_caller]
    pub(crate) fn tap_at(&self, bridge: &str, name: &str, host: &Host, flags: &str) {
        let netns = host.path();
        self.port(&format!("{name} --bridge {bridge} --ifname eth0 --netns {} {flags}", netns.display()));
    }

    /// The same for a host that is to say nothing of itself.
    #[track_caller]
    pub(crate) fn silent_tap(&self, name: &str, host: &Host, flags: &str) {
        host.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        self.tap(name, host, flags);
    }

    /// `tapwayctl port set WORDS`.
    #[track_caller]
    pub(crate) fn set(&self, words: &str) {
        let SetPort { name, options } = parse(words);
        self.done(Request::PortSet { name, options: Box::new(options), unset: Vec::new() });
    }

    /// `tapwayctl port del NAME`.
    #[track_caller]
    pub(crate) fn del(&self, name: &str) {
        self.done(Request::PortDel { name: name.parse().expect("a name") });
    }

    /// `tapwayctl fdb add WORDS`.
    #[track_caller]
    pub(crate) fn fdb(&self, words: &str) {
        self.done(Request::FdbAdd(parse::<FdbSpec>(words)));
    }

    /// `tapwayctl fdb flush`: whatever has been learned.
    pub(crate) fn flush(&self) {
        self.done(Request::FdbFlush { bridge: None, port: None, vlan: None });
    }

    /// `tapwayctl apply -f -`.
    #[track_caller]
    pub(crate) fn apply(&self, topology: &str) {
        self.done(Request::Apply { topology: topology.to_owned(), dry_run: false, prune: false });
    }

    /// `tapwayctl port show NAME`.
    #[track_caller]
    pub(crate) fn show(&self, name: &str) -> PortView {
        match self.done(Request::PortShow { name: name.parse().expect("a name") }) {
            Reply::Port { port } => *port,
            other => panic!("{other:?}"),
        }
    }

    /// `tapwayctl port add WORDS`, which is refused: the sentence.
    #[track_caller]
    pub(crate) fn refused(&self, words: &str) -> String {
        match self.call(Request::PortAdd(Box::new(parse::<PortSpec>(words)))) {
            Ok(reply) => panic!("{words} was granted: {reply:?}"),
            Err(refusal) => refusal.to_string(),
        }
    }

    /// Whether an address has been learned on a port.
    #[track_caller]
    pub(crate) fn knows(&self, port: &str) -> bool {
        let port = Some(port.parse().expect("a name"));
        let list = Request::FdbList { bridge: None, port, vlan: None, cursor: None, limit: None };
        match self.done(list) {
            Reply::Fdb { entries, .. } => !entries.is_empty(),
            other => panic!("{other:?}"),
        }
    }

    /// `tapwayctl status`.
    pub(crate) fn status(&self) -> Status {
        match self.done(Request::Status) {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// How many addresses have been learned behind `port`, or were put there.
    pub(crate) fn fdb_of(&self, port: &str) -> usize {
        let port = Some(port.parse().expect("a name"));
        match self.done(Request::FdbList { bridge: None, port, vlan: None, cursor: None, limit: None }) {
            Reply::Fdb { entries, .. } => entries.len(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until `port` has counted `reason` at least once: a frame that went nowhere is counted after it came.
    #[track_caller]
    pub(crate) fn wait_drop(&self, port: &str, reason: &str) {
        wait_until(&format!("{port} counts {reason}"), Duration::from_secs(5), || {
            self.drops(port, reason) > 0
        });
    }

    /// How often `port`, an uplink or a tunnel end such as `vxlan 203.0.113.1:4789` has counted `reason`.
    #[track_caller]
    pub(crate) fn drops(&self, port: &str, reason: &str) -> u64 {
        let Reply::Drops { drops } = self.done(Request::Drops { port: None }) else { panic!("no drops") };
        let counted = drops.iter().filter(|drop| {
            drop.reason == reason
                && (drop.port.as_ref().is_some_and(|name| name.as_str() == port)
                    || drop.vtep.as_deref() == Some(port))
        });
        counted.map(|drop| drop.frames).sum()
    }

    /// Waits until the port is operationally `up` or `down`; the reason, where there is one.
    #[track_caller]
    pub(crate) fn wait_oper(&self, port: &str, oper: &str) -> Option<String> {
        wait_until(&format!("{port} is {oper}"), Duration::from_secs(5), || self.show(port).oper == oper);
        self.show(port).reason
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(control) = self.control.take()
            && control.join().is_err()
            && !thread::panicking()
        {
            panic!("the control thread panicked");
        }
    }
}

/// What the daemon's main loop does, without a socket.
fn control(mut engine: Engine, todo: &mpsc::Receiver<Job>) {
    loop {
        let idle = engine.housekeep();
        match todo.recv_timeout(idle.min(TICK)) {
            Ok(job) => job(&mut engine),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return engine.stop(),
        }
    }
}
