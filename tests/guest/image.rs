//! What the guest's memory is filled with before it starts: `/init`, busybox, kernel modules, programs with their libraries,
//! and the tests.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::{Suite, cpio::Archive, kernel::Kernel};

/// What the tests in the guest need of the kernel, beyond what is built in.
const MODULES: &[&str] = &[
    "8021q",
    "act_mirred",
    "act_tunnel_key",
    "bridge",
    "cls_flower",
    "cls_matchall",
    "dummy",
    "geneve",
    "ipvlan",
    "macvlan",
    "macvtap",
    "sch_ingress",
    "sch_netem",
    "tun",
    "veth",
    "vxlan",
];

/// What they call.
const PROGRAMS: &[&str] = &["ip", "bridge", "tc"];

/// The suite that runs guides, for which an operator's machine is needed: a shell, the two programs, and tools that print here
/// what they print on a host.
const GUIDES: &str = "guest_guides";
const GUIDE_PROGRAMS: &[&str] = &["bash", "nsenter", "ping", "timeout", "unshare"];

/// What `/init` and the guides call, of busybox.
const APPLETS: &[&str] = &[
    "awk", "cat", "cut", "dmesg", "grep", "head", "insmod", "mount", "poweroff", "sh", "sleep", "sort",
    "true", "uname", "xxd",
];

/// The first process of the guest. A line of its own begins with `guest:`, which `report.rs` reads.
///
/// The kernel speaks until here, so that a boot that hangs can be seen; from here on it does in a panic alone, so that none of
/// its lines gets into one of ours.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin HOME=/ TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
dmesg -n 1
echo "guest: up, Linux $(uname -r)"
for module in $(cat /modules/order); do
    insmod /modules/$module.ko || echo "guest: module $module: not loaded"
done
suite() { # NAME ARGUMENTS...
    name=$1; shift
    echo "guest: suite $name begins"
    /tests/$name "$@" </dev/null 2>&1
    echo "guest: suite $name exit $?"
}
export TAPWAY_TEST_GUEST=1 TAPWAY_TEST_REQUIRE=1 RUST_BACKTRACE=1
. /run-tests
dmesg | grep -A 30 -e 'cut here' -e BUG: | head -n 100
echo "guest: end"
poweroff -f
sleep 60
"#;

/// Whether one of these suites needs our programs.
pub(crate) fn needs_binaries(suites: &[Suite]) -> bool {
    suites.iter().any(|suite| suite.name == GUIDES)
}

/// An image with these test executables and a script that runs them, and with programs of ours by their names.
pub(crate) fn image(
    kernel: &Kernel,
    busybox: &Path,
    suites: &[(Suite, PathBuf)],
    binaries: &BTreeMap<String, PathBuf>,
) -> Result<Vec<u8>> {
    let mut archive = system(kernel, busybox, INIT, APPLETS, MODULES)?;
    let guides: &[&str] = if binaries.is_empty() { &[] } else { GUIDE_PROGRAMS };
    for name in PROGRAMS.iter().chain(guides) {
        program(&mut archive, &format!("bin/{name}"), &which(name)?)?;
    }
    for (name, executable) in binaries {
        program(&mut archive, &format!("bin/{name}"), executable)?;
    }
    let mut script = String::new();
    for (suite, executable) in suites {
        program(&mut archive, &format!("tests/{}", suite.name), executable)?;
        let words: Vec<String> = suite.words.iter().map(|word| format!(" '{word}'")).collect();
        script.push_str(&format!("suite {}{}\n", suite.name, words.concat()));
    }
    archive.file("run-tests", script.as_bytes());
    Ok(archive.finish())
}

/// A file system with this `/init`, these applets of busybox, and these modules with their order in `/modules/order`.
pub(crate) fn system(
    kernel: &Kernel,
    busybox: &Path,
    init: &str,
    applets: &[&str],
    modules: &[&str],
) -> Result<Archive> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "run", "sys", "tmp"] {
        archive.directory(directory);
    }
    archive.file("init", init.as_bytes());
    archive.file("bin/busybox", &read(busybox)?);
    applets.iter().for_each(|applet| archive.link(&format!("bin/{applet}"), "busybox"));

    let modules = kernel.with_dependencies(modules)?;
    let order: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
    archive.file("modules/order", order.join(" ").as_bytes());
    modules.iter().for_each(|(name, bytes)| archive.file(&format!("modules/{name}.ko"), bytes));
    Ok(archive)
}

/// An image that has nothing but a shell and these words to run in it.
pub(crate) fn shell(busybox: &Path, words: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.directory("proc");
    archive.file("bin/busybox", &read(busybox)?);
    APPLETS.iter().for_each(|applet| archive.link(&format!("bin/{applet}"), "busybox"));
    archive.file("init", format!("#!/bin/sh\nmount -t proc proc /proc\n{words}\n").as_bytes());
    Ok(archive.finish())
}

/// A program at `path` of the guest, and the libraries it needs where the host has them.
pub(crate) fn program(archive: &mut Archive, path: &str, executable: &Path) -> Result<()> {
    archive.file(path, &stripped(executable)?);
    for library in libraries(executable)? {
        let name = library.to_str().context("a name in UTF-8")?;
        if !archive.has(name) {
            archive.file(name, &read(&library)?);
        }
    }
    Ok(())
}

/// The loader and the libraries of a program: what has a path in what `ldd` prints.
fn libraries(executable: &Path) -> Result<Vec<PathBuf>> {
    // Cargo points it to the libraries of the compiler, which the guest has not.
    let printed = Command::new("ldd").arg(executable).env_remove("LD_LIBRARY_PATH").output()?;
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    ensure!(!printed.contains("not found"), "ldd {}: {printed}", executable.display());
    Ok(printed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// A program without what only a debugger reads: four fifths of a test executable.
fn stripped(executable: &Path) -> Result<Vec<u8>> {
    let directory = TempDir::new()?;
    let to = directory.path().join("stripped");
    let done = Command::new("strip").arg("--strip-debug").arg("-o").arg(&to).arg(executable).status();
    if done.is_ok_and(|status| status.success()) { read(&to) } else { read(executable) }
}

/// Where a program is, for root too, whose programs an ordinary user's `PATH` may lack.
fn which(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    match places.map(|place| place.join(name)).find(|program| program.is_file()) {
        Some(program) => Ok(program),
        None => bail!("no program {name}"),
    }
}

fn read(path: impl AsRef<OsStr>) -> Result<Vec<u8>> {
    let path = Path::new(&path);
    fs::read(path).with_context(|| path.display().to_string())
}
