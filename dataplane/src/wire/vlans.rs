//! A set of VLANs, as a trunk carries it.

use std::{fmt, str::FromStr};

use super::Vid;

/// A set of VLANs: `10,20,100-199`, or `all` for 1 to 4094.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanList(Box<[u64; 64]>);

impl Default for VlanList {
    fn default() -> Self {
        Self(Box::new([0; 64]))
    }
}

impl VlanList {
    /// Every VLAN, 1 to 4094.
    pub fn all() -> Self {
        let mut list = Self::default();
        list.insert_range(Vid::MIN, Vid::MAX);
        list
    }

    /// Whether it is every VLAN.
    pub fn is_all(&self) -> bool {
        *self == Self::all()
    }

    /// Whether `vid` is in it; 0 and 4095 never are.
    #[inline]
    pub fn contains(&self, vid: u16) -> bool {
        self.0[usize::from(vid >> 6) & 63] & 1 << (vid & 63) != 0 && vid < 4096
    }

    /// Whether no VLAN is in it, which no text says.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Adds one VLAN.
    pub fn insert(&mut self, vid: Vid) {
        self.insert_range(vid.get(), vid.get());
    }

    /// Adds every VLAN of another set.
    pub fn extend(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(all, more)| *all |= more);
    }

    fn insert_range(&mut self, first: u16, last: u16) {
        for vid in first..=last {
            self.0[usize::from(vid >> 6)] |= 1 << (vid & 63);
        }
    }

    /// The VLANs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Vid> + '_ {
        (Vid::MIN..=Vid::MAX).filter(|&v| self.contains(v)).filter_map(Vid::new)
    }
}

impl From<Vid> for VlanList {
    fn from(vid: Vid) -> Self {
        let mut list = Self::default();
        list.insert(vid);
        list
    }
}

impl fmt::Display for VlanList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.pad("all");
        }
        let mut out = String::new();
        let mut vid = Vid::MIN;
        while vid <= Vid::MAX {
            if self.contains(vid) {
                let first = vid;
                while self.contains(vid + 1) {
                    vid += 1;
                }
                let comma = if out.is_empty() { "" } else { "," };
                out +=
                    &if vid == first { format!("{comma}{first}") } else { format!("{comma}{first}-{vid}") };
            }
            vid += 1;
        }
        f.pad(&out)
    }
}

impl fmt::Debug for VlanList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no VLAN list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no VLAN list: write 10,20,100-199 (1 to 4094) or all")]
pub struct VlanListError(String);

impl FromStr for VlanList {
    type Err = VlanListError;

    fn from_str(s: &str) -> Result<Self, VlanListError> {
        let error = || VlanListError(s.chars().take(64).collect());
        if s == "all" {
            return Ok(Self::all());
        }
        let mut list = Self::default();
        for part in s.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (Vid, Vid) =
                (first.parse().map_err(|_| error())?, last.parse().map_err(|_| error())?);
            if first > last {
                return Err(error());
            }
            list.insert_range(first.get(), last.get());
        }
        Ok(list)
    }
}
