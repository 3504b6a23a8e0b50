//! What makes sense for ports that a VM opens the other side of: how the keys of netdev, stream, dgram and vhost-user ports go together.

use super::{Problem, no_interface_name, out_of_range};
use crate::config::{
    keys::missing,
    spec::{PortSpec, PortType},
    words::OnOff,
};

/// The longest path of a socket, in octets: `sun_path` of `sockaddr_un` less the terminating zero (unix(7)).
const PATH_MAX: usize = 107;

/// What is wrong with the path of a socket.
fn no_path(key: &'static str, path: &str) -> Option<Problem> {
    let problem = if !path.starts_with('/') || path.ends_with('/') {
        "is no absolute path of a socket"
    } else if path.len() > PATH_MAX {
        "is too long for a socket: at most 107 bytes"
    } else if path.chars().any(char::is_control) {
        "has a control character"
    } else {
        return None;
    };
    let shown: String = path.chars().take(128).collect();
    Some(Problem::new(key, format!("{key}: {shown:?} {problem}")))
}

/// Two words of which one says the opposite of the other.
fn opposites(
    (this, a): (&'static str, Option<OnOff>),
    (with, b): (&'static str, Option<OnOff>),
) -> Option<Problem> {
    let same = a.is_some() && a == b;
    let message = || format!("{this} and {with} exclude each other: give one of them");
    same.then(|| Problem { key: this, with: Some(with), message: message() })
}

impl PortSpec {
    pub(super) fn vm_problems(&self) -> Vec<Problem> {
        let (o, kind) = (&self.options, self.options.kind_or_default());
        let mut problems: Vec<Problem> = [
            out_of_range("mtu", o.mtu),
            out_of_range("queues", o.queues.map(u32::from)),
            opposites(("connect", o.connect), ("listen", o.listen)),
            opposites(("client", o.client), ("server", o.server)),
        ]
        .into_iter()
        .flatten()
        .collect();
        if kind == PortType::Netdev {
            problems.extend(no_interface_name(&self.name, o.ifname.as_deref()));
            return problems;
        }
        match &o.path {
            None => problems.push(Problem::new("path", missing("path"))),
            Some(path) => problems.extend(no_path("path", path)),
        }
        if kind == PortType::Dgram {
            problems.extend(self.peer_problem());
        }
        problems
    }

    /// What is wrong with where the frames of a dgram port go.
    fn peer_problem(&self) -> Option<Problem> {
        let o = &self.options;
        let pair = |key, with, message: &str| Problem { key, with: Some(with), message: message.to_owned() };
        match &o.peer_path {
            None if !o.listens() => Some(pair(
                "connect",
                "peer_path",
                "connect: a dgram port needs peer_path, the socket that its frames go to",
            )),
            Some(_) if o.listens() => Some(pair(
                "peer_path",
                "listen",
                "peer_path and listen exclude each other: a port that waits sends to whoever has sent to it",
            )),
            Some(peer) if Some(peer) == o.path.as_ref() => {
                Some(pair("peer_path", "path", "peer_path and path are the same socket"))
            }
            peer => peer.as_ref().and_then(|peer| no_path("peer_path", peer)),
        }
    }

    /// Why two ports cannot be there together: the interface of one is that of the other, or one has made the socket that the other
    /// makes, or goes to. Of two TAPs the kernel says it itself.
    pub(super) fn same_place(&self, other: &Self) -> Option<String> {
        let (a, b) = (&self.options, &other.options);
        let (kind, other_kind) = (a.kind_or_default(), b.kind_or_default());
        if kind.has_path() && other_kind.has_path() {
            let path = a.path.as_ref().filter(|path| b.path.as_ref() == Some(path))?;
            let owned = a.owns_path() || b.owns_path();
            return owned.then(|| format!("path: {path:?} is that of port \"{}\"", other.name));
        }
        let exists = kind.is_netdev() || other_kind.is_netdev();
        let ifname = self.ifname_or_default();
        let same = exists
            && kind.has_interface()
            && other_kind.has_interface()
            && (&a.netns, ifname) == (&b.netns, other.ifname_or_default());
        same.then(|| format!("interface \"{ifname}\" is that of port \"{}\"", other.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(toml: &str) -> PortSpec {
        toml::from_str(&format!("name = \"vm1\"\nbridge = \"br0\"\n{toml}")).unwrap()
    }

    #[test]
    fn combinations_that_make_sense_pass() {
        for good in [
            "type = \"netdev\"",
            "type = \"netdev\"\nifname = \"tap0\"\nnetns = \"blue\"\nqueues = 4\ndriver = \"packet\"\nqdisc_bypass = true\nmtu = 9000\noffload = false",
            "type = \"stream\"\npath = \"/run/vm1.sock\"",
            "type = \"stream\"\npath = \"/run/vm1.sock\"\nconnect = true\nlisten = false\nmtu = 9000",
            "type = \"dgram\"\npath = \"/run/sw.sock\"\npeer_path = \"/run/vm1.sock\"",
            "type = \"dgram\"\npath = \"/run/sw.sock\"\nlisten = true",
            "type = \"dgram\"\npath = \"/run/sw.sock\"\nconnect = true\npeer_path = \"/run/vm1.sock\"",
            "type = \"vhost-user\"\npath = \"/run/vm1.sock\"\nqueues = 2\noffload = false",
            "type = \"vhost-user\"\npath = \"/run/vm1.sock\"\nclient = true\naccess = 10",
        ] {
            assert_eq!(port(good).check(), [""; 0], "{good}");
        }
        let longest = format!("type = \"stream\"\npath = \"/{}\"", "x".repeat(106));
        assert_eq!(port(&longest).check(), [""; 0]);
    }

    #[test]
    fn every_problem_names_key_value_and_what_is_allowed() {
        let long = "x".repeat(107);
        for (bad, messages) in [
            ("type = \"stream\"", vec!["path is missing".to_owned()]),
            ("type = \"vhost-user\"", vec!["path is missing".to_owned()]),
            (
                "type = \"stream\"\npath = \"vm1.sock\"",
                vec!["path: \"vm1.sock\" is no absolute path of a socket".to_owned()],
            ),
            (
                "type = \"stream\"\npath = \"/run/\"",
                vec!["path: \"/run/\" is no absolute path of a socket".to_owned()],
            ),
            (
                &format!("type = \"stream\"\npath = \"/{long}\""),
                vec![format!("path: \"/{long}\" is too long for a socket: at most 107 bytes")],
            ),
            (
                "type = \"stream\"\npath = \"/a\\u0000b\"",
                vec!["path: \"/a\\0b\" has a control character".to_owned()],
            ),
            (
                "type = \"stream\"\npath = \"/a\"\nlisten = true\nconnect = true",
                vec!["connect and listen exclude each other: give one of them".to_owned()],
            ),
            (
                "type = \"vhost-user\"\npath = \"/a\"\nserver = false\nclient = false",
                vec!["client and server exclude each other: give one of them".to_owned()],
            ),
            (
                "type = \"dgram\"\npath = \"/a\"\nconnect = true",
                vec!["connect: a dgram port needs peer_path, the socket that its frames go to".to_owned()],
            ),
            (
                "type = \"dgram\"\npath = \"/a\"\npeer_path = \"/b\"\nlisten = true",
                vec![
                    "peer_path and listen exclude each other: a port that waits sends to whoever has sent to it"
                        .to_owned(),
                ],
            ),
            (
                "type = \"dgram\"\npath = \"/a\"\npeer_path = \"/a\"",
                vec!["peer_path and path are the same socket".to_owned()],
            ),
            (
                "type = \"dgram\"\npath = \"/a\"\npeer_path = \"b\"",
                vec!["peer_path: \"b\" is no absolute path of a socket".to_owned()],
            ),
            (
                "type = \"stream\"\npath = \"/a\"\nmtu = 67\nqueues = 2\nnetns = \"blue\"\nserver = true",
                vec![
                    "netns: a port of type stream has none; it is for tap, netdev, vxlan and geneve".to_owned(),
                    "queues: a port of type stream has none; it is for tap, netdev and vhost-user".to_owned(),
                    "server: a port of type stream has none; it is for vhost-user".to_owned(),
                    "mtu: 67 is not allowed: 68 to 65521".to_owned(),
                ],
            ),
            (
                "type = \"netdev\"\nifname = \"a b\"\nqueues = 257\nmac = \"02:00:00:00:00:01\"\npath = \"/a\"",
                vec![
                    "mac: a port of type netdev has none; it is for tap".to_owned(),
                    "path: a port of type netdev has none; it is for stream, dgram and vhost-user".to_owned(),
                    "queues: 257 is not allowed: 1 to 256".to_owned(),
                    "ifname: \"a b\" is no interface name: 1 to 15 bytes without spaces and / : %, not all or default"
                        .to_owned(),
                ],
            ),
        ] {
            assert_eq!(port(bad).check(), messages, "{bad}");
        }
    }

    #[test]
    fn a_socket_that_a_port_makes_is_no_other_ports() {
        let named = |name: &str, more: &str| {
            let mut spec = port(more);
            spec.name = name.parse().unwrap();
            spec
        };
        let one = named("one", "type = \"stream\"\npath = \"/run/a\"");
        for fine in [
            "type = \"stream\"\npath = \"/run/b\"",
            "",
            "type = \"vxlan\"\nvni = 7\nlocal = \"198.51.100.1\"",
        ] {
            assert_eq!(named("two", fine).clash(&one), None, "{fine}");
        }
        for clash in [
            "type = \"stream\"\npath = \"/run/a\"",
            "type = \"vhost-user\"\npath = \"/run/a\"\nclient = true",
            "type = \"dgram\"\npath = \"/run/a\"",
        ] {
            assert_eq!(named("two", clash).clash(&one).unwrap(), "path: \"/run/a\" is that of port \"one\"");
        }
        let going = |name: &str| named(name, "type = \"stream\"\npath = \"/run/a\"\nconnect = true");
        assert_eq!(going("two").clash(&going("three")), None, "a listener may take many");
    }

    #[test]
    fn an_interface_is_of_one_port() {
        let named = |name: &str, more: &str| {
            let mut spec = port(more);
            spec.name = name.parse().unwrap();
            spec
        };
        let one = named("one", "type = \"netdev\"\nifname = \"eth0\"\nnetns = \"blue\"");
        let clash = |name: &str, more: &str| named(name, more).clash(&one);
        assert_eq!(clash("two", "type = \"netdev\"\nifname = \"eth0\""), None);
        assert_eq!(clash("two", "type = \"netdev\"\nifname = \"eth1\"\nnetns = \"blue\""), None);
        let there = Some("interface \"eth0\" is that of port \"one\"".to_owned());
        assert_eq!(clash("eth0", "type = \"netdev\"\nnetns = \"blue\""), there);
        assert_eq!(clash("tap", "ifname = \"eth0\"\nnetns = \"blue\""), there);
    }
}
