//! What holds where nothing is said.
//!
//! Owns every default, once: the help texts of [`super::spec`] and the reference page repeat them, and a test compares.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    check::MAX_TAP_QUEUES,
    spec::{BridgeOptions, PortOptions, PortSpec, PortType, UplinkOptions, UplinkSpec},
    words::{AdminState, OnOff, Seconds},
};

/// How long a learned address is kept without being heard of, where nothing else is said (802.1Q-2018 table 8-6).
pub const DEFAULT_AGEING: Seconds = Seconds(300);
/// Entries a bridge's FDB holds where nothing else is said.
pub const DEFAULT_FDB_LIMIT: u32 = 65_536;
/// The MTU of an interface where nothing else is said (`ETH_DATA_LEN`).
pub const DEFAULT_MTU: u32 = 1500;

/// Makes an accessor of what is in force for each field with a default, and `with_defaults` of them all.
macro_rules! defaults {
    ($options:ty: $($field:ident $accessor:ident: $type:ty = $default:expr;)*) => {
        impl $options {
            $(
                #[doc = concat!("What is in force for `", stringify!($field), "`.")]
                pub fn $accessor(&self) -> $type {
                    self.$field.unwrap_or($default)
                }
            )*

            fn with_defaults(&self) -> Self {
                let mut all = self.clone();
                $(all.$field = Some(self.$accessor());)*
                all
            }
        }
    };
}

defaults! { BridgeOptions:
    ageing ageing_or_default: Seconds = DEFAULT_AGEING;
    fdb_limit fdb_limit_or_default: u32 = DEFAULT_FDB_LIMIT;
    neigh_snoop neigh_snoop_or_default: OnOff = OnOff(false);
}

defaults! { UplinkOptions:
    mtu mtu_or_default: u32 = DEFAULT_MTU;
    offload offload_or_default: OnOff = OnOff(true);
}

defaults! { PortOptions:
    kind kind_or_default: PortType = PortType::Tap;
    learning learning_or_default: OnOff = OnOff(true);
    flood flood_or_default: OnOff = OnOff(true);
    bcast_flood bcast_flood_or_default: OnOff = OnOff(true);
    mcast_flood mcast_flood_or_default: OnOff = OnOff(true);
    hairpin hairpin_or_default: OnOff = OnOff(false);
    isolated isolated_or_default: OnOff = OnOff(false);
    locked locked_or_default: OnOff = OnOff(false);
    mac_limit mac_limit_or_default: u32 = 0;
    storm_limit storm_limit_or_default: u32 = 0;
    mtu mtu_or_default: u32 = DEFAULT_MTU;
    admin admin_or_default: AdminState = AdminState::Up;
    persist persist_or_default: OnOff = OnOff(false);
    offload offload_or_default: OnOff = OnOff(true);
}

impl BridgeOptions {
    /// Every setting in force.
    pub fn effective(&self) -> Self {
        self.with_defaults()
    }
}

impl PortSpec {
    /// The name of the interface in force.
    pub fn ifname_or_default(&self) -> &str {
        self.options.ifname.as_deref().unwrap_or(self.name.as_str())
    }

    /// The number of queues in force where the daemon has `workers` workers.
    pub fn queues_or_default(&self, workers: u16) -> u16 {
        self.options.queues.unwrap_or(workers.clamp(1, MAX_TAP_QUEUES))
    }

    /// Every setting in force, lists in ascending order: what has no default and was not given stays away.
    pub fn effective(&self, workers: u16) -> PortOptions {
        let mut all = self.options.with_defaults();
        all.ifname = Some(self.ifname_or_default().to_owned());
        all.queues = Some(self.queues_or_default(workers));
        all.address.sort_unstable();
        all.address.dedup();
        if let Some(secure) = &mut all.secure {
            secure.ip.sort_unstable();
            secure.ip.dedup();
        }
        all
    }
}

impl UplinkSpec {
    /// The name of the interface in force.
    pub fn ifname_or_default(&self) -> &str {
        self.options.ifname.as_deref().unwrap_or(self.name.as_str())
    }

    /// The number of queues in force where the daemon has `workers` workers.
    pub fn queues_or_default(&self, workers: u16) -> u16 {
        self.options.queues.unwrap_or(workers.clamp(1, MAX_TAP_QUEUES))
    }

    /// The address of the host's end in force: that given, or the first of the prefix that a host can have and the
    /// switch has not. A prefix of one address has none, and the interface stays without.
    pub fn gateway_or_default(&self) -> Option<IpAddr> {
        // Longer prefixes than these have no address that is set apart: RFC 3021 and RFC 6164. Of shorter ones the
        // first IPv6 address is the anycast address of all routers (RFC 4291 section 2.6.1).
        let anycast = |ip: &IpAddr| matches!(self.address, IpNet::V6(net) if net.prefix_len() < 127 && IpAddr::V6(net.network()) == *ip);
        let other = || self.address.hosts().find(|ip| *ip != self.address.addr() && !anycast(ip));
        self.options.gateway.or_else(other)
    }

    /// Every setting in force: what has no default and was not given stays away.
    pub fn effective(&self, workers: u16) -> UplinkOptions {
        let mut all = self.options.with_defaults();
        all.gateway = self.gateway_or_default();
        all.ifname = Some(self.ifname_or_default().to_owned());
        all.queues = Some(self.queues_or_default(workers));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_its_default_and_what_is_said_stands() {
        let mut spec: PortSpec =
            toml::from_str("name = \"vm1\"\nbridge = \"br0\"\nflood = false\nmtu = 9000").unwrap();
        let all = spec.effective(2);
        assert_eq!((all.flood, all.mtu), (Some(OnOff(false)), Some(9000)));
        assert_eq!(
            (all.learning, all.hairpin, all.persist),
            (Some(OnOff(true)), Some(OnOff(false)), Some(OnOff(false)))
        );
        assert_eq!((all.ifname.as_deref(), all.queues), (Some("vm1"), Some(2)));
        assert!(all.access.is_none() && all.secure.is_none() && all.netns.is_none());
        assert_eq!((spec.queues_or_default(0), spec.queues_or_default(1000)), (1, 256));
        spec.options = all.clone();
        assert_eq!(spec.effective(7), all, "effective settings are their own effective settings");
    }

    #[test]
    fn the_gateway_of_an_uplink_is_the_first_other_address_of_its_prefix() {
        for (address, gateway) in [
            ("198.51.100.1/24", Some("198.51.100.2")),
            ("198.51.100.9/24", Some("198.51.100.1")),
            ("198.51.100.0/31", Some("198.51.100.1")),
            ("198.51.100.1/32", None),
            ("2001:db8::1/64", Some("2001:db8::2")),
            ("2001:db8::2/64", Some("2001:db8::1")),
            ("2001:db8::1/127", Some("2001:db8::")),
            ("2001:db8::1/128", None),
        ] {
            let uplink = |more: &str| -> UplinkSpec {
                toml::from_str(&format!("name = \"up0\"\naddress = \"{address}\"\n{more}")).unwrap()
            };
            let gateway = gateway.map(|ip| ip.parse::<IpAddr>().unwrap());
            assert_eq!(uplink("").gateway_or_default(), gateway, "{address}");
            let all = uplink("").effective(3);
            assert_eq!((all.gateway, all.queues, all.mtu), (gateway, Some(3), Some(1500)), "{address}");
            let said = uplink("gateway = \"203.0.113.1\"").gateway_or_default();
            assert_eq!(said, Some("203.0.113.1".parse().unwrap()), "{address}");
        }
    }
}
