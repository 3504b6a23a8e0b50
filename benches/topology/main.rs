//! The topology bench: how long an operator waits for a whole host to be set up, beside a script of `ip -batch`.
//!
//! One topology of 200 kernel devices, 200 ports and 50 bridges is applied by `tapwayctl apply` to a fresh `tapwayd` in a fresh
//! namespace, applied again, and pruned to nothing. The script makes the same interfaces: the same devices, and for each port and bridge
//! of the switch a TAP in a bridge of the kernel. Rounds are interleaved. The second apply is also listened to: what the kernel tells
//! of changes in the namespace is counted.
//!
//! The method is described in `docs/benchmarks.md`. A number never fails the run.

#[path = "../netns/host.rs"]
#[allow(dead_code)] // the namespace bench measures more
mod host;
#[path = "../netns/process.rs"]
#[allow(dead_code)] // as above
mod process;
#[path = "../netns/sandbox.rs"]
mod sandbox;
mod texts;

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::json;
use tapway_dataplane::netlink::Monitor;

use process::{Process, run};

const SOCKET: &str = "/run/tapway.sock";
/// The measured steps, in their order.
const STEPS: [&str; 5] = ["apply", "apply again", "prune", "ip -batch, make", "ip -batch, delete"];

/// Measures how long a topology takes, beside a script.
#[derive(Debug, Parser)]
#[command(name = "topology")]
struct Args {
    /// Rounds; the medians are over these
    #[arg(long, value_name = "N", default_value_t = 5, env = "TAPWAY_BENCH_ROUNDS",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by the bench to itself: this process already runs in the sandbox
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let given: Vec<_> = std::env::args_os().skip(1).collect();
    let result = if given.iter().any(|word| word == "--bench") {
        let args = Args::parse();
        if args.inside { bench(&args).map(|()| ExitCode::SUCCESS) } else { sandbox::enter(&given) }
    } else {
        // `cargo test --benches` runs the binary without `--bench`.
        texts::check().map(|()| ExitCode::SUCCESS)
    };
    result.unwrap_or_else(|error| {
        eprintln!("topology: {error:#}");
        ExitCode::FAILURE
    })
}

fn bench(args: &Args) -> Result<()> {
    sandbox::settle()?;
    let host = host::Host::read();
    for (file, text) in [
        ("all.toml", texts::topology()),
        ("none.toml", String::new()),
        ("make", texts::script()),
        ("delete", texts::removal()),
    ] {
        fs::write(Path::new("/run").join(file), text).with_context(|| format!("writing {file}"))?;
    }
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); STEPS.len()];
    let mut events = 0;
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        let (applied, heard) = in_a_namespace(by_tapway)?;
        events += heard;
        let by_script = in_a_namespace(by_ip)?;
        for (all, took) in samples.iter_mut().zip(applied.into_iter().chain(by_script)) {
            all.push(took.as_secs_f64() * 1e3);
        }
    }
    println!("\n{}: medians of {} rounds, in ms", texts::title(), args.rounds);
    println!(
        "kernel {}, {} × {}, load {} at the start, commit {}, {}\n",
        host.kernel, host.cores, host.cpu, host.load, host.commit, host.date
    );
    for (step, all) in STEPS.iter().zip(&mut samples) {
        all.sort_by(f64::total_cmp);
        println!("  {step:<20} {:>7.0}   {:.0} to {:.0}", middle(all), all[0], all[all.len() - 1]);
    }
    println!("\n  {events} changes were told by the kernel while applying again");
    let steps = STEPS.iter().zip(&samples);
    let steps: serde_json::Map<_, _> = steps
        .map(|(step, all)| ((*step).to_owned(), json!({ "median": middle(all), "samples": all })))
        .collect();
    let file = host::target_directory()?.join("bench/topology.json");
    fs::create_dir_all(file.parent().context("a directory")?)?;
    let document = json!({
        "bench": "topology", "unit": "ms", "rounds": args.rounds, "commit": host.commit, "date": host.date,
        "host": { "kernel": host.kernel, "cpu": host.cpu, "cores": host.cores, "load_at_start": host.load },
        "steps": steps, "changes_told_while_applying_again": events,
    });
    fs::write(&file, serde_json::to_string_pretty(&document)?)?;
    println!("\nwritten: {}", file.display());
    Ok(())
}

fn middle(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// Runs `work` on a thread in a namespace of its own, which ends with it.
fn in_a_namespace<T: Send>(work: fn() -> Result<T>) -> Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            tapway_dataplane::sys::netns::unshare()?;
            // The kernel looks for duplicates of the addresses that it makes up, and tells of each seconds later.
            fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
            run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn timed(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    run(command)?;
    Ok(start.elapsed())
}

/// How long each apply took, and how many changes the kernel told of during the second.
fn by_tapway() -> Result<(Vec<Duration>, usize)> {
    let programs = host::profile_directory()?;
    let mut daemon = Command::new(programs.join("tapwayd"));
    daemon.args(["--socket", SOCKET, "--workers", "1"]);
    let _daemon = Process::start("tapwayd", &mut daemon)?;
    let ctl = |words: &[&str]| {
        let mut command = Command::new(programs.join("tapwayctl"));
        command.args(["--socket", SOCKET]).args(words);
        command
    };
    run(&mut ctl(&["status", "--wait", "5s"]))?;
    let apply = ["apply", "-f", "/run/all.toml"];
    let first = timed(&mut ctl(&apply))?;
    // The kernel tells of carriers that came up within the next second (`linkwatch_event`).
    std::thread::sleep(Duration::from_secs(2));
    let mut monitor = Monitor::open()?;
    let second = timed(&mut ctl(&apply))?;
    let heard = monitor.read()?.len();
    let pruned = timed(&mut ctl(&["apply", "--prune", "-f", "/run/none.toml"]))?;
    ensure!(links()? == 1, "something is left after pruning");
    Ok((vec![first, second, pruned], heard))
}

fn by_ip() -> Result<Vec<Duration>> {
    let script = |file: &str| timed(Command::new("ip").args(["-batch", file]));
    let made = script("/run/make")?;
    let deleted = script("/run/delete")?;
    ensure!(links()? == 1, "something is left after the script");
    Ok(vec![made, deleted])
}

/// The interfaces of the namespace.
fn links() -> Result<usize> {
    Ok(run(Command::new("ip").args(["-o", "link"]))?.lines().count())
}
