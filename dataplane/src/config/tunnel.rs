//! The value types of a tunnel's flags and keys, as [`super::words`] has those of all ports.
//!
//! [`VlanVni`] is a table in files and several flags on a command line, so it reads both forms itself: only so can no
//! VLAN and no VNI be given twice, whichever way it is said.

use std::{collections::BTreeMap, fmt, marker::PhantomData, net::IpAddr, str::FromStr};

use clap::{Arg, ArgAction, ArgMatches, Command, error::ErrorKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::words::{WordError, as_text};
use crate::wire::{GeneveOption, Vid, Vni};

/// The heading of a tunnel's flags in help texts.
pub(super) const HEADING: &str = "Type vxlan, geneve";

/// Which VLAN is which network: a mapping in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanVni(BTreeMap<Vid, Vni>);

impl VlanVni {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The VLANs with their networks, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (Vid, Vni)> + '_ {
        self.0.iter().map(|(vlan, vni)| (*vlan, *vni))
    }

    /// Adds a VLAN.
    ///
    /// # Errors
    /// The VLAN has a network already, or the network a VLAN.
    pub fn insert(&mut self, vlan: Vid, vni: Vni) -> Result<(), WordError> {
        if self.0.contains_key(&vlan) {
            return Err(WordError::new(&vlan.to_string(), "is a VLAN that is given two VNIs"));
        }
        if self.0.values().any(|other| *other == vni) {
            return Err(WordError::new(&vni.to_string(), "is a VNI that is given two VLANs"));
        }
        self.0.insert(vlan, vni);
        Ok(())
    }
}

/// As on a command line, with commas.
impl fmt::Display for VlanVni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.iter().map(|(vlan, vni)| format!("{vlan}={vni}")).collect();
        f.pad(&all.join(","))
    }
}

impl Serialize for VlanVni {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter().map(|(vlan, vni)| (vlan.to_string(), vni)))
    }
}

impl<'de> Deserialize<'de> for VlanVni {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> de::Visitor<'de> for V {
            type Value = VlanVni;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table such as { 10 = 1010 }")
            }

            fn visit_unit<E: de::Error>(self) -> Result<VlanVni, E> {
                Ok(VlanVni::default())
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<VlanVni, A::Error> {
                let mut all = VlanVni::default();
                while let Some(vlan) = map.next_key::<String>()? {
                    let vlan = vlan.parse::<Vid>().map_err(de::Error::custom)?;
                    all.insert(vlan, vni_of(map.next_value()?)?).map_err(de::Error::custom)?;
                }
                Ok(all)
            }
        }
        d.deserialize_any(V)
    }
}

fn vlan_vni(text: &str) -> Result<(Vid, Vni), WordError> {
    let pair = text.split_once('=').and_then(|(vlan, vni)| Some((vlan.parse().ok()?, vni.parse().ok()?)));
    pair.ok_or_else(|| WordError::new(text, "is not of the form VLAN=VNI, such as 10=1010"))
}

impl clap::FromArgMatches for VlanVni {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut all = Self::default();
        for &(vlan, vni) in matches.get_many::<(Vid, Vni)>("vlan_vni").unwrap_or_default() {
            all.insert(vlan, vni)
                .map_err(|e| clap::Error::raw(ErrorKind::ValueValidation, format!("--vlan-vni: {e}\n")))?;
        }
        Ok(all)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for VlanVni {
    fn augment_args(command: Command) -> Command {
        command.arg(
            Arg::new("vlan_vni")
                .long("vlan-vni")
                .value_name("VLAN=VNI")
                .action(ArgAction::Append)
                .value_parser(vlan_vni)
                .help_heading(HEADING)
                .help("Network of a VLAN; may be given several times"),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn vni_of<E: de::Error>(number: i64) -> Result<Vni, E> {
    let vni = u32::try_from(number).ok().and_then(Vni::new);
    vni.ok_or_else(|| {
        E::custom(number.to_string().parse::<Vni>().err().map_or_else(String::new, |e| e.to_string()))
    })
}

/// Reads a network; unlike the type's own form it says what is allowed, also of a number below zero.
pub(super) fn vni<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vni>, D::Error> {
    Option::<i64>::deserialize(d)?.map(vni_of).transpose()
}

/// UDP ports: `MIN-MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`, or `None` where these are none or 0 is among them.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first > 0 && first <= last { Some(Self { first, last }) } else { None }
    }

    /// The least port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The greatest port.
    pub const fn last(self) -> u16 {
        self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.first, self.last))
    }
}

impl FromStr for PortRange {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        let port = |s: &str| Some(s).filter(|s| s.bytes().all(|b| b.is_ascii_digit()))?.parse().ok();
        let range = s.split_once('-').and_then(|(first, last)| Self::new(port(first)?, port(last)?));
        range.ok_or_else(|| {
            WordError::new(s, "is no range of ports: write MIN-MAX, such as 49152-65535, from 1 to 65535")
        })
    }
}

as_text!(PortRange);

/// A value of the outer header that is fixed, or that of the inner one.
///
/// Written as text, because a member of a Varlink object has one type; a number is understood too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherit<T> {
    /// This one.
    Fixed(T),
    /// That of the packet inside.
    Inherit,
}

impl<T: fmt::Display> fmt::Display for Inherit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(value) => value.fmt(f),
            Self::Inherit => f.pad("inherit"),
        }
    }
}

impl FromStr for Inherit<u8> {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        if s == "inherit" {
            return Ok(Self::Inherit);
        }
        let digits = Some(s).filter(|s| s.bytes().all(|b| b.is_ascii_digit()));
        digits
            .and_then(|s| s.parse().ok())
            .map(Self::Fixed)
            .ok_or_else(|| WordError::new(s, "is neither a number up to 255 nor inherit"))
    }
}

impl<T: fmt::Display> Serialize for Inherit<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de, T> Deserialize<'de> for Inherit<T>
where
    Self: FromStr<Err = WordError>,
{
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V<T>(PhantomData<T>);
        impl<T> de::Visitor<'_> for V<T>
        where
            Inherit<T>: FromStr<Err = WordError>,
        {
            type Value = Inherit<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or \"inherit\"")
            }

            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Inherit<T>, E> {
                v.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Inherit<T>, E> {
                v.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<Inherit<T>, E> {
                v.parse().map_err(E::custom)
            }
        }
        d.deserialize_any(V(PhantomData))
    }
}

/// A type that is one of a few words.
macro_rules! choice {
    ($(#[$doc:meta])* $type:ident, $problem:literal { $($(#[$of:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$of])* $variant,)* }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word,)* })
            }
        }

        impl FromStr for $type {
            type Err = WordError;

            fn from_str(s: &str) -> Result<Self, WordError> {
                match s {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(WordError::new(s, $problem)),
                }
            }
        }

        as_text!($type);
    };
}

choice! {
    /// Don't Fragment of the outer IPv4 header.
    Df, "is none of set, unset and inherit" {
        /// Set.
        Set = "set",
        /// Not set.
        Unset = "unset",
        /// As in the packet inside, where that is IP.
        Inherit = "inherit",
    }
}

choice! {
    /// What becomes of a VXLAN header with reserved bits that are set.
    Reserved, "is neither ignore nor drop" {
        /// It is taken, as RFC 7348 section 5 asks for.
        Ignore = "ignore",
        /// It is dropped, as Linux does.
        Drop = "drop",
    }
}

/// Reads values that are written as text: one, or an array.
fn texts<'de, D, T>(d: D, expected: &'static str) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct V<T>(&'static str, PhantomData<T>);
    impl<'de, T: FromStr<Err: fmt::Display>> de::Visitor<'de> for V<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_unit<E: de::Error>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_str<E: de::Error>(self, v: &str) -> Result<Vec<T>, E> {
            Ok(vec![v.parse().map_err(E::custom)?])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = seq.next_element::<String>()? {
                all.push(text.parse().map_err(de::Error::custom)?);
            }
            Ok(all)
        }
    }
    d.deserialize_any(V(expected, PhantomData))
}

/// An IP address whose mistakes are told with the address.
struct Ip(IpAddr);

impl FromStr for Ip {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        ip(s).map(Self)
    }
}

/// An IP address.
pub(super) fn ip(s: &str) -> Result<IpAddr, WordError> {
    s.parse().map_err(|_| WordError::new(s, "is no IP address: write 198.51.100.1 or 2001:db8::1"))
}

/// Reads one address, if there is one.
pub(super) fn maybe_ip<'de, D: Deserializer<'de>>(d: D) -> Result<Option<IpAddr>, D::Error> {
    let text = Option::<String>::deserialize(d)?;
    text.map(|text| ip(&text)).transpose().map_err(de::Error::custom)
}

pub(super) fn ips<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<IpAddr>, D::Error> {
    let all: Vec<Ip> = texts(d, "addresses such as [\"198.51.100.1\"]")?;
    Ok(all.into_iter().map(|Ip(ip)| ip).collect())
}

pub(super) fn options<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<GeneveOption>, D::Error> {
    texts(d, "Geneve options such as [\"0102:80:00001111\"]")
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize, Serialize)]
    struct All {
        #[serde(default)]
        vlan_vni: VlanVni,
        #[serde(default, deserialize_with = "vni")]
        vni: Option<Vni>,
        ttl: Option<Inherit<u8>>,
        #[serde(default, deserialize_with = "ips")]
        remote: Vec<IpAddr>,
    }

    fn problem(toml: &str) -> String {
        toml::from_str::<All>(toml).unwrap_err().message().to_owned()
    }

    #[test]
    fn words_print_as_they_parse() {
        for s in ["1-65535", "49152-65535", "7-7"] {
            assert_eq!(s.parse::<PortRange>().unwrap().to_string(), s);
        }
        for bad in ["", "7", "0-7", "8-7", "1-65536", "-7", "7-", "+1-7", "1-2-3"] {
            assert!(bad.parse::<PortRange>().unwrap_err().to_string().contains("MIN-MAX"), "{bad}");
        }
        for s in ["0", "255", "inherit"] {
            assert_eq!(s.parse::<Inherit<u8>>().unwrap().to_string(), s);
        }
        for bad in ["", "256", "-1", "+1", "Inherit"] {
            assert!(bad.parse::<Inherit<u8>>().is_err(), "{bad}");
        }
        for s in ["set", "unset", "inherit"] {
            assert_eq!(s.parse::<Df>().unwrap().to_string(), s);
        }
        assert_eq!("drop".parse::<Reserved>().unwrap().to_string(), "drop");
        assert!("on".parse::<Df>().is_err() && "refuse".parse::<Reserved>().is_err());
    }

    #[test]
    fn a_table_of_vlans_is_read_in_any_order_and_written_in_ascending_order() {
        let all: All = toml::from_str("vlan_vni = { 20 = 7, 3 = 1010 }").unwrap();
        assert_eq!(all.vlan_vni.to_string(), "3=1010,20=7");
        assert_eq!(serde_json::to_string(&all.vlan_vni).unwrap(), r#"{"3":1010,"20":7}"#);
        assert_eq!(serde_json::from_str::<VlanVni>(r#"{"20":7,"3":1010}"#).unwrap(), all.vlan_vni);
        for (bad, why) in [
            ("{ 0 = 7 }", "\"0\" is not a VLAN"),
            ("{ x = 7 }", "\"x\" is not a VLAN"),
            ("{ 10 = 16777216 }", "\"16777216\" is not a VNI: a number from 0 to 16777215"),
            ("{ 10 = -1 }", "\"-1\" is not a VNI"),
            ("{ 10 = 7, 20 = 7 }", "\"7\" is a VNI that is given two VLANs"),
            ("{ 10 = 7, 010 = 8 }", "\"10\" is a VLAN that is given two VNIs"),
            ("\"10=7\"", "expected a table such as { 10 = 1010 }"),
        ] {
            let message = problem(&format!("vlan_vni = {bad}"));
            assert!(message.contains(why), "{bad}: {message}");
        }
    }

    #[test]
    fn the_flag_of_a_vlan_is_given_several_times_but_for_no_vlan_twice() {
        let read = |line: &str| {
            let command = VlanVni::augment_args(Command::new("x").no_binary_name(true));
            let matches = command.try_get_matches_from(line.split_whitespace())?;
            <VlanVni as clap::FromArgMatches>::from_arg_matches(&matches)
        };
        assert_eq!(read("--vlan-vni 20=7 --vlan-vni 10=1010").unwrap().to_string(), "10=1010,20=7");
        assert!(read("").unwrap().is_empty());
        for (line, why) in [
            ("--vlan-vni 10=7 --vlan-vni 10=8", "\"10\" is a VLAN that is given two VNIs"),
            ("--vlan-vni 10=7 --vlan-vni 20=7", "\"7\" is a VNI that is given two VLANs"),
            ("--vlan-vni 4095=7", "not of the form VLAN=VNI"),
            ("--vlan-vni 10", "not of the form VLAN=VNI"),
        ] {
            let message = read(line).unwrap_err().to_string();
            assert!(message.contains(why), "{line}: {message}");
        }
    }

    #[test]
    fn numbers_and_lists_are_read_in_either_form() {
        let all: All = toml::from_str("ttl = 64\nvni = 0\nremote = \"2001:db8::1\"").unwrap();
        assert_eq!((all.ttl, all.vni), (Some(Inherit::Fixed(64)), Vni::new(0)));
        assert_eq!(all.remote, ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        let all: All =
            toml::from_str("ttl = \"inherit\"\nremote = [\"198.51.100.1\", \"198.51.100.2\"]").unwrap();
        assert_eq!((all.ttl, all.remote.len()), (Some(Inherit::Inherit), 2));
        assert_eq!(serde_json::to_value(all.ttl).unwrap(), "inherit");
        assert_eq!(problem("ttl = 256"), "\"256\" is neither a number up to 255 nor inherit");
        assert!(problem("ttl = true").contains("expected a number or \"inherit\""));
        assert!(problem("vni = -5").contains("\"-5\" is not a VNI"));
        assert!(problem("remote = [\"x\"]").contains("\"x\" is no IP address"));
    }
}
