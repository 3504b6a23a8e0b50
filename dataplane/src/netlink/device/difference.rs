//! How a device that exists differs from what is wanted. No I/O.

use std::{
    collections::BTreeSet,
    fmt::{Debug, Display},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Bridge, Device, Geneve, Ipvlan, Kind, Macvlan, MacvlanMode, Mark, Observed, Peer, Route, Ttl, Tun, Vlan,
    Vxlan, request,
};

/// One way in which a device is not as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The option, in iproute2's word: "mtu".
    pub option: &'static str,
    /// What it is; empty for nothing.
    pub is: String,
    /// What it is to be; empty for nothing.
    pub wanted: String,
    /// Whether the kernel can change it on a device that exists.
    pub in_place: bool,
}

/// Everything in which `observed` is not as `wanted`; nothing where they agree.
/// `observed` is to have been asked for with `wanted`: else it has no sysctls, and says nothing about other namespaces.
#[must_use]
pub fn differences(observed: &Observed, wanted: &Device) -> Vec<Difference> {
    let mut found = Found(Vec::new());
    if observed.mark == Mark::Unfinished {
        found.say("unfinished", &"made half", &"", false);
    }
    match &observed.kind {
        Some(kind) => found.kind(kind, &wanted.kind),
        None => found.say("type", &observed.kind_name, &wanted.kind.name(), false),
    }
    if observed.link_elsewhere {
        let (option, wanted) = match &wanted.kind {
            Kind::Veth(peer) => ("peer-netns", peer.netns.as_ref()),
            _ => ("link-netns", wanted.link_netns.as_ref()),
        };
        let wanted = wanted.map_or_else(|| "the daemon's own".to_owned(), ToString::to_string);
        found.say(option, &"another", &wanted, false);
    }
    found.option("mac", observed.mac, wanted.mac, true);
    found.option("mtu", Some(observed.mtu), wanted.mtu, true);
    if observed.master != wanted.master {
        found.say("master", &text(observed.master.as_ref()), &text(wanted.master.as_ref()), true);
    }
    if observed.up != wanted.up {
        let word = |up| if up { "up" } else { "down" };
        found.say("admin", &word(observed.up), &word(wanted.up), true);
    }
    found.set("address", &observed.addresses, &wanted.addresses, made_up);
    // A device that is down has no routes.
    if wanted.up {
        let normal: Vec<Route> = wanted.routes.iter().map(|route| route.normal()).collect();
        found.set("route", &observed.routes, &normal, |_| false);
    }
    for (name, value) in &wanted.sysctls {
        let is = observed.sysctls.iter().find(|(other, _)| other == name).map(|(_, is)| is);
        if is != Some(value) {
            let (is, wanted) = (format!("{name}={}", text(is)), format!("{name}={value}"));
            found.say("sysctl", &is, &wanted, true);
        }
    }
    found.0
}

/// An address the kernel may have made up by itself, and does not say so before Linux 5.18 (`IFA_PROTO`).
pub(super) fn made_up(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

fn text<T: Display>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

struct Found(Vec<Difference>);

impl Found {
    fn say(&mut self, option: &'static str, is: &dyn Display, wanted: &dyn Display, in_place: bool) {
        self.0.push(Difference { option, is: is.to_string(), wanted: wanted.to_string(), in_place });
    }

    /// What is not wanted in particular may be anything.
    fn option<T: PartialEq + Display>(
        &mut self,
        option: &'static str,
        is: Option<T>,
        wanted: Option<T>,
        in_place: bool,
    ) {
        if wanted.is_some() && is != wanted {
            self.say(option, &text(is), &text(wanted), in_place);
        }
    }

    fn switch(&mut self, option: &'static str, is: Option<bool>, wanted: Option<bool>, in_place: bool) {
        let word = |on| if on { "on" } else { "off" };
        self.option(option, is.map(word), wanted.map(word), in_place);
    }

    fn set<T: Ord + Display + Debug>(
        &mut self,
        option: &'static str,
        is: &[T],
        wanted: &[T],
        ignored: impl Fn(&T) -> bool,
    ) {
        let (is, wanted): (BTreeSet<_>, BTreeSet<_>) = (is.iter().collect(), wanted.iter().collect());
        let words =
            |set: &mut dyn Iterator<Item = &&T>| set.map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let extra = words(&mut is.difference(&wanted).filter(|one| !ignored(one)));
        let missing = words(&mut wanted.difference(&is));
        if !(extra.is_empty() && missing.is_empty()) {
            self.say(option, &extra, &missing, true);
        }
    }

    fn kind(&mut self, is: &Kind, wanted: &Kind) {
        match (is, wanted) {
            (Kind::Veth(is), Kind::Veth(wanted)) => self.veth(is, wanted),
            (Kind::Bridge(is), Kind::Bridge(wanted)) => self.bridge(is, wanted),
            (Kind::Macvlan(is), Kind::Macvlan(wanted)) | (Kind::Macvtap(is), Kind::Macvtap(wanted)) => {
                self.macvlan(is, wanted);
            }
            (Kind::Ipvlan(is), Kind::Ipvlan(wanted)) => self.ipvlan(is, wanted),
            (Kind::Vlan(is), Kind::Vlan(wanted)) => self.vlan(is, wanted),
            (Kind::Vxlan(is), Kind::Vxlan(wanted)) => self.vxlan(is, wanted),
            (Kind::Geneve(is), Kind::Geneve(wanted)) => self.geneve(is, wanted),
            (Kind::Tun(is), Kind::Tun(wanted)) | (Kind::Tap(is), Kind::Tap(wanted)) => self.tun(is, wanted),
            (Kind::Dummy, Kind::Dummy) => {}
            (is, wanted) => self.say("type", &is.name(), &wanted.name(), false),
        }
    }

    fn veth(&mut self, is: &Peer, wanted: &Peer) {
        self.option("peer", Some(&is.name), Some(&wanted.name), true);
        self.option("peer-mac", is.mac, wanted.mac, true);
        self.set("peer-address", &is.addresses, &wanted.addresses, made_up);
    }

    fn bridge(&mut self, is: &Bridge, wanted: &Bridge) {
        let ageing = |time: Option<_>| time.map(request::centiseconds).map(Centiseconds);
        self.option("ageing", ageing(is.ageing), ageing(wanted.ageing), true);
        self.switch("stp", is.stp, wanted.stp, true);
        self.switch("vlan-filtering", is.vlan_filtering, wanted.vlan_filtering, true);
        self.switch("mcast-snooping", is.mcast_snooping, wanted.mcast_snooping, true);
    }

    fn macvlan(&mut self, is: &Macvlan, wanted: &Macvlan) {
        self.option("parent", Some(&is.parent), Some(&wanted.parent), false);
        // `macvlan_changelink` does not go to passthru, nor away from it.
        let passthru = Some(MacvlanMode::Passthru);
        self.option("mode", is.mode, wanted.mode, is.mode != passthru && wanted.mode != passthru);
    }

    fn ipvlan(&mut self, is: &Ipvlan, wanted: &Ipvlan) {
        self.option("parent", Some(&is.parent), Some(&wanted.parent), false);
        self.option("mode", is.mode, wanted.mode, true);
        self.option("flag", is.flag, wanted.flag, true);
    }

    fn vlan(&mut self, is: &Vlan, wanted: &Vlan) {
        self.option("parent", Some(&is.parent), Some(&wanted.parent), false);
        // `vlan_changelink` looks at flags and priorities alone.
        self.option("id", Some(is.id), Some(wanted.id), false);
        self.option("protocol", is.protocol, wanted.protocol, false);
    }

    fn vxlan(&mut self, is: &Vxlan, wanted: &Vxlan) {
        self.option("id", Some(is.id), Some(wanted.id), false);
        // `vxlan_nl2conf`: "address family does not match", of an address that was none it is IPv4.
        let old = is.remote.or(is.group).or(is.local);
        self.option("local", is.local, wanted.local, same_family(old, wanted.local));
        self.option("remote", is.remote, wanted.remote, same_family(old, wanted.remote));
        self.option("group", is.group, wanted.group, same_family(old, wanted.group));
        self.option("dev", is.dev.as_ref(), wanted.dev.as_ref(), true);
        self.option("dstport", Some(is.dstport), Some(wanted.dstport), false);
        self.switch("learning", is.learning, wanted.learning, true);
        let inherit = is.ttl == Some(Ttl::Inherit) || wanted.ttl == Some(Ttl::Inherit);
        self.option("ttl", is.ttl, wanted.ttl, !inherit);
        self.option("tos", is.tos, wanted.tos, true);
        self.switch("udpcsum", is.udpcsum, wanted.udpcsum, false);
        self.switch("external", Some(is.external), Some(wanted.external), false);
        self.set("fdb", &is.fdb, &wanted.fdb, |_| false);
    }

    fn geneve(&mut self, is: &Geneve, wanted: &Geneve) {
        self.option("id", Some(is.id), Some(wanted.id), false);
        self.option("remote", is.remote, wanted.remote, same_family(is.remote, wanted.remote));
        self.option("dstport", Some(is.dstport), Some(wanted.dstport), false);
        self.option("ttl", is.ttl, wanted.ttl, true);
        self.option("tos", is.tos, wanted.tos, true);
        self.switch("udpcsum", is.udpcsum, wanted.udpcsum, false);
    }

    fn tun(&mut self, is: &Tun, wanted: &Tun) {
        self.option("owner", is.owner, wanted.owner, true);
        self.option("group", is.group, wanted.group, true);
        // `tun_set_iff` attaches to a device of the same make only.
        self.switch("multi-queue", is.multi_queue, wanted.multi_queue, false);
        // `tun_set_iff` sets it for the first descriptor of all, and one that is held is that.
        self.switch("vnet-hdr", is.vnet_hdr, wanted.vnet_hdr, is.persistent != Some(false));
        // Whoever made it holds a descriptor of it, or nobody does.
        self.switch("persistent", is.persistent, wanted.persistent, false);
    }
}

fn same_family(old: Option<IpAddr>, wanted: Option<IpAddr>) -> bool {
    wanted.is_none_or(|wanted| old.map_or(wanted.is_ipv4(), |old| old.is_ipv4() == wanted.is_ipv4()))
}

/// As operators write it: whole seconds where it is whole seconds.
#[derive(PartialEq)]
struct Centiseconds(u32);

impl Display for Centiseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{}s", self.0 / 100),
            _ => write!(f, "{}ms", u64::from(self.0) * 10),
        }
    }
}
