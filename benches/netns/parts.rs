//! The small programs the bench is made of: it runs itself again, in a namespace, as one of them.

use std::net::SocketAddrV4;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::topology::Netns;
use crate::{copy_loop, round_trip, udp};

/// First argument of the bench when it is run as a part of itself.
pub(crate) const WORD: &str = "part";

#[derive(Debug, Parser)]
enum Part {
    /// Copy frames between two new TAPs
    CopyLoop { first: String, second: String },
    /// Count the datagrams that arrive, until standard input closes
    Sink { port: u16 },
    /// Send datagrams of `length` bytes as fast as the kernel takes them
    Blast { to: SocketAddrV4, length: usize, millis: u64 },
    /// Send every datagram back
    Pong { port: u16 },
    /// Send one datagram, wait for it to come back, and again
    Ping { to: SocketAddrV4, millis: u64 },
    /// Send until the first datagram comes back
    Reach { to: SocketAddrV4, millis: u64 },
}

/// A command that runs this program as a part of itself in a namespace.
pub(crate) fn command(netns: &Netns, args: &[&str]) -> Result<Command> {
    let mut command = netns.command(std::env::current_exe().context("finding this program")?);
    command.arg(WORD).args(args);
    Ok(command)
}

pub(crate) fn main() -> Result<()> {
    match Part::parse_from(std::env::args_os().skip(1)) {
        Part::CopyLoop { first, second } => copy_loop::main([&first, &second]),
        Part::Sink { port } => udp::sink(port),
        Part::Blast { to, length, millis } => udp::blast(to, length, Duration::from_millis(millis)),
        Part::Pong { port } => round_trip::pong(port),
        Part::Ping { to, millis } => round_trip::ping(to, Duration::from_millis(millis)),
        Part::Reach { to, millis } => round_trip::reach(to, Duration::from_millis(millis)),
    }
}
