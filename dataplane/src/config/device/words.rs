//! The value types of a device's flags and keys.

use std::{fmt, marker::PhantomData, net::IpAddr, str::FromStr};

use clap::{Arg, ArgAction, ArgMatches, Command};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::super::words::{self as common, DeviceName, Netns, OnOff, WordError, as_text};
use crate::wire::MacAddr;

/// `--up` or `--down`; in files and JSON `up`, true or false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpDown(Option<bool>);

impl UpDown {
    /// Said: up or down.
    pub const fn of(up: bool) -> Self {
        Self(Some(up))
    }

    /// What is in force.
    pub fn is_up(self) -> bool {
        self.0.unwrap_or(true)
    }

    /// Whether nothing was said.
    pub(super) fn is_unset(&self) -> bool {
        self.0.is_none()
    }
}

impl Serialize for UpDown {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for UpDown {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let up = Option::<OnOff>::deserialize(d)?;
        Ok(Self(up.map(|up| up.0)))
    }
}

impl clap::FromArgMatches for UpDown {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(match (matches.get_flag("up"), matches.get_flag("down")) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for UpDown {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str, help: &'static str| {
            Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
        };
        command
            .arg(flag("up", "Set it up, which is the default").conflicts_with("down"))
            .arg(flag("down", "Leave it down"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The other end of a veth: a table in files, flags that begin with `--peer` on a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<DeviceName>,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// Its addresses.
    #[serde(default, deserialize_with = "common::addresses", skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<IpNet>,
    /// Its MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
}

impl Peer {
    /// Whether nothing was said.
    pub fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}

impl clap::FromArgMatches for Peer {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let name = matches.get_one::<DeviceName>("peer").cloned();
        let netns = matches.get_one::<Netns>("peer_netns").cloned();
        let address = matches.get_many::<IpNet>("peer_address").unwrap_or_default().copied().collect();
        let mac = matches.get_one::<MacAddr>("peer_mac").copied();
        Ok(Self { name, netns, address, mac })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Peer {
    fn augment_args(command: Command) -> Command {
        let arg = |id: &'static str, long: &'static str, value: &'static str| {
            Arg::new(id).long(long).value_name(value).help_heading("Type veth")
        };
        let netns = arg("peer_netns", "peer-netns", "NAME|PID|PATH");
        let address = arg("peer_address", "peer-address", "CIDR").action(ArgAction::Append);
        command
            .arg(
                arg("peer", "peer", "NAME")
                    .value_parser(clap::value_parser!(DeviceName))
                    .help("Name of the other end"),
            )
            .arg(
                netns
                    .value_parser(clap::value_parser!(Netns))
                    .help("Network namespace of the other end [default: the daemon's own]"),
            )
            .arg(
                address
                    .value_parser(common::address)
                    .help("Address of the other end; may be given several times"),
            )
            .arg(
                arg("peer_mac", "peer-mac", "MAC")
                    .value_parser(clap::value_parser!(MacAddr))
                    .help("MAC address of the other end [default: the kernel chooses]"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Gives an enum of words its forms.
macro_rules! enumeration {
    ($(#[$doc:meta])* $type:ident, $problem:literal: $($(#[$what:meta])* $variant:ident = $word:literal),* $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$what])* $variant,)*
        }

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

enumeration! {
    /// How the devices of one parent reach each other.
    DeviceMode, "is no mode: bridge, vepa, private, passthru or source, and l2, l3 or l3s of ipvlan":
    /// Among each other directly.
    Bridge = "bridge",
    /// By a switch behind the parent, which sends back.
    Vepa = "vepa",
    /// Not.
    Private = "private",
    /// One device alone, with all that the parent has.
    Passthru = "passthru",
    /// Frames from listed stations only.
    Source = "source",
    /// Bridged, with the parent's MAC address.
    L2 = "l2",
    /// Routed.
    L3 = "l3",
    /// Routed, and seen by connection tracking.
    L3s = "l3s",
}

impl DeviceMode {
    /// Whether it is a mode of ipvlan; else it is one of macvlan and macvtap.
    pub const fn is_ipvlan(self) -> bool {
        matches!(self, Self::L2 | Self::L3 | Self::L3s)
    }
}

enumeration! {
    /// Who on the same parent reaches an ipvlan.
    IpvlanFlag, "is none of bridge, private and vepa":
    /// Every other ipvlan of it, directly.
    Bridge = "bridge",
    /// None of them.
    Private = "private",
    /// Those to whom a switch outside sends back.
    Vepa = "vepa",
}

enumeration! {
    /// The tag of a VLAN.
    VlanProtocol, "is neither 802.1q nor 802.1ad":
    /// A customer tag, EtherType 0x8100.
    Dot1q = "802.1q",
    /// A service tag, EtherType 0x88a8.
    Dot1ad = "802.1ad",
}

/// What `group` is: of a vxlan where multicast goes, of a tun or tap who may open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceGroup {
    /// A multicast group.
    Multicast(IpAddr),
    /// The number of a group of users.
    Users(u32),
}

impl fmt::Display for DeviceGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Multicast(ip) => ip.fmt(f),
            Self::Users(gid) => gid.fmt(f),
        }
    }
}

impl FromStr for DeviceGroup {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        let problem = "is neither an IP address nor the number of a group";
        let group = s.parse().map(Self::Multicast).or_else(|_| s.parse().map(Self::Users));
        group.map_err(|_| WordError::new(s, problem))
    }
}

impl Serialize for DeviceGroup {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceGroup {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl de::Visitor<'_> for V {
            type Value = DeviceGroup;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"239.1.1.1\" or the number of a group")
            }

            fn visit_u64<E: de::Error>(self, v: u64) -> Result<DeviceGroup, E> {
                v.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, v: i64) -> Result<DeviceGroup, E> {
                v.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<DeviceGroup, E> {
                v.parse().map_err(E::custom)
            }
        }
        d.deserialize_any(V)
    }
}

/// A route by a device: `203.0.113.0/24`, `default via 198.51.100.1`, `2001:db8::/32 via 2001:db8:1::1 metric 100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where to; `default` is written for all of a family.
    pub to: IpNet,
    /// The next hop; none where the addresses are directly behind the device.
    pub via: Option<IpAddr>,
    /// Which of several routes is taken: the smallest.
    pub metric: Option<u32>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.via {
            // The family of the next hop says which default.
            Some(_) if self.to.prefix_len() == 0 => f.write_str("default")?,
            _ => self.to.fmt(f)?,
        }
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        self.metric.map_or(Ok(()), |metric| write!(f, " metric {metric}"))
    }
}

impl FromStr for Route {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        let error = |problem| WordError::new(s, problem);
        let form =
            "is no route: write 203.0.113.0/24, default via 198.51.100.1, or one of these with metric 100";
        let mut words = s.split_whitespace();
        let to = words.next().ok_or_else(|| error(form))?;
        let (mut via, mut metric) = (None::<IpAddr>, None::<u32>);
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| error(form))?;
            match word {
                "via" if via.is_none() => via = Some(value.parse().map_err(|_| error(form))?),
                "metric" if metric.is_none() => metric = Some(value.parse().map_err(|_| error(form))?),
                _ => return Err(error(form)),
            }
        }
        let to: IpNet = match (to, via) {
            ("default", Some(IpAddr::V6(_))) => ipnet::Ipv6Net::default().into(),
            ("default", _) => ipnet::Ipv4Net::default().into(),
            _ => match to.parse::<IpNet>() {
                Ok(net) => net,
                Err(_) => to.parse::<IpAddr>().map(IpNet::from).map_err(|_| error(form))?,
            },
        };
        if to.trunc() != to {
            return Err(error("is no route: the address has bits beyond its prefix length"));
        }
        if via.is_some_and(|via| via.is_ipv4() != to.addr().is_ipv4()) {
            return Err(error("is no route: the next hop is of another family"));
        }
        Ok(Self { to, via, metric })
    }
}

as_text!(Route);

/// A static forwarding entry of a vxlan, as `bridge fdb` has it: `02:00:00:00:00:07 dst 198.51.100.2 vni 8 port 4790`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VxlanEntry {
    /// The station; 00:00:00:00:00:00 stands for every one that is not known.
    pub mac: MacAddr,
    /// The other end that it is behind.
    pub dst: IpAddr,
    /// The network, where it is not that of the device.
    pub vni: Option<u32>,
    /// The UDP port, where it is not that of the device.
    pub port: Option<u16>,
}

impl fmt::Display for VxlanEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dst {}", self.mac, self.dst)?;
        self.vni.map_or(Ok(()), |vni| write!(f, " vni {vni}"))?;
        self.port.map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

impl FromStr for VxlanEntry {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        let error = || {
            WordError::new(
                s,
                "is no forwarding entry: write 02:00:00:00:00:07 dst 198.51.100.2, and behind it vni 8 or port 4790",
            )
        };
        let mut words = s.split_whitespace();
        let mac = words.next().and_then(|word| word.parse().ok()).ok_or_else(error)?;
        let (mut dst, mut vni, mut port) = (None, None, None);
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(error)?;
            match word {
                "dst" if dst.is_none() => dst = Some(value.parse().map_err(|_| error())?),
                "vni" if vni.is_none() => vni = Some(value.parse().map_err(|_| error())?),
                "port" if port.is_none() => port = Some(value.parse().map_err(|_| error())?),
                _ => return Err(error()),
            }
        }
        Ok(Self { mac, dst: dst.ok_or_else(error)?, vni, port })
    }
}

as_text!(VxlanEntry);

/// A setting of the device: `ipv4.forwarding=1` is `net/ipv4/conf/DEV/forwarding`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sysctl {
    /// Of `net/ipv6/conf`; else of `net/ipv4/conf`.
    pub ipv6: bool,
    /// Name of the file there.
    pub key: String,
    /// What is in it.
    pub value: i64,
}

impl Sysctl {
    /// Whether it is the same setting, whatever is in it.
    pub fn is_of(&self, other: &Self) -> bool {
        (self.ipv6, &self.key) == (other.ipv6, &other.key)
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.ipv6 { "ipv6" } else { "ipv4" };
        write!(f, "{family}.{}={}", self.key, self.value)
    }
}

impl FromStr for Sysctl {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        let read = || {
            let (name, value) = s.split_once('=')?;
            let (family, key) = name.split_once('.')?;
            let ipv6 = match family {
                "ipv4" => false,
                "ipv6" => true,
                _ => return None,
            };
            // Nothing that leads out of the directory.
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            let legal = !key.is_empty() && key.len() <= 64 && key.bytes().all(legal);
            Some(Self { ipv6, key: legal.then(|| key.to_owned())?, value: value.parse().ok()? })
        };
        let problem = "is no setting of a device: write ipv4.forwarding=1 or ipv6.accept_ra=0";
        read().ok_or_else(|| WordError::new(s, problem))
    }
}

as_text!(Sysctl);

/// One word or an array of such.
pub(super) fn list<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    d: D,
) -> Result<Vec<T>, D::Error> {
    struct V<T>(PhantomData<T>);
    impl<'de, T: FromStr<Err: fmt::Display>> de::Visitor<'de> for V<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text or an array of texts")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_str<E: de::Error>(self, v: &str) -> Result<Vec<T>, E> {
            v.parse().map(|one| vec![one]).map_err(E::custom)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = seq.next_element::<String>()? {
                all.push(text.parse().map_err(de::Error::custom)?);
            }
            Ok(all)
        }
    }
    d.deserialize_any(V(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_print_as_they_parse() {
        for text in [
            "203.0.113.0/24",
            "203.0.113.0/24 via 198.51.100.1",
            "default via 198.51.100.1",
            "default via 2001:db8::1 metric 100",
            "2001:db8::/32 metric 7",
            "0.0.0.0/0",
        ] {
            assert_eq!(text.parse::<Route>().unwrap().to_string(), text);
        }
        assert_eq!("198.51.100.7".parse::<Route>().unwrap().to_string(), "198.51.100.7/32");
        assert_eq!("default".parse::<Route>().unwrap().to_string(), "0.0.0.0/0");
        for (text, why) in [
            ("", "is no route: write"),
            ("via 198.51.100.1", "is no route: write"),
            ("203.0.113.0/24 via", "is no route: write"),
            ("203.0.113.0/24 via 198.51.100.1 via 198.51.100.2", "is no route: write"),
            ("203.0.113.1/24", "bits beyond its prefix length"),
            ("203.0.113.0/24 via 2001:db8::1", "another family"),
        ] {
            let error = text.parse::<Route>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn forwarding_entries_print_as_they_parse() {
        for text in [
            "02:00:00:00:00:07 dst 198.51.100.2",
            "00:00:00:00:00:00 dst 2001:db8::2 vni 8",
            "02:00:00:00:00:07 dst 198.51.100.2 vni 8 port 4790",
        ] {
            assert_eq!(text.parse::<VxlanEntry>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "02:00:00:00:00:07",
            "02:00:00:00:00:07 dst",
            "02:00:00:00:00:07 vni 8",
            "198.51.100.2 dst 198.51.100.2",
            "02:00:00:00:00:07 dst 198.51.100.2 dst 198.51.100.3",
            "02:00:00:00:00:07 dst 198.51.100.2 port 65536",
            "02:00:00:00:00:07 dst 198.51.100.2 via vm1",
        ] {
            let error = text.parse::<VxlanEntry>().unwrap_err().to_string();
            assert!(error.contains("is no forwarding entry: write"), "{text}: {error}");
        }
    }

    #[test]
    fn a_setting_stays_in_the_directory_of_its_device() {
        for text in ["ipv4.forwarding=1", "ipv6.accept_ra=-1"] {
            assert_eq!(text.parse::<Sysctl>().unwrap().to_string(), text);
        }
        for text in
            ["forwarding=1", "ipv4.a/b=1", "ipv4...=1", "ipv5.x=1", "ipv4.forwarding", "ipv4.x=on", "ipv4.=1"]
        {
            assert!(text.parse::<Sysctl>().is_err(), "{text}");
        }
    }
}
