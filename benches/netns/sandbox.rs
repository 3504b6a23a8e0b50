//! Where a run happens: its own network, mount and process-id namespaces, and nothing of it anywhere else.
//!
//! The process cargo started only waits. The bench proper is process 1 of a new pid namespace, so when it ends, for
//! whatever reason, the kernel ends every switch, load and Open vSwitch database with it, and namespaces, interfaces
//! and the private `/run` go with the last of them. That is what makes the cleanup hold on SIGINT, SIGTERM and even
//! SIGKILL: the waiting process dies by the signal, its end of the lifeline pipe closes, and process 1 leaves.
//! `Drop` all over the bench is tidiness between rounds, not the guarantee.

use std::ffi::OsString;
use std::io::Read as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::process::run;

/// Exit status of process 1 when the process that waits for it is gone: 128 + SIGINT, as a shell would say it.
const INTERRUPTED: i32 = 130;

/// Runs this bench again inside new namespaces and waits for it.
pub(crate) fn enter(args: &[OsString]) -> Result<ExitCode> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "needs root: it creates network namespaces and TAP interfaces"
    );
    let mut child = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(std::env::current_exe().context("finding this program")?)
        .arg("--inside")
        .args(args)
        .stdin(Stdio::piped())
        .spawn()
        .context("running unshare (package util-linux)")?;
    // `wait` closes a standard input it still finds in the child, and this one must stay open until the end.
    let lifeline = child.stdin.take();
    let status = child.wait().context("waiting for the bench")?;
    drop(lifeline);
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// First thing inside: tie this process to the one that waits for it, and take a private `/run`, so that named
/// namespaces, sockets and databases of the run are seen by nobody else and collide with nobody else's.
pub(crate) fn settle() -> Result<()> {
    std::thread::spawn(|| {
        let mut nothing = [0; 1];
        while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
        std::process::exit(INTERRUPTED);
    });
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "tapway-bench", "/run"]))?;
    std::fs::create_dir(crate::process::LOGS).context("creating the log directory")?;
    Ok(())
}
