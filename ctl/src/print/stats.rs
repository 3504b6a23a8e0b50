//! Counters, rates, and frames that did not leave.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tapway_dataplane::api::{DropView, PortStatsView, Traffic};

use super::table::{Align, Table, or_dash};

/// Counters of a port, and how fast they grow where they were seen before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Rated {
    #[serde(flatten)]
    stats: PortStatsView,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_s: Option<Rates>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Rates {
    rx: Traffic,
    tx: Traffic,
    dropped: u64,
}

impl Rated {
    /// With rates since `before`, which is `elapsed` ago; a port that was not there then has none.
    pub(crate) fn all(now: Vec<PortStatsView>, before: &[PortStatsView], elapsed: Duration) -> Vec<Self> {
        let seconds = elapsed.as_secs_f64();
        let rate = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds).round() as u64;
        let traffic = |now: Traffic, then: Traffic| Traffic {
            frames: rate(now.frames, then.frames),
            bytes: rate(now.bytes, then.bytes),
        };
        let rated = |stats: PortStatsView| {
            let then = before.iter().find(|b| b.port == stats.port && seconds > 0.0);
            let per_s = then.map(|then| Rates {
                rx: traffic(stats.rx, then.rx),
                tx: traffic(stats.tx, then.tx),
                dropped: rate(stats.dropped, then.dropped),
            });
            Self { stats, per_s }
        };
        let mut all: Vec<_> = now.into_iter().map(rated).collect();
        all.sort_by(|a, b| a.stats.port.cmp(&b.stats.port));
        all
    }
}

/// Exact numbers; beside rates short ones, and no octets, which is what 80 columns take.
pub(crate) fn stats(ports: &[Rated]) -> String {
    let rates = ports.iter().any(|p| p.per_s.is_some());
    let numbers: &[&str] = if rates {
        &["RX-FRAMES", "TX-FRAMES", "DROPPED", "RX-F/S", "RX-BIT/S", "TX-F/S", "TX-BIT/S", "DROP/S"]
    } else {
        &["RX-FRAMES", "RX-BYTES", "TX-FRAMES", "TX-BYTES", "DROPPED"]
    };
    let mut columns = vec![("PORT", Align::Left)];
    columns.extend(numbers.iter().map(|head| (*head, Align::Right)));
    let mut table = Table::new(&columns);
    for Rated { stats: p, per_s } in ports {
        let mut row = vec![p.port.to_string()];
        if rates {
            row.extend([p.rx.frames, p.tx.frames, p.dropped].map(short));
        } else {
            let all = [p.rx.frames, p.rx.bytes, p.tx.frames, p.tx.bytes, p.dropped];
            row.extend(all.map(|n| n.to_string()));
        }
        match per_s {
            Some(r) => {
                let all = [r.rx.frames, r.rx.bytes * 8, r.tx.frames, r.tx.bytes * 8, r.dropped];
                row.extend(all.map(short));
            }
            None if rates => row.extend(std::iter::repeat_n("-".to_owned(), 5)),
            None => {}
        }
        table.row(row);
    }
    table.text()
}

pub(crate) fn drops(drops: &[DropView]) -> String {
    if drops.is_empty() {
        return "no frame was dropped\n".to_owned();
    }
    let mut table = Table::new(&[("PORT", Align::Left), ("REASON", Align::Left), ("FRAMES", Align::Right)]);
    let mut reasons = BTreeMap::new();
    for d in drops {
        // What came to a tunnel end and was for no port stands under the end's name.
        let place = d.port.as_ref().map(ToString::to_string).or_else(|| d.vtep.clone());
        table.row([or_dash(place.as_ref()), d.reason.clone(), d.frames.to_string()]);
        reasons.insert(&d.reason, (&d.what, &d.remedy));
    }
    reasons.into_iter().fold(table.text(), |text, (reason, (what, remedy))| {
        text + &format!("\n{reason}: {what}\n  {remedy}\n")
    })
}

/// Three digits and a power of thousand.
pub(super) fn short(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["", "k", "M", "G"] {
        if value < 999.5 {
            return match unit {
                "" => format!("{n}"),
                _ if value < 9.995 => format!("{value:.2}{unit}"),
                _ if value < 99.95 => format!("{value:.1}{unit}"),
                _ => format!("{value:.0}{unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.2}T")
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    fn view(port: &str, frames: u64) -> PortStatsView {
        let traffic = Traffic { frames, bytes: 100 * frames };
        PortStatsView { port: port.parse().unwrap(), rx: traffic, tx: traffic, dropped: 1 }
    }

    #[test]
    fn rates_are_what_was_added_a_second_and_a_new_port_has_none() {
        let (before, now) = (vec![view("vm1", 1000)], vec![view("vm2", 5), view("vm1", 4000)]);
        let rated = Rated::all(now, &before, Duration::from_secs(2));
        assert_eq!(
            strip_str(&stats(&rated)).to_string(),
            "PORT  RX-FRAMES  TX-FRAMES  DROPPED  RX-F/S  RX-BIT/S  TX-F/S  TX-BIT/S  DROP/S\n\
             vm1       4.00k      4.00k        1   1.50k     1.20M   1.50k     1.20M       0\n\
             vm2           5          5        1       -         -       -         -       -\n"
        );
        let json = serde_json::to_value(&rated).unwrap();
        assert_eq!(json[0]["per_s"]["rx"]["frames"], 1500);
        assert!(json[1].get("per_s").is_none());
    }

    #[test]
    fn counters_that_started_anew_have_no_rate_below_zero() {
        let rated = Rated::all(vec![view("vm1", 1)], &[view("vm1", 1000)], Duration::from_secs(1));
        assert_eq!(rated[0].per_s.unwrap().rx.frames, 0);
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1.00k"),
            (12_345, "12.3k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
        ];
        for (n, text) in cases {
            assert_eq!(short(n), text);
        }
        assert_eq!(short(25_000_000_000), "25.0G");
    }

    #[test]
    fn every_reason_is_explained_once() {
        let drop = |port: &str, reason: &str| DropView {
            port: Some(port.parse().unwrap()),
            vtep: None,
            reason: reason.to_owned(),
            frames: 3,
            what: format!("What {reason} is."),
            remedy: "What to do.".to_owned(),
        };
        assert_eq!(
            strip_str(&drops(&[drop("vm1", "runt"), drop("vm2", "runt")])).to_string(),
            "PORT  REASON  FRAMES\nvm1   runt         3\nvm2   runt         3\n\nrunt: What runt is.\n  What to do.\n"
        );
        let nowhere =
            DropView { port: None, vtep: Some("vxlan 198.51.100.1:4789".to_owned()), ..drop("vm1", "runt") };
        let text = strip_str(&drops(&[nowhere])).to_string();
        assert!(text.contains("\nvxlan 198.51.100.1:4789  runt         3\n"), "{text}");
        assert_eq!(drops(&[]), "no frame was dropped\n");
    }
}
