//! What a run says, in three forms: a table for the terminal, JSON for comparisons, SVG for the page.

mod json;
mod svg;
mod table;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::args::Args;
use crate::host::Host;
use crate::samples::Samples;
use crate::table::Table;

/// A finished run.
#[derive(Debug)]
pub(crate) struct Report<'run> {
    pub(crate) table: Table,
    pub(crate) host: Host,
    pub(crate) args: &'run Args,
    /// Name and version of each, in the order of the report.
    pub(crate) subjects: Vec<(&'static str, String)>,
    /// What could not be measured on this machine, and why.
    pub(crate) absent: Vec<(&'static str, String)>,
    pub(crate) samples: Samples,
    pub(crate) failures: Vec<String>,
}

impl Report<'_> {
    pub(crate) fn table(&self) -> String {
        table::render(self)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        json::render(self)
    }

    pub(crate) fn svg(&self) -> String {
        svg::render(self)
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json())?;
        fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }

    pub(crate) fn write_svg(&self, path: &Path) -> Result<()> {
        fs::write(path, self.svg()).with_context(|| format!("writing {}", path.display()))
    }

    /// How the numbers came about, in one line.
    fn method(&self) -> String {
        let rounds = match self.args.rounds() {
            1 => "1 round".to_owned(),
            rounds => format!("{rounds} interleaved rounds"),
        };
        format!("{rounds} of {} s per workload", self.args.duration().as_secs())
    }
}
