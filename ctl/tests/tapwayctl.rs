//! The real tool against the real server; the engine behind it is a stand-in.

#[path = "../../dataplane/tests/standin/mod.rs"]
mod standin;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener, process::CommandExt},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use standin::{Daemon, StandIn};
use tapway_dataplane::server::Limits;

fn tool(socket: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tapwayctl"));
    command.env("TAPWAY_SOCKET", socket).env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// Runs one command line; gives exit code, stdout and stderr.
fn run(socket: &Path, line: &str) -> (i32, String, String) {
    let Output { status, stdout, stderr } = tool(socket).args(line.split_whitespace()).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn ok(daemon: &Daemon, line: &str) -> String {
    let (code, out, err) = run(&daemon.socket(), line);
    assert_eq!((code, err.as_str()), (0, ""), "{line}");
    out
}

/// The one document that a command prints with `--json`.
fn doc(daemon: &Daemon, line: &str) -> Value {
    let out = ok(daemon, &format!("--json {line}"));
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

fn refused(daemon: &Daemon, line: &str) -> (String, Value) {
    let (code, out, err) = run(&daemon.socket(), &format!("{line} --json"));
    assert_eq!(code, 1, "{line}: {err}");
    (err, serde_json::from_str(&out).unwrap())
}

#[test]
fn a_change_says_whether_there_was_one() {
    let daemon = Daemon::start();
    assert_eq!(doc(&daemon, "bridge add br1 --ageing 5m"), json!({ "changed": true }));
    assert_eq!(doc(&daemon, "bridge add br1 --ageing 300s"), json!({ "changed": false }));
    assert_eq!(ok(&daemon, "bridge add br1 --ageing 300s"), "nothing to change\n");
    assert_eq!(doc(&daemon, "bridge set br1 --fdb-limit 100"), json!({ "changed": true }));
    assert_eq!(ok(&daemon, "bridge del br1"), "");
    assert_eq!(
        doc(&daemon, "port add vm9 --bridge br0 --trunk 10,20-29 --native 10"),
        json!({ "changed": true })
    );
    assert_eq!(
        doc(&daemon, "port set vm9 --access 7 --unset mac-limit,--secure"),
        json!({ "changed": true })
    );
    assert_eq!(doc(&daemon, "port show vm9")["access"], 7);
    assert_eq!(doc(&daemon, "port del vm9"), json!({ "changed": true }));
    assert_eq!(
        doc(&daemon, "fdb add 02:00:00:00:00:07 --bridge br0 --port vm1 --sticky"),
        json!({ "changed": true })
    );
    assert_eq!(doc(&daemon, "fdb del 02:00:00:00:00:07 --bridge br0 --vlan 10"), json!({ "changed": true }));
    assert_eq!(doc(&daemon, "fdb flush --port vm1"), json!({ "changed": true, "flushed": 3 }));
    assert_eq!(ok(&daemon, "fdb flush"), "0 entries forgotten\n");
}

#[test]
fn a_tunnel_its_remotes_its_uplink_and_neighbours_are_made_listed_and_deleted() {
    let daemon = Daemon::start();
    let overlay = "port add overlay --bridge br0 --type vxlan --vlan-vni 20=1020 --vlan-vni 10=1010 --local 198.51.100.1 \
                   --remote 198.51.100.2 --ttl inherit --gbp --src-port 50000-50015";
    assert_eq!(doc(&daemon, overlay), json!({ "changed": true }));
    let port = doc(&daemon, "port show overlay");
    assert_eq!(port["vlan_vni"], json!({ "10": 1010, "20": 1020 }));
    assert_eq!((&port["local"], &port["remotes"]), (&json!("198.51.100.1"), &json!(["198.51.100.2"])));
    assert_eq!(
        (&port["dst_port"], &port["ttl"], &port["tos"]),
        (&json!(4789), &json!("inherit"), &json!("0"))
    );
    assert_eq!((&port["gbp"], &port["src_port"]), (&json!(true), &json!("50000-50015")));
    assert!(port.get("ifname").is_none() && port.get("persist").is_none() && port.get("vni").is_none());
    assert!(doc(&daemon, "port show vm1").get("remotes").is_none());
    assert!(ok(&daemon, "port list").contains("vlan-vni 10=1010,20=1020"));

    assert_eq!(doc(&daemon, "remote add overlay 198.51.100.3"), json!({ "changed": true }));
    assert_eq!(ok(&daemon, "remote add overlay 198.51.100.3"), "nothing to change\n");
    assert_eq!(doc(&daemon, "remote del overlay 198.51.100.2"), json!({ "changed": true }));
    assert_eq!(
        doc(&daemon, "remote list overlay"),
        json!([{ "port": "overlay", "remote": "198.51.100.3", "path_mtu": 1500 }])
    );
    let (err, _) = refused(&daemon, "remote del overlay 198.51.100.2");
    assert!(err.contains("remote \"198.51.100.2 of port overlay\" does not exist"), "{err}");

    assert_eq!(
        doc(&daemon, "neigh add 198.51.100.8 02:00:00:00:00:08 --bridge br0 --vlan 10"),
        json!({ "changed": true })
    );
    assert_eq!(
        doc(&daemon, "neigh add 2001:db8::7 02:00:00:00:00:07 --bridge br0"),
        json!({ "changed": true })
    );
    let all = doc(&daemon, "neigh list --bridge br0");
    assert_eq!(
        all[0],
        json!({ "bridge": "br0", "vlan": 0, "ip": "2001:db8::7", "mac": "02:00:00:00:00:07", "kind": "static", "age_s": 5 })
    );
    assert_eq!(doc(&daemon, "neigh del 198.51.100.8 --bridge br0 --vlan 10"), json!({ "changed": true }));
    let (err, _) = refused(&daemon, "neigh del 198.51.100.8 --bridge br0 --vlan 10");
    assert!(err.contains("neigh \"br0 vlan 10 198.51.100.8\" does not exist"), "{err}");

    assert_eq!(doc(&daemon, "uplink add up0 --address 198.51.100.1/30"), json!({ "changed": true }));
    let (err, _) = refused(&daemon, "uplink add up0 --address 198.51.100.1/30 --mtu 9000");
    assert!(err.contains("mtu: 1500 -> 9000; tapwayctl uplink del makes room for it"), "{err}");
    let uplinks = doc(&daemon, "uplink list");
    assert_eq!((&uplinks[0]["gateway"], &uplinks[0]["ifname"]), (&json!("198.51.100.2"), &json!("up0")));
    assert!(ok(&daemon, "uplink list").starts_with("UPLINK  ADDRESS"));
    assert_eq!(doc(&daemon, "uplink del up0"), json!({ "changed": true }));
    assert_eq!(doc(&daemon, "uplink list"), json!([]));

    assert_eq!(doc(&daemon, "bridge set br0 --neigh-snoop on"), json!({ "changed": true }));
    assert_eq!(doc(&daemon, "bridge list")[0]["neigh_snoop"], true);
    assert_eq!(
        doc(&daemon, "fdb add 02:00:00:00:00:08 --bridge br0 --port overlay --remote 198.51.100.3"),
        json!({ "changed": true })
    );
}

#[test]
fn a_list_is_an_array_of_objects() {
    let daemon = Daemon::start();
    let bridges = doc(&daemon, "bridge list");
    assert_eq!((&bridges[0]["name"], &bridges[0]["ports"]), (&json!("br0"), &json!(2)));
    let ports = doc(&daemon, "port list");
    let names: Vec<_> = ports.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["vm1", "vm2"]);
    assert_eq!(ports[0]["access"], 10);
    assert!(ports[0].get("trunk").is_none(), "what is unset is left out");
    let drops = doc(&daemon, "drops vm1");
    assert_eq!((&drops[0]["reason"], &drops[0]["frames"]), (&json!("vlan_not_member"), &json!(3)));
    let stats = doc(&daemon, "stats vm1");
    assert_eq!(stats.as_array().unwrap().len(), 1);
    assert!(stats[0]["rx"]["frames"].is_u64() && stats[0].get("per_s").is_none());
    let port = doc(&daemon, "port show vm1");
    for key in "name bridge type ifname mtu admin oper queues offload learning rx tx drops".split(' ') {
        assert!(port.get(key).is_some(), "{key}");
    }
    assert_eq!(doc(&daemon, "status")["protocol"], 1);
    let ports = json!([{ "name": "vm1", "bridge": "br0", "access": 10 }, { "name": "vm2", "bridge": "br0", "admin": "down" }]);
    assert_eq!(doc(&daemon, "export"), json!({ "bridge": [{ "name": "br0" }], "port": ports }));
}

#[test]
fn an_fdb_of_many_pages_is_listed_whole_and_in_order() {
    let mut control = StandIn::example();
    control.fill_fdb(5000);
    let daemon = Daemon::with(Limits::default(), control);
    let all = doc(&daemon, "fdb list");
    let macs: Vec<_> = all.as_array().unwrap().iter().map(|e| e["mac"].as_str().unwrap()).collect();
    assert_eq!(macs.len(), 5000);
    assert!(macs.is_sorted() && macs[0] == "02:00:00:00:00:01");
    assert_eq!(all[0]["kind"], "dynamic");
    let text = ok(&daemon, "fdb list");
    assert!(text.starts_with("BRIDGE  VLAN  MAC"), "{text}");
    assert_eq!(text.lines().count(), 5001);
}

#[test]
fn tables_are_plain_where_nobody_sees_colour() {
    let daemon = Daemon::start();
    let text = ok(&daemon, "port list");
    assert!(text.starts_with("PORT  BRIDGE  TYPE  IFNAME") && text.contains("access 10"), "{text}");
    assert!(ok(&daemon, "port show vm2").contains("oper         down: administratively down\n"));
    assert!(ok(&daemon, "status").contains("uptime       01:01:40\n"));
    assert!(
        ok(&daemon, "drops")
            .contains("\nvlan_not_member: The frame's VLAN is not among those of the port.\n")
    );
    assert!(ok(&daemon, "export").starts_with("[[bridge]]\nname = \"br0\"\n\n[[port]]\nname = \"vm1\"\n"));
    for line in ["port list", "status", "trace --port vm1 --frame 00", "drops"] {
        assert!(!ok(&daemon, line).contains('\x1b'), "{line}");
    }
}

#[test]
fn a_refusal_names_the_object_the_reason_and_what_to_do() {
    let daemon = Daemon::start();
    let (err, doc) = refused(&daemon, "port show vm9");
    assert_eq!(err, "error: port \"vm9\" does not exist; tapwayctl port list shows those that do\n");
    assert_eq!(
        (&doc["error"], &doc["kind"], &doc["name"]),
        (&json!("io.tapway.NotFound"), &json!("port"), &json!("vm9"))
    );
    let (err, _) = refused(&daemon, "bridge del br0");
    assert!(err.contains("bridge \"br0\" is in use: port \"vm1\" belongs to it; delete that first"), "{err}");
    let (err, _) = refused(&daemon, "bridge add br0 --ageing 1h");
    assert!(
        err.contains("exists with other settings: ageing is 300s") && err.contains("bridge set"),
        "{err}"
    );
    let (err, _) = refused(&daemon, "port del vm9");
    assert!(err.contains("\"vm9\" does not exist"), "{err}");
    let (code, out, _) = run(&daemon.socket(), "port del vm9");
    assert_eq!((code, out.as_str()), (1, ""), "without --json stdout stays empty");
}

#[test]
fn a_topology_with_five_mistakes_reports_five() {
    let daemon = Daemon::start();
    let file = daemon.dir().join("bad.toml");
    std::fs::write(&file, "mistake\n".repeat(5)).unwrap();
    for command in ["apply -f", "diff -f"] {
        let (err, doc) = refused(&daemon, &format!("{command} {}", file.display()));
        assert!(
            err.starts_with("error: the topology has 5 mistakes; nothing was changed\n  line 1: "),
            "{err}"
        );
        assert!(err.contains("\n  line 5: "), "{err}");
        assert_eq!(doc["mistakes"].as_array().unwrap().len(), 5);
    }
}

#[test]
fn a_plan_is_printed_step_by_step() {
    let daemon = Daemon::start();
    let file = daemon.dir().join("topology.toml");
    std::fs::write(&file, "[[bridge]]\n").unwrap();
    let plan = doc(&daemon, &format!("apply -f {} --prune", file.display()));
    assert_eq!((&plan["applied"], &plan["steps"][0]["op"]), (&json!(true), &json!("+")));
    let text = ok(&daemon, &format!("apply --dry-run --file {}", file.display()));
    assert_eq!(
        text,
        "+ port vm3\n~ port vm1\n    access: 10 -> 20\n- port vm2\n3 steps, none of them done\n"
    );
    let mut apply = tool(&daemon.socket())
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    apply.stdin.take().unwrap().write_all(b"[[bridge]]\n").unwrap();
    let out = apply.wait_with_output().unwrap();
    assert!(out.status.success() && out.stdout.ends_with(b"3 steps done\n"));
    std::fs::write(&file, "").unwrap();
    assert_eq!(ok(&daemon, &format!("diff -f {}", file.display())), "nothing to do: this runs already\n");
}

#[test]
fn a_device_is_told_as_iproute2_tells_it_and_shown_as_desired_and_as_observed() {
    let daemon = Daemon::start();
    let add = "device add v0 --type veth --mtu 1400 --down --peer eth0 --peer-netns c1 --peer-address 198.51.100.2/24";
    assert_eq!(doc(&daemon, add), json!({ "changed": true }));
    assert_eq!(doc(&daemon, add), json!({ "changed": false }));
    let (err, _) = refused(&daemon, &add.replace("c1", "c2"));
    assert!(err.contains("peer_netns: c1 -> c2; tapwayctl device del makes room"), "{err}");
    let shown = doc(&daemon, "device show v0");
    assert_eq!((&shown["state"], &shown["drift"][0]), (&json!("drifted"), &json!("mtu: 1400 -> 1500")));
    assert_eq!(
        shown["desired"],
        json!({ "name": "v0", "type": "veth", "mtu": 1400, "up": false,
            "peer": { "name": "eth0", "netns": "c1", "address": ["198.51.100.2/24"] } })
    );
    assert_eq!(doc(&daemon, "device set v0 --unset mtu --up"), json!({ "changed": true }));
    let list = doc(&daemon, "device list");
    assert_eq!((&list[0]["state"], &list[0]["desired"]["up"]), (&json!("ok"), &json!(true)));
    assert!(ok(&daemon, "device list").starts_with("DEVICE  TYPE"));
    assert_eq!(doc(&daemon, "device del v0"), json!({ "changed": true }));
    assert_eq!(doc(&daemon, "device list"), json!([]));
}

#[test]
fn a_trace_takes_a_frame_as_other_tools_print_it() {
    let daemon = Daemon::start();
    let out = tool(&daemon.socket())
        .args([
            "trace",
            "--port",
            "vm1",
            "--vlan",
            "10",
            "--frame",
            "ff:ff:ff:ff:ff:ff 020000000001 0806",
            "--json",
        ])
        .output()
        .unwrap();
    let trace: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(trace["verdict"], "forward");
    assert_eq!(trace["steps"][0]["detail"], "14 octets, VLAN 10");
    assert_eq!(trace["outputs"][0]["port"], "vm2");
}

#[test]
fn ports_for_vms_are_made_and_shown_in_the_words_of_their_flags() {
    let daemon = Daemon::start();
    for line in [
        "port add a --bridge br0 --type netdev --ifname tap7 --qdisc-bypass on --driver packet",
        "port add b --bridge br0 --type stream --path /run/b --connect",
        "port add c --bridge br0 --type dgram --path /run/c --peer-path /run/d",
        "port add d --bridge br0 --type vhost-user --path /run/e --client --queues 4",
    ] {
        assert_eq!(doc(&daemon, line), json!({ "changed": true }), "{line}");
    }
    let shown = |name: &str, keys: &[&str]| -> Vec<Value> {
        let port = doc(&daemon, &format!("port show {name}"));
        keys.iter().map(|key| port.get(key).cloned().unwrap_or_default()).collect()
    };
    assert_eq!(
        shown("a", &["type", "driver", "qdisc_bypass", "path"]),
        [json!("netdev"), json!("packet"), json!(true), json!(null)]
    );
    assert_eq!(
        shown("b", &["type", "path", "listen", "connect", "ifname", "persist"]),
        [json!("stream"), json!("/run/b"), json!(false), json!(true), json!(null), json!(null)]
    );
    assert_eq!(
        shown("c", &["type", "path", "peer_path", "connect"]),
        [json!("dgram"), json!("/run/c"), json!("/run/d"), json!(true)]
    );
    assert_eq!(
        shown("d", &["type", "path", "server", "client"]),
        [json!("vhost-user"), json!("/run/e"), json!(false), json!(true)]
    );
}

#[test]
fn a_port_says_what_a_vm_monitor_is_to_be_told() {
    let daemon = Daemon::start();
    ok(
        &daemon,
        "port add v --bridge br0 --type netdev --ifname tap7 --secure mac=02:00:00:00:00:07 --queues 2",
    );
    ok(&daemon, "port add s --bridge br0 --type stream --path /run/s.sock");
    let (code, out, err) = run(&daemon.socket(), "port show v --for qemu");
    let words = "-netdev tap,id=v,ifname=tap7,script=no,downscript=no,vnet_hdr=on,queues=2\n\
                 -device virtio-net-pci,netdev=v,mac=02:00:00:00:00:07,mq=on,vectors=6\n";
    assert_eq!((code, out.as_str(), err.as_str()), (0, words, ""));
    let document = doc(&daemon, "port show v --for firecracker");
    assert_eq!(document["config"]["network-interfaces"][0]["host_dev_name"], "tap7");
    assert!(document["notes"][0].as_str().unwrap().contains("tapwayctl device add tap7 --type tap"));
    let (code, out, err) = run(&daemon.socket(), "port show s --for qemu");
    assert!(
        code == 0 && out.starts_with("-netdev stream,id=s,server=off") && err.contains("note: QEMU gives"),
        "{err}"
    );
    let memory = ok(&daemon, "port show v --for cloud-hypervisor --memory 2G --json");
    assert!(memory.contains("tap=tap7,mac=02:00:00:00:00:07,num_queues=4"), "{memory}");

    let (err, document) = refused(&daemon, "port show s --for libvirt");
    assert_eq!(document["error"], "NoWay");
    assert!(err.contains("libvirt cannot use port s, which is of type stream"), "{err}");
    let (err, _) = refused(&daemon, "port show nothing --for qemu");
    assert!(err.contains("port \"nothing\" does not exist"), "{err}");
}

#[test]
fn what_makes_no_sense_is_a_usage_error_before_anybody_is_asked() {
    let nowhere = Path::new("/nonexistent/tapway.sock");
    for (line, why) in [
        ("", "Usage:"),
        ("frobnicate", "unrecognized subcommand"),
        ("port", "Usage:"),
        ("bridge add", "required"),
        ("bridge add a-name-of-16-byt", "more than 15 bytes"),
        ("port add vm1", "--bridge"),
        ("port add vm1 --bridge br0 --access 0", "from 1 to 4094"),
        ("port add vm1 --bridge br0 --access 4095", "from 1 to 4094"),
        ("port add vm1 --bridge br0 --trunk 10,4095", "no VLAN list"),
        ("port add vm1 --bridge br0 --address 198.51.100.1", "198.51.100.1/24"),
        ("port add vm1 --bridge br0 --access 10 --trunk 20", "cannot be used with"),
        ("port add vm1 --bridge br0 --hairpin maybe", "neither on nor off"),
        ("port set vm1", "nothing to set"),
        ("port show vm1 --for xen", "possible values: qemu, libvirt, cloud-hypervisor, firecracker"),
        ("port show vm1 --for qemu --memory 2", "is no size: write 512M or 2G"),
        ("port set vm1 --unset colour", "no setting of a port"),
        ("bridge set br0", "nothing to set"),
        ("device add x", "--type"),
        ("device add x --type gadget", "gadget"),
        ("device add x --type dummy --up --down", "cannot be used with"),
        ("device add x --type dummy --sysctl forwarding=1", "ipv4.forwarding=1"),
        ("device add x --type dummy --route via", "is no route"),
        ("device set x", "nothing to set"),
        ("device set x --unset colour", "no setting of a device"),
        ("fdb add 02:00 --bridge br0 --port vm1", "not a MAC address"),
        ("trace --port vm1 --frame 0g", "not a hexadecimal digit"),
        ("trace --port vm1 --frame 000", "odd number of digits"),
        ("apply", "--file"),
        ("apply -f /nonexistent/file", "cannot read /nonexistent/file"),
        ("status --wait soon", "no duration"),
        ("--timeout 0 status", "give 1s or more"),
        ("completion tcsh", "bash"),
        ("port add x --bridge br0 --type gre", "tap, netdev, stream, dgram, vhost-user, vxlan, geneve"),
        ("port add x --bridge br0 --type stream --path /run/x --listen --connect", "cannot be used with"),
        ("port add x --bridge br0 --type netdev --driver dpdk", "possible values: packet"),
        ("port add x --bridge br0 --type vxlan --vni 16777216", "a number from 0 to 16777215"),
        ("port add x --bridge br0 --vlan-vni 10", "not of the form VLAN=VNI"),
        (
            "port add x --bridge br0 --vlan-vni 10=7 --vlan-vni 10=8",
            "\"10\" is a VLAN that is given two VNIs",
        ),
        ("port add x --bridge br0 --vlan-vni 10=7 --vlan-vni 20=7", "\"7\" is a VNI that is given two VLANs"),
        ("port add x --bridge br0 --local 198.51.100.1/24", "is no IP address"),
        ("port add x --bridge br0 --ttl 256", "neither a number up to 255 nor inherit"),
        ("port add x --bridge br0 --df on", "none of set, unset and inherit"),
        ("port add x --bridge br0 --reserved refuse", "neither ignore nor drop"),
        ("port add x --bridge br0 --src-port 9-8", "no range of ports"),
        ("port add x --bridge br0 --dst-port 65536", "65536"),
        ("port add x --bridge br0 --option 0102:80:00", "no Geneve option"),
        ("port set x --unset vlan-vni,vlanvni", "no setting of a port"),
        ("remote add overlay", "required"),
        ("remote add overlay host.example", "invalid IP address"),
        ("remote list", "required"),
        ("neigh add 198.51.100.7 --bridge br0", "required"),
        ("neigh add 198.51.100.7 02:00:00:00:00:07", "--bridge"),
        ("uplink add up0", "--address"),
        ("uplink add up0 --address 198.51.100.1", "198.51.100.1/24"),
        ("uplink add up0 --address 198.51.100.1/24 --gateway x", "is no IP address"),
        ("fdb add 02:00:00:00:00:07 --bridge br0 --port x --remote y", "is no IP address"),
        ("gadget list", "unrecognized subcommand"),
    ] {
        let (code, out, err) = run(nowhere, line);
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        assert!(err.contains(why), "{line}: {err}");
    }
}

#[test]
fn a_usage_error_is_a_document_too_where_documents_are_asked_for() {
    let nowhere = Path::new("/nonexistent/tapway.sock");
    for (line, why) in [
        ("--json port add vm1", "--bridge <BR>"),
        ("port add vm1 --bridge br0 --access 0 --json", "from 1 to 4094"),
        ("bridge set br0 --json", "nothing to set"),
    ] {
        let (code, out, err) = run(nowhere, line);
        assert_eq!(code, 2, "{line}: {err}");
        let doc: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(doc["error"], "Usage", "{line}");
        let message = doc["message"].as_str().unwrap();
        assert!(
            message.contains(why) && !message.starts_with("error") && !message.contains("Usage:"),
            "{doc}"
        );
    }
    let (code, out, _) = run(nowhere, "--help --json");
    assert!(code == 0 && out.starts_with("Controls the Tapway switch\n"), "{out}");
}

#[test]
fn without_a_daemon_the_socket_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tapway.sock");
    let (code, out, err) = run(&path, "bridge list");
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains(path.to_str().unwrap()) && err.contains("start tapwayd"), "{err}");
    drop(UnixListener::bind(&path).unwrap());
    let (code, out, err) = run(&path, "bridge list --json");
    assert_eq!(code, 3);
    assert!(err.contains("nobody listens"), "{err}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["error"], "NoDaemon");
    // The flag goes before the environment.
    let other = dir.path().join("other.sock");
    let (_, _, err) = run(&path, &format!("bridge list --socket {}", other.display()));
    assert!(err.contains("other.sock"), "{err}");
}

#[test]
fn a_daemon_that_does_not_answer_is_given_up_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tapway.sock");
    let _mute = UnixListener::bind(&path).unwrap();
    let start = Instant::now();
    let (code, _, err) = run(&path, "--timeout 1s bridge list");
    assert_eq!(code, 3);
    assert!(err.contains("no answer within 1s"), "{err}");
    assert!((1..5).contains(&start.elapsed().as_secs()));
}

/// Answers one message with `reply` and reads on.
fn impostor(path: &Path, reply: &'static str) -> std::thread::JoinHandle<Vec<u8>> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut message = Vec::new();
        stream.read_until(0, &mut message).unwrap();
        stream.get_mut().write_all(reply.as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut message); // The tool hangs up.
        message
    })
}

#[test]
fn a_daemon_of_another_protocol_is_told_apart_and_asked_nothing() {
    for (reply, why) in [
        (
            "{\"parameters\":{\"protocol\":99,\"version\":\"9.9.9\"}}\0",
            "the tapwayctl that came with tapwayd 9.9.9",
        ),
        ("{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{}}\0", "is it tapwayd's socket?"),
        (
            "{\"error\":\"org.varlink.service.InterfaceNotFound\",\"parameters\":{}}\0",
            "is it tapwayd's socket?",
        ),
        ("220 mail.example.net ESMTP\r\n\0", "cannot talk to who answers on"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tapway.sock");
        let asked = impostor(&path, reply);
        let (code, _, err) = run(&path, "bridge del br0");
        assert_eq!(code, 4, "{err}");
        assert!(err.contains(why), "{err}");
        let asked = asked.join().unwrap();
        assert!(!asked.windows(9).any(|w| w == b"BridgeDel"), "nothing else was asked");
    }
}

#[test]
fn status_waits_for_a_daemon_that_starts_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("late.sock");
    let mut waiting = tool(&path).args(["status", "--wait", "8s"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none(), "it waits");
    let daemon = Daemon::start();
    std::os::unix::fs::symlink(daemon.socket(), &path).unwrap();
    assert!(waiting.wait().unwrap().success());
    let start = Instant::now();
    let (code, _, _) = run(&dir.path().join("never.sock"), "status --wait 1s");
    assert_eq!(code, 3);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn watch_prints_again_with_rates_until_it_is_stopped() {
    let daemon = Daemon::start();
    let mut watch =
        tool(&daemon.socket()).args(["stats", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let (first, second) = (next(), next());
    assert!(first[0].get("per_s").is_none());
    assert!((800..=1200).contains(&second[0]["per_s"]["rx"]["frames"].as_u64().unwrap()), "{second}");
    watch.kill().unwrap();
    watch.wait().unwrap();

    let mut watch = tool(&daemon.socket()).args(["drops", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let heads = lines.map(Result::unwrap).filter(|l| l.starts_with("PORT")).take(2).count();
    assert_eq!(heads, 2, "tables are appended where there is no terminal");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn monitor_prints_what_happens_of_the_kinds_that_were_named() {
    let daemon = Daemon::start();
    let two = |words: &[&str]| {
        let mut monitor = tool(&daemon.socket()).args(words).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
        let lines: Vec<String> = lines.map(Result::unwrap).take(2).collect();
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        lines
    };
    assert_eq!(
        two(&["monitor"]),
        ["port vm1: it is down: the interface is down", "device v0: it is repaired"]
    );
    assert_eq!(two(&["monitor", "device"]), ["device v0: it is repaired"; 2]);
    for line in two(&["monitor", "device", "--json"]) {
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&event["kind"], &event["name"]), (&json!("device"), &json!("v0")));
    }
    let unknown = tool(&daemon.socket()).args(["monitor", "weather"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut control = StandIn::example();
    control.fill_fdb(20_000);
    let daemon = Daemon::with(Limits::default(), control);
    let mut list = tool(&daemon.socket())
        .args(["fdb", "list"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = list.stdout.take().unwrap();
    out.read_exact(&mut [0; 6]).unwrap();
    drop(out);
    let out = list.wait_with_output().unwrap();
    assert_eq!((out.status.code(), out.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_user_who_may_not_is_told_so() {
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) != 0 {
        eprintln!("skipped: another user can only be had by root");
        return;
    }
    let daemon = Daemon::start();
    std::fs::set_permissions(daemon.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    // The build directory may be closed to others.
    let binary = daemon.dir().join("tapwayctl");
    std::fs::copy(assert_cmd::cargo::cargo_bin!("tapwayctl"), &binary).unwrap();
    let stranger = || {
        let mut command = Command::new(&binary);
        command.args(["status", "--socket"]).arg(daemon.socket()).uid(65534).gid(65534);
        // A process that another test has just begun may still hold the copy open for writing, until it executes.
        let out = loop {
            match command.output() {
                Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                out => break out.unwrap(),
            }
        };
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, err) = stranger();
    assert_eq!(code, 3);
    assert!(err.contains("this user may not; use root"), "{err}");
    std::fs::set_permissions(daemon.socket(), PermissionsExt::from_mode(0o666)).unwrap();
    let (code, err) = stranger();
    assert_eq!(code, 1);
    assert!(err.contains("this user may not control the switch: use root"), "{err}");
}

#[test]
fn completions_and_manual_pages_need_no_daemon() {
    let nowhere = Path::new("/nonexistent/tapway.sock");
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(nowhere, &format!("completion {shell}"));
        assert_eq!(code, 0);
        assert!(out.contains("tapwayctl") && out.contains("bcast-flood"), "{shell}");
        assert!(out.contains("vlan-vni") && out.contains("uplink"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("man1");
    let (code, out, _) = run(nowhere, &format!("man {} --json", man.display()));
    assert_eq!(code, 0);
    let pages = serde_json::from_str::<Value>(&out).unwrap()["pages"].as_array().unwrap().len();
    assert_eq!(std::fs::read_dir(&man).unwrap().count(), pages);
    let page = std::fs::read_to_string(man.join("tapwayctl-port-add.1")).unwrap();
    assert!(page.contains("bcast\\-flood") && page.contains("Example"), "{page}");
    assert!(page.contains("vlan\\-vni") && page.contains("udp6\\-zero\\-csum\\-rx"), "{page}");
    for noun in ["remote", "neigh", "uplink"] {
        assert!(man.join(format!("tapwayctl-{noun}-add.1")).exists(), "{noun}");
    }
}
