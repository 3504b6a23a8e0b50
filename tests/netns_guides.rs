//! The guides and README.md tell what happens: every `sh` block of a page runs as it stands there, and what the page shows comes.
//! How is in `tests/pages/mod.rs`.
//!
//! Unlike all other tests of this directory these need the two binaries. They are built first: a stale one would be a green test.

mod pages;
mod topo;
mod vm;

use std::{env, fmt::Write as _, fs, path::PathBuf, process::Command, sync::OnceLock};

use pages::{Block, blocks, told};

/// A page takes half of it on a machine that is busy.
const SECONDS: u32 = 120;

/// The page with virtual machines, which needs one.
const VMS: &str = "docs/guide/vms.md";

#[test]
fn vms() {
    let Some(image) = vm::Image::new() else { return };
    if !vm::may_open_devices() {
        return topo::skipped("a user namespace may not open the device of a macvtap");
    }
    // What the page calls the rest of a VM, and where the scripts are; and /sys/class/net with what is in the page's namespace.
    let machine = image.machine(512, 1).join(" ");
    let share = root().join("ctl/share");
    let before = format!(
        "```sh\nmount -t sysfs sysfs /sys\nshare={}\n\
         machine='{machine} -global virtio-net-pci.vectors=0 -append no_timer_check -serial null -serial null'\n```\n",
        share.display()
    );
    let text = fs::read_to_string(root().join(VMS)).expect("the page");
    pages::runs_as_shown(VMS, &(before + &text), binaries, SECONDS);
}

/// A test for each page.
macro_rules! pages {
    ($($name:ident: $page:literal,)*) => {
        /// The pages that run here.
        const HERE: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $name() {
                let text = fs::read_to_string(root().join($page)).expect("the page");
                pages::runs_as_shown($page, &text, binaries, SECONDS);
            }
        )*
    };
}

pages! {
    readme: "README.md",
    quick_start: "docs/guide/quick-start.md",
    ports_and_vlans: "docs/guide/ports-and-vlans.md",
    troubleshooting: "docs/guide/troubleshooting.md",
    overlay: "docs/guide/overlay.md",
    uplink: "docs/guide/uplink.md",
    linux_virtual_interfaces: "docs/guide/linux-virtual-interfaces.md",
    linux_vxlan: "docs/guide/linux-vxlan.md",
}

#[test]
fn every_page_with_commands_runs_here_or_in_the_guest() {
    let guides = fs::read_dir(root().join("docs/guide")).expect("the guides");
    let guides = guides.map(|entry| {
        format!("docs/guide/{}", entry.expect("an entry").file_name().into_string().expect("UTF-8"))
    });
    let run = |page: &str| {
        page == VMS || HERE.contains(&page) || pages::IN_GUEST.iter().any(|(name, _)| *name == page)
    };
    let has_commands =
        |page: &str| !blocks(&fs::read_to_string(root().join(page)).expect("a page")).is_empty();
    let missing: Vec<String> =
        guides.chain(["README.md".to_owned()]).filter(|page| has_commands(page) && !run(page)).collect();
    assert!(missing.is_empty(), "commands that no test runs: {missing:?}");
}

/// Where `tapwayd` and `tapwayctl` are, as the sources are now.
fn binaries() -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let release: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--bins", "--quiet", "--locked", "--offline"])
            .args(release)
            .current_dir(root())
            .status()
            .expect("cargo");
        assert!(built.success(), "the binaries cannot be built");
        // This test is in the same directory, below deps/.
        let test = env::current_exe().expect("the test's path");
        test.ancestors().nth(2).expect("two directories up").to_owned()
    })
    .clone()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_a_page_shows_is_in_a_block() {
    let mut wrong = String::new();
    for page in HERE.iter().chain(pages::IN_GUEST.iter().map(|(page, _)| page)) {
        let text = fs::read_to_string(root().join(page)).expect("the page");
        let mut inside = false;
        for (n, (line, next)) in text.lines().zip(text.lines().skip(1)).enumerate() {
            inside ^= line.starts_with("```");
            if line == "```" && !inside && !next.is_empty() && !next.starts_with("```") {
                let _ = writeln!(wrong, "{page}:{}: {next}", n + 2);
            }
        }
    }
    assert!(wrong.is_empty(), "nobody compares these with what comes:\n{wrong}");
}

#[test]
fn blocks_and_what_they_show_are_found() {
    let text = "a\n```sh\nb\nc\n```\n```\nd\n```\n```toml\ne\n```\n```sh\nf\n```\n\n```\ng\n```\n";
    let block = |line, commands: &str, shown: &[&str]| Block {
        line,
        commands: commands.to_owned(),
        shown: shown.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(blocks(text), [block(2, "b\nc", &["d"]), block(12, "f", &[])]);
}

#[test]
fn counts_and_times_are_not_compared() {
    assert_eq!(
        told("2 packets transmitted, 1 received, 50% packet loss, time 9ms"),
        Some("answers".to_owned())
    );
    assert_eq!(told("2 packets transmitted, 0 received, 100% packet loss"), Some("no answers".to_owned()));
    assert_eq!(
        told("br0        0  02:00:00:00:00:01  red  dynamic   3s"),
        told("br0 0 02:00:00:00:00:01 red dynamic 0s")
    );
    assert_eq!(told("vx    dynamic   3s  203.0.113.2"), Some("vx dynamic # 203.0.113.2".to_owned()));
    assert_eq!(told("mtu                1350"), Some("mtu 1350".to_owned()));
    assert_eq!(told("     1           0       0        0        0       0"), None);
}
