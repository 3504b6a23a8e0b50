//! Sysctls that belong to a device: `/proc/sys/net/{ipv4,ipv6}/conf/DEVICE/KEY`.

use std::{fmt, fs, io, path::PathBuf, str::FromStr};

use super::{DeviceError, place::Place};

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

impl SysctlName {
    fn path(&self, device: &str) -> PathBuf {
        format!("/proc/sys/net/{}/conf/{device}/{}", self.family, self.key).into()
    }
}

impl fmt::Display for SysctlName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.family, self.key)
    }
}

// `/proc/sys/net` shows the namespace of the thread that opens a file in it.

/// The values of these sysctls; one that the kernel does not have is left out.
pub(super) fn read(
    place: &Place,
    device: &str,
    wanted: &[(SysctlName, String)],
) -> Result<Vec<(SysctlName, String)>, DeviceError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let values = place
        .run(|| wanted.iter().map(|(name, _)| fs::read_to_string(name.path(device))).collect::<Vec<_>>())
        .map_err(|source| DeviceError::Socket { device: device.to_owned(), source })?;
    let mut found = Vec::new();
    for ((name, _), value) in wanted.iter().zip(values) {
        match value {
            Ok(value) => found.push((name.clone(), value.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(DeviceError::Sysctl { device: device.to_owned(), sysctl: name.clone(), source });
            }
        }
    }
    Ok(found)
}

/// Sets one of them.
pub(super) fn write(place: &Place, device: &str, name: &SysctlName, value: &str) -> Result<(), DeviceError> {
    place
        .run(|| fs::write(name.path(device), value))
        .and_then(|written| written)
        .map_err(|source| DeviceError::Sysctl { device: device.to_owned(), sysctl: name.clone(), source })
}
