//! The guides and README.md tell what happens: every `sh` block of a page runs as it stands there, and what the page shows comes.
//!
//! A page is one shell, in namespaces of its own for network, mounts and processes. It may call things what it likes, and nothing of
//! it is left. The lines that the page shows behind a block must come in their order; others may come between them, since
//! hosts talk when they like. What differs from run to run is not compared: see [`told`].
//!
//! Unlike all other tests of this directory these need the two binaries. They are built first: a stale one would be a green test.

mod topo;
mod vm;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// A page takes half of it on a machine that is busy.
const SECONDS: &str = "120";
/// Stands between what two blocks print.
const MARK: &str = "=== end of block";

#[test]
fn readme() {
    runs_as_shown("README.md");
}

#[test]
fn quick_start() {
    runs_as_shown("docs/guide/quick-start.md");
}

#[test]
fn ports_and_vlans() {
    runs_as_shown("docs/guide/ports-and-vlans.md");
}

#[test]
fn troubleshooting() {
    runs_as_shown("docs/guide/troubleshooting.md");
}

#[test]
fn overlay() {
    runs_as_shown("docs/guide/overlay.md");
}

#[test]
fn uplink() {
    runs_as_shown("docs/guide/uplink.md");
}

#[test]
fn vms() {
    let page = "docs/guide/vms.md";
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
    let text = fs::read_to_string(root().join(page)).expect("the page");
    shows(page, &(before + &text));
}

/// Commands, and what the page shows of what they print.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    line: usize,
    commands: String,
    shown: Vec<String>,
}

#[track_caller]
fn runs_as_shown(page: &str) {
    shows(page, &fs::read_to_string(root().join(page)).expect("the page"));
}

/// The same of a page whose text is this.
#[track_caller]
fn shows(page: &str, text: &str) {
    let blocks = blocks(text);
    assert!(!blocks.is_empty(), "{page} has no commands");
    let Some(shell) = shell() else { return };
    let printed = run(shell, &blocks);
    let printed: Vec<&str> = printed.split(MARK).collect();
    assert_eq!(printed.len(), blocks.len() + 1, "{page} ended early:\n{}", printed.concat());
    for (block, printed) in blocks.iter().zip(printed) {
        let mut came = printed.lines().filter_map(told);
        for line in block.shown.iter().filter(|line| told(line).is_some()) {
            let wanted = told(line);
            assert!(
                came.any(|line| Some(line) == wanted),
                "{page}, block of line {}: this did not come:\n{line}\nbut this:\n{printed}",
                block.line
            );
        }
    }
}

/// What of a line is compared: its words, and numbers outside tables. `None` of lines that tell about this machine and this
/// moment alone.
fn told(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match *words.first()? {
        "pid" | "uptime" | "kernel" | "features" | "missing" | "cache" => return None,
        "rtt" => return Some("rtt".to_owned()),
        _ if line.contains("packets transmitted") => {
            let none = line.contains(" 100% packet loss");
            return Some(if none { "no answers" } else { "answers" }.to_owned());
        }
        _ if line.contains("bytes from") => return Some(line.split(" icmp_seq").next()?.to_owned()),
        _ => {}
    }
    let age = |word: &str| word.strip_suffix('s').is_some_and(|secs| secs.parse::<u64>().is_ok());
    let counts = |word: &&str| age(word) || word.parse::<u64>().is_ok();
    if words.iter().all(counts) {
        return None; // a worker
    }
    let in_table = words.len() > 2 && words.last().is_some_and(counts);
    let word = |word: &&str| if age(word) || in_table && counts(word) { "#" } else { *word }.to_owned();
    Some(words.iter().map(word).collect::<Vec<_>>().join(" "))
}

/// The `sh` blocks of a page, each with the block without a language that follows directly.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(text.lines()).peekable();
    while let Some((line, fence)) = lines.next() {
        let Some(language) = fence.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().map(|(_, l)| l).take_while(|l| *l != "```").collect();
        if language != "sh" {
            continue;
        }
        let shown = match lines.next_if(|(_, l)| *l == "```") {
            Some(_) => lines.by_ref().map(|(_, l)| l.to_owned()).take_while(|l| l != "```").collect(),
            None => Vec::new(),
        };
        blocks.push(Block { line, commands: body.join("\n"), shown });
    }
    blocks
}

/// What the blocks print, one shell running all.
fn run(mut shell: Command, blocks: &[Block]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let mut path = vec![binaries().to_owned()];
    if !in_path("nft") {
        // The firewall is the host's affair: where it is not installed, its commands do nothing.
        let nft = dir.path().join("nft");
        fs::write(&nft, "#!/bin/sh\n").expect("a file");
        fs::set_permissions(&nft, fs::Permissions::from_mode(0o755)).expect("permissions");
        path.push(dir.path().to_owned());
    }
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let ends = blocks.iter().map(|block| format!("{}\necho '{MARK}'\n", block.commands));
    // A /run of its own, for the socket and the names of namespaces.
    let script = format!("mount -t tmpfs tmpfs /run && cd {:?}\n{}", dir.path(), ends.collect::<String>());
    let output = shell
        .args(["bash", "-c", &format!("exec 2>&1\n{script}"), "page"])
        .env("PATH", env::join_paths(path).expect("no colons"))
        .env_remove("TAPWAY_SOCKET")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A command that runs another in a private world, or `None` (and a line that says why) where that cannot be.
fn shell() -> Option<Command> {
    let user: &[&str] =
        if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let world = || {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", SECONDS, "unshare"]).args(user).args([
            "--net",
            "--mount",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child",
        ]);
        command
    };
    let tun = fs::File::options().read(true).write(true).open("/dev/net/tun");
    let why = if tun.is_err() {
        "this process may not open /dev/net/tun"
    } else if !world().arg("true").output().is_ok_and(|output| output.status.success()) {
        "this process may not make namespaces; run as root, or under `unshare -Urn`"
    } else {
        return Some(world());
    };
    topo::skipped(why);
    None
}

/// Where `tapwayd` and `tapwayctl` are, as the sources are now.
fn binaries() -> &'static Path {
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
}

fn in_path(command: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(command).exists())
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
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
