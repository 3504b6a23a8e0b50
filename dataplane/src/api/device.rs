//! What is shown of kernel devices: what was asked for beside what the kernel has.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    config::{DeviceName, DeviceSpec, DeviceType, Netns},
    wire::MacAddr,
};

/// A device, desired and observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Its name.
    pub name: DeviceName,
    /// What it is to be.
    #[serde(rename = "type")]
    pub kind: DeviceType,
    /// Where it is to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// `ok`, `drifted`, `missing`, or `foreign` where another device has its name.
    pub state: String,
    /// In what the kernel's device is not as desired, each as `key: desired -> observed`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub drift: Vec<String>,
    /// What an operator said.
    pub desired: DeviceSpec,
    /// What the kernel has; nothing where it has no device of that name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<DeviceSeen>,
}

/// A device as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DeviceSeen {
    /// The kernel's number of it.
    pub index: u32,
    /// The kernel's word for what it is.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    pub mtu: u32,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub address: Vec<IpNet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// Operational state: `up`, `down`, `lowerlayerdown`, `unknown` …
    pub oper: String,
}
