//! The plot: a panel a metric, a bar a subject.
//!
//! The metrics share no unit, so they share no axis: small panels side by side, each from zero, each with its own
//! ticks. A bar is a median, the line across its end is the spread from the smallest to the largest sample.

use std::fmt::Write as _;

use super::Report;
use crate::samples::Summary;
use crate::subjects::links::TAPWAY_TAP;
use crate::subjects::overlay::{SOCKETS, SOCKETS_IN, SOCKETS_OUT, UPLINK, UPLINK_IN, UPLINK_OUT};
use crate::subjects::{TAPWAY, TAPWAY_TWO_WORKERS};
use crate::workload::Metric;

/// The metrics that get a panel.
const PANELS: [Metric; 8] = [
    Metric::Tcp1,
    Metric::Tcp4,
    Metric::Udp64,
    Metric::Udp1514,
    Metric::RoundTrip,
    Metric::CpuSystem,
    Metric::CpuSwitch,
    Metric::Memory,
];

const WIDTH: f64 = 1040.0;
const MARGIN: f64 = 32.0;
const GUTTER: f64 = 48.0;
const PANEL_WIDTH: f64 = (WIDTH - 2.0 * MARGIN - GUTTER) / 2.0;
/// Room for the names of the subjects.
const NAMES: f64 = 144.0;
/// Room for the values behind the longest bar.
const VALUES: f64 = 56.0;
const HEAD: f64 = 92.0;
const TITLE: f64 = 34.0;
const ROW: f64 = 24.0;
const BAR: f64 = 15.0;
const AXIS: f64 = 52.0;

const STYLE: &str = "text{font-family:'Helvetica Neue',Helvetica,Arial,sans-serif;fill:#1f2933}\
.h1{font-size:21px;font-weight:600}.sub{font-size:12px;fill:#616e7c}.h2{font-size:14px;font-weight:600}\
.unit{font-size:12px;fill:#616e7c;font-weight:400}.name{font-size:12px;text-anchor:end}\
.ours{font-weight:600}.value{font-size:12px}.none{font-size:12px;fill:#9aa5b1}\
.tick{font-size:11px;fill:#7b8794;text-anchor:middle}.grid{stroke:#e4e7eb}.axis{stroke:#9aa5b1}\
.spread{stroke:#1f2933;stroke-opacity:.65;stroke-width:1.2}";

pub(super) fn render(report: &Report<'_>) -> String {
    let panels: Vec<_> = PANELS
        .into_iter()
        .filter(|&metric| {
            report.subjects.iter().any(|(name, _)| report.samples.summary(name, metric).is_some())
        })
        .collect();
    let panel_height = TITLE + ROW * report.subjects.len() as f64 + AXIS;
    let foot = HEAD + panel_height * panels.len().div_ceil(2) as f64;
    let height = foot + 8.0 + ROW * report.absent.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\">\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let host = &report.host;
    let _ = writeln!(svg, "<text class=\"h1\" x=\"{MARGIN}\" y=\"40\">{}</text>", report.table.title());
    let subtitle = format!(
        "Medians and ranges of {} · Linux {} · {} × {} · commit {}",
        report.method(),
        host.kernel,
        host.cores,
        host.cpu,
        host.commit.get(..12).unwrap_or(&host.commit),
    );
    let _ = writeln!(svg, "<text class=\"sub\" x=\"{MARGIN}\" y=\"62\">{}</text>", escape(&subtitle));
    for (index, &metric) in panels.iter().enumerate() {
        let x = MARGIN + (index % 2) as f64 * (PANEL_WIDTH + GUTTER);
        let y = HEAD + (index / 2) as f64 * panel_height;
        panel(&mut svg, report, metric, x, y);
    }
    for (row, (name, why)) in report.absent.iter().enumerate() {
        let y = foot + ROW * row as f64;
        let line = format!("{name}: not measured: {why}");
        let _ = writeln!(svg, "<text class=\"sub\" x=\"{MARGIN}\" y=\"{y:.1}\">{}</text>", escape(&line));
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, report: &Report<'_>, metric: Metric, x: f64, y: f64) {
    let summaries: Vec<(&str, Option<Summary>)> =
        report.subjects.iter().map(|(name, _)| (*name, report.samples.summary(name, metric))).collect();
    let longest = summaries.iter().filter_map(|(_, summary)| Some(summary.as_ref()?.max)).fold(0.0, f64::max);
    let (step, steps) = ticks(longest);
    let scale = (PANEL_WIDTH - NAMES - VALUES) / (step * f64::from(steps));
    let left = x + NAMES;
    let better = if metric.more_is_better() { "more is better" } else { "less is better" };
    let _ = writeln!(
        svg,
        "<text class=\"h2\" x=\"{x}\" y=\"{:.1}\">{} <tspan class=\"unit\">{}, {better}</tspan></text>",
        y + 14.0,
        escape(metric.title()),
        escape(metric.unit()),
    );
    let (top, bottom) = (y + TITLE - 6.0, y + TITLE + ROW * summaries.len() as f64);
    for tick in 0..=steps {
        let value = step * f64::from(tick);
        let at = left + value * scale;
        let class = if tick == 0 { "axis" } else { "grid" };
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{at:.1}\" y1=\"{top:.1}\" x2=\"{at:.1}\" y2=\"{bottom:.1}\"/>\
             <text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            bottom + 16.0,
            tick_label(value),
        );
    }
    for (row, (name, summary)) in summaries.iter().enumerate() {
        let middle = y + TITLE + ROW * (row as f64 + 0.5) - 3.0;
        bar(svg, metric, name, *summary, (left, middle, scale));
    }
}

fn bar(
    svg: &mut String,
    metric: Metric,
    name: &str,
    summary: Option<Summary>,
    (left, middle, scale): (f64, f64, f64),
) {
    let ours = name.starts_with(TAPWAY);
    let class = if ours { "name ours" } else { "name" };
    let text = middle + 4.2;
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{:.1}\" y=\"{text:.1}\">{}</text>",
        left - 8.0,
        escape(name)
    );
    let Some(Summary { median, min, max }) = summary else {
        let _ = writeln!(svg, "<text class=\"none\" x=\"{:.1}\" y=\"{text:.1}\">–</text>", left + 6.0);
        return;
    };
    let fill = match name {
        TAPWAY | TAPWAY_TAP | SOCKETS | SOCKETS_OUT | SOCKETS_IN => "#0b7285",
        TAPWAY_TWO_WORKERS | UPLINK | UPLINK_OUT | UPLINK_IN => "#3bafc4",
        _ => "#b8c2cc",
    };
    let _ = writeln!(
        svg,
        "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{fill}\"/>",
        middle - BAR / 2.0,
        median * scale,
    );
    let (from, to) = (left + min * scale, left + max * scale);
    if to - from > 1.0 {
        let (upper, lower) = (middle - 3.5, middle + 3.5);
        let _ = writeln!(
            svg,
            "<path class=\"spread\" fill=\"none\" d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {upper:.1}V{lower:.1}M{to:.1} {upper:.1}V{lower:.1}\"/>"
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"value\" x=\"{:.1}\" y=\"{text:.1}\">{}</text>",
        to.max(left + median * scale) + 7.0,
        metric.format(median),
    );
}

/// A round step, and how many of it reach `longest`: three to six ticks.
fn ticks(longest: f64) -> (f64, u32) {
    if longest <= 0.0 {
        return (1.0, 1);
    }
    let decade = 10f64.powf((longest / 4.0).log10().floor());
    let fits = |step: &f64| longest / step <= 5.0;
    let step =
        [1.0, 2.0, 2.5, 5.0].map(|factor| factor * decade).into_iter().find(fits).unwrap_or(10.0 * decade);
    (step, (longest / step).ceil() as u32)
}

fn tick_label(value: f64) -> String {
    let label = format!("{value:.2}");
    label.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
