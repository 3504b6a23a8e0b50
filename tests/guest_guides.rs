//! The guides that show devices which the host's kernel may have been built without: every `sh` block runs as it stands there, in
//! the guest, and what the page shows comes. How is in `tests/pages/mod.rs`.

mod pages;
mod topo;

use std::path::PathBuf;

/// Where `tests/guest/image.rs` puts `tapwayd` and `tapwayctl`.
const PROGRAMS: &str = "/bin";
/// Many times of what a page takes where processors are emulated on a machine that is busy.
const SECONDS: u32 = 300;

#[test]
fn every_page_for_another_kernel_shows_what_comes() {
    if !topo::in_guest() {
        return;
    }
    for (page, text) in pages::IN_GUEST {
        pages::runs_as_shown(page, text, || PathBuf::from(PROGRAMS), SECONDS);
    }
}
