//! The forwarding database.
