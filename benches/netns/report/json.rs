//! The JSON file: every sample, so that any other statistic can still be taken.

use serde_json::{Map, Value, json};

use super::Report;
use crate::workload::Metric;

pub(super) fn render(report: &Report<'_>) -> Value {
    let host = &report.host;
    let metrics: Vec<_> = Metric::ALL
        .iter()
        .map(|metric| {
            json!({
                "key": metric.key(), "title": metric.title(), "unit": metric.unit(),
                "better": if metric.more_is_better() { "more" } else { "less" },
            })
        })
        .collect();
    let targets: Vec<_> = report
        .table
        .targets()
        .iter()
        .map(|target| {
            let value = target.value(&report.samples);
            json!({ "target": target.text(), "value": value, "pass": value.map(|value| target.holds(value)) })
        })
        .collect();
    json!({
        "bench": report.table.file(),
        "host": {
            "kernel": host.kernel, "cpu": host.cpu, "cores": host.cores, "load_at_start": host.load,
        },
        "commit": host.commit,
        "date": host.date,
        "rounds": report.args.rounds(),
        "seconds": report.args.duration().as_secs(),
        "metrics": metrics,
        "subjects": report.subjects.iter().map(|(name, version)| subject(report, name, version)).collect::<Vec<_>>(),
        "absent": report.absent.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect::<Vec<_>>(),
        "targets": targets,
        "failures": report.failures,
    })
}

fn subject(report: &Report<'_>, name: &str, version: &str) -> Value {
    let mut results = Map::new();
    for &metric in Metric::ALL {
        if let Some(summary) = report.samples.summary(name, metric) {
            let result = json!({
                "median": summary.median, "min": summary.min, "max": summary.max,
                "samples": report.samples.of(name, metric),
            });
            results.insert(metric.key().to_owned(), result);
        }
    }
    json!({ "name": name, "version": version, "results": results })
}
