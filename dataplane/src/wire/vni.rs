//! Virtual network identifiers, as VXLAN (RFC 7348 §5) and Geneve (RFC 8926 §3.4) carry them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A virtual network identifier: 24 bits, each value of which is one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The greatest identifier.
    pub const MAX: u32 = 0x00ff_ffff;

    /// The identifier `vni`, or `None` where it needs more than 24 bits.
    #[inline]
    pub const fn new(vni: u32) -> Option<Self> {
        if vni <= Self::MAX { Some(Self(vni)) } else { None }
    }

    /// The identifier in the high 24 bits of a word, above an octet that is something else: as both headers have it.
    #[inline]
    pub(super) const fn from_high(word: u32) -> Self {
        Self(word >> 8)
    }

    /// The identifier as a number below 2^24.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number or text that is no virtual network identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a VNI: a number from 0 to 16777215 (24 bits)")]
pub struct VniError(String);

impl TryFrom<u32> for Vni {
    type Error = VniError;

    fn try_from(vni: u32) -> Result<Self, VniError> {
        Self::new(vni).ok_or_else(|| VniError(vni.to_string()))
    }
}

impl FromStr for Vni {
    type Err = VniError;

    fn from_str(s: &str) -> Result<Self, VniError> {
        // `u32` takes a sign; an identifier has none.
        let digits = Some(s).filter(|s| s.bytes().all(|b| b.is_ascii_digit()));
        digits
            .and_then(|s| s.parse().ok())
            .and_then(Self::new)
            .ok_or_else(|| VniError(s.chars().take(64).collect()))
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vni_has_24_bits() {
        assert_eq!(Vni::new(0).unwrap().get(), 0);
        assert_eq!(Vni::new(0x00ff_ffff).unwrap().get(), 16_777_215);
        assert!(Vni::new(0x0100_0000).is_none() && Vni::new(u32::MAX).is_none());
    }

    #[test]
    fn a_vni_prints_as_it_parses() {
        assert_eq!("1010".parse::<Vni>().unwrap().to_string(), "1010");
        assert_eq!("16777215".parse::<Vni>().unwrap().get(), Vni::MAX);
        for bad in ["", "-1", "+7", "16777216", "99999999999", "0x10", "10 ", "ten"] {
            assert!(bad.parse::<Vni>().unwrap_err().to_string().contains("0 to 16777215"), "{bad}");
        }
    }

    #[test]
    fn a_vni_is_a_number_in_json() {
        let vni: Vni = serde_json::from_str("1010").unwrap();
        assert_eq!(serde_json::to_string(&vni).unwrap(), "1010");
        assert!(serde_json::from_str::<Vni>("16777216").unwrap_err().to_string().contains("not a VNI"));
    }
}
