//! In what two descriptions of a device differ, and what of it the kernel cannot change.

use toml::{Table, Value};

use super::{DeviceOptions, DeviceSpec, DeviceType};
use crate::config::{
    diff::{Difference, UNSET, between, table_of, texts},
    keys::keys_of,
};

/// The settings in force, one row a flag: what is said of a peer stands beside the rest.
fn table(kind: DeviceType, options: &DeviceOptions) -> Table {
    let mut table = table_of(options);
    table.insert("type".into(), kind.as_str().into());
    if let Some(Value::Table(peer)) = table.remove("peer") {
        for (key, value) in peer {
            let key = if key == "name" { "peer".to_owned() } else { format!("peer_{key}") };
            table.insert(key, value);
        }
    }
    table
}

impl DeviceSpec {
    /// What would change were `new` in force, as `key: old -> new`.
    pub fn difference(&self, new: &Self) -> Vec<String> {
        texts(self.differences(new))
    }

    pub(in crate::config) fn differences(&self, new: &Self) -> Vec<Difference> {
        between(&table(self.kind, &self.effective()), &table(new.kind, &new.effective()))
    }

    /// Those of the differences that the kernel cannot make on a device that exists.
    pub fn immutable_differences(&self, new: &Self) -> Vec<String> {
        let mut all = self.differences(new);
        all.retain(|difference| self.is_immutable(new, difference));
        texts(all)
    }

    /// In what a device of this name differs from what is described: `seen` has what the kernel says in the same words.
    /// What is not described is the kernel's to choose.
    pub fn drift(&self, kind: DeviceType, seen: &DeviceOptions) -> Vec<Difference> {
        let wanted = table(self.kind, &self.effective());
        let mut seen = table(kind, &Self { kind, options: seen.clone(), ..self.clone() }.effective());
        // What a device is not described to have is no drift, but for what is nowhere: a bridge it should not belong to.
        let told = |key: &str| wanted.contains_key(key) || key == "master";
        seen.retain(|key, _| told(key));
        // Of what it has more than one of, what is described has to be there.
        for key in ["address", "peer_address", "route", "sysctl", "fdb"] {
            if let (Some(Value::Array(wanted)), Some(Value::Array(all))) =
                (wanted.get(key), seen.get_mut(key))
            {
                all.retain(|one| wanted.contains(one));
            }
        }
        between(&wanted, &seen)
    }

    pub(in crate::config) fn is_immutable(&self, new: &Self, difference: &Difference) -> bool {
        let Difference { key, old, new: to } = difference;
        let appears = old == UNSET || to == UNSET;
        let family = |text: &str| text.contains(':');
        match (self.kind, key.as_str()) {
            (_, "type" | "netns" | "peer_netns" | "parent" | "link_netns") => true,
            (_, "peer") => appears,
            // What the kernel would have chosen is not known any more.
            (_, "mac" | "mtu") => to == UNSET,
            (_, "peer_mac" | "owner") | (DeviceType::Geneve, "ttl") => appears,
            (_, "sysctl") => {
                let stays = |one: &super::Sysctl| new.options.sysctl.iter().any(|s| s.is_of(one));
                !self.options.sysctl.iter().all(stays)
            }
            // `macvlan_changelink`
            (DeviceType::Macvlan | DeviceType::Macvtap, "mode") => old == "passthru" || to == "passthru",
            (DeviceType::Vlan, "id" | "protocol") => true,
            // `vxlan_nl2conf`: "Cannot change VNI", "Cannot change port", and flags that it refuses to change.
            (DeviceType::Vxlan, "id" | "dstport" | "udpcsum" | "external") => true,
            (DeviceType::Vxlan, "ttl") => appears || old == "inherit" || to == "inherit",
            // `geneve_nl2info` at `change_notsup`.
            (DeviceType::Geneve, "id" | "dstport" | "udpcsum") => true,
            // Neither takes an address away, or puts one of the other family in its place.
            (DeviceType::Vxlan | DeviceType::Geneve, "local" | "remote" | "group" | "dev") => {
                appears || family(old) != family(to)
            }
            (DeviceType::Tun | DeviceType::Tap, "group") => appears,
            // Whoever made it has its descriptor, or nobody has; and the header is that of the first descriptor (`tun_set_iff`).
            (DeviceType::Tun | DeviceType::Tap, "persistent") => true,
            (DeviceType::Tun | DeviceType::Tap, "vnet_hdr") => {
                appears || self.options.persistent.is_some_and(|on| !on.0)
            }
            // `tun_set_iff` attaches to a device of the same make only: with one queue, or with several.
            (DeviceType::Tun | DeviceType::Tap, "queues") => (old == "1") != (to == "1"),
            _ => false,
        }
    }

    /// These settings with those of `change` that are given, and without those named in `unset` as a key or a flag.
    ///
    /// # Errors
    /// Where `unset` names what is no setting or what `change` sets.
    pub fn merge(
        &self,
        change: &DeviceOptions,
        unset: &[String],
    ) -> Result<DeviceOptions, crate::config::MergeError> {
        let known = keys_of::<DeviceOptions>();
        let mut merged = crate::config::merge::merge(&self.options, change, unset, known)?;
        // Of the peer, too, what is given replaces and the rest stays.
        if !change.peer.is_unset() && !self.options.peer.is_unset() {
            let (old, given) = (&self.options.peer, &change.peer);
            let peer = &mut merged.peer;
            peer.name = given.name.clone().or_else(|| old.name.clone());
            peer.netns = given.netns.clone().or_else(|| old.netns.clone());
            peer.mac = given.mac.or(old.mac);
            if given.address.is_empty() {
                peer.address.clone_from(&old.address);
            }
        }
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: &str, more: &str) -> DeviceSpec {
        toml::from_str(&format!("name = \"d\"\ntype = \"{kind}\"\n{more}")).unwrap()
    }

    #[test]
    fn a_default_that_is_written_down_is_no_difference() {
        for (kind, more, written) in [
            ("veth", "peer = { name = \"p\" }", "up = true"),
            ("macvlan", "parent = \"eth0\"", "mode = \"bridge\""),
            ("ipvlan", "parent = \"eth0\"", "mode = \"l2\"\nflag = \"bridge\""),
            ("vlan", "parent = \"eth0\"\nid = 7", "protocol = \"802.1q\""),
            ("vxlan", "id = 7", "dstport = 4789\ntos = 0\nlearning = true\nudpcsum = true\nexternal = false"),
            ("geneve", "id = 7", "dstport = 6081\ntos = 0\nudpcsum = true"),
            ("bridge", "", "stp = false\nageing = \"5m\"\nvlan_filtering = false\nmcast_snooping = true"),
            ("tap", "", "queues = 1\npersistent = true"),
            ("dummy", "", "up = \"on\""),
        ] {
            let plain = device(kind, more);
            let full = device(kind, &format!("{more}\n{written}"));
            assert_eq!(plain.difference(&full), [""; 0], "{kind}");
            let effective = DeviceSpec { options: plain.effective(), ..plain.clone() };
            assert_eq!(effective.effective(), plain.effective(), "{kind}");
        }
    }

    #[test]
    fn what_the_kernel_cannot_change_is_told_for_each_type() {
        for (kind, old, new, fixed) in [
            ("vlan", "parent = \"a\"\nid = 7", "parent = \"a\"\nid = 8", "id: 7 -> 8"),
            ("vlan", "parent = \"a\"\nid = 7", "parent = \"b\"\nid = 7", "parent: a -> b"),
            ("macvlan", "parent = \"a\"", "parent = \"a\"\nmode = \"private\"", ""),
            ("macvlan", "parent = \"a\"", "parent = \"a\"\nmode = \"passthru\"", "mode: bridge -> passthru"),
            ("ipvlan", "parent = \"a\"", "parent = \"a\"\nmode = \"l3s\"\nflag = \"private\"", ""),
            ("ipvlan", "parent = \"a\"", "parent = \"a\"\nlink_netns = \"c1\"", "link_netns: unset -> c1"),
            ("vxlan", "id = 7", "id = 7\nfdb = [\"02:00:00:00:00:07 dst 198.51.100.1\"]", ""),
            ("tap", "queues = 2", "queues = 2\npersistent = false", "persistent: on -> off"),
            ("vxlan", "id = 7", "id = 8", "id: 7 -> 8"),
            ("vxlan", "id = 7\nremote = \"198.51.100.1\"", "id = 7\nremote = \"198.51.100.2\"", ""),
            (
                "vxlan",
                "id = 7\nremote = \"198.51.100.1\"",
                "id = 7\nremote = \"2001:db8::1\"",
                "remote: 198.51.100.1 -> 2001:db8::1",
            ),
            ("vxlan", "id = 7\nremote = \"198.51.100.1\"", "id = 7", "remote: 198.51.100.1 -> unset"),
            ("vxlan", "id = 7\nlearning = false\ntos = 4", "id = 7", ""),
            ("geneve", "id = 7\ndstport = 7000", "id = 7", "dstport: 7000 -> 6081"),
            ("tap", "queues = 2", "", "queues: 2 -> 1"),
            ("tap", "queues = 2\nowner = 7\ngroup = 8", "queues = 4\nowner = 9\ngroup = 10", ""),
            ("tun", "", "owner = 7", "owner: unset -> 7"),
            ("bridge", "stp = true\nageing = 5", "vlan_filtering = true", ""),
            ("dummy", "mtu = 9000", "mtu = 1400", ""),
            ("dummy", "mtu = 9000", "", "mtu: 9000 -> unset"),
            ("dummy", "sysctl = \"ipv4.forwarding=1\"", "sysctl = \"ipv4.forwarding=0\"", ""),
            ("dummy", "sysctl = \"ipv4.forwarding=1\"", "", "sysctl: ipv4.forwarding=1 -> unset"),
            ("dummy", "address = \"198.51.100.1/24\"", "up = false", ""),
        ] {
            let found = device(kind, old).immutable_differences(&device(kind, new));
            assert_eq!(found.join(", "), fixed, "{kind}: {old} to {new}");
        }
        let peer = |text: &str| device("veth", &format!("peer = {{ name = \"p\", {text} }}"));
        let old = peer("netns = \"c1\", address = \"198.51.100.1/24\"");
        let new = peer("netns = \"c2\", address = \"198.51.100.2/24\"");
        assert_eq!(old.immutable_differences(&new), ["peer_netns: c1 -> c2"]);
        assert_eq!(
            old.difference(&new),
            ["peer_netns: c1 -> c2", "peer_address: 198.51.100.1/24 -> 198.51.100.2/24"]
        );
    }

    #[test]
    fn what_is_not_described_is_no_drift_and_what_is_missing_is() {
        let wanted = device("dummy", "mtu = 1400\naddress = \"198.51.100.1/24\"");
        let drift = |kind, text: &str| texts(wanted.drift(kind, &device("dummy", text).options));
        let more =
            "mac = \"02:00:00:00:00:01\"\nmtu = 1400\naddress = [\"198.51.100.1/24\", \"2001:db8::1/64\"]";
        assert_eq!(drift(DeviceType::Dummy, more), [""; 0]);
        assert_eq!(
            drift(DeviceType::Dummy, "mtu = 1500\nup = false\nmaster = \"br0\""),
            [
                "mtu: 1400 -> 1500",
                "address: 198.51.100.1/24 -> unset",
                "up: on -> off",
                "master: unset -> br0"
            ]
        );
        assert_eq!(drift(DeviceType::Veth, more), ["type: dummy -> veth"]);
    }

    #[test]
    fn a_peer_is_merged_key_by_key() {
        let old = device("veth", "peer = { name = \"p\", netns = \"c1\" }\nmtu = 1400");
        let change: DeviceOptions =
            toml::from_str("peer = { address = \"198.51.100.1/24\" }\nup = false").unwrap();
        let new = old.merge(&change, &["mtu".to_owned()]).unwrap();
        let wanted = device(
            "veth",
            "peer = { name = \"p\", netns = \"c1\", address = [\"198.51.100.1/24\"] }\nup = false",
        );
        assert_eq!(new, wanted.options);
        let error = old.merge(&change, &["up".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "unset: up is given a value in the same command");
    }
}
