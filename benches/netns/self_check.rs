//! What `cargo test --benches` runs: the parts of the bench that need neither root nor a namespace.
//!
//! A binary with its own `main` has no test harness; these are plain assertions in one function.

use anyhow::{Result, ensure};
use clap::{CommandFactory as _, Parser as _};

use crate::args::Args;
use crate::host::Host;
use crate::report::Report;
use crate::samples::{Samples, Summary};
use crate::targets::TARGETS;
use crate::udp::FrameSize;
use crate::workload::Metric;

pub(crate) fn run() -> Result<()> {
    Args::command().debug_assert();
    ensure!(Summary::of(&[]).is_none());
    ensure!(Summary::of(&[3.0, 1.0, 2.0]) == Some(Summary { median: 2.0, min: 1.0, max: 3.0 }));
    ensure!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).is_some_and(|summary| summary.median == 2.5));
    ensure!(Summary::of(&[8.0, 10.0, 12.0]).and_then(|summary| summary.spread()) == Some(0.2));
    ensure!(Summary::of(&[8.0]).is_some_and(|summary| summary.spread().is_none()));
    ensure!((FrameSize::Smallest.payload(), FrameSize::Largest.payload()) == (18, 1472));
    targets_are_judged_by_ratio_and_by_value()?;
    every_form_of_the_report_holds_the_numbers()?;
    println!("netns: self-check passed; `cargo bench -p tapway --bench netns` measures");
    Ok(())
}

fn samples() -> Samples {
    let mut samples = Samples::default();
    for (subject, tcp, round_trip) in [("tapway", 9.0, 61.0), ("copy-loop", 10.0, 50.0), ("ovs", 1.25, 125.0)]
    {
        samples.push(subject, Metric::Tcp1, tcp);
        samples.push(subject, Metric::Tcp1, tcp);
        samples.push(subject, Metric::RoundTrip, round_trip);
    }
    samples.push("tapway", Metric::IdleScheduled, 0.25);
    samples
}

fn targets_are_judged_by_ratio_and_by_value() -> Result<()> {
    let samples = samples();
    let judged: Vec<_> =
        TARGETS.iter().map(|target| target.value(&samples).map(|value| target.holds(value))).collect();
    // 9/10 of the copy loop, 7.2 × Open vSwitch, no four streams, no small frames, 1.22 × the round trip, 0.25 % idle.
    ensure!(judged == [Some(false), Some(true), None, None, Some(false), Some(true)], "{judged:?}");
    Ok(())
}

fn every_form_of_the_report_holds_the_numbers() -> Result<()> {
    let args = Args::try_parse_from(["netns", "--rounds", "2"])?;
    let subjects =
        ["tapway", "copy-loop", "ovs", "vde"].map(|name| (name, "<version> & more".to_owned())).to_vec();
    let report =
        Report { host: Host::read(), args: &args, subjects, samples: samples(), failures: Vec::new() };

    let table = report.table();
    ensure!(table.contains("MISS  TCP, 1 stream: tapway at least 0.95 × copy-loop: 0.90"), "{table}");
    ensure!(table.contains("pass  TCP, 1 stream: tapway at least 6 × ovs: 7.20"), "{table}");

    let json = report.json();
    ensure!(
        json["subjects"][1]["results"]["tcp_1_stream_gbit_per_s"]["samples"]
            == serde_json::json!([10.0, 10.0])
    );
    ensure!(json["subjects"][3]["results"] == serde_json::json!({}));

    let svg = report.svg();
    ensure!(svg.matches("<rect x=").count() == 6, "a bar for each of three subjects and two metrics");
    ensure!(svg.matches("class=\"none\"").count() == 2, "a dash for the subject without numbers");
    ensure!(!svg.contains("NaN") && !svg.contains("inf"));
    Ok(())
}
