//! A program that is killed in the middle of making a device leaves nothing that is in the way of the next one; and one whose namespace
//! goes in the middle says so.

use std::{
    env,
    os::fd::AsFd,
    process::{Command, Stdio},
};

use tapway_dataplane::{
    netlink::device::{
        Device, DeviceError, FdbEntry, Kind, Peer, Route, Tun, Vxlan, add_netns, create, delete_netns,
        differences,
    },
    sys::netns::within,
};

use crate::topo::{Name, in_netns, ip, look, mac, names, skipped, up, wait_until};

/// The device, for the process that is killed; and the namespace of a peer.
const CASE: &str = "TAPWAY_TEST_KILLED";
const NETNS: &str = "TAPWAY_TEST_NETNS";

fn device(case: usize, netns: &str) -> Device {
    let kind = match case {
        0 => Kind::Veth(Peer {
            name: "b0".into(),
            netns: Some(netns.parse().unwrap()),
            mac: Some(mac(2)),
            addresses: vec!["198.51.100.2/24".parse().unwrap()],
        }),
        1 => Kind::Vxlan(Vxlan {
            id: 1,
            fdb: vec![FdbEntry { mac: mac(3), dst: [203, 0, 113, 1].into(), vni: None, port: None }],
            ..Vxlan::default()
        }),
        _ => Kind::Tap(Tun { multi_queue: Some(true), ..Tun::default() }),
    };
    Device {
        mac: Some(mac(1)),
        mtu: Some(1400),
        addresses: vec!["198.51.100.1/24".parse().unwrap()],
        routes: vec![Route { to: "203.0.113.0/24".parse().unwrap(), via: None, src: None, metric: None }],
        master: (case == 0).then(|| "br9".into()),
        ..up("a0", kind)
    }
}

#[test]
#[ignore = "the process that another test kills"]
fn one_device_is_made() {
    let (Ok(case), Ok(netns)) = (env::var(CASE), env::var(NETNS)) else { return };
    create(&device(case.parse().unwrap(), &netns)).unwrap();
}

#[test]
#[ignore = "the process whose namespace another test takes away"]
fn one_device_is_made_in_vain() {
    let (Ok(case), Ok(netns)) = (env::var(CASE), env::var(NETNS)) else { return };
    let device =
        Device { netns: Some(netns.parse().unwrap()), master: None, ..device(case.parse().unwrap(), &netns) };
    let error = create(&device).unwrap_err();
    assert!(matches!(&error, DeviceError::Netns { netns: gone, .. } if gone.to_string() == netns), "{error}");
}

#[test]
fn a_namespace_that_loses_its_name_meanwhile_is_an_error_and_keeps_nothing() {
    if Command::new("strace").arg("-V").output().is_err() {
        skipped("no strace");
        return;
    }
    for case in 0..3 {
        in_netns(move || {
            let netns = Name::new();
            add_netns(&netns.0).unwrap();
            let fd = netns.netns().open().unwrap();
            // Its sixth request waits: in every case the namespace is open by then, and the device not finished.
            let mut maker = Command::new("strace")
                .args([
                    "-f",
                    "-o",
                    "/dev/null",
                    "-e",
                    "trace=sendto",
                    "-e",
                    "inject=sendto:delay_enter=1s:when=6",
                ])
                .arg(env::current_exe().unwrap())
                .args(["--ignored", "--exact", "killed::one_device_is_made_in_vain"])
                .env(CASE, case.to_string())
                .env(NETNS, &netns.0)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let there = || within(fd.as_fd(), || names().contains(&"a0".to_owned())).unwrap();
            wait_until("made", there);
            delete_netns(&netns.0).unwrap();
            assert!(maker.wait().unwrap().success(), "case {case}");
            assert_eq!(within(fd.as_fd(), names).unwrap(), ["lo"], "case {case}");
            assert_eq!(names(), ["lo"], "case {case}");
        });
    }
}

#[test]
fn a_maker_that_is_killed_before_any_of_its_requests_is_in_nobodys_way() {
    if Command::new("strace").arg("-V").output().is_err() {
        skipped("no strace");
        return;
    }
    for case in 0..3 {
        for request in 1..100 {
            let (tell, told) = std::sync::mpsc::channel();
            in_netns(move || tell.send(killed(case, request)).unwrap());
            let Ok(done) = told.recv() else { return }; // skipped
            if done {
                assert!(request > 8, "case {case} was made with {request} requests");
                break;
            }
        }
    }
}

/// Kills a maker before one of its requests, and makes the device after it. `true` where it came to its end.
fn killed(case: usize, request: usize) -> bool {
    ip("link add br9 type bridge");
    let netns = Name::new();
    add_netns(&netns.0).unwrap();
    let inject = format!("inject=sendto:signal=KILL:when={request}");
    let status = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", "trace=sendto", "-e", &inject])
        .arg(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "killed::one_device_is_made"])
        .env(CASE, case.to_string())
        .env(NETNS, &netns.0)
        .output()
        .unwrap()
        .status;
    let device = device(case, &netns.0);
    match create(&device) {
        Ok(_) => assert!(!status.success(), "it was made twice"),
        Err(DeviceError::Exists { .. }) => {
            assert!(status.success(), "request {request}: half made, and marked as whole")
        }
        Err(error) => panic!("case {case}, request {request}: {error}"),
    }
    assert_eq!(differences(&look(&device), &device), [], "case {case}, request {request}");
    assert_eq!(names(), ["a0", "br9", "lo"]);
    status.success()
}
