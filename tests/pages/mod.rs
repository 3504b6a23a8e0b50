//! Pages whose commands are run: what a page tells people to type, and what it shows of what then comes.
//!
//! Every `sh` block of a page runs as it stands there. A page is one shell, in namespaces of its own for network, mounts and
//! processes. It may call things what it likes, and nothing of it is left.
//!
//! The lines that the page shows behind a block must come in their order; others may come between them, since
//! hosts talk when they like. What differs from run to run is not compared: see [`told`].
#![allow(dead_code, reason = "each test binary compiles this module for itself and speaks a part of it")]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::topo;

/// The pages whose devices the host's kernel may have been built without, with their text: the guest has no sources.
/// `tests/guest_guides.rs` runs them there.
pub(crate) const IN_GUEST: &[(&str, &str)] = &[(
    "docs/guide/linux-vlan-ipvlan-geneve.md",
    include_str!("../../docs/guide/linux-vlan-ipvlan-geneve.md"),
)];

/// Programs that a page calls and that not every machine has.
const RARE: &[&str] = &["python3", "qemu-system-x86_64"];
/// What only a command prints that did not do what the page says, unless the page shows it.
const FAILURES: &[&str] = &[
    "error: ",
    "Error: ",
    "RTNETLINK answers: ",
    "Cannot find device ",
    "Cannot open network namespace ",
    "No such file or directory",
    "command not found",
    "Traceback ",
];
/// Stands between what two blocks print.
const MARK: &str = "=== end of block";

/// Commands, and what the page shows of what they print.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) commands: String,
    pub(crate) shown: Vec<String>,
}

/// Runs a page whose text is `text`, with our programs from a directory; what it shows must come `within` these seconds.
#[track_caller]
pub(crate) fn runs_as_shown(page: &str, text: &str, programs: impl FnOnce() -> PathBuf, within: u32) {
    let blocks = blocks(text);
    assert!(!blocks.is_empty(), "{page} has no commands");
    let calls = |program: &str| blocks.iter().any(|block| block.commands.contains(program));
    if let Some(missing) = RARE.iter().find(|program| calls(program) && !in_path(program)) {
        return topo::skipped(&format!("{page} calls {missing}, which is not installed"));
    }
    let Some(shell) = shell(within) else { return };
    let printed = run(shell, &blocks, &programs());
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
        let failed = |line: &&str| FAILURES.iter().any(|words| line.contains(words));
        for line in printed.lines().filter(failed) {
            let shown = block.shown.iter().any(|shown| told(shown) == told(line));
            assert!(shown, "{page}, block of line {}: this is not shown:\n{line}", block.line);
        }
    }
}

/// What of a line is compared: its words, and numbers outside tables. `None` of lines that tell about this machine and this
/// moment alone.
pub(crate) fn told(line: &str) -> Option<String> {
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
pub(crate) fn blocks(text: &str) -> Vec<Block> {
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
fn run(mut shell: Command, blocks: &[Block], programs: &Path) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let mut path = vec![programs.to_owned()];
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
fn shell(within: u32) -> Option<Command> {
    let user: &[&str] =
        if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let world = || {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", &within.to_string(), "unshare"]).args(user).args([
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

fn in_path(command: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(command).exists())
}
