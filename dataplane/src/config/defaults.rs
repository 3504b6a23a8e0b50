//! What holds where nothing is said.
//!
//! Owns every default, once: the help texts of [`super::spec`] and the reference page repeat them, and a test compares.

use super::{
    check::MAX_TAP_QUEUES,
    spec::{BridgeOptions, PortOptions, PortSpec, PortType},
    words::{AdminState, OnOff, Seconds},
};

/// How long a learned address is kept without being heard of, where nothing else is said (802.1Q-2018 table 8-6).
pub const DEFAULT_AGEING: Seconds = Seconds(300);
/// Entries a bridge's FDB holds where nothing else is said.
pub const DEFAULT_FDB_LIMIT: u32 = 65_536;
/// The move within three minutes at which an address is held, where nothing else is said (N of RFC 7432 section 15.1).
pub const DEFAULT_MOVE_LIMIT: u32 = 5;
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
}
