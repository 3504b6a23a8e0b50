//! `docs/reference/drops.md` is written from the list of drop reasons.
//!
//! `UPDATE_DOCS=1 cargo test -p tapway-dataplane --test drops` writes the page; without it the test compares.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use tapway_dataplane::counters::{DropReason, Side};

const INTRO: &str = "\
# Drop reasons

Every frame that does not leave is counted once, on one port, under one of these names.
`tapwayctl drops` shows those that have counted, with the same sentences; `tapwayctl port show NAME --json` and
`tapwayctl drops --json` have the names as keys.
The page is written from the list in `dataplane/src/counters.rs`; a test keeps the two equal.

What enters is counted first (`rx`), so for each port the frames received are those that were forwarded and those dropped at the
ingress.
A frame that is flooded is one copy for each egress: a copy that one egress cannot take is counted there, the others leave.
A super-frame is one frame; where an egress gets it split, each segment is.

";

fn page() -> String {
    let mut page = INTRO.to_owned();
    let sides = [
        (Side::Ingress, "Counted on the port the frame came from", "The frame went nowhere."),
        (Side::Egress, "Counted on the port the frame was for", "Copies for other ports are not affected."),
    ];
    for (side, title, meaning) in sides {
        write!(
            page,
            "## {title}\n\n{meaning}\n\n| reason | what happened | what to do |\n| --- | --- | --- |\n"
        )
        .unwrap();
        for reason in DropReason::ALL.iter().filter(|r| r.side() == side) {
            writeln!(page, "| `{reason}` | {} | {} |", reason.what(), reason.remedy()).unwrap();
        }
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    page + "\n"
}

#[test]
fn the_reference_page_is_the_list_of_reasons() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/drops.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written,
        page(),
        "docs/reference/drops.md is behind: UPDATE_DOCS=1 cargo test -p tapway-dataplane --test drops"
    );
}

#[test]
fn reasons_have_names_of_their_own_and_sentences() {
    let names: BTreeSet<&str> = DropReason::ALL.iter().map(|r| r.name()).collect();
    assert_eq!(names.len(), DropReason::COUNT);
    for reason in DropReason::ALL {
        assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason}");
        assert!(reason.what().ends_with('.') && reason.remedy().ends_with('.'), "{reason}");
    }
}
