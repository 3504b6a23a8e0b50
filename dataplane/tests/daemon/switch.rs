//! A running `tapwayd`, and a client of it.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, kill_process},
    thread::CapabilitySet,
};
use serde_json::{Value, json};

use super::topo::{Host, Net, wait_until};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A place for daemons to run in, one after the other.
#[derive(Debug)]
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("tapway.sock")
    }

    /// A path beside the socket.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Starts the daemon in the home of the world and waits until it answers.
    pub(crate) fn start(&self, net: &Net, args: &[&str]) -> Daemon {
        self.until_ready(self.spawn(net, &[&["--workers", "2"], args].concat(), || {}))
    }

    /// The same of a daemon that may not change the network (`CAP_NET_ADMIN`).
    pub(crate) fn start_without_privilege(&self, net: &Net) -> Daemon {
        // Of the thread that starts it: what is not in this set is not given by `execve`, not even to root.
        let give_up =
            || rustix::thread::remove_capability_from_bounding_set(CapabilitySet::NET_ADMIN).unwrap();
        self.until_ready(self.spawn(net, &["--workers", "1"], give_up))
    }

    /// The same as another user, who has no privileges, and needs none to run a copy of the program here.
    pub(crate) fn start_as(&self, user: u32, net: &Net, args: &[&str]) -> io::Result<Daemon> {
        let program = self.path("tapwayd");
        fs::copy(env!("CARGO_BIN_EXE_tapwayd"), &program)?;
        fs::set_permissions(self.dir.path(), Permissions::from_mode(0o777))?;
        let child = net.home().run(|| self.command(&program, args).uid(user).gid(user).spawn())?;
        Ok(self.until_ready(child))
    }

    fn until_ready(&self, child: Child) -> Daemon {
        let mut daemon = Daemon { child: Some(child), socket: self.socket() };
        wait_until("the daemon is ready", PATIENCE, || {
            let ended = daemon.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {}", self.log());
            // Not the socket alone: a daemon that loads a topology has it already.
            self.log().contains(" ready ")
        });
        daemon
    }

    /// Runs a daemon that is to end by itself; its exit code, and what it said.
    pub(crate) fn run(&self, net: &Net, args: &[&str]) -> (i32, String) {
        let mut child = self.spawn(net, args, || {});
        let mut status = None;
        wait_until("the daemon ended", PATIENCE, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap().code().expect("no signal"), self.log())
    }

    fn spawn(&self, net: &Net, args: &[&str], first: impl FnOnce() + Send) -> Child {
        let program = Path::new(env!("CARGO_BIN_EXE_tapwayd"));
        net.home().run(|| {
            first();
            self.command(program, args).spawn().unwrap()
        })
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let log = File::create(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.args(args).env("TAPWAY_SOCKET", self.socket());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }
}

/// A daemon that answers; it ends with the value.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Option<Child>,
    socket: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(mut self, signal: Signal) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let mut status = None;
        wait_until("the daemon ended", PATIENCE, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Asks on a connection of its own for something that is granted.
    #[track_caller]
    pub(crate) fn ok(&self, method: &str, parameters: Value) -> Value {
        self.client().ok(method, parameters)
    }

    /// Asks for something that is refused: the name of the error and its sentence.
    #[track_caller]
    pub(crate) fn refused(&self, method: &str, parameters: Value) -> (String, String) {
        match self.client().call(method, parameters.clone()) {
            Ok(reply) => panic!("{method} {parameters} was granted: {reply}"),
            Err(refusal) => refusal,
        }
    }

    /// Makes a bridge `br0`.
    pub(crate) fn bridge(&self) {
        self.ok("BridgeAdd", json!({ "name": "br0" }));
    }

    /// Makes a port of `br0` whose interface is `eth0` of a host, with an address.
    pub(crate) fn plug(&self, name: &str, host: &Host, address: &str) {
        let parameters = json!({
            "name": name, "bridge": "br0", "netns": host.path(), "ifname": "eth0", "address": [address],
        });
        assert_eq!(self.ok("PortAdd", parameters), json!({ "changed": true }));
    }

    /// What runs, as the daemon writes it into a file.
    pub(crate) fn export(&self) -> String {
        self.ok("Export", json!({}))["topology"].as_str().unwrap().to_owned()
    }

    pub(crate) fn port(&self, name: &str) -> Value {
        self.ok("PortShow", json!({ "name": name }))["port"].clone()
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
}

impl Client {
    fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, message: &Value) {
        let mut octets = message.to_string().into_bytes();
        octets.push(0);
        self.stream.write_all(&octets).unwrap();
    }

    /// The next message.
    pub(crate) fn receive(&mut self) -> Value {
        let mut octets = Vec::new();
        let mut one = [0];
        loop {
            self.stream.read_exact(&mut one).expect("a whole message");
            if one == [0] {
                return serde_json::from_slice(&octets).unwrap();
            }
            octets.extend(one);
        }
    }

    /// The parameters of the reply, or the error and its sentence.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Result<Value, (String, String)> {
        let method = if method.contains('.') { method.to_owned() } else { format!("io.tapway.{method}") };
        self.send(&json!({ "method": method, "parameters": parameters }));
        let mut reply = self.receive();
        match reply["error"].as_str() {
            None => Ok(reply["parameters"].take()),
            Some(error) => {
                let sentence = reply["parameters"]["message"].as_str().unwrap_or_default();
                Err((error.to_owned(), sentence.to_owned()))
            }
        }
    }

    #[track_caller]
    pub(crate) fn ok(&mut self, method: &str, parameters: Value) -> Value {
        self.call(method, parameters.clone()).unwrap_or_else(|e| panic!("{method} {parameters}: {e:?}"))
    }
}
