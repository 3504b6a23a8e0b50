//! What `set` makes of settings: those given replace, those unset go back to their default.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::Table;

use super::{
    diff::table_of,
    keys::{keys_of, nearest},
    spec::{BridgeOptions, PortOptions},
};

/// The keys that say one thing together: which VLANs a port carries and how.
const VLAN: [&str; 4] = ["access", "trunk", "native", "qinq"];

/// Why settings cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// No setting has that name.
    #[error("unset: {name:?} is no setting{}; the settings are {}", .near.map(|n| format!(", did you mean {n:?}?")).unwrap_or_default(), .known.join(", "))]
    Unknown {
        /// What was given.
        name: String,
        /// What was probably meant.
        near: Option<&'static str>,
        /// Every setting.
        known: &'static [&'static str],
    },
    /// A setting is given a value and put back to its default at once.
    #[error("unset: {key} is given a value in the same command")]
    Contradiction {
        /// The setting.
        key: String,
    },
    /// A value that cannot be written down, such as a path that is no text.
    #[error(transparent)]
    Unwritable(#[from] toml::de::Error),
}

/// The settings of `old` without those named in `unset` as a key or a flag.
fn without(
    old: &impl Serialize,
    change: &impl Serialize,
    unset: &[String],
    known: &'static [&'static str],
) -> Result<Table, MergeError> {
    let (mut table, given) = (table_of(old), table_of(change));
    for name in unset {
        let key = name.trim_start_matches("--").replace('-', "_");
        if !known.contains(&key.as_str()) {
            let name: String = name.chars().take(64).collect();
            return Err(MergeError::Unknown { near: nearest(&key, known), name, known });
        }
        if given.contains_key(&key) {
            return Err(MergeError::Contradiction { key });
        }
        table.remove(&key);
    }
    Ok(table)
}

/// The settings of `old` with those of `change` that are given, and without those named in `unset`.
pub(super) fn merge<T: Serialize + DeserializeOwned>(
    old: &T,
    change: &T,
    unset: &[String],
    known: &'static [&'static str],
) -> Result<T, MergeError> {
    let mut table = without(old, change, unset, known)?;
    table.extend(table_of(change));
    Ok(T::deserialize(table)?)
}

impl BridgeOptions {
    /// These settings with those of `change` that are given.
    pub fn merge(&self, change: &Self) -> Self {
        let Self { ageing, fdb_limit, move_limit, neigh_snoop } = change.clone();
        Self {
            ageing: ageing.or(self.ageing),
            fdb_limit: fdb_limit.or(self.fdb_limit),
            move_limit: move_limit.or(self.move_limit),
            neigh_snoop: neigh_snoop.or(self.neigh_snoop),
        }
    }
}

impl PortOptions {
    /// These settings with those of `change` that are given, and without those named in `unset` as a key or a flag.
    ///
    /// The VLAN settings are one: giving any replaces all, except that `native` alone changes the native VLAN of a trunk.
    /// Whether the result makes sense is for [`super::PortSpec::check`] to say.
    ///
    /// # Errors
    /// Where `unset` names what is no setting or what `change` sets.
    pub fn merge(&self, change: &Self, unset: &[String]) -> Result<Self, MergeError> {
        let mut table = without(self, change, unset, keys_of::<Self>())?;
        let given = table_of(change);
        let mut vlan = VLAN.iter().filter(|key| given.contains_key(**key));
        if let Some(first) = vlan.next() {
            let native_alone = *first == "native" && vlan.next().is_none() && table.contains_key("trunk");
            if !native_alone {
                VLAN.iter().for_each(|key| drop(table.remove(*key)));
            }
        }
        table.extend(given);
        Ok(Self::deserialize(table)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::arbitrary;

    fn options(toml: &str) -> PortOptions {
        toml::from_str(toml).unwrap()
    }

    fn merged(old: &str, change: &str, unset: &[&str]) -> PortOptions {
        let unset: Vec<String> = unset.iter().map(|s| (*s).to_owned()).collect();
        options(old).merge(&options(change), &unset).unwrap()
    }

    #[test]
    fn what_is_given_replaces_and_the_rest_stays() {
        assert_eq!(
            merged(
                "mtu = 9000\nflood = false\naddress = \"198.51.100.1/24\"",
                "mtu = 1400\naddress = \"198.51.100.2/24\"",
                &[]
            ),
            options("mtu = 1400\nflood = false\naddress = \"198.51.100.2/24\"")
        );
        let old: BridgeOptions = toml::from_str("ageing = \"10s\"").unwrap();
        let change: BridgeOptions = toml::from_str("fdb_limit = 5").unwrap();
        assert_eq!(old.merge(&change), toml::from_str("ageing = \"10s\"\nfdb_limit = 5").unwrap());
    }

    #[test]
    fn any_vlan_option_replaces_all_of_them() {
        assert_eq!(merged("access = 10", "trunk = \"20,30\"", &[]), options("trunk = \"20,30\""));
        assert_eq!(merged("trunk = \"20\"\nnative = 5", "trunk = \"30\"", &[]), options("trunk = \"30\""));
        assert_eq!(merged("trunk = \"20\"\nnative = 5", "qinq = 7", &[]), options("qinq = 7"));
        assert_eq!(
            merged("trunk = \"20\"\nnative = 5", "trunk = \"30\"\nnative = 6", &[]),
            options("trunk = \"30\"\nnative = 6")
        );
    }

    #[test]
    fn native_alone_changes_only_the_native_vlan_of_a_trunk() {
        assert_eq!(
            merged("trunk = \"20\"\nnative = 5", "native = 6", &[]),
            options("trunk = \"20\"\nnative = 6")
        );
        assert_eq!(
            merged("access = 10", "native = 6", &[]),
            options("native = 6"),
            "for the check to refuse"
        );
    }

    #[test]
    fn unset_takes_flags_and_keys_and_puts_the_default_back() {
        let old = "mac_limit = 5\nstorm_limit = 7\nmtu = 9000\ntype = \"tap\"";
        assert_eq!(merged(old, "", &["mac-limit", "storm_limit", "--mtu", "type"]), PortOptions::default());
        assert_eq!(merged("trunk = \"20\"\nnative = 5", "", &["native"]), options("trunk = \"20\""));
        assert_eq!(merged("", "", &["secure"]), PortOptions::default(), "what is not set can be unset");
    }

    #[test]
    fn unset_refuses_what_is_no_setting_and_what_is_set_at_once() {
        let unset = |change: &str, name: &str| {
            PortOptions::default().merge(&options(change), &[name.to_owned()]).unwrap_err().to_string()
        };
        let message = unset("", "mac-limt");
        assert!(message.starts_with("unset: \"mac-limt\" is no setting, did you mean \"mac_limit\"?; the settings are type, access,"), "{message}");
        assert!(unset("", "bridge").contains("is no setting"));
        assert_eq!(unset("mtu = 1400", "mtu"), "unset: mtu is given a value in the same command");
    }

    proptest! {
        #[test]
        fn merging_nothing_changes_nothing(options in arbitrary::port_options()) {
            prop_assert_eq!(options.merge(&PortOptions::default(), &[]).unwrap(), options);
        }

        #[test]
        fn merging_into_nothing_gives_the_change(options in arbitrary::port_options()) {
            prop_assert_eq!(PortOptions::default().merge(&options, &[]).unwrap(), options);
        }
    }
}
