//! How a guest is attached to the switch: a network card of QEMU, a port, and what is between them.
//!
//! ```text
//!   macvtap     guest ── QEMU ── /dev/tapN of a macvtap ── interface of a TAP ── tap port
//!   netdev      guest ── QEMU ── /dev/net/tun of a TAP ── its interface ── netdev port
//!   stream      guest ── QEMU ── Unix socket ── stream port       either may be the one that listens
//!   dgram       guest ── QEMU ── two Unix sockets ── dgram port
//!   vhost-user  guest ── rings in its memory ── vhost-user port        QEMU says over a Unix socket where they are
//! ```

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::VmOptions;
use crate::topo::{Host, Net, skipped, switch::Switch};

/// The properties of a card that leaves all work to the guest.
pub(crate) const NO_OFFLOADS: &str = ",csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,\
    guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";

/// What is between a guest and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A macvtap on the interface of a `tap` port.
    Macvtap,
    /// A TAP that QEMU opens, and whose interface a `netdev` port takes.
    Netdev,
    /// A Unix socket that a `stream` port listens at.
    Stream,
    /// A Unix socket that QEMU listens at.
    StreamConnect,
    /// Two Unix sockets for datagrams.
    Dgram,
    /// Rings in shared memory, agreed on at a socket that a `vhost-user` port listens at.
    VhostUser,
    /// The same where QEMU listens.
    VhostUserClient,
}

/// A network card, and its port at br0.
#[derive(Clone, Debug)]
pub(crate) struct Nic {
    /// What is between them.
    pub(crate) kind: Kind,
    /// The name of the port.
    pub(crate) port: String,
    /// The last octet of the card's address, and of the guest's addresses where it is the first card.
    pub(crate) host: u8,
    /// Properties of the card: `,guest_tso4=off`.
    pub(crate) properties: &'static str,
    /// Of the port, and of what is between.
    pub(crate) mtu: u32,
    /// Pairs of queues, of kinds that have several.
    pub(crate) queues: u16,
}

impl Kind {
    /// All that there can be here, and a line for what cannot.
    pub(crate) fn all() -> Vec<Self> {
        let all = [
            Self::Macvtap,
            Self::Netdev,
            Self::Stream,
            Self::StreamConnect,
            Self::Dgram,
            Self::VhostUser,
            Self::VhostUserClient,
        ];
        if super::may_open_devices() {
            return all.to_vec();
        }
        skipped("no macvtap: a user namespace may not open its device");
        all[1..].to_vec()
    }

    /// A short name, for the names of ports.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Macvtap => "mvt",
            Self::Netdev => "net",
            Self::Stream => "str",
            Self::StreamConnect => "stc",
            Self::Dgram => "dgr",
            Self::VhostUser => "vhu",
            Self::VhostUserClient => "vhc",
        }
    }

    /// Whether a card can have several queues.
    pub(crate) fn has_queues(self) -> bool {
        self == Self::Netdev || self.shares_memory()
    }

    fn shares_memory(self) -> bool {
        matches!(self, Self::VhostUser | Self::VhostUserClient)
    }

    /// Whether the switch is to notice that the guest has gone.
    pub(crate) fn tells_of_its_end(self) -> bool {
        self != Self::Macvtap
    }

    /// Whether QEMU of every version finds a new switch in the place of the old one. As the one that connects to a stream it does so
    /// from 8.0 on, where it is told to.
    pub(crate) fn outlives_the_switch(self) -> bool {
        self != Self::Stream
    }
}

impl Nic {
    /// A card with all its offloads, for the MTU of Ethernet.
    pub(crate) fn new(kind: Kind, port: &str, host: u8) -> Self {
        Self { kind, port: port.to_owned(), host, properties: "", mtu: 1500, queues: 1 }
    }

    /// The address of the card.
    pub(crate) fn mac(&self) -> String {
        format!("02:00:00:00:00:{:02x}", self.host)
    }

    /// Makes the port with these flags, and what is between it and the guest; sockets are in `directory`.
    pub(crate) fn attach(&self, net: &Net, switch: &Switch, directory: &Path, flags: &str) {
        net.home().sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        // How many frames wait for the guest at a socket of datagrams; 10 are less than two echo requests of 8000 octets.
        net.home().sysctl("net/unix/max_dgram_qlen", "512");
        if self.kind == Kind::Netdev {
            let Self { port, mtu, .. } = self;
            let several = if self.queues > 1 { "multi_queue" } else { "" };
            net.home().ip(&format!("tuntap add dev {port} mode tap vnet_hdr {several}"));
            net.home().ip(&format!("link set dev {port} mtu {mtu} up"));
        }
        self.port(switch, directory, flags);
        if self.kind == Kind::Macvtap {
            let (port, macvtap) = (&self.port, macvtap(&self.port));
            net.home().ip(&format!("link add link {port} name {macvtap} type macvtap mode passthru"));
            // Of multicast it passes what its own stack has asked for, which is nothing: IPv6 needs all.
            let words = format!("address {} mtu {} allmulticast on up", self.mac(), self.mtu);
            net.home().ip(&format!("link set dev {macvtap} {words}"));
        }
    }

    /// Makes the port alone, where what is between it and the guest is there.
    pub(crate) fn port(&self, switch: &Switch, directory: &Path, flags: &str) {
        let [socket, monitors] = self.sockets(directory);
        let kind = match self.kind {
            Kind::Macvtap => "--type tap".to_owned(),
            Kind::Netdev => format!("--type netdev --queues {}", self.queues),
            Kind::Stream => format!("--type stream --path {socket} --listen"),
            Kind::StreamConnect => format!("--type stream --path {socket} --connect"),
            Kind::Dgram => format!("--type dgram --path {socket} --peer-path {monitors}"),
            Kind::VhostUser => format!("--type vhost-user --path {socket} --server --queues {}", self.queues),
            Kind::VhostUserClient => {
                format!("--type vhost-user --path {socket} --client --queues {}", self.queues)
            }
        };
        switch.port(&format!("{} --bridge br0 {kind} --mtu {} {flags}", self.port, self.mtu));
    }

    /// Adds the card to what a guest has.
    pub(crate) fn plug(&self, net: &Net, directory: &Path, options: &mut VmOptions) {
        let Self { port, properties, queues, .. } = self;
        let [socket, monitors] = self.sockets(directory);
        options.shares_memory |= self.kind.shares_memory();
        let netdev = match self.kind {
            Kind::Macvtap => {
                options.opened.push(node(net.home(), &macvtap(port), directory));
                format!("tap,id={port},fd={}", 2 + options.opened.len())
            }
            Kind::Netdev => {
                format!("tap,id={port},ifname={port},script=no,downscript=no,vnet_hdr=on,queues={queues}")
            }
            Kind::Stream => format!("stream,id={port},server=off,addr.type=unix,addr.path={socket}"),
            Kind::StreamConnect => format!("stream,id={port},server=on,addr.type=unix,addr.path={socket}"),
            Kind::Dgram => format!(
                "dgram,id={port},local.type=unix,local.path={monitors},remote.type=unix,remote.path={socket}"
            ),
            Kind::VhostUser | Kind::VhostUserClient => {
                let who = if self.kind == Kind::VhostUser { "reconnect=1" } else { "server=on" };
                let chardev = format!("socket,id=chr-{port},path={socket},{who}");
                options.words.extend(["-chardev".to_owned(), chardev]);
                format!("vhost-user,id={port},chardev=chr-{port},queues={queues}")
            }
        };
        // QEMU 7.2 ends by a fault where processors are emulated and the back end of a card with MSI-X is not QEMU itself.
        let vectors = if self.kind.shares_memory() { ",vectors=0" } else { "" };
        let several = if *queues > 1 { ",mq=on" } else { "" };
        // Without a ROM, which is to boot from the network.
        let device =
            format!("virtio-net-pci,netdev={port},mac={},romfile={vectors}{several}{properties}", self.mac());
        options.words.extend(["-netdev".to_owned(), netdev, "-device".to_owned(), device]);
    }

    /// The paths of the port's socket, and of the monitor's where that has one.
    fn sockets(&self, directory: &Path) -> [String; 2] {
        ["", "-vm"].map(|end| directory.join(format!("{}{end}", self.port)).display().to_string())
    }
}

fn macvtap(port: &str) -> String {
    format!("mv-{port}")
}

/// A device node of a macvtap. That in `/dev` has the number of the interface in its name, which another namespace may have too.
fn node(host: &Host, macvtap: &str, directory: &Path) -> PathBuf {
    let script = format!("mount -t sysfs sysfs /sys && cat /sys/class/net/{macvtap}/tap*/dev");
    let shown = host
        .command(Command::new("unshare").args(["--mount", "sh", "-c", &script]))
        .unwrap_or_else(|e| panic!("the device of {macvtap}: {e}"));
    let (major, minor) = shown.trim().split_once(':').expect("two numbers");
    let number = makedev(major.parse().expect("a number"), minor.parse().expect("a number"));
    let path = directory.join(macvtap);
    mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, number)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    path
}
