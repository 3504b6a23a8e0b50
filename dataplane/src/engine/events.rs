//! What happens while nobody asks, kept for those who ask later.

use std::collections::VecDeque;

use super::Engine;
use crate::api::{Event, Reply};

/// Events that are kept: a burst of a few for each of some hundreds of objects.
const KEPT: usize = 1024;

/// The newest events, and how many there have been.
#[derive(Debug, Default)]
pub(super) struct Events {
    newest: VecDeque<Event>,
    count: u64,
}

impl Events {
    /// Those after the first `after`, as far as they are kept.
    fn since(&self, after: u64) -> impl Iterator<Item = &Event> {
        let missed = self.count.saturating_sub(after).min(self.newest.len() as u64);
        self.newest.iter().skip(self.newest.len() - missed as usize)
    }
}

impl Engine {
    /// Notes that something has happened to an object.
    pub(super) fn note(&mut self, kind: &'static str, name: impl ToString, text: impl ToString) {
        let uptime_s = (self.clock.now().nanos() - self.started.nanos()) / 1_000_000_000;
        let event = Event { uptime_s, kind: kind.to_owned(), name: name.to_string(), text: text.to_string() };
        let Events { newest, count } = &mut self.events;
        if newest.len() == KEPT {
            newest.pop_front();
        }
        newest.push_back(event);
        *count += 1;
    }

    pub(super) fn monitor(&self, after: Option<u64>) -> Reply {
        let next = self.events.count;
        Reply::Events { events: self.events.since(after.unwrap_or(next)).cloned().collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_comes_late_hears_what_is_kept_and_one_who_is_ahead_hears_nothing() {
        let event =
            |n: u64| Event { uptime_s: n, kind: String::new(), name: String::new(), text: String::new() };
        let events = Events { newest: (7..10).map(event).collect(), count: 10 };
        let since = |after| events.since(after).map(|e| e.uptime_s).collect::<Vec<_>>();
        assert_eq!(since(0), [7, 8, 9]);
        assert_eq!(since(9), [9]);
        assert_eq!(since(10), [0; 0]);
        assert_eq!(since(11), [0; 0], "it has heard of another daemon");
    }
}
