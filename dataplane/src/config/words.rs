//! The value types of flags and keys: each parses from the text an operator writes and prints as it parses.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use crate::netns::Netns;
use crate::wire::MacAddr;
pub use crate::wire::VlanList;

/// A text that is not what a flag or key takes; the message says what it takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} {problem}")]
pub struct WordError {
    value: String,
    problem: &'static str,
}

impl WordError {
    pub(super) fn new(value: &str, problem: &'static str) -> Self {
        Self { value: value.chars().take(64).collect(), problem }
    }
}

/// Gives a type with `FromStr` and `Display` the same form in files and JSON.
macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

pub(super) use as_text;

/// The longest name, in octets: `IFNAMSIZ` less the terminating zero, so that a port can be named like its interface.
pub const NAME_MAX: usize = 15;

fn check_name(s: &str) -> Result<(), WordError> {
    let problem = if s.is_empty() {
        "is no name: it is empty"
    } else if s.len() > NAME_MAX {
        "is no name: it has more than 15 bytes"
    } else if s == "." || s == ".." || !s.bytes().all(|b| b.is_ascii_graphic() && !b"/:\"'\\".contains(&b)) {
        "is no name: use letters, digits and - _ . @"
    } else if s.starts_with('-') {
        "is no name: a command would take it for a flag"
    } else {
        return Ok(());
    };
    Err(WordError::new(s, problem))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = WordError;

            fn from_str(s: &str) -> Result<Self, WordError> {
                check_name(s)?;
                Ok(Self(s.to_owned()))
            }
        }

        as_text!($type);
    };
}

name! {
    /// The name of a port: 1 to 15 bytes.
    PortName
}
name! {
    /// The name of a bridge: 1 to 15 bytes.
    BridgeName
}
name! {
    /// The name of a device and its interface: 1 to 15 bytes.
    DeviceName
}

/// `on` or `off` on the command line; `true` or `false` in files and JSON, where the words are understood too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnOff(pub bool);

impl fmt::Display for OnOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.0 { "on" } else { "off" })
    }
}

impl FromStr for OnOff {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        match s {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err(WordError::new(s, "is neither on nor off")),
        }
    }
}

impl Serialize for OnOff {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bool(self.0)
    }
}

impl<'de> Deserialize<'de> for OnOff {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl de::Visitor<'_> for V {
            type Value = OnOff;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, \"on\" or \"off\"")
            }

            fn visit_bool<E: de::Error>(self, v: bool) -> Result<OnOff, E> {
                Ok(OnOff(v))
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<OnOff, E> {
                v.parse().map_err(E::custom)
            }
        }
        d.deserialize_any(V)
    }
}

/// Whether an operator wants a port to carry frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminState {
    /// It carries frames.
    #[default]
    Up,
    /// Every frame from it and for it is dropped.
    Down,
}

impl fmt::Display for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if *self == Self::Up { "up" } else { "down" })
    }
}

impl FromStr for AdminState {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        match s {
            "up" => Ok(Self::Up),
            "down" => Ok(Self::Down),
            _ => Err(WordError::new(s, "is neither up nor down")),
        }
    }
}

as_text!(AdminState);

/// A duration in whole seconds: `300s`, `5m`, `1h`; a number alone is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u32);

impl Seconds {
    /// As the standard library's duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}s", self.0))
    }
}

impl FromStr for Seconds {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        let (digits, unit) = match s.as_bytes().last() {
            Some(b's') => (&s[..s.len() - 1], 1),
            Some(b'm') => (&s[..s.len() - 1], 60),
            Some(b'h') => (&s[..s.len() - 1], 3600),
            _ => (s, 1),
        };
        let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let secs = all_digits.then(|| digits.parse::<u32>().ok()?.checked_mul(unit)).flatten();
        secs.map(Self).ok_or_else(|| WordError::new(s, "is no duration: write 300s, 5m or 1h"))
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl de::Visitor<'_> for V {
            type Value = Seconds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"300s\" or \"5m\"")
            }

            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Seconds, E> {
                u32::try_from(v).map(Seconds).map_err(|_| E::custom("the duration is too long"))
            }

            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Seconds, E> {
                u32::try_from(v).map(Seconds).map_err(|_| E::custom("the duration is out of range"))
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<Seconds, E> {
                v.parse().map_err(E::custom)
            }
        }
        d.deserialize_any(V)
    }
}

/// `mac=MAC[,ip=IP…]`: the only source addresses that may enter a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secure {
    /// The only source MAC address.
    pub mac: MacAddr,
    /// The only source IP addresses; every one where the list is empty.
    pub ip: Vec<IpAddr>,
}

impl fmt::Display for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mac={}", self.mac)?;
        self.ip.iter().try_for_each(|ip| write!(f, ",ip={ip}"))
    }
}

impl FromStr for Secure {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        let error = || WordError::new(s, "is not of the form mac=MAC[,ip=IP…]");
        let (mut mac, mut ip) = (None, Vec::new());
        for part in s.split(',') {
            match part.split_once('=') {
                Some(("mac", v)) if mac.is_none() => mac = Some(v.parse().map_err(|_| error())?),
                Some(("ip", v)) => ip.push(v.parse().map_err(|_| error())?),
                _ => return Err(error()),
            }
        }
        Ok(Self { mac: mac.ok_or_else(error)?, ip })
    }
}

as_text!(Secure);

/// Reads addresses with their prefix length: one as text, or an array.
pub(super) fn addresses<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<IpNet>, D::Error> {
    struct V;
    impl<'de> de::Visitor<'de> for V {
        type Value = Vec<IpNet>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("addresses such as [\"198.51.100.1/24\"]")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Vec<IpNet>, E> {
            Ok(Vec::new())
        }

        fn visit_str<E: de::Error>(self, v: &str) -> Result<Vec<IpNet>, E> {
            Ok(vec![address(v).map_err(E::custom)?])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<IpNet>, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = seq.next_element::<String>()? {
                all.push(address(&text).map_err(de::Error::custom)?);
            }
            Ok(all)
        }
    }
    d.deserialize_any(V)
}

pub(super) fn address(s: &str) -> Result<IpNet, WordError> {
    s.parse().map_err(|_| {
        WordError::new(s, "is no address with a prefix length: write 198.51.100.1/24 or 2001:db8::1/64")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_at_most_fifteen_bytes() {
        assert!("a23456789012345".parse::<PortName>().is_ok());
        assert!(
            "a234567890123456".parse::<PortName>().unwrap_err().to_string().contains("more than 15 bytes")
        );
        for bad in ["", "a b", "a/b", "..", "-a", "ä"] {
            assert!(bad.parse::<BridgeName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_namespaces_and_secure_words_print_as_they_parse() {
        assert_eq!("5m".parse::<Seconds>().unwrap(), Seconds(300));
        assert!(
            "".parse::<Seconds>().is_err()
                && "s".parse::<Seconds>().is_err()
                && "-5s".parse::<Seconds>().is_err()
        );
        assert_eq!("17".parse::<Netns>().unwrap(), Netns::Pid(17));
        assert_eq!("/proc/17/ns/net".parse::<Netns>().unwrap(), Netns::Path("/proc/17/ns/net".into()));
        let s = "mac=02:00:00:00:00:01,ip=198.51.100.1,ip=2001:db8::1";
        assert_eq!(s.parse::<Secure>().unwrap().to_string(), s);
        assert!("ip=198.51.100.1".parse::<Secure>().is_err() && "mac=x".parse::<Secure>().is_err());
    }
}
