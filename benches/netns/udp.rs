//! Packet rate: how many small or full datagrams a second arrive at the other end.
//!
//! The sender gives the kernel 64 datagrams a call and never uses `UDP_SEGMENT`, so that every datagram is a frame of
//! its own on the way. It does not pace itself: what the switch cannot carry is lost in the queue of its TAP, which
//! is where it would be lost in service.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::parts;
use crate::process::Process;
use crate::sys::{self, BURST};
use crate::topology::{SERVER_ADDRESS, Site};

const PORT: u16 = 9;

/// Ethernet, IPv4 and UDP headers of a frame without tag or option.
const HEADERS: usize = 14 + 20 + 8;

/// Receive buffer of the sink: large enough that the sink's turn on the processor, not its socket, is the limit.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Frame sizes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FrameSize {
    /// 64 bytes as RFC 2544 §9.1 counts them, with the 4-byte FCS: 60 bytes in a TAP, 18 of them payload.
    Smallest,
    /// 1514 bytes in a TAP: an Ethernet header and 1500 bytes of IP.
    Largest,
}

impl FrameSize {
    /// Bytes of UDP payload in a frame of this size.
    pub(crate) const fn payload(self) -> usize {
        match self {
            Self::Smallest => 64 - 4 - HEADERS,
            Self::Largest => 1514 - HEADERS,
        }
    }
}

/// Frames a second that arrive at the server when the client sends as fast as it can.
pub(crate) fn frame_rate(site: &Site, size: FrameSize, duration: Duration) -> Result<f64> {
    let mut sink = Process::start("sink", &mut parts::command(&site.server, &["sink", &PORT.to_string()])?)?;
    sink.wait_bound("udp", PORT)?;
    let to = format!("{SERVER_ADDRESS}:{PORT}");
    let (length, millis) = (size.payload().to_string(), duration.as_millis().to_string());
    let blast =
        Process::start("blast", &mut parts::command(&site.client, &["blast", &to, &length, &millis])?)?;
    blast.finish(duration + Duration::from_secs(5))?;
    sink.close_stdin();
    let counted: Value = serde_json::from_str(&sink.finish(Duration::from_secs(10))?)?;
    let number = |key: &str| counted[key].as_f64().context("the sink printed something else");
    // A switch that lets nothing through is slow, not wrong.
    Ok(if number("seconds")? > 0.0 { number("datagrams")? / number("seconds")? } else { 0.0 })
}

/// The `sink` part. Counts from the first datagram to the last, so that neither the start of the sender nor the wait
/// for the end is in the rate.
pub(crate) fn sink(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let sender_done = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&sender_done);
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    let mut datagrams = Box::new([[0; 2048]; BURST]);
    let mut count = 0;
    let mut span: Option<(Instant, Instant)> = None;
    loop {
        match sys::receive_burst(&socket, &mut datagrams) {
            Ok(received) => {
                let now = Instant::now();
                match &mut span {
                    // The first batch starts the clock; it arrived in no time, so it is not in the count.
                    None => span = Some((now, now)),
                    Some((_, last)) => {
                        *last = now;
                        count += received;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if sender_done.load(Ordering::Relaxed) {
                    break;
                }
            }
            Err(error) => return Err(error).context("receiving"),
        }
    }
    let seconds = span.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    println!("{}", json!({ "datagrams": count, "seconds": seconds }));
    Ok(())
}

/// The `blast` part.
pub(crate) fn blast(to: SocketAddrV4, length: usize, duration: Duration) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    let payload = vec![0x5a; length];
    let end = Instant::now() + duration;
    while Instant::now() < end {
        match sys::send_burst(&socket, &payload) {
            Ok(_) => {}
            // A full queue is this workload's normal state.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {}
            Err(error) => return Err(error).context("sending"),
        }
    }
    Ok(())
}
