//! `docs/reference/drops.md`, written from the table of drop reasons.
//!
//! `UPDATE_DOCS=1 cargo test -p tapway-dataplane --test reference_drops` writes the page; without it the test compares.

use std::{fmt::Write as _, path::Path};

use tapway_dataplane::counters::{DropReason, Side};

const INTRO: &str = "\
# Drops

Every frame that does not leave is counted, once, under one of these names.
This page is written from the table in `dataplane/src/counters.rs`; a test keeps the two equal.

## Reading `tapwayctl drops`

`tapwayctl drops` shows port, reason and number, and only what has happened; `--json` adds what it means and what to do.
`tapwayctl port show NAME` has the same numbers, and `tapwayctl trace` tells which reason a given frame would meet.

- A reason of the **ingress** side is counted on the port the frame came from.
  The frame went nowhere.
- A reason of the **egress** side is counted on the port the frame should have left by.
  A flooded frame has a copy for each port; the other copies are not affected.
- A super-frame (many segments under one header) is one frame on its way in.
  Where it is split on its way out, each segment that does not leave counts.
- A frame that is flooded past a port is not a drop: a port outside the VLAN, a port that is down, or one with flooding off.
- Frames that the kernel drops before the switch reads them are in the counters of the interface (`ip -s link`), not here.
";

fn page() -> String {
    let mut page = INTRO.to_owned();
    for (side, title) in [(Side::Ingress, "On the way in"), (Side::Egress, "On the way out")] {
        write!(page, "\n## {title}\n\n| Reason | What happened | What to do |\n|---|---|---|\n").unwrap();
        for reason in DropReason::ALL.iter().filter(|r| r.side() == side) {
            let [what, remedy] = [reason.what(), reason.remedy()].map(|text| text.replace('|', "\\|"));
            writeln!(page, "| `{reason}` | {what} | {remedy} |").unwrap();
        }
    }
    page
}

#[test]
fn the_reference_page_is_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/drops.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        page == written,
        "docs/reference/drops.md is behind: UPDATE_DOCS=1 cargo test -p tapway-dataplane --test reference_drops"
    );
}

#[test]
fn every_reason_has_a_word_and_two_sentences() {
    for (n, reason) in DropReason::ALL.iter().enumerate() {
        assert!(reason.name().chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{reason}");
        assert!(reason.what().ends_with('.') && reason.remedy().ends_with('.'), "{reason}");
        assert!(DropReason::ALL[..n].iter().all(|other| other.name() != reason.name()), "{reason} twice");
    }
}
