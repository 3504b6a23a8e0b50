//! Netdev ports: an interface that exists already, taken over by packet sockets.

use super::{BackendError, Opened};
use crate::config::PortSpec;

/// Opens what is behind a port.
///
/// # Errors
/// Always: this switch is built without it.
pub(super) fn open(spec: &PortSpec, _queues: u16) -> Result<Opened, BackendError> {
    Err(format!("this switch is built without ports of type {}", spec.options.kind_or_default()).into())
}
