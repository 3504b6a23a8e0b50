//! `docs/reference/ctl.md`, written from the command line's own definition.
//!
//! `UPDATE_DOCS=1 cargo test -p tapway-ctl reference` writes the page; without it the test compares.

use std::{fmt::Write as _, path::Path};

use clap::{Arg, Command, CommandFactory as _};

use crate::cli::Cli;

const INTRO: &str = "\
# tapwayctl

The operator's tool of the Tapway switch.
It speaks to the daemon's socket and to nothing else.
This page is written from the tool's own `--help`; a test keeps the two equal.

## For scripts

- Exit codes: 0 done, 1 the daemon refused, 2 usage, 3 no daemon there, 4 protocol version mismatch.
- `--json` prints one document on stdout, for every command.
  A list is an array of objects; keys are the flags' words with underscores; numbers are numbers; what is unset is left out.
- A command that changes something prints `{\"changed\":true}`, or `{\"changed\":false}` where all was so already.
- Where the daemon refuses, the sentence on stderr names the object, the reason and what to do.
  With `--json` stdout has an object with `error`, `message` and what else the error has.
- `--watch` with `--json` prints one document a line, every second.
- Durations are `300s`, `5m`, `1h`; MAC addresses have colons; VLAN lists are `10,20,100-199` or `all`.
- Colour appears on a terminal only, and not where `NO_COLOR` is set.
- A script that starts `tapwayd` itself waits for it with `tapwayctl status --wait 5s`.

";

fn option(arg: &Arg) -> String {
    let mut name = match (arg.get_short(), arg.get_long()) {
        (Some(s), Some(l)) => format!("-{s}, --{l}"),
        (None, Some(l)) => format!("--{l}"),
        _ => String::new(),
    };
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    if arg.get_action().takes_values() {
        let value = value.unwrap_or_else(|| arg.get_id().to_string().to_uppercase());
        let optional = arg.get_num_args().is_some_and(|n| n.min_values() == 0);
        if name.is_empty() {
            name = value;
        } else if optional && arg.is_require_equals_set() {
            write!(name, "[={value}]").unwrap();
        } else if optional {
            write!(name, " [{value}]").unwrap();
        } else {
            write!(name, " {value}").unwrap();
        }
    }
    name
}

fn describe(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        write!(text, " [default: {}]", defaults.join(" ")).unwrap();
    }
    if let Some(env) = arg.get_env() {
        write!(text, " [env: {}]", env.to_string_lossy()).unwrap();
    }
    let values = arg.get_possible_values();
    if !values.is_empty() && arg.get_action().takes_values() {
        let values: Vec<_> = values.iter().map(|v| format!("`{}`", v.get_name())).collect();
        write!(text, " ({})", values.join(", ")).unwrap();
    }
    text.replace('|', "\\|")
}

fn arguments<'a>(page: &mut String, heading: &str, args: impl Iterator<Item = &'a Arg>) {
    let rows: Vec<_> = args
        .filter(|a| !a.is_hide_set() && !["help", "version"].contains(&a.get_id().as_str()))
        .map(|a| format!("| `{}` | {} |\n", option(a).replace('|', "\\|"), describe(a)))
        .collect();
    if !rows.is_empty() {
        write!(page, "| {heading} | |\n|---|---|\n{}\n", rows.concat()).unwrap();
    }
}

fn command(page: &mut String, cmd: &mut Command) {
    if cmd.has_subcommands() {
        cmd.get_subcommands_mut().for_each(|sub| command(page, sub));
        return;
    }
    let usage = cmd.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    let name = cmd.get_bin_name().unwrap_or_default().to_owned();
    let about = cmd.get_long_about().or(cmd.get_about()).map(ToString::to_string).unwrap_or_default();
    let about = about.trim_end_matches('.').replace("\n\n", ".\n\n");
    write!(page, "## {name}\n\n{about}.\n\n```\n{usage}\n```\n\n").unwrap();
    let own = || cmd.get_arguments().filter(|a| !a.is_global_set());
    arguments(page, "Argument", own().filter(|a| a.is_positional()));
    let heading_of = |a: &Arg| a.get_help_heading().unwrap_or("Option").to_owned();
    let mut headings = Vec::new();
    for heading in own().filter(|a| !a.is_positional()).map(heading_of) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        let here = own().filter(|a| !a.is_positional() && heading_of(a) == heading);
        arguments(page, &heading, here);
    }
    let after = cmd.get_after_help().map(ToString::to_string).unwrap_or_default();
    let example =
        after.trim_start_matches("Example:\n").lines().map(str::trim).collect::<Vec<_>>().join("\n");
    write!(page, "```sh\n{example}\n```\n\n").unwrap();
}

fn page() -> String {
    let mut cmd = Cli::command();
    cmd.build();
    let mut page = INTRO.to_owned();
    page += "## Every command\n\n";
    arguments(&mut page, "Option", cmd.get_arguments().filter(|a| a.is_global_set()));
    command(&mut page, &mut cmd);
    page.trim_end().to_owned() + "\n"
}

#[test]
fn the_reference_page_is_what_the_help_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/ctl.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        page == written,
        "docs/reference/ctl.md is behind: UPDATE_DOCS=1 cargo test -p tapway-ctl reference"
    );
}
