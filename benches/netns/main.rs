//! The namespace bench: what a frame costs end to end, beside the other switches one could use instead.
//!
//! One run joins two namespaces (`client`, `server`) by each subject in turn, measures the same workloads with real
//! kernel stacks at both ends, and writes a table, a JSON file and a plot. There are four such tables: one switch between
//! the two (`target/bench/netns.json`, `.svg`), a tunnel between two hosts (`target/bench/overlay.json`, `.svg`), one switch
//! again by each kind of port (`target/bench/ports.json`, `.svg`), and each type of link that the kernel has
//! (`target/bench/links.json`, `.svg`).
//! Rounds are interleaved (round 1 of every subject, then round 2 of every subject, the order rotated) so that a
//! machine that gets slower or faster during the run does so for everybody.
//!
//! ```text
//!   netns "client"            netns "switch"             netns "server"
//!   eth0 198.51.100.1  ──────  one subject  ──────  eth0 198.51.100.2
//!
//!   netns "client"            netns "near"            netns "far"             netns "server"
//!   eth0 198.51.100.1  ──  one subject's end  ══════  its other end  ──  eth0 198.51.100.2
//!
//!   netns "client"         netns "server"
//!   eth0 198.51.100.1  ══  eth0 198.51.100.2
//! ```
//!
//! A number never fails the run; a subject that is installed and cannot be measured does.
//! The method is described in `docs/benchmarks.md`. A new peer is one file in `subjects/`, a new workload one variant
//! in `workload.rs`.

mod args;
mod copy_loop;
mod host;
mod idle;
mod parts;
mod process;
mod report;
mod round_trip;
mod samples;
mod sandbox;
mod self_check;
mod subjects;
mod sys;
mod table;
mod targets;
mod tcp;
mod topology;
mod udp;
mod underlay;
mod workload;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use args::Args;
use samples::Samples;
use subjects::Subject;
use table::Table;
use workload::Workload;

fn main() -> ExitCode {
    let given: Vec<_> = std::env::args_os().skip(1).collect();
    let result = if given.first().is_some_and(|word| word == parts::WORD) {
        parts::main().map(|()| ExitCode::SUCCESS)
    } else if !given.iter().any(|word| word == "--bench") {
        // `cargo test --benches` runs the binary without `--bench`: check what needs no namespace, and be done.
        self_check::run().map(|()| ExitCode::SUCCESS)
    } else {
        let args = Args::parse();
        if args.inside { bench(&args) } else { sandbox::enter(&given) }
    };
    result.unwrap_or_else(|error| {
        eprintln!("netns: {error:#}");
        ExitCode::FAILURE
    })
}

/// The whole run, already inside the sandbox.
fn bench(args: &Args) -> Result<ExitCode> {
    args.check_names()?;
    sandbox::settle()?;
    let mut complete = true;
    for &table in args.tables() {
        let (mut subjects, workloads) = (table.subjects(), args.workloads(table));
        subjects.retain(|subject| args.measures(subject.name()));
        if !subjects.is_empty() && !workloads.is_empty() {
            complete &= measure(table, subjects, &workloads, args)?;
        }
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One table, printed and written; whether everything in it could be measured.
fn measure(
    table: Table,
    mut subjects: Vec<Box<dyn Subject>>,
    workloads: &[Workload],
    args: &Args,
) -> Result<bool> {
    let host = host::Host::read();
    let (mut failures, mut absent) = (Vec::new(), Vec::new());
    subjects.retain(|subject| match subject.missing() {
        Some(why) => {
            eprintln!("skipped: {}: {why}", subject.name());
            absent.push((subject.name(), why));
            false
        }
        None => true,
    });

    let mut samples = Samples::default();
    for round in 0..args.rounds() {
        for turn in 0..subjects.len() {
            let subject = &subjects[(turn + round) % subjects.len()];
            eprintln!("round {} of {}: {}", round + 1, args.rounds(), subject.name());
            if let Err(error) = run_round(subject.as_ref(), workloads, args, &mut samples) {
                eprintln!("failed: {}: {error:#}", subject.name());
                failures.push(format!("{}, round {}: {error:#}", subject.name(), round + 1));
            }
        }
    }
    if workloads.contains(&Workload::Idle)
        && let Some(tapway) = subjects.iter().find(|subject| subject.name() == subjects::TAPWAY)
    {
        eprintln!("idle: {} with {} ports", tapway.name(), idle::PORTS);
        if let Err(error) = idle::measure(args.idle_time(), &mut samples) {
            eprintln!("failed: idle: {error:#}");
            failures.push(format!("idle: {error:#}"));
        }
    }

    let names: Vec<_> = subjects.iter().map(|subject| (subject.name(), subject.version())).collect();
    let report = report::Report { table, host, args, subjects: names, absent, samples, failures };
    print!("{}", report.table());
    let directory = host::target_directory()?.join("bench");
    std::fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let file = |extension| directory.join(table.file()).with_extension(extension);
    report.write_json(&file("json"))?;
    report.write_svg(&file("svg"))?;
    println!("\nwritten: {}, {}", file("json").display(), file("svg").display());
    Ok(report.failures.is_empty())
}

/// One subject, started afresh: what another subject left in caches or memory is not measured, and no idle peer
/// takes time from the one on trial.
fn run_round(
    subject: &dyn Subject,
    workloads: &[Workload],
    args: &Args,
    samples: &mut Samples,
) -> Result<()> {
    let site = topology::Site::create()?;
    let switch = subject.start(&site).context("starting it")?;
    round_trip::wait_connected(&site).context("first echo through it")?;
    for workload in workloads {
        workload
            .measure(subject.name(), &site, &switch, args.duration(), samples)
            .with_context(|| format!("workload {}", workload.name()))?;
    }
    if let Some(bytes) = switch.resident_memory()? {
        samples.push(subject.name(), workload::Metric::Memory, bytes as f64 / f64::from(1 << 20));
    }
    Ok(())
}
