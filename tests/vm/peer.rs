//! The end of a transfer that runs in a guest, or in a namespace at the other end of it: a program of its own, because a guest
//! has a network but no part of the test's process.
//!
//! ```text
//! vm_peer serve                 answers, over IPv4 and IPv6, until it is killed
//! vm_peer tcp ADDRESS OCTETS    so many octets there and as many back, both ways at once
//! vm_peer udp ADDRESS SIZE…     a datagram of each size, and each back
//! ```
//!
//! Both ends know what has to arrive, compare it octet by octet, and say where it begins to differ.

use std::{
    env,
    error::Error,
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    thread,
    time::Duration,
};

#[path = "../topo/pattern.rs"]
mod pattern;

use pattern::{Pattern, pattern};

/// Both of TCP and of UDP.
const PORT: u16 = 7000;
/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(20);
/// How long an answer to a datagram may take before it is sent again, once: the other guest may be busy.
const ANSWER: Duration = Duration::from_secs(3);
/// The patterns there and back.
const SEEDS: [u64; 2] = [1, 3];
/// What is sent at once.
const PART: usize = 64 << 10;
/// The last octet of a server that got what it had to.
const SAME: u8 = b'=';

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["serve"] => serve(),
        ["tcp", to, octets] => address(to).and_then(|to| tcp(to, octets.parse()?)),
        ["udp", to, ref sizes @ ..] => address(to).and_then(|to| udp(to, sizes)),
        _ => Err("usage: vm_peer serve | tcp ADDRESS OCTETS | udp ADDRESS SIZE…".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn address(word: &str) -> Result<SocketAddr> {
    Ok((word.parse::<IpAddr>()?, PORT).into())
}

fn serve() -> Result<()> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
    let socket = UdpSocket::bind(any)?;
    let listener = TcpListener::bind(any)?;
    thread::spawn(move || {
        let mut datagram = vec![0; 65_536];
        // What cannot be answered is missed by whoever asked.
        while let Ok((len, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..len], from);
        }
    });
    loop {
        let (connection, from) = listener.accept()?;
        thread::spawn(move || {
            if let Err(e) = answer(&connection) {
                println!("peer: {from}: {e}");
            }
        });
    }
}

/// The server's half: how many octets it will be, those octets while it sends its own, and whether they were the same.
fn answer(mut connection: &TcpStream) -> Result<()> {
    limit(connection)?;
    let mut octets = [0; 8];
    connection.read_exact(&mut octets)?;
    both_ways(connection, u64::from_be_bytes(octets), SEEDS[1], SEEDS[0])?;
    connection.write_all(&[SAME])?;
    Ok(connection.shutdown(Shutdown::Write)?)
}

fn tcp(to: SocketAddr, octets: u64) -> Result<()> {
    let mut connection = TcpStream::connect_timeout(&to, STALL)?;
    limit(&connection)?;
    connection.write_all(&octets.to_be_bytes())?;
    both_ways(&connection, octets, SEEDS[0], SEEDS[1])?;
    let mut verdict = Vec::new();
    connection.read_to_end(&mut verdict)?;
    if verdict == [SAME] { Ok(()) } else { Err("what arrived there is not what was sent".into()) }
}

fn limit(connection: &TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(STALL))?;
    connection.set_write_timeout(Some(STALL))
}

/// Sends one pattern while another arrives.
fn both_ways(connection: &TcpStream, octets: u64, sent: u64, wanted: u64) -> Result<()> {
    thread::scope(|s| {
        let sender = s.spawn(|| put(connection, octets, sent));
        let taken = take(connection, octets, wanted);
        if taken.is_err() {
            let _ = connection.shutdown(Shutdown::Both); // or the sender would go on
        }
        let put = sender.join().map_err(|_| "the sender panicked")?;
        taken.and(put)
    })
}

fn put(mut to: &TcpStream, octets: u64, seed: u64) -> Result<()> {
    let mut next = Pattern::new(seed);
    for part in parts(octets) {
        let mut buffer = vec![0; part];
        next.fill(&mut buffer);
        to.write_all(&buffer).map_err(|e| format!("cannot send on: {e}"))?;
    }
    Ok(())
}

fn take(mut from: &TcpStream, octets: u64, seed: u64) -> Result<()> {
    let (mut next, mut before) = (Pattern::new(seed), 0);
    for part in parts(octets) {
        let (mut got, mut want) = (vec![0; part], vec![0; part]);
        from.read_exact(&mut got).map_err(|e| format!("after {before} of {octets} octets: {e}"))?;
        next.fill(&mut want);
        compare(&got, &want, before)?;
        before += part;
    }
    Ok(())
}

fn parts(mut octets: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let part = octets.min(PART as u64);
        octets -= part;
        (part > 0).then_some(part as usize)
    })
}

fn udp(to: SocketAddr, sizes: &[&str]) -> Result<()> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(ANSWER))?;
    let mut got = vec![0; 65_536];
    for (seed, size) in (1..).zip(sizes) {
        let datagram = pattern(size.parse()?, seed);
        let mut ask = || {
            socket.send(&datagram)?;
            // The answer to what was sent twice may come twice, and late.
            loop {
                match socket.recv(&mut got)? {
                    len if len == datagram.len() => return Ok::<_, io::Error>(len),
                    _ => {}
                }
            }
        };
        let len = ask().or_else(|_| ask()).map_err(|e| format!("{size} octets back: {e}"))?;
        compare(&got[..len], &datagram, 0)?;
    }
    Ok(())
}

fn compare(got: &[u8], want: &[u8], before: usize) -> Result<()> {
    if let Some(at) = got.iter().zip(want).position(|(g, w)| g != w) {
        return Err(format!("octet {} is {:#04x}, not {:#04x}", before + at, got[at], want[at]).into());
    }
    if got.len() == want.len() {
        Ok(())
    } else {
        Err(format!("{} octets, not {}", got.len(), want.len()).into())
    }
}
