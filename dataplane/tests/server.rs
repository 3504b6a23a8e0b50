//! The control socket against clients that err, gasp and lie. The engine behind it is a stand-in.

mod standin;

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use standin::{Daemon, StandIn, wait_until};
use tapway_dataplane::{
    api::DESCRIPTION,
    server::{BindError, Limits, Server},
};

struct Client(BufReader<UnixStream>);

impl Client {
    fn new(daemon: &Daemon) -> Self {
        let stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, message: &Value) {
        self.0.get_mut().write_all(format!("{message}\0").as_bytes()).unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut message = Vec::new();
        self.0.read_until(0, &mut message).unwrap();
        assert_eq!(message.pop(), Some(0), "a whole message, not the end of the stream");
        serde_json::from_slice(&message).unwrap()
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.send(&json!({ "method": method, "parameters": parameters }));
        self.receive()
    }

    /// Whether the daemon has closed the connection.
    fn closed(&mut self) -> bool {
        match self.0.read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

fn assert_alive(daemon: &Daemon) {
    let start = Instant::now();
    let reply = Client::new(daemon).call("io.tapway.BridgeList", json!({}));
    assert_eq!(reply["parameters"]["bridges"][0]["name"], "br0");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn calls_on_one_connection_are_answered_in_order() {
    let daemon = Daemon::start();
    let mut client = Client::new(&daemon);
    for i in 0..100 {
        client.send(&json!({ "method": "io.tapway.PortShow", "parameters": { "name": format!("p{i}") } }));
    }
    for i in 0..100 {
        let reply = client.receive();
        assert_eq!(reply["error"], "io.tapway.NotFound");
        assert_eq!(reply["parameters"]["name"], format!("p{i}"));
        assert_eq!(reply["parameters"]["kind"], "port");
    }
}

#[test]
fn the_service_introduces_itself() {
    let daemon = Daemon::start();
    let mut client = Client::new(&daemon);
    let info = client.call("org.varlink.service.GetInfo", json!({}));
    assert_eq!(info["parameters"]["product"], "tapwayd");
    assert_eq!(info["parameters"]["interfaces"], json!(["org.varlink.service", "io.tapway"]));
    let ask = |client: &mut Client, interface: &str| {
        client.call("org.varlink.service.GetInterfaceDescription", json!({ "interface": interface }))
    };
    assert_eq!(ask(&mut client, "io.tapway")["parameters"]["description"], DESCRIPTION);
    let service = ask(&mut client, "org.varlink.service");
    assert!(service["parameters"]["description"].as_str().unwrap().contains("method GetInfo()"));
    assert_eq!(ask(&mut client, "io.nothing")["error"], "org.varlink.service.InterfaceNotFound");
    assert_eq!(client.call("io.tapway.Protocol", json!({}))["parameters"]["protocol"], 1);
}

#[test]
fn a_wrong_call_is_answered_with_what_is_wrong_and_the_connection_lives() {
    let daemon = Daemon::start();
    let mut client = Client::new(&daemon);
    let mut error = |method: &str, parameters: Value| {
        let reply = client.call(method, parameters);
        (reply["error"].as_str().unwrap().to_owned(), reply["parameters"].clone())
    };
    let (name, p) = error("io.tapway.Nothing", json!({}));
    assert_eq!(
        (name.as_str(), &p["method"]),
        ("org.varlink.service.MethodNotFound", &json!("io.tapway.Nothing"))
    );
    let (name, p) = error("io.nothing.Status", json!({}));
    assert_eq!(
        (name.as_str(), &p["interface"]),
        ("org.varlink.service.InterfaceNotFound", &json!("io.nothing"))
    );
    assert_eq!(error("Status", json!({})).0, "org.varlink.service.InterfaceNotFound");
    let (name, p) = error("io.tapway.PortShow", json!({ "name": "vm1", "colour": "red" }));
    assert_eq!((name.as_str(), &p["parameter"]), ("org.varlink.service.InvalidParameter", &json!("colour")));
    let (name, p) = error("io.tapway.PortAdd", json!({ "name": "x", "bridge": "br0", "access": 4095 }));
    assert_eq!((name.as_str(), &p["parameter"]), ("org.varlink.service.InvalidParameter", &json!("access")));
    assert!(p["message"].as_str().unwrap().contains("from 1 to 4094"), "{p}");
    let (name, p) = error("io.tapway.Stats", json!({ "interval_ms": 1000 }));
    assert_eq!(
        (name.as_str(), &p["parameter"]),
        ("org.varlink.service.InvalidParameter", &json!("interval_ms"))
    );
    let (name, p) = error("io.tapway.Apply", json!({ "topology": "mistake 1\n\nmistake 2\n" }));
    assert_eq!(name, "io.tapway.Topology");
    assert_eq!(p["mistakes"][1], json!({ "line": 3, "message": "mistake 2 is no key" }));
    client.send(&json!({ "method": "io.tapway.Status", "upgrade": true }));
    assert_eq!(client.receive()["error"], "org.varlink.service.MethodNotImplemented");
    assert_eq!(
        client.call("io.tapway.PortShow", json!({ "name": "vm1" }))["parameters"]["port"]["access"],
        10
    );
}

#[test]
fn a_oneway_call_is_done_and_not_answered() {
    let daemon = Daemon::start();
    let mut client = Client::new(&daemon);
    client.send(&json!({ "method": "io.tapway.PortDel", "parameters": { "name": "vm2" }, "oneway": true }));
    client.send(&json!({ "method": "io.tapway.PortDel", "parameters": { "name": "vm2" }, "oneway": true }));
    client.send(&json!({ "method": "io.tapway.Nothing", "oneway": true }));
    let reply = client.call("io.tapway.PortShow", json!({ "name": "vm2" }));
    assert_eq!(reply["error"], "io.tapway.NotFound", "the first reply is that of the call after them");
}

#[test]
fn what_is_no_json_is_answered_and_disconnected() {
    let daemon = Daemon::start();
    for garbage in [&b"{\"method\":\0"[..], b"\0", b"[1,2]\0", b"\xff\xfe\0", b"{}\0", b"{\"method\":7}\0"] {
        let mut client = Client::new(&daemon);
        client.0.get_mut().write_all(garbage).unwrap();
        assert_eq!(client.receive()["error"], "io.tapway.Malformed");
        assert!(client.closed());
    }
    assert_alive(&daemon);
}

#[test]
fn half_a_message_waits_without_holding_anybody_up() {
    let daemon = Daemon::start();
    let mut half = Client::new(&daemon);
    half.0.get_mut().write_all(b"{\"method\":\"io.tapway.").unwrap();
    let mut gone = Client::new(&daemon);
    gone.0.get_mut().write_all(b"{\"method\":\"io.tapway.").unwrap();
    drop(gone);
    assert_alive(&daemon);
    half.0.get_mut().write_all(b"BridgeList\"}\0").unwrap();
    assert_eq!(half.receive()["parameters"]["bridges"][0]["name"], "br0");
}

#[test]
fn a_client_that_sends_and_hangs_up_gets_its_replies() {
    let daemon = Daemon::start();
    let mut client = Client::new(&daemon);
    client.send(&json!({ "method": "io.tapway.BridgeList" }));
    client.0.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.receive()["parameters"]["bridges"][0]["name"], "br0");
    assert!(client.closed());
}

#[test]
fn a_hundred_megabytes_of_garbage_are_refused_not_buffered() {
    let daemon = Daemon::start();
    let mut client = Client::new(&daemon);
    let before = resident_kib();
    let garbage = vec![b'x'; 1 << 20];
    let mut sent = 0;
    let error = loop {
        match client.0.get_mut().write(&garbage) {
            Ok(n) => sent += n,
            Err(e) => break e,
        }
        assert!(sent < 100 << 20, "nobody stopped it");
    };
    assert!(matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{error}");
    assert!(sent < 16 << 20, "{sent} octets were taken");
    assert!(resident_kib().saturating_sub(before) < 64 << 10, "the garbage was kept");
    let reply = client.receive();
    assert_eq!(reply["error"], "io.tapway.TooLarge");
    assert_eq!(reply["parameters"]["limit"], 4 << 20);
    assert!(client.closed());
    assert_alive(&daemon);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_request_up_to_the_limit_is_served() {
    let daemon = Daemon::start();
    let topology = "# a long comment\n".repeat(200_000);
    let reply = Client::new(&daemon).call("io.tapway.Diff", json!({ "topology": topology }));
    assert_eq!(reply["parameters"]["steps"][0]["op"], "+");
}

#[test]
fn of_a_hundred_clients_those_above_the_limit_are_told_so_and_the_others_are_served() {
    let limit = 64;
    let daemon = Daemon::with(Limits { max_clients: limit, ..Limits::default() }, StandIn::example());
    let mut clients: Vec<_> = (0..100).map(|_| Client::new(&daemon)).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        if i < limit {
            let reply = client.call("io.tapway.BridgeList", json!({}));
            assert_eq!(reply["parameters"]["bridges"][0]["name"], "br0", "client {i}");
        } else {
            let reply = client.receive();
            assert_eq!(reply["error"], "io.tapway.TooManyClients");
            assert_eq!(reply["parameters"]["limit"], limit);
            assert!(client.closed());
        }
    }
    clients.clear();
    wait_until("places are free again", || {
        let mut client = Client::new(&daemon);
        // The refusal may come before the call is sent.
        let _ = client.0.get_mut().write_all(b"{\"method\":\"io.tapway.BridgeList\"}\0");
        client.receive().get("error").is_none()
    });
}

#[test]
fn a_client_that_stops_reading_is_disconnected_and_the_others_do_not_notice() {
    let mut control = StandIn::example();
    control.fill_fdb(2000);
    let daemon = Daemon::with(Limits { stall: Duration::from_secs(1), ..Limits::default() }, control);
    let mut deaf = Client::new(&daemon);
    let call = format!("{}\0", json!({ "method": "io.tapway.FdbList", "parameters": { "limit": 2000 } }));
    deaf.0.get_mut().set_nonblocking(true).unwrap();
    // Asks for some 200 KB again and again until the daemon takes no more.
    let start = Instant::now();
    let (mut asked, mut of_others) = (0, 0);
    let mut others = Instant::now();
    loop {
        match deaf.0.get_mut().write(call.as_bytes()) {
            Ok(_) => asked += 1,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(e) => {
                assert!(matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset));
                break;
            }
        }
        if others.elapsed() > Duration::from_millis(100) {
            assert_alive(&daemon);
            of_others += 1;
            others = Instant::now();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it was never disconnected");
    }
    assert!(asked > 2 && start.elapsed() >= Duration::from_secs(1));
    let mut received = 0;
    let mut chunk = vec![0; 64 << 10];
    while let Ok(n @ 1..) = deaf.0.read(&mut chunk) {
        received += n;
    }
    assert!(received < 2 << 20, "{received} octets were kept for a client that did not read");
    let status = Client::new(&daemon).call("io.tapway.Status", json!({}));
    let answered = status["parameters"]["generation"].as_u64().unwrap() - of_others;
    assert!(answered < 20, "{answered} of {asked} calls were answered for a client that did not read");
}

#[test]
fn a_client_that_asks_without_end_leaves_the_others_their_turn() {
    let mut control = StandIn::example();
    control.fill_fdb(1000);
    let daemon = Daemon::with(Limits::default(), control);
    let greedy = UnixStream::connect(daemon.socket()).unwrap();
    let mut reader = greedy.try_clone().unwrap();
    let mut writer = greedy.try_clone().unwrap();
    let write = std::thread::spawn(move || {
        let call = format!("{}\0", json!({ "method": "io.tapway.FdbList" })).repeat(100);
        while writer.write_all(call.as_bytes()).is_ok() {}
    });
    let read = std::thread::spawn(move || {
        let mut chunk = vec![0; 1 << 20];
        while matches!(reader.read(&mut chunk), Ok(1..)) {}
    });
    for _ in 0..20 {
        assert_alive(&daemon);
    }
    greedy.shutdown(std::net::Shutdown::Both).unwrap();
    write.join().unwrap();
    read.join().unwrap();
}

#[test]
fn a_repeating_call_replies_at_its_interval_until_the_client_goes() {
    let daemon = Daemon::start();
    let mut client = Client::new(&daemon);
    let start = Instant::now();
    client.send(&json!({ "method": "io.tapway.Stats", "parameters": { "interval_ms": 100 }, "more": true }));
    let replies: Vec<_> = (0..4).map(|_| client.receive()).collect();
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(replies.iter().all(|r| r["continues"] == true));
    let frames = |r: &Value| r["parameters"]["stats"][0]["rx"]["frames"].as_u64().unwrap();
    assert!(replies.windows(2).all(|w| frames(&w[0]) < frames(&w[1])));
    assert_alive(&daemon);
    drop(client);
    let mut other = Client::new(&daemon);
    let generation =
        |c: &mut Client| c.call("io.tapway.Status", json!({}))["parameters"]["generation"].clone();
    wait_until("nobody asks any more", || {
        let before = generation(&mut other).as_u64().unwrap();
        std::thread::sleep(Duration::from_millis(250));
        generation(&mut other).as_u64().unwrap() == before + 1
    });
}

#[test]
fn a_stream_ends_with_the_error_that_ends_it() {
    let daemon = Daemon::start();
    let mut client = Client::new(&daemon);
    client.send(&json!({
        "method": "io.tapway.Stats", "parameters": { "port": "vm2", "interval_ms": 100 }, "more": true
    }));
    assert_eq!(client.receive()["continues"], true);
    Client::new(&daemon).call("io.tapway.PortDel", json!({ "name": "vm2" }));
    let last = (0..20).map(|_| client.receive()).find(|r| r.get("error").is_some()).unwrap();
    assert_eq!(last["error"], "io.tapway.NotFound");
    assert_eq!(client.call("io.tapway.PortDel", json!({ "name": "vm1" }))["parameters"]["changed"], true);
}

#[test]
fn an_fdb_comes_page_by_page_and_whole() {
    let mut control = StandIn::example();
    control.fill_fdb(10_000);
    let daemon = Daemon::with(Limits::default(), control);
    let mut client = Client::new(&daemon);
    client.send(&json!({ "method": "io.tapway.FdbList", "more": true }));
    let (mut macs, mut pages) = (std::collections::BTreeSet::new(), 0);
    loop {
        let reply = client.receive();
        let entries = reply["parameters"]["entries"].as_array().unwrap();
        assert!(entries.len() <= 1024);
        macs.extend(entries.iter().map(|e| e["mac"].as_str().unwrap().to_owned()));
        pages += 1;
        if reply.get("continues").is_none() {
            break;
        }
    }
    assert_eq!((macs.len(), pages), (10_000, 10));
    let page = client.call("io.tapway.FdbList", json!({ "limit": 4, "cursor": 9_990 }));
    assert_eq!(page["parameters"]["entries"].as_array().unwrap().len(), 4);
    assert_eq!(page["parameters"]["next"], 9_994);
    let page = client.call("io.tapway.FdbList", json!({ "limit": 1_000_000_000 }));
    assert_eq!(page["parameters"]["entries"].as_array().unwrap().len(), 8192);
}

#[test]
fn a_second_daemon_does_not_start_on_the_same_socket() {
    let daemon = Daemon::start();
    let error = Server::bind(&daemon.socket(), Limits::default()).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)));
    assert!(error.to_string().contains("another daemon answers on /"), "{error}");
    assert_alive(&daemon);
}

#[test]
fn another_user_is_told_so_and_disconnected_even_where_the_mode_lets_it_in() {
    if std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)).ok() != Some(0) {
        eprintln!("skipped: another user can only be had by root");
        return;
    }
    let daemon = Daemon::start();
    std::fs::set_permissions(daemon.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    let listen = |uid, gid| {
        // What a stranger reads from the socket, by a program that every Debian has.
        let script = "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[0])) or die \
                      qq(connect: $!\n); print {*STDOUT} <S> // qq(nothing)";
        let mut perl = Command::new("perl");
        perl.args(["-e", &format!("alarm 2; {script}")]).arg(daemon.socket()).uid(uid).gid(gid);
        let out = perl.output().unwrap();
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    };
    assert!(listen(65534, 65534).contains("connect: Permission denied"));
    std::fs::set_permissions(daemon.socket(), PermissionsExt::from_mode(0o666)).unwrap();
    let refused = listen(65534, 65534);
    assert!(refused.contains("io.tapway.PermissionDenied") && refused.contains("\"uid\":65534"), "{refused}");
    // Of the socket's group: let in, so nothing is said unasked.
    assert_eq!(listen(65534, 0), "");
    assert_alive(&daemon);
}

/// A Python with the PyPI package `varlink`, in an environment of its own under `target/`.
fn foreign_python() -> Result<PathBuf, String> {
    let run = |command: &mut Command| match command.output() {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or_default().to_owned()),
        Err(e) => Err(e.to_string()),
    };
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("varlink-venv");
    let python = venv.join("bin/python");
    let has_varlink = |python: &Path| run(Command::new(python).args(["-c", "import varlink"]));
    if has_varlink(&python).is_err() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "varlink==31.0.0"];
        run(Command::new(&python).args(pip))?;
    }
    Ok(python)
}

#[test]
fn a_foreign_client_can_introspect_and_call() {
    let python = match foreign_python() {
        Ok(python) => python,
        Err(reason) => return eprintln!("skipped: no Python with varlink 31.0.0: {reason}"),
    };
    let daemon = Daemon::start();
    let script = r#"
import sys, varlink
with varlink.Client("unix:" + sys.argv[1]) as client:
    assert sorted(client.get_interfaces()) == ["io.tapway", "org.varlink.service"], client.get_interfaces()
    with client.open("io.tapway") as tapway:
        assert tapway.Protocol()["protocol"] == 1
        assert tapway.BridgeAdd("br1", "5m")["changed"]
        assert tapway.PortAdd(name="vm9", bridge="br1", trunk="10,20-29", hairpin=True, address=["198.51.100.1/24"])["changed"]
        port = tapway.PortShow("vm9")["port"]
        assert port["trunk"] == "10,20-29" and port["rx"]["frames"] > 0 and port["drops"] == {"vlan_not_member": 3}, port
        assert [p["name"] for p in tapway.PortList()["ports"]] == ["vm1", "vm2", "vm9"]
        entries = [e for page in tapway.FdbList(limit=2, _more=True) for e in page["entries"]]
        assert len(entries) == 3 and entries[0]["mac"].startswith("02:"), entries
        trace = tapway.Trace("vm1", "02:00:00:00:00:02 020000000001 0800", 10)
        assert trace["verdict"] == "forward" and trace["outputs"][0]["port"] == "vm2", trace
        assert tapway.Apply(topology="[[bridge]]")["applied"]
        assert "[[bridge]]" in tapway.Export()["topology"]
        stream = tapway.Stats(interval_ms=100, _more=True)
        assert next(stream)["stats"][0]["rx"]["frames"] < next(stream)["stats"][0]["rx"]["frames"]
    with client.open("io.tapway") as tapway:
        try:
            tapway.BridgeDel("br0")
            assert False, "it was deleted"
        except varlink.VarlinkError as e:
            assert e.error() == "io.tapway.InUse", e
            assert "vm1" in e.parameters()["by"], e
print("done")
"#;
    let out = Command::new(python).args(["-c", script]).arg(daemon.socket()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "done\n", "{}", String::from_utf8_lossy(&out.stderr));
}
