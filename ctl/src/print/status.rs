//! How the daemon is.

use tapway_dataplane::api::Status;

use super::table::{Align, RESET, Table, YELLOW, pairs, words};

pub(crate) fn status(s: &Status) -> String {
    let mut text = pairs(&[
        ("version", s.version.clone()),
        ("pid", s.pid.to_string()),
        ("uptime", uptime(s.uptime_s)),
        ("generation", s.generation.to_string()),
        ("bridges", s.bridges.to_string()),
        ("ports", s.ports.to_string()),
        ("fdb entries", s.fdb_entries.to_string()),
        ("kernel", s.kernel.clone()),
        ("features", words(&s.features)),
        ("missing", words(&s.missing)),
    ]);
    let heads = ["WORKER", "GENERATION", "QUEUES", "WAKEUPS", "BATCHES", "FRAMES"];
    let mut table = Table::new(&heads.map(|head| (head, Align::Right)));
    for w in &s.workers {
        let numbers = [w.worker as u64, w.generation, w.queues as u64, w.wakeups, w.batches, w.frames];
        table.row(numbers.map(|n| n.to_string()));
    }
    text += "\n";
    text += &table.text();
    s.notices.iter().fold(text, |text, notice| text + &format!("\n{YELLOW}notice: {notice}{RESET}\n"))
}

/// `3d 04:05:06`, without the days where there are none.
fn uptime(seconds: u64) -> String {
    let (days, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let days = if days > 0 { format!("{days}d ") } else { String::new() };
    format!("{days}{h:02}:{m:02}:{s:02}")
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use tapway_dataplane::api::WorkerView;

    use super::*;

    #[test]
    fn a_status_says_what_is_missing_and_what_to_know() {
        let s = Status {
            version: "0.1.0".to_owned(),
            uptime_s: 86_400 + 3661,
            workers: vec![WorkerView { worker: 0, generation: 7, frames: 1000, ..Default::default() }],
            features: vec!["tun".to_owned(), "csum".to_owned()],
            notices: vec!["port \"vm1\" is down: its interface is gone".to_owned()],
            ..Default::default()
        };
        let text = strip_str(&status(&s)).to_string();
        assert!(text.starts_with("version      0.1.0\n"), "{text}");
        assert!(text.contains("uptime       1d 01:01:01\n"), "{text}");
        assert!(text.contains("features     tun csum\nmissing      -\n"), "{text}");
        let end = "WORKER  GENERATION  QUEUES  WAKEUPS  BATCHES  FRAMES\n     0           7       0        0        0    1000\n\n\
                   notice: port \"vm1\" is down: its interface is gone\n";
        assert!(text.ends_with(end), "{text}");
    }
}
