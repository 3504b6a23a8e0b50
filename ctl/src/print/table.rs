//! Columns without lines.
//!
//! `comfy-table` lays out; colour is put around whole lines afterwards, because it would count in the widths.

use comfy_table::{CellAlignment, presets};

pub(super) const BOLD: &str = "\x1b[1m";
pub(super) const RED: &str = "\x1b[31m";
pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const YELLOW: &str = "\x1b[33m";
pub(super) const RESET: &str = "\x1b[0m";

/// Numbers stand right, words left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows under a head.
pub(super) struct Table {
    inner: comfy_table::Table,
    colours: Vec<Option<&'static str>>,
}

impl Table {
    pub(super) fn new(columns: &[(&str, Align)]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(presets::NOTHING).set_header(columns.iter().map(|(head, _)| *head));
        for (column, (_, align)) in inner.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            column.set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        Self { inner, colours: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.coloured(None, cells);
    }

    pub(super) fn coloured(&mut self, colour: Option<&'static str>, cells: impl IntoIterator<Item = String>) {
        self.inner.add_row(cells.into_iter().collect::<Vec<_>>());
        self.colours.push(colour);
    }

    /// The head, and a line for each row; cells hold no line breaks.
    pub(super) fn text(&self) -> String {
        let colours = std::iter::once(Some(BOLD)).chain(self.colours.iter().copied());
        self.inner.lines().zip(colours).fold(String::new(), |text, (line, colour)| {
            let line = line.trim_end();
            text + &match colour {
                Some(colour) => format!("{colour}{line}{RESET}\n"),
                None => format!("{line}\n"),
            }
        })
    }
}

/// Names and values under each other.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs
        .iter()
        .fold(String::new(), |text, (name, value)| text + &format!("{BOLD}{name:width$}{RESET}  {value}\n"))
}

pub(super) fn or_dash(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

pub(super) fn words(words: &[impl AsRef<str>]) -> String {
    let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}
