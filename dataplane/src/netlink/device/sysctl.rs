//! Sysctls that belong to a device: `/proc/sys/net/{ipv4,ipv6}/conf/DEVICE/KEY`.

use std::{fmt, str::FromStr};

/// The name of such a sysctl, as in `ipv4.forwarding` or `ipv6.accept_ra`: family and key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysctlName {
    family: &'static str,
    key: String,
}

/// A text that names no sysctl of a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no sysctl of a device: write ipv4.KEY or ipv6.KEY, as in ipv4.forwarding")]
pub struct SysctlNameError(String);

impl FromStr for SysctlName {
    type Err = SysctlNameError;

    fn from_str(s: &str) -> Result<Self, SysctlNameError> {
        let error = || SysctlNameError(s.to_owned());
        let (family, key) = s.split_once('.').ok_or_else(error)?;
        let family = match family {
            "ipv4" => "ipv4",
            "ipv6" => "ipv6",
            _ => return Err(error()),
        };
        // Nothing that could lead out of the device's directory.
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            return Err(error());
        }
        Ok(Self { family, key: key.to_owned() })
    }
}

impl fmt::Display for SysctlName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.family, self.key)
    }
}
