//! What holds where nothing is said.
//!
//! Owns every default, once: the help texts of [`super::spec`] and the reference page repeat them, and a test compares.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    check::MAX_TAP_QUEUES,
    spec::{BridgeOptions, Driver, PortOptions, PortSpec, PortType, UplinkOptions, UplinkSpec},
    tunnel::{Df, Inherit, PortRange, Reserved},
    words::{AdminState, OnOff, Seconds},
};
use crate::wire::{geneve, vxlan};

/// How long a learned address is kept without being heard of, where nothing else is said (802.1Q-2018 table 8-6).
pub const DEFAULT_AGEING: Seconds = Seconds(300);
/// Entries a bridge's FDB holds where nothing else is said.
pub const DEFAULT_FDB_LIMIT: u32 = 65_536;
/// The move within three minutes at which an address is held, where nothing else is said (N of RFC 7432 section 15.1).
pub const DEFAULT_MOVE_LIMIT: u32 = 5;
/// The source ports of a tunnel where nothing else is said: "the UDP source port number be in the dynamic/private port
/// range 49152-65535" (RFC 7348 section 5).
pub const DEFAULT_SRC_PORT: PortRange = match PortRange::new(49_152, 65_535) {
    Some(range) => range,
    None => unreachable!(),
};
/// Flooded frames a second that a secured port may send where nothing else is said: more than a host has a use for, and little to
/// everybody else.
pub(super) const DEFAULT_SECURE_STORM_LIMIT: u32 = 1000;
/// Addresses of a secured port that names no VLANs, where nothing else is said: its one MAC address in so many VLANs.
pub(super) const DEFAULT_SECURE_MAC_LIMIT: u32 = 64;
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
    move_limit move_limit_or_default: u32 = DEFAULT_MOVE_LIMIT;
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
    admin admin_or_default: AdminState = AdminState::Up;
}

/// The settings that ports of some types have, with what is in force where nothing is said.
macro_rules! defaults_of_types {
    ($($field:ident $accessor:ident $of:ident: $type:ty = $default:expr;)*) => {
        impl PortOptions {
            $(
                #[doc = concat!("What is in force for `", stringify!($field), "`, of a port that has it.")]
                pub fn $accessor(&self) -> $type {
                    self.$field.unwrap_or($default)
                }
            )*

            /// Adds what is in force of the settings that a port of its type has.
            fn with_defaults_of_type(mut self) -> Self {
                $(
                    if self.kind_or_default().$of() {
                        self.$field = Some(self.$accessor());
                    }
                )*
                self
            }
        }
    };
}

defaults_of_types! {
    mtu mtu_or_default has_mtu: u32 = DEFAULT_MTU;
    persist persist_or_default is_tap: OnOff = OnOff(false);
    offload offload_or_default has_offload: OnOff = OnOff(true);
    driver driver_or_default is_netdev: Driver = Driver::Packet;
    qdisc_bypass qdisc_bypass_or_default is_netdev: OnOff = OnOff(false);
    src_port src_port_or_default is_tunnel: PortRange = DEFAULT_SRC_PORT;
    ttl ttl_or_default is_tunnel: Inherit<u8> = Inherit::Fixed(64);
    tos tos_or_default is_tunnel: Inherit<u8> = Inherit::Fixed(0);
    df df_or_default is_tunnel: Df = Df::Unset;
    udp_csum udp_csum_or_default is_tunnel: OnOff = OnOff(true);
    udp6_zero_csum_rx udp6_zero_csum_rx_or_default is_tunnel: OnOff = OnOff(false);
    bum_limit bum_limit_or_default is_tunnel: u32 = 0;
    gbp gbp_or_default is_vxlan: OnOff = OnOff(false);
    reserved reserved_or_default is_vxlan: Reserved = Reserved::Ignore;
}

impl PortOptions {
    /// The UDP port in force, of a tunnel; each type has its own.
    pub fn dst_port_or_default(&self) -> u16 {
        self.dst_port.unwrap_or(match self.kind_or_default() {
            PortType::Geneve => geneve::PORT,
            _ => vxlan::PORT,
        })
    }

    /// What is in force for `mac_limit`: a secured port has one address in each VLAN that it is a member of.
    pub fn mac_limit_or_default(&self) -> u32 {
        let of_secured = || match (&self.trunk, self.access.or(self.qinq)) {
            (Some(list), _) if !list.is_all() => {
                let native = self.native.filter(|vid| !list.contains(vid.get()));
                (list.iter().count() + usize::from(native.is_some())) as u32
            }
            (None, Some(_)) => 1,
            _ => DEFAULT_SECURE_MAC_LIMIT,
        };
        self.mac_limit.unwrap_or_else(|| if self.secure.is_some() { of_secured() } else { 0 })
    }

    /// What is in force for `storm_limit`: a secured port has one in any case.
    pub fn storm_limit_or_default(&self) -> u32 {
        self.storm_limit.unwrap_or(if self.secure.is_some() { DEFAULT_SECURE_STORM_LIMIT } else { 0 })
    }

    /// Whether a stream or dgram port waits for the other side; otherwise it goes to it.
    pub fn listens(&self) -> bool {
        one_of_two(self.listen, self.connect).unwrap_or(self.peer_path.is_none())
    }

    /// Whether a vhost-user port waits for the other side; otherwise it goes to it.
    pub fn serves(&self) -> bool {
        one_of_two(self.server, self.client).unwrap_or(true)
    }

    /// Whether the socket at `path` is the switch's own: it makes it, and no other port can.
    pub fn owns_path(&self) -> bool {
        match self.kind_or_default() {
            PortType::Stream => self.listens(),
            PortType::Dgram => true,
            PortType::VhostUser => self.serves(),
            PortType::Tap | PortType::Netdev | PortType::Vxlan | PortType::Geneve => false,
        }
    }

    /// What is in force for `remote_check`, of a tunnel: who may send is learned, or it is known.
    pub fn remote_check_or_default(&self) -> OnOff {
        self.remote_check.unwrap_or(OnOff(!self.learning_or_default().0))
    }
}

/// Whether the first of two opposite words holds, as one or the other says.
fn one_of_two(this: Option<OnOff>, opposite: Option<OnOff>) -> Option<bool> {
    this.map(|on| on.0).or(opposite.map(|on| !on.0))
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
        let mut all = self.options.with_defaults().with_defaults_of_type();
        all.mac_limit = Some(all.mac_limit_or_default());
        all.storm_limit = Some(all.storm_limit_or_default());
        let kind = all.kind_or_default();
        if kind.is_tunnel() {
            all.dst_port = Some(all.dst_port_or_default());
            all.remote_check = Some(all.remote_check_or_default());
        }
        if kind.has_interface() {
            all.ifname = Some(self.ifname_or_default().to_owned());
        }
        if kind.has_interface() || kind.is_vhost_user() {
            all.queues = Some(self.queues_or_default(workers));
        }
        if kind.listens_or_connects() {
            let listens = all.listens();
            (all.listen, all.connect) = (Some(OnOff(listens)), Some(OnOff(!listens)));
        }
        if kind.is_vhost_user() {
            let serves = all.serves();
            (all.server, all.client) = (Some(OnOff(serves)), Some(OnOff(!serves)));
        }
        all.address.sort_unstable();
        all.address.dedup();
        all.remote.sort_unstable();
        all.remote.dedup();
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
    fn a_tunnel_has_the_defaults_of_its_type_and_none_of_an_interface() {
        let effective = |kind: &str, more: &str| {
            let text = format!(
                "name = \"x\"\nbridge = \"br0\"\ntype = \"{kind}\"\nvni = 7\nlocal = \"198.51.100.1\"\n{more}"
            );
            let spec: PortSpec = toml::from_str(&text).unwrap();
            let all = spec.effective(2);
            assert_eq!(PortSpec { options: all.clone(), ..spec }.effective(3), all, "{kind} {more}");
            all
        };
        let all = effective("vxlan", "remote = [\"198.51.100.3\", \"198.51.100.2\", \"198.51.100.3\"]");
        assert_eq!(
            (all.dst_port, all.gbp, all.reserved),
            (Some(4789), Some(OnOff(false)), Some(Reserved::Ignore))
        );
        assert_eq!(
            all.remote.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["198.51.100.2", "198.51.100.3"]
        );
        assert_eq!(
            (all.remote_check, all.mtu),
            (Some(OnOff(false)), None),
            "the underlay says what is too long"
        );
        assert!(
            all.ifname.is_none() && all.queues.is_none() && all.persist.is_none() && all.offload.is_none()
        );
        let all = effective("geneve", "learning = false");
        assert_eq!((all.dst_port, all.gbp, all.reserved), (Some(6081), None, None));
        assert_eq!(all.remote_check, Some(OnOff(true)));
        assert_eq!(
            effective("geneve", "learning = false\nremote_check = false").remote_check,
            Some(OnOff(false))
        );
        let tap: PortSpec = toml::from_str("name = \"x\"\nbridge = \"br0\"").unwrap();
        let tap = tap.effective(2);
        assert!(
            tap.dst_port.is_none() && tap.ttl.is_none() && tap.remote_check.is_none() && tap.gbp.is_none()
        );
    }

    #[test]
    fn a_secured_port_has_limits_unless_it_is_told_others() {
        let limits = |text: &str| {
            let secure = "secure = \"mac=02:00:00:00:00:01\"";
            let spec: PortSpec =
                toml::from_str(&format!("name = \"x\"\nbridge = \"br0\"\n{secure}\n{text}")).unwrap();
            let all = spec.effective(1);
            (all.mac_limit.unwrap(), all.storm_limit.unwrap())
        };
        for (text, macs) in [
            ("", 64),
            ("trunk = \"all\"\nnative = 5", 64),
            ("access = 10", 1),
            ("qinq = 10", 1),
            ("trunk = \"10,20-29\"", 11),
            ("trunk = \"10,20-29\"\nnative = 5", 12),
            ("trunk = \"10,20-29\"\nnative = 10", 11),
        ] {
            assert_eq!(limits(text), (macs, 1000), "{text}");
        }
        assert_eq!(limits("mac_limit = 0\nstorm_limit = 0"), (0, 0));
        let plain: PortSpec = toml::from_str("name = \"x\"\nbridge = \"br0\"\naccess = 10").unwrap();
        assert_eq!((plain.effective(1).mac_limit, plain.effective(1).storm_limit), (Some(0), Some(0)));
    }

    #[test]
    fn a_port_for_a_vm_waits_unless_it_is_told_where_to_go() {
        let effective = |text: &str| {
            let spec: PortSpec = toml::from_str(&format!("name = \"x\"\nbridge = \"br0\"\n{text}")).unwrap();
            let all = spec.effective(2);
            assert_eq!(PortSpec { options: all.clone(), ..spec }.effective(3), all, "{text}");
            all
        };
        let (yes, no) = (Some(OnOff(true)), Some(OnOff(false)));
        for (text, listen) in [
            ("type = \"stream\"\npath = \"/run/a\"", yes),
            ("type = \"stream\"\npath = \"/run/a\"\nconnect = true", no),
            ("type = \"stream\"\npath = \"/run/a\"\nlisten = false", no),
            ("type = \"dgram\"\npath = \"/run/a\"", yes),
            ("type = \"dgram\"\npath = \"/run/a\"\npeer_path = \"/run/b\"", no),
        ] {
            let all = effective(text);
            assert_eq!((all.listen, all.connect), (listen, listen.map(|l| OnOff(!l.0))), "{text}");
            assert_eq!(
                (all.mtu, all.queues, all.ifname.as_deref(), all.offload),
                (Some(1500), None, None, None)
            );
        }
        let all = effective("type = \"vhost-user\"\npath = \"/run/a\"");
        assert_eq!((all.server, all.client, all.queues, all.offload), (yes, no, Some(2), yes));
        let all = effective("type = \"vhost-user\"\npath = \"/run/a\"\nclient = true\nqueues = 4");
        assert_eq!((all.server, all.client, all.queues), (no, yes, Some(4)));
        let all = effective("type = \"netdev\"");
        assert_eq!(
            (all.ifname.as_deref(), all.queues, all.driver),
            (Some("x"), Some(2), Some(Driver::Packet))
        );
        assert_eq!(
            (all.mtu, all.persist, all.listen),
            (None, None, None),
            "the interface says what is too long"
        );
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
