//! Ethernet addresses and types (IEEE 802.3, IEEE 802.1Q).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Octets before the payload of an untagged frame: destination, source, type.
pub const HEADER_LEN: usize = 14;
/// Octets of the two addresses, after which a VLAN tag is inserted.
pub const ADDRS_LEN: usize = 12;
/// The IEEE group addresses a bridge never forwards: 01:80:c2:00:00:00 to 0f (IEEE 802.1Q-2018, table 8-1).
const RESERVED_PREFIX: u64 = 0x0180_c200_0000;

/// A 48-bit MAC address; the first octet on the wire is the most significant of the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddr(u64);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self(0xffff_ffff_ffff);
    /// 00:00:00:00:00:00.
    pub const ZERO: Self = Self(0);

    /// From the octets as they stand on the wire.
    #[inline]
    pub const fn from_octets(o: [u8; 6]) -> Self {
        Self(u64::from_be_bytes([0, 0, o[0], o[1], o[2], o[3], o[4], o[5]]))
    }

    /// From the low 48 bits of `bits`.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & 0xffff_ffff_ffff)
    }

    /// The octets as they stand on the wire.
    #[inline]
    pub const fn octets(self) -> [u8; 6] {
        let b = self.0.to_be_bytes();
        [b[2], b[3], b[4], b[5], b[6], b[7]]
    }

    /// The address as a number below 2^48.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether the I/G bit is set: multicast or broadcast.
    #[inline]
    pub const fn is_group(self) -> bool {
        self.0 & 0x0100_0000_0000 != 0
    }

    /// Whether it is ff:ff:ff:ff:ff:ff.
    #[inline]
    pub const fn is_broadcast(self) -> bool {
        self.0 == Self::BROADCAST.0
    }

    /// Whether it may stand as a source: neither a group address nor zero (`is_valid_ether_addr`).
    #[inline]
    pub const fn is_station(self) -> bool {
        self.0 != 0 && !self.is_group()
    }

    /// Whether it is one of 01:80:c2:00:00:00 to 0f, which no bridge forwards.
    #[inline]
    pub const fn is_reserved_group(self) -> bool {
        self.0 & !0xf == RESERVED_PREFIX
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.octets();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a MAC address: six octets in hexadecimal with colons, as 02:00:00:00:00:01")]
pub struct MacAddrError(String);

impl FromStr for MacAddr {
    type Err = MacAddrError;

    fn from_str(s: &str) -> Result<Self, MacAddrError> {
        let error = || MacAddrError(s.to_owned());
        let mut octets = [0u8; 6];
        let mut parts = s.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(error)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(Self::from_octets(octets))
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddr {
    type Error = MacAddrError;

    fn try_from(s: String) -> Result<Self, MacAddrError> {
        s.parse()
    }
}

/// The two octets after the addresses, or after a tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// Internet Protocol version 4.
    pub const IPV4: Self = Self(0x0800);
    /// Address Resolution Protocol.
    pub const ARP: Self = Self(0x0806);
    /// Internet Protocol version 6.
    pub const IPV6: Self = Self(0x86dd);
    /// Customer VLAN tag, IEEE 802.1Q.
    pub const VLAN: Self = Self(0x8100);
    /// Service VLAN tag, IEEE 802.1ad.
    pub const SVLAN: Self = Self(0x88a8);

    /// Whether a VLAN tag follows.
    #[inline]
    pub const fn is_tag(self) -> bool {
        matches!(self, Self::VLAN | Self::SVLAN)
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_prints_as_it_parses() {
        let mac: MacAddr = "02:00:00:0a:Bc:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:00:0a:bc:ff");
        assert_eq!(mac.octets(), [2, 0, 0, 0x0a, 0xbc, 0xff]);
        assert_eq!(MacAddr::from_octets(mac.octets()), mac);
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "02-00-00-00-00-01",
            "g2:0:0:0:0:1",
            "002:0:0:0:0:1",
            "+2:0:0:0:0:1",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn group_and_zero_addresses_are_no_stations() {
        assert!(!MacAddr::BROADCAST.is_station() && !MacAddr::ZERO.is_station());
        assert!(!"01:00:5e:00:00:01".parse::<MacAddr>().unwrap().is_station());
        assert!("02:00:00:00:00:01".parse::<MacAddr>().unwrap().is_station());
    }

    #[test]
    fn sixteen_group_addresses_are_reserved() {
        let reserved = |s: &str| s.parse::<MacAddr>().unwrap().is_reserved_group();
        assert!(reserved("01:80:c2:00:00:00") && reserved("01:80:c2:00:00:0f"));
        assert!(
            !reserved("01:80:c2:00:00:10")
                && !reserved("01:80:c2:00:01:00")
                && !reserved("00:80:c2:00:00:00")
        );
    }
}
