//! What happens to ports and devices while nobody asks.

use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds after the start of the daemon.
    pub uptime_s: u64,
    /// What it is about: `port` or `device`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What happened.
    pub text: String,
}
