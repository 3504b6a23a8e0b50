//! The operator's tool: says to a running daemon what is wanted, and prints what it answers.
//!
//! It speaks to the control socket and to nothing else.
#![forbid(unsafe_code)]

mod attach;
mod cli;
mod client;
mod failure;
mod print;
#[cfg(test)]
mod reference;
mod run;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // The arguments cannot be read, so the word has to do.
            if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
                failure::Failure::from(&error).print_document();
            }
            error.exit()
        }
    };
    let json = cli.global.json;
    match run::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}
