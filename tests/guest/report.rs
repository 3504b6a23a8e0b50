//! What the guest said on its console, and whether that is a success: nothing is one that did not say so itself.

use std::fmt;

use super::Suite;

/// What became of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// So many tests ran, and none failed; how long that took, as libtest has it.
    Passed(u32, String),
    /// It ran to its end, which was not a good one.
    Failed,
    /// It ran no test, so it showed nothing.
    Empty,
    /// It did not get to its end: a panic of the kernel, a hang.
    Unfinished,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(tests, took) => {
                let s = if *tests == 1 { "" } else { "s" };
                write!(f, "{tests} test{s} passed in {took}")
            }
            Self::Failed => f.write_str("FAILED"),
            Self::Empty => f.write_str("FAILED: no test of that name"),
            Self::Unfinished => f.write_str("FAILED: did not end"),
        }
    }
}

/// What became of each suite, and whether the guest came to its end.
#[derive(Debug)]
pub(crate) struct Report {
    /// In the order in which they were to run.
    pub(crate) outcomes: Vec<(Suite, Outcome)>,
    /// Whether the last line was reached.
    pub(crate) ended: bool,
}

impl Report {
    /// Reads the console.
    pub(crate) fn read(console: &str, suites: &[Suite]) -> Self {
        let outcomes = suites.iter().map(|suite| (suite.clone(), outcome(console, suite.name.as_str())));
        Self { outcomes: outcomes.collect(), ended: lines(console).any(|line| line == "guest: end") }
    }

    /// Whether everything that was asked for has run, and is right.
    pub(crate) fn is_good(&self) -> bool {
        self.ended && self.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Passed(..)))
    }
}

fn outcome(console: &str, suite: &str) -> Outcome {
    let begins = format!("guest: suite {suite} begins");
    let exit = format!("guest: suite {suite} exit ");
    let (mut tests, mut took) = (0, "");
    for line in lines(console).skip_while(|line| *line != begins) {
        if let Some(status) = line.strip_prefix(&exit) {
            return match (status, tests) {
                ("0", 0) => Outcome::Empty,
                ("0", tests) => Outcome::Passed(tests, took.to_owned()),
                _ => Outcome::Failed,
            };
        }
        // libtest: "test result: ok. 7 passed; 0 failed; …; finished in 1.25s"
        if let Some(result) = line.strip_prefix("test result: ok. ") {
            tests = result.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
            took = result.rsplit(' ').next().unwrap_or_default();
        }
    }
    Outcome::Unfinished
}

/// A serial console ends lines with a carriage return too.
fn lines(console: &str) -> impl Iterator<Item = &str> {
    console.lines().map(|line| line.trim_end_matches('\r'))
}
