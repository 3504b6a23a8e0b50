//! Who may talk to whom.

pub mod secure;
