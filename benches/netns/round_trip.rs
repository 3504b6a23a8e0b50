//! Round trip: one datagram there and back, nothing else under way.
//!
//! On a machine with few processors this number has more than one mode. A hop to a process on another processor costs
//! an interrupt and often a wake from sleep, tens of microseconds in a virtual machine; when something else keeps the
//! other processor busy the scheduler puts all on one, and the whole trip takes ten. Nothing is pinned, because a
//! switch in service is not; compare only runs of a quiet machine, and look at the spread.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::parts;
use crate::process::Process;
use crate::topology::{SERVER_ADDRESS, Site};
use crate::udp::FrameSize;

const PORT: u16 = 7;

/// A datagram that is not back by then is lost, and does not count.
const LOST: Duration = Duration::from_millis(200);

/// Waits until frames pass in both directions; address resolution and learning are done after it.
pub(crate) fn wait_connected(site: &Site) -> Result<()> {
    echo(site, "reach", Duration::from_secs(10)).map(drop)
}

/// Median round trip in microseconds.
pub(crate) fn median_micros(site: &Site, duration: Duration) -> Result<f64> {
    let printed: Value = serde_json::from_str(&echo(site, "ping", duration)?)?;
    printed["median_us"].as_f64().context("the ping printed something else")
}

fn echo(site: &Site, part: &str, duration: Duration) -> Result<String> {
    let mut pong = Process::start("pong", &mut parts::command(&site.server, &["pong", &PORT.to_string()])?)?;
    pong.wait_bound("udp", PORT)?;
    let to = format!("{SERVER_ADDRESS}:{PORT}");
    let ping = parts::command(&site.client, &[part, &to, &duration.as_millis().to_string()]);
    Process::start(part, &mut ping?)?.finish(duration + Duration::from_secs(5))
}

/// The `pong` part.
pub(crate) fn pong(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], from)?;
    }
}

/// The `ping` part.
pub(crate) fn ping(to: SocketAddrV4, duration: Duration) -> Result<()> {
    let socket = connected(to)?;
    let mut trips = Vec::new();
    let end = Instant::now() + duration;
    let mut sequence = 0;
    while Instant::now() < end {
        sequence += 1;
        if let Some(trip) = round_trip(&socket, sequence)? {
            trips.push(trip);
        }
    }
    ensure!(!trips.is_empty(), "nothing came back");
    trips.sort_unstable();
    println!("{}", json!({ "median_us": trips[trips.len() / 2].as_secs_f64() * 1e6 }));
    Ok(())
}

/// The `reach` part.
pub(crate) fn reach(to: SocketAddrV4, within: Duration) -> Result<()> {
    let socket = connected(to)?;
    let end = Instant::now() + within;
    for sequence in 0.. {
        if round_trip(&socket, sequence)?.is_some() {
            break;
        }
        ensure!(Instant::now() < end, "nothing came back");
    }
    Ok(())
}

fn connected(to: SocketAddrV4) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(LOST))?;
    Ok(socket)
}

/// One trip of a datagram in the smallest frame; `None` when it was lost.
fn round_trip(socket: &UdpSocket, sequence: u64) -> Result<Option<Duration>> {
    let mut payload = [0; FrameSize::Smallest.payload()];
    payload[..8].copy_from_slice(&sequence.to_be_bytes());
    let mut back = [0; 2048];
    let start = Instant::now();
    match socket.send(&payload) {
        Ok(_) => {}
        // The answer to an earlier datagram that could not be delivered: nobody resolved the address yet.
        Err(error) if unreachable(&error) => return Ok(None),
        Err(error) => return Err(error).context("sending"),
    }
    loop {
        match socket.recv(&mut back) {
            Ok(length) if back[..length] == payload => return Ok(Some(start.elapsed())),
            // A straggler that was given up as lost.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || unreachable(&error) => {
                return Ok(None);
            }
            Err(error) => return Err(error).context("receiving"),
        }
    }
}

fn unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable)
}
