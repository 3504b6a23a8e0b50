//! The table: medians with their spread, ratios, targets.

use std::fmt::Write as _;

use super::Report;
use crate::subjects::TAPWAY;
use crate::targets::TARGETS;
use crate::workload::Metric;

pub(super) fn render(report: &Report<'_>) -> String {
    let mut text = String::new();
    let host = &report.host;
    let _ = writeln!(text, "\nTapway, two namespaces on one machine: medians of {}", report.method());
    let _ = writeln!(
        text,
        "kernel {}, {} × {}, load {} at the start, commit {}, {}\n",
        host.kernel, host.cores, host.cpu, host.load, host.commit, host.date
    );
    text.push_str(&grid(&medians(report)));
    text.push_str("  ±: half the range from the smallest to the largest sample, in percent of the median\n");
    for (name, version) in &report.subjects {
        let _ = writeln!(text, "  {name}: {version}");
    }
    let ratios = ratios(report);
    if ratios.len() > 1 {
        let _ = writeln!(text, "\nMedian of {TAPWAY} as a multiple of");
        text.push_str(&grid(&ratios));
    }
    let _ = writeln!(text, "\nTargets");
    for target in TARGETS {
        let line = match target.value(&report.samples) {
            None => format!("  –     {}: not measured", target.text()),
            Some(value) if target.holds(value) => format!("  pass  {}: {value:.2}", target.text()),
            Some(value) => format!("  MISS  {}: {value:.2}", target.text()),
        };
        let _ = writeln!(text, "{line}");
    }
    if !report.failures.is_empty() {
        let _ = writeln!(text, "\nFailed");
        for failure in &report.failures {
            let _ = writeln!(text, "  {failure}");
        }
    }
    text
}

/// Rows that hold at least one number, one column a subject.
fn medians(report: &Report<'_>) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new(), String::new()]];
    rows[0].extend(report.subjects.iter().map(|(name, _)| (*name).to_owned()));
    for &metric in Metric::ALL {
        let cells: Vec<_> = report
            .subjects
            .iter()
            .map(|(name, _)| match report.samples.summary(name, metric) {
                None => "–".to_owned(),
                Some(summary) => {
                    let spread = summary.spread().map(|spread| format!(" ±{:.0}%", 100.0 * spread));
                    metric.format(summary.median) + &spread.unwrap_or_default()
                }
            })
            .collect();
        if cells.iter().any(|cell| cell != "–") {
            let head = [metric.title().to_owned(), metric.unit().to_owned()];
            rows.push(head.into_iter().chain(cells).collect());
        }
    }
    rows
}

/// Tapway's median over each other subject's; only the heading when there is nothing to compare.
fn ratios(report: &Report<'_>) -> Vec<Vec<String>> {
    let peers: Vec<_> =
        report.subjects.iter().map(|(name, _)| *name).filter(|name| *name != TAPWAY).collect();
    let mut rows = vec![vec![String::new(), String::new()]];
    rows[0].extend(peers.iter().map(|name| (*name).to_owned()));
    for &metric in Metric::ALL {
        let ratios: Vec<_> = peers.iter().map(|peer| report.samples.ratio(metric, TAPWAY, peer)).collect();
        if ratios.iter().any(Option::is_some) {
            let better = if metric.more_is_better() { "more is better" } else { "less is better" };
            let cells =
                ratios.into_iter().map(|ratio| ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")));
            rows.push([metric.title().to_owned(), better.to_owned()].into_iter().chain(cells).collect());
        }
    }
    rows
}

/// Columns as wide as their widest cell: two of words to the left, the rest of numbers to the right.
fn grid(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ =
                if column < 2 { write!(line, "{cell:<width$}  ") } else { write!(line, "{cell:>width$}  ") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
