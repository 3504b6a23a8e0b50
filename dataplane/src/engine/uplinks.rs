//! Uplinks: add, delete, list.

use super::{Engine, invalid, not_found};
use crate::{
    api::{Refusal, UplinkView},
    config::{PortName, UplinkSpec},
};

impl Engine {
    pub(super) fn uplink_add(&mut self, spec: &UplinkSpec) -> Result<bool, Refusal> {
        Err(invalid("uplink", &spec.name, "uplinks are not built in yet"))
    }

    pub(super) fn uplink_del(&mut self, name: &PortName) -> Result<(), Refusal> {
        Err(not_found("uplink", name))
    }

    pub(super) fn uplink_views(&self) -> Vec<UplinkView> {
        Vec::new()
    }

    /// As an operator would write them.
    pub(super) fn uplink_specs(&self) -> Vec<UplinkSpec> {
        Vec::new()
    }
}
