//! VLAN tags (IEEE 802.1Q-2018 clause 9, IEEE 802.1ad).

use std::{fmt, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};

use super::EtherType;

/// Octets of a tag: type and tag control information.
pub const TAG_LEN: usize = 4;

/// A VLAN identifier an operator can use: 1 to 4094 (802.1Q-2018 table 9-2 reserves 0 and 4095).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub struct Vid(NonZeroU16);

impl Vid {
    /// The least and the greatest identifier.
    pub const MIN: u16 = 1;
    /// See [`Vid::MIN`].
    pub const MAX: u16 = 4094;

    /// The identifier `vid`, or `None` where it is 0 or above 4094.
    #[inline]
    pub const fn new(vid: u16) -> Option<Self> {
        match NonZeroU16::new(vid) {
            Some(v) if vid <= Self::MAX => Some(Self(v)),
            _ => None,
        }
    }

    /// The identifier as a number from 1 to 4094.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number or text that is no VLAN identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a VLAN: a number from 1 to 4094 (0 and 4095 are reserved by 802.1Q)")]
pub struct VidError(String);

impl TryFrom<u16> for Vid {
    type Error = VidError;

    fn try_from(vid: u16) -> Result<Self, VidError> {
        Self::new(vid).ok_or_else(|| VidError(vid.to_string()))
    }
}

impl FromStr for Vid {
    type Err = VidError;

    fn from_str(s: &str) -> Result<Self, VidError> {
        s.parse().ok().and_then(Self::new).ok_or_else(|| VidError(s.to_owned()))
    }
}

impl From<Vid> for u16 {
    fn from(vid: Vid) -> Self {
        vid.get()
    }
}

/// Tag control information: priority (PCP), drop eligible (DEI), VLAN identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tci(pub u16);

impl Tci {
    /// The identifier with its 12 bits, 0 (priority tag) and 4095 (reserved) included.
    #[inline]
    pub const fn vid(self) -> u16 {
        self.0 & 0x0fff
    }

    /// The same priority and drop eligibility with another identifier.
    #[inline]
    #[must_use]
    pub const fn with_vid(self, vid: u16) -> Self {
        Self(self.0 & 0xf000 | vid & 0x0fff)
    }

    /// Priority code point, 0 to 7.
    #[inline]
    pub const fn pcp(self) -> u8 {
        (self.0 >> 13) as u8
    }

    /// Drop eligible indicator.
    #[inline]
    pub const fn dei(self) -> bool {
        self.0 & 0x1000 != 0
    }
}

/// A tag as it stands in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// Customer or service tag.
    pub tpid: EtherType,
    /// Priority, drop eligibility, identifier.
    pub tci: Tci,
}

impl Tag {
    /// The tag at the start of `bytes`.
    #[inline]
    pub const fn from_bytes(b: [u8; TAG_LEN]) -> Self {
        Self { tpid: EtherType(u16::from_be_bytes([b[0], b[1]])), tci: Tci(u16::from_be_bytes([b[2], b[3]])) }
    }

    /// The four octets of the tag.
    #[inline]
    pub const fn to_bytes(self) -> [u8; TAG_LEN] {
        let [a, b] = self.tpid.0.to_be_bytes();
        let [c, d] = self.tci.0.to_be_bytes();
        [a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_identifiers_are_refused() {
        assert!(Vid::new(0).is_none() && Vid::new(4095).is_none() && Vid::new(0xffff).is_none());
        assert_eq!(Vid::new(4094).unwrap().get(), 4094);
        assert!("4095".parse::<Vid>().unwrap_err().to_string().contains("1 to 4094"));
    }

    #[test]
    fn a_tag_keeps_priority_and_drop_eligibility_when_its_vlan_changes() {
        let tag = Tag::from_bytes([0x81, 0x00, 0xb0, 0x64]);
        assert_eq!((tag.tci.pcp(), tag.tci.dei(), tag.tci.vid()), (5, true, 100));
        assert_eq!(Tag { tci: tag.tci.with_vid(7), ..tag }.to_bytes(), [0x81, 0x00, 0xb0, 0x07]);
    }
}
