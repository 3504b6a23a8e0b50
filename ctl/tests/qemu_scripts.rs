//! `ctl/share/qemu-ifup` and `qemu-ifdown` as QEMU runs them: the real tool against the real server, with a stand-in for the engine,
//! and one for `ip`, because there is no interface.

#[path = "../../dataplane/tests/standin/mod.rs"]
mod standin;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use serde_json::Value;
use standin::Daemon;

struct Host {
    daemon: Daemon,
    /// Where `tapwayctl` and `ip` are found, and what `ip` was told.
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        symlink(assert_cmd::cargo::cargo_bin!("tapwayctl"), dir.path().join("tapwayctl")).unwrap();
        let ip = dir.path().join("ip");
        fs::write(&ip, format!("#!/bin/sh\necho \"$@\" >> {}/ip.log\n", dir.path().display())).unwrap();
        fs::set_permissions(&ip, fs::Permissions::from_mode(0o755)).unwrap();
        Self { daemon: Daemon::start(), dir }
    }

    /// Runs a script with these settings; its exit code and what it said.
    fn run(&self, script: &str, arguments: &[&str], settings: &[(&str, &str)]) -> (i32, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("share").join(script);
        let output = Command::new(script)
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.dir.path().display()))
            .env("TAPWAY_SOCKET", self.daemon.socket())
            .env("TAPWAY_QEMU_CONF", "/nonexistent")
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"", "QEMU's standard output may be a guest's console");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn port(&self, name: &str) -> Option<Value> {
        let output = Command::new(assert_cmd::cargo::cargo_bin!("tapwayctl"))
            .env("TAPWAY_SOCKET", self.daemon.socket())
            .args(["--json", "port", "show", name])
            .output()
            .unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }
}

#[test]
fn the_tap_of_a_guest_is_a_port_from_its_start_to_its_end() {
    let host = Host::new();
    let settings = [("TAPWAY_PORT_OPTIONS", "--access 10 --secure mac=02:00:00:00:00:07")];
    assert_eq!(host.run("qemu-ifup", &["vm7"], &settings), (0, String::new()));
    let port = host.port("vm7").unwrap();
    assert_eq!(
        (&port["type"], &port["bridge"], &port["access"]),
        (&"netdev".into(), &"br0".into(), &10.into())
    );
    assert_eq!(port["secure"], "mac=02:00:00:00:00:07");
    assert_eq!(fs::read_to_string(host.dir.path().join("ip.log")).unwrap(), "link set dev vm7 up\n");

    assert_eq!(host.run("qemu-ifdown", &["vm7"], &[]), (0, String::new()));
    assert_eq!(host.port("vm7"), None);
    assert_eq!(host.run("qemu-ifdown", &["vm7"], &[]), (0, String::new()), "gone is gone");
}

#[test]
fn a_second_start_changes_nothing_and_what_the_daemon_refuses_ends_the_script() {
    let host = Host::new();
    assert_eq!(host.run("qemu-ifup", &["vm7"], &[]).0, 0);
    assert_eq!(host.run("qemu-ifup", &["vm7"], &[]), (0, "nothing to change\n".to_owned()));
    let (code, said) = host.run("qemu-ifup", &["vm7"], &[("TAPWAY_PORT_OPTIONS", "--colour *")]);
    assert!(code == 2 && said.contains("--colour"), "{said}");
    let (code, said) = host.run("qemu-ifup", &["vm8"], &[("TAPWAY_BRIDGE", "br9")]);
    assert!(code == 1 && said.contains("br9"), "{said}");
}

#[test]
fn a_file_says_what_the_environment_does_not() {
    let host = Host::new();
    let conf = host.dir.path().join("qemu.conf");
    fs::write(&conf, "TAPWAY_BRIDGE=br9\nTAPWAY_PORT_OPTIONS='--access 20'\n").unwrap();
    let conf = ("TAPWAY_QEMU_CONF", conf.to_str().unwrap());
    let (code, said) = host.run("qemu-ifup", &["vm7"], &[conf]);
    assert!(code == 1 && said.contains("br9"), "{said}");
    assert_eq!(host.run("qemu-ifup", &["vm7"], &[conf, ("TAPWAY_BRIDGE", "br0")]), (0, String::new()));
    assert_eq!(host.port("vm7").unwrap()["access"], 20);
    assert_eq!(host.run("qemu-ifdown", &["vm7"], &[conf]), (0, String::new()));
    assert_eq!(host.port("vm7"), None);
}

#[test]
fn what_another_has_made_stays_and_what_fails_is_said() {
    let host = Host::new();
    let (code, said) = host.run("qemu-ifdown", &["vm1"], &[]);
    assert!(code == 0 && said.contains("port vm1 is no netdev port and stays"), "{said}");
    assert!(host.port("vm1").is_some());
    for script in ["qemu-ifup", "qemu-ifdown"] {
        let (code, said) = host.run(script, &[], &[]);
        assert!(code != 0 && said.contains("the name of an interface is missing"), "{script}: {said}");
        let (code, said) = host.run(script, &["vm7"], &[("TAPWAY_SOCKET", "/nonexistent/tapway.sock")]);
        assert!(
            code == 3 && said.contains("no tapwayd answers on /nonexistent/tapway.sock"),
            "{script}: {code} {said}"
        );
    }
}
