//! `tapwayd`: arguments, log, and then [`daemon::run`].

use std::{io::IsTerminal as _, num::NonZeroUsize, path::PathBuf, process::ExitCode, thread};

use clap::Parser;
use tapway_dataplane::daemon::{self, Settings};
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// More workers than this are only made when asked for: a switch is rarely alone on its host.
const MOST_DEFAULT_WORKERS: usize = 4;

/// The dataplane daemon of Tapway, a userspace software switch.
#[derive(Debug, Parser)]
#[command(
    version,
    override_usage = "tapwayd [OPTIONS]",
    after_help = "Example: tapwayd --config /etc/tapway.toml --workers 2"
)]
struct Arguments {
    /// Topology file to begin with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen for tapwayctl
    #[arg(long, value_name = "PATH", env = "TAPWAY_SOCKET", default_value = "/run/tapway/tapway.sock")]
    socket: PathBuf,
    /// Directory in which the topology that runs is kept; without --config the next start brings it back
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Worker threads, 1 to 64 [default: one a processor, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// Put kernel devices back that somebody has changed or deleted
    #[arg(long)]
    enforce: bool,
    /// What to log: error, warn, info, debug, or a tracing filter
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = filter)]
    log: EnvFilter,
}

/// Named, because clap would take `EnvFilter::from`, which ignores what it does not understand.
fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    text.parse()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(arguments.log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = arguments.workers.map_or(processors.min(MOST_DEFAULT_WORKERS), usize::from);
    let Arguments { config, socket, state_dir, enforce, .. } = arguments;
    match daemon::run(&Settings { socket, config, state_dir, workers, enforce }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tapwayd: {error}");
            ExitCode::FAILURE
        }
    }
}
