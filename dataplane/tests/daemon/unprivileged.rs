//! A daemon without any privilege, which is enough for ports that are sockets.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixDatagram, UnixStream},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::json;

use super::{
    switch::{PATIENCE, Place},
    topo::{Net, skipped, wait_until},
};

/// The user who owns nothing.
const NOBODY: u32 = 65_534;

#[test]
fn stream_and_dgram_ports_need_no_privilege() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let daemon = match place.start_as(NOBODY, &net, &["--workers", "2"]) {
        Ok(daemon) => daemon,
        Err(e) => return skipped(&format!("nobody cannot run programs here: {e}")),
    };
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let says = |line: &str| status.lines().any(|l| l.split_whitespace().eq(line.split(' ')));
    assert!(says("Uid: 65534 65534 65534 65534") && says("CapEff: 0000000000000000"), "{status}");

    let [a, b, own, vm] = ["a.sock", "b.sock", "c.sock", "vm.sock"].map(|name| place.path(name));
    daemon.bridge();
    daemon.ok("PortAdd", json!({ "name": "a", "bridge": "br0", "type": "stream", "path": a }));
    daemon.ok("PortAdd", json!({ "name": "b", "bridge": "br0", "type": "stream", "path": b }));
    let dgram = json!({ "name": "c", "bridge": "br0", "type": "dgram", "path": own, "peer_path": vm });
    daemon.ok("PortAdd", dgram);
    let (mut a, mut b) = (UnixStream::connect(a).unwrap(), UnixStream::connect(b).unwrap());
    // The daemon may only send to sockets that it may write to.
    let c = UnixDatagram::bind(&vm).unwrap();
    fs::set_permissions(&vm, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    for end in ["a", "b", "c"] {
        wait_until(&format!("{end} is up"), PATIENCE, || daemon.port(end)["oper"] == "up");
    }
    let mut frame = [0; 60];
    frame[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    let framed = [&60u32.to_be_bytes()[..], &frame].concat();
    a.write_all(&framed).unwrap();
    let mut read = [0; 64];
    b.set_read_timeout(Some(PATIENCE)).unwrap();
    b.read_exact(&mut read).unwrap();
    assert_eq!(read[..], framed);
    c.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!((c.recv(&mut read).unwrap(), read[..60] == frame), (60, true));

    // What needs a privilege is refused, and says so.
    let (error, sentence) = daemon.refused("PortAdd", json!({ "name": "tap", "bridge": "br0" }));
    assert_eq!(error, "io.tapway.Kernel", "{sentence}");
    assert!(sentence.contains("not permitted") || sentence.contains("denied"), "{sentence}");
    let began = std::time::Instant::now();
    assert!(daemon.end(Signal::TERM).success());
    assert!(began.elapsed() < Duration::from_secs(5) && !own.exists());
}
