//! The ways a command can fail, and what each means to a script.
//!
//! Owns the exit codes. The daemon's own sentences are printed as they came.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use serde_json::{Value, json};

use crate::attach::NoWay;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The daemon refused: a Varlink error.
    #[error("{}", sentence(.error, .parameters))]
    Refused { error: String, parameters: Value },
    /// A monitor has no way to a port.
    #[error(transparent)]
    NoWay(#[from] NoWay),
    /// What was asked makes no sense; found here, after the arguments were parsed.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers on the socket.
    #[error("no tapwayd answers on {}: {reason}", .path.display())]
    NoDaemon { path: PathBuf, reason: String },
    /// Whoever answers speaks something else.
    #[error("{0}")]
    Protocol(String),
    /// What the daemon answered could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

fn sentence(error: &str, parameters: &Value) -> String {
    let text = |key: &str| parameters[key].as_str().unwrap_or_default().to_owned();
    if parameters["message"].is_string() { text("message") } else { format!("{error} {parameters}") }
}

impl From<&clap::Error> for Failure {
    fn from(error: &clap::Error) -> Self {
        let text = error.to_string();
        // What comes behind the first paragraph is the usage line and where to find more.
        let first = text.split("\n\n").next().unwrap_or_default();
        Self::Usage(first.trim_start_matches("error: ").to_owned())
    }
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::NoWay(_) | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::NoDaemon { .. } => 3,
            Self::Protocol(_) => 4,
        }
    }

    fn json(&self) -> Value {
        let name = match self {
            Self::Refused { error, parameters } => {
                let mut all = parameters.clone();
                if !all.is_object() {
                    all = json!({});
                }
                all["error"] = json!(error);
                all["message"] = json!(self.to_string());
                return all;
            }
            Self::NoWay(_) => "NoWay",
            Self::Output(_) => "Output",
            Self::Usage(_) => "Usage",
            Self::NoDaemon { .. } => "NoDaemon",
            Self::Protocol(_) => "Protocol",
        };
        json!({ "error": name, "message": self.to_string() })
    }

    /// Says it on stderr, with `--json` also on stdout as the one document, and gives the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if let Self::Output(e) = self
            && e.kind() == io::ErrorKind::BrokenPipe
        {
            return ExitCode::SUCCESS; // Whoever read has seen enough.
        }
        let _ = writeln!(anstream::stderr(), "\x1b[1;31merror:\x1b[0m {self}");
        if json && !matches!(self, Self::Output(_)) {
            self.print_document();
        }
        ExitCode::from(self.code())
    }

    /// The one document that a command with `--json` prints, also where it fails.
    pub(crate) fn print_document(&self) {
        let _ = writeln!(io::stdout(), "{}", self.json());
    }
}
