//! Clients that misbehave, while frames pass: other clients are answered and no frame is lost.

use std::{
    io::{Read as _, Write as _},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    switch::{Daemon, Place},
    topo::{Host, Net, traffic},
};

/// Pings from `a` to `b` and a transfer go on while `mischief` happens; none may be lost, none may take long.
fn under_traffic(a: &Host, b: &Host, daemon: &Daemon, mischief: impl FnOnce()) {
    let over = AtomicBool::new(false);
    thread::scope(|s| {
        let pings = s.spawn(|| {
            let (mut sent, mut lost) = (0, 0);
            while !over.load(Relaxed) || sent < 20 {
                lost += usize::from(!a.ping([198, 51, 100, 2]));
                sent += 1;
                thread::sleep(Duration::from_millis(1));
            }
            (sent, lost)
        });
        let transfer = s.spawn(|| {
            while !over.load(Relaxed) {
                traffic::tcp(a, b, [198, 51, 100, 2], 4 << 20);
            }
        });
        let answers = s.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !over.load(Relaxed) {
                let start = Instant::now();
                assert_eq!(daemon.ok("Status", json!({}))["ports"], 2);
                slowest = slowest.max(start.elapsed());
                thread::sleep(Duration::from_millis(10));
            }
            slowest
        });
        // Whatever happens, the others must end.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let end = End(&over);
        mischief();
        drop(end);
        let (sent, lost) = pings.join().unwrap();
        assert_eq!(lost, 0, "of {sent} pings");
        transfer.join().unwrap();
        let slowest = answers.join().unwrap();
        assert!(slowest < Duration::from_secs(2), "another client waited {slowest:?}");
    });
}

fn resident_kib(daemon: &Daemon) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A world of two hosts on one bridge.
fn two_hosts(net: &Net, place: &Place) -> (Daemon, Host, Host) {
    let (a, b) = (net.host("a"), net.host("b"));
    let daemon = place.start(net, &[]);
    daemon.bridge();
    daemon.plug("a", &a, "198.51.100.1/24");
    daemon.plug("b", &b, "198.51.100.2/24");
    assert!(a.ping([198, 51, 100, 2]));
    (daemon, a, b)
}

#[test]
fn a_hundred_megabytes_of_garbage_end_one_connection_and_nothing_else() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let (daemon, a, b) = two_hosts(&net, &place);
    let before = resident_kib(&daemon);
    under_traffic(&a, &b, &daemon, || {
        let mut client = daemon.client();
        let chunk = vec![b'x'; 1 << 20];
        let taken = (0..100).take_while(|_| client.stream.write_all(&chunk).is_ok()).count();
        assert!(taken < 100, "it read all of it");
        let mut said = Vec::new();
        let _ = client.stream.read_to_end(&mut said); // It may be reset after the error is read.
        if !said.is_empty() {
            let said = String::from_utf8(said).unwrap();
            assert!(said.contains("io.tapway.TooLarge"), "{said}");
        }
    });
    let grown = resident_kib(&daemon).saturating_sub(before);
    assert!(grown < 20 << 10, "the daemon grew by {grown} KiB");
}

#[test]
fn a_hundred_clients_at_once_are_all_answered_and_half_a_message_harms_nobody() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let (daemon, a, b) = two_hosts(&net, &place);
    under_traffic(&a, &b, &daemon, || {
        let mut clients: Vec<_> = (0..100).map(|_| daemon.client()).collect();
        for client in &mut clients {
            client.stream.write_all(b"{\"method\":\"io.tapway.Sta").unwrap();
        }
        // Every second one goes away in the middle of its request.
        let mut keep = false;
        clients.retain(|_| {
            keep = !keep;
            keep
        });
        for client in &mut clients {
            client.stream.write_all(b"tus\"}\0").unwrap();
        }
        for client in &mut clients {
            assert_eq!(client.receive()["parameters"]["ports"], 2);
        }
    });
}

#[test]
fn a_client_that_stops_reading_costs_the_others_nothing() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let (daemon, a, b) = two_hosts(&net, &place);
    let before = resident_kib(&daemon);
    under_traffic(&a, &b, &daemon, || {
        let mut mute: Vec<_> = (0..4).map(|_| daemon.client()).collect();
        let call = json!({ "method": "io.tapway.PortList", "parameters": {} }).to_string() + "\0";
        for client in &mut mute {
            client.stream.set_nonblocking(true).unwrap();
            let until = Instant::now() + Duration::from_secs(1);
            // Until the daemon reads no more of it either.
            while Instant::now() < until {
                if client.stream.write(call.as_bytes()).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
    });
    let grown = resident_kib(&daemon).saturating_sub(before);
    assert!(grown < 20 << 10, "the daemon grew by {grown} KiB");
}

#[test]
fn what_is_no_call_ends_the_connection_with_the_reason() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let daemon = place.start(&net, &[]);
    for message in ["GET / HTTP/1.1\r\n\r\n\0", "\0", "[]\0", "{}\0", "{\"method\":7}\0", "\u{fffd}\0"] {
        let mut client = daemon.client();
        client.stream.write_all(message.as_bytes()).unwrap();
        let reply = client.receive();
        assert_eq!(reply["error"], "io.tapway.Malformed", "{message:?}: {reply}");
        assert!(reply["parameters"]["message"].as_str().unwrap().contains("no Varlink call"), "{reply}");
        assert_eq!(client.stream.read(&mut [0]).unwrap(), 0, "{message:?}");
    }
    daemon.bridge();
}
