//! What `cargo test --benches` runs: the parts of the bench that need neither root nor a namespace.
//!
//! A binary with its own `main` has no test harness; these are plain assertions in one function.

use anyhow::{Result, ensure};
use clap::{CommandFactory as _, Parser as _};

use crate::args::Args;
use crate::host::Host;
use crate::report::Report;
use crate::samples::{Samples, Summary};
use crate::subjects::{links, overlay};
use crate::table::Table;
use crate::targets;
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
    every_target_and_yardstick_is_of_a_subject_of_its_table()?;
    the_overlay_is_measured_by_two_yardsticks()?;
    links_are_measured_by_a_veth_and_promise_nothing()?;
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
    let judged: Vec<_> = targets::SWITCH
        .iter()
        .map(|target| target.value(&samples).map(|value| target.holds(value)))
        .collect();
    // 9/10 of the copy loop, 7.2 × Open vSwitch, no four streams, no small frames, 1.22 × the round trip, 0.25 % idle.
    ensure!(judged == [Some(false), Some(true), None, None, Some(false), Some(true)], "{judged:?}");
    Ok(())
}

fn every_form_of_the_report_holds_the_numbers() -> Result<()> {
    let args = Args::try_parse_from(["netns", "--rounds", "2"])?;
    let subjects =
        ["tapway", "copy-loop", "ovs", "vde"].map(|name| (name, "<version> & more".to_owned())).to_vec();
    let report = Report {
        table: Table::Switch,
        host: Host::read(),
        args: &args,
        subjects,
        absent: vec![("ipvlan", "not in <this> kernel".to_owned())],
        samples: samples(),
        failures: Vec::new(),
    };

    let table = report.table();
    ensure!(table.contains("MISS  TCP, 1 stream: tapway at least 0.95 × copy-loop: 0.90"), "{table}");
    ensure!(table.contains("pass  TCP, 1 stream: tapway at least 6 × ovs: 7.20"), "{table}");
    ensure!(table.contains("ipvlan: not measured: not in <this> kernel"), "{table}");

    let json = report.json();
    ensure!(
        json["subjects"][1]["results"]["tcp_1_stream_gbit_per_s"]["samples"]
            == serde_json::json!([10.0, 10.0])
    );
    ensure!(json["subjects"][3]["results"] == serde_json::json!({}));
    ensure!(json["absent"][0]["name"] == "ipvlan");

    let svg = report.svg();
    ensure!(svg.matches("<rect x=").count() == 6, "a bar for each of three subjects and two metrics");
    ensure!(svg.matches("class=\"none\"").count() == 2, "a dash for the subject without numbers");
    ensure!(svg.contains("ipvlan: not measured: not in &lt;this&gt; kernel"));
    ensure!(!svg.contains("NaN") && !svg.contains("inf"));
    Ok(())
}

fn every_target_and_yardstick_is_of_a_subject_of_its_table() -> Result<()> {
    let mut all = Vec::new();
    for &table in Table::ALL {
        let names: Vec<_> = table.subjects().iter().map(|subject| subject.name()).collect();
        for name in table
            .targets()
            .iter()
            .flat_map(|target| target.subjects())
            .chain(table.yardsticks().iter().copied())
        {
            ensure!(names.contains(&name), "{table:?} has no subject {name}");
        }
        all.extend(names);
    }
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    ensure!(all.len() == count, "a name on the command line is one subject");
    Ok(())
}

fn the_overlay_is_measured_by_two_yardsticks() -> Result<()> {
    let mut samples = Samples::default();
    for (subject, tcp, small) in
        [(overlay::SOCKETS, 6.0, 180.0), (overlay::KERNEL, 10.0, 200.0), (overlay::OPEN_VSWITCH, 1.0, 120.0)]
    {
        samples.push(subject, Metric::Tcp1, tcp);
        samples.push(subject, Metric::Udp64, small);
    }
    let args = Args::try_parse_from(["netns", "--table", "overlay"])?;
    let subjects = [overlay::SOCKETS, overlay::KERNEL, overlay::OPEN_VSWITCH]
        .map(|name| (name, "<version>".to_owned()))
        .to_vec();
    let table = Table::Overlay;
    let report = Report {
        table,
        host: Host::read(),
        args: &args,
        subjects,
        absent: Vec::new(),
        samples,
        failures: Vec::new(),
    };

    let text = report.table();
    for line in [
        "Medians as multiples of that of kernel-vxlan",
        "Medians as multiples of that of ovs-vxlan",
        "pass  TCP, 1 stream: tapway-sockets at least 0.5 × kernel-vxlan: 0.60",
        "pass  TCP, 1 stream: tapway-sockets at least 6 × ovs-vxlan: 6.00",
        "–     TCP, 1 stream: tapway-uplink-in at least 10 × ovs-vxlan: not measured",
        "pass  UDP, 64-byte frames: tapway-sockets at least 1.3 × ovs-vxlan: 1.50",
        "MISS  UDP, 64-byte frames: tapway-sockets at least 1 × kernel-vxlan: 0.90",
    ] {
        ensure!(text.contains(line), "no {line:?} in {text}");
    }
    Ok(())
}

fn links_are_measured_by_a_veth_and_promise_nothing() -> Result<()> {
    let mut samples = Samples::default();
    samples.push(links::VETH, Metric::Tcp1, 20.0);
    samples.push(links::TAPWAY_TAP, Metric::Tcp1, 12.0);
    let args = Args::try_parse_from(["netns", "--table", "links"])?;
    let subjects = [links::VETH, links::TAPWAY_TAP].map(|name| (name, "<version>".to_owned())).to_vec();
    let (table, host) = (Table::Links, Host::read());
    let report =
        Report { table, host, args: &args, subjects, absent: Vec::new(), samples, failures: Vec::new() };

    let text = report.table();
    ensure!(text.contains("Medians as multiples of that of veth"), "{text}");
    ensure!(text.contains("0.60") && !text.contains("Targets"), "{text}");
    Ok(())
}
