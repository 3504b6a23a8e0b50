//! Runs tests in a guest: Debian's kernel of another version than the host's, with the devices and the bridge that the host's
//! kernel may have been built without.
//!
//! What runs there is in [`SUITES`]. `TAPWAY_GUEST` has one suite to run in place of them, and the console is shown:
//! `TAPWAY_GUEST='guest_geneve options' cargo guest`.

#[path = "guest/mod.rs"] // this file has the name that it would have
mod guest;

use std::{env, fs, path::Path, time::Duration};

use guest::{Parts, Suite, report::Outcome, report::Report, say};

/// The test executables that run in the guest, each with its filters: all of every `tests/guest_*.rs`, and of the others what
/// another kernel may do in another way.
const SUITES: &[&str] = &[
    "devices in_the_guest any_wish",
    "guest_geneve",
    "guest_guides",
    "guest_links",
    "guest_vlan_oracle",
    "netns_topology each_type",
    "netns_vxlan every_payload_reaches a_group",
];

/// The longest the guest may take for all of them, where it is emulated on a busy machine.
const WITHIN: Duration = Duration::from_secs(600);

/// What a guest is made of, or `None` (and a line that says why) where something is missing.
fn parts() -> Option<Parts> {
    match Parts::find() {
        Ok(parts) => Some(parts),
        Err(e) => {
            assert!(
                env::var_os("TAPWAY_TEST_REQUIRE").is_none_or(|v| v != "1"),
                "may not be skipped here: no guest: {e:#}"
            );
            say(&format!("skipped, with all tests that need another kernel: {e:#}"));
            None
        }
    }
}

#[test]
fn what_needs_another_kernel_holds_in_the_guest() {
    let Some(parts) = parts() else { return };
    let one = env::var("TAPWAY_GUEST").ok();
    let suites: Vec<Suite> = match &one {
        Some(one) => vec![Suite::new(one)],
        None => SUITES.iter().map(|line| Suite::new(line)).collect(),
    };
    let (console, report) = parts.run(&suites, WITHIN).unwrap_or_else(|e| panic!("no guest: {e:#}"));
    for (suite, outcome) in &report.outcomes {
        say(&format!("{}: {outcome}", suite.line()));
    }
    say(&format!("{:.1} s in all ({})", console.took.as_secs_f32(), console.accelerator));
    if one.is_some() {
        say(&format!("console:\n{}", console.text));
    }
    assert!(
        report.is_good(),
        "the guest {}; the end of its console:\n{}",
        if console.in_time { "ended" } else { "did not end in time" },
        console.tail()
    );
}

#[test]
fn every_test_of_the_guest_is_run_there() {
    let tests = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).expect("tests");
    let names = tests.filter_map(|entry| {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        name.strip_suffix(".rs").filter(|name| name.starts_with("guest_")).map(str::to_owned)
    });
    let missing: Vec<String> = names.filter(|name| !SUITES.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "not in SUITES, or not whole: {missing:?}");
}

#[test]
fn a_panic_and_a_hang_of_the_guest_are_seen() {
    let Some(parts) = parts() else { return };
    let suites = [Suite::new("some")];
    let begun = "echo 'guest: suite some begins'";
    let mut within = Duration::from_secs(120);
    for (words, in_time) in [("echo c >/proc/sysrq-trigger; sleep 60", true), ("sleep 1000", false)] {
        let words = format!("{begun}; {words}");
        let console = parts.shell(&words, within).unwrap_or_else(|e| panic!("no guest: {e:#}"));
        within = 2 * console.took + Duration::from_secs(3); // time to get as far again
        let report = Report::read(&console.text, &suites);
        assert_eq!(console.in_time, in_time, "{words}:\n{}", console.tail());
        assert!(console.text.contains("guest: suite some begins"), "{words}:\n{}", console.tail());
        assert_eq!(console.text.contains("Kernel panic"), in_time, "{words}:\n{}", console.tail());
        assert!(!report.is_good(), "{words}");
    }
}

#[test]
fn a_report_is_good_where_every_suite_says_so_and_the_guest_ends() {
    let suites = [Suite::new("one"), Suite::new("two filter")];
    let one = "guest: suite one begins\r\ntest result: ok. 7 passed; 0 failed; finished in 2.5s\r\nguest: suite one exit 0\r\n";
    let two = one.replace("one", "two");
    let end = "guest: end\r\n";
    let outcome = |console: &str| Report::read(console, &suites).outcomes[1].1.clone();

    let report = Report::read(&[one, &two, end].concat(), &suites);
    assert!(report.is_good());
    assert_eq!(report.outcomes[1].1, Outcome::Passed(7, "2.5s".to_owned()));

    for (what, console, wanted) in [
        ("not ended", [one, &two].concat(), Outcome::Passed(7, "2.5s".to_owned())),
        ("not begun", [one, end].concat(), Outcome::Unfinished),
        ("cut", [one, two.split("guest: suite two exit").next().unwrap(), end].concat(), Outcome::Unfinished),
        ("a failure", [one, &two.replace("exit 0", "exit 101"), end].concat(), Outcome::Failed),
        ("no test", [one, &two.replace("7 passed", "0 passed"), end].concat(), Outcome::Empty),
        ("no result", [one, &two.replace("test result", "nothing"), end].concat(), Outcome::Empty),
    ] {
        assert!(!Report::read(&console, &suites).is_good(), "{what}");
        assert_eq!(outcome(&console), wanted, "{what}");
    }
}
