//! The table: medians with their spread, ratios, targets.

use std::fmt::Write as _;

use super::Report;
use crate::subjects::TAPWAY;
use crate::workload::Metric;

pub(super) fn render(report: &Report<'_>) -> String {
    let mut text = String::new();
    let host = &report.host;
    let _ = writeln!(text, "\n{}, all on one machine: medians of {}", report.table.title(), report.method());
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
    for (name, why) in &report.absent {
        let _ = writeln!(text, "  {name}: not measured: {why}");
    }
    for (heading, ratios) in comparisons(report) {
        let _ = writeln!(text, "\n{heading}");
        text.push_str(&grid(&ratios));
    }
    if !report.table.targets().is_empty() {
        let _ = writeln!(text, "\nTargets");
    }
    for target in report.table.targets() {
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

/// Grids of ratios with their headings; none where there is nothing to compare.
fn comparisons(report: &Report<'_>) -> Vec<(String, Vec<Vec<String>>)> {
    let others = |than: &str| -> Vec<&str> {
        report.subjects.iter().map(|(name, _)| *name).filter(|name| *name != than).collect()
    };
    let yardsticks = report.table.yardsticks();
    let mut grids = Vec::new();
    if yardsticks.is_empty() {
        let ratios = ratios(&others(TAPWAY), |metric, peer| report.samples.ratio(metric, TAPWAY, peer));
        grids.push((format!("Median of {TAPWAY} as a multiple of"), ratios));
    }
    for yardstick in yardsticks {
        let ratios = ratios(&others(yardstick), |metric, name| report.samples.ratio(metric, name, yardstick));
        grids.push((format!("Medians as multiples of that of {yardstick}"), ratios));
    }
    grids.retain(|(_, rows)| rows.len() > 1);
    grids
}

/// Rows that hold at least one ratio, one column a subject, under a heading.
fn ratios(subjects: &[&str], ratio: impl Fn(Metric, &str) -> Option<f64>) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new(), String::new()]];
    rows[0].extend(subjects.iter().map(|name| (*name).to_owned()));
    for &metric in Metric::ALL {
        let ratios: Vec<_> = subjects.iter().map(|name| ratio(metric, name)).collect();
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
