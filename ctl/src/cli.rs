//! The command line: nouns, verbs, flags and their help.
//!
//! What a bridge, a port, an FDB entry, a neighbour, a device and an uplink can be told is defined in the dataplane's `config`, once for flags, files
//! and the socket; here stand only the words around it.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use tapway_dataplane::{
    api::hex,
    config::{
        BridgeName, BridgeSpec, DeviceName, DeviceOptions, DeviceSpec, FdbSpec, NeighSpec, PortName,
        PortOptions, PortSpec, Seconds, UplinkSpec, keys_of,
    },
    wire::{MacAddr, Vid},
};

use crate::attach::{Memory, Monitor};

/// Controls the Tapway switch.
#[derive(Debug, Parser)]
#[command(
    name = "tapwayctl",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 the daemon refused, 2 usage, 3 no daemon there, 4 protocol version mismatch.\n\n\
                  Example:\n  tapwayctl bridge add br0\n  tapwayctl port add vm1 --bridge br0 --access 10 --netns blue\n  \
                  tapwayctl port list"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The daemon's control socket
    #[arg(
        long,
        global = true,
        env = "TAPWAY_SOCKET",
        hide_env_values = true,
        value_name = "PATH",
        default_value = "/run/tapway/tapway.sock",
        help_heading = "Global options"
    )]
    pub(crate) socket: PathBuf,
    /// Print one JSON document
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Wait this long for an answer
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        default_value = "10s",
        value_parser = timeout,
        help_heading = "Global options"
    )]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// How the daemon is: version, workers, kernel features found and missing
    #[command(after_help = "Example:\n  tapwayctl status --wait 5s")]
    Status(Status),
    /// Bridges
    #[command(subcommand, arg_required_else_help = true, after_help = "Example:\n  tapwayctl bridge list")]
    Bridge(Bridge),
    /// Ports
    #[command(subcommand, arg_required_else_help = true, after_help = "Example:\n  tapwayctl port list")]
    Port(Port),
    /// The forwarding database: which address is behind which port
    #[command(subcommand, arg_required_else_help = true, after_help = "Example:\n  tapwayctl fdb list")]
    Fdb(Fdb),
    /// The other ends of tunnels, to which what is flooded goes
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Example:\n  tapwayctl remote list overlay"
    )]
    Remote(Remote),
    /// Neighbours that bridges answer ARP requests and neighbour solicitations for
    #[command(subcommand, arg_required_else_help = true, after_help = "Example:\n  tapwayctl neigh list")]
    Neigh(Neigh),
    /// Devices of the kernel: veth, bridge, macvlan, vlan, vxlan, tap and others
    #[command(subcommand, arg_required_else_help = true, after_help = "Example:\n  tapwayctl device list")]
    Device(Device),
    /// Routed TAPs to the host's stack, each with an address that the switch owns
    #[command(subcommand, arg_required_else_help = true, after_help = "Example:\n  tapwayctl uplink list")]
    Uplink(Uplink),
    /// Make what runs equal to a topology file: all of it or nothing
    #[command(
        after_help = "Example:\n  tapwayctl apply -f topology.toml --dry-run\n  tapwayctl export | tapwayctl apply -f -"
    )]
    Apply(Apply),
    /// Print what runs as a topology file
    #[command(after_help = "Example:\n  tapwayctl export > topology.toml")]
    Export,
    /// What apply --prune would do with a topology file
    #[command(after_help = "Example:\n  tapwayctl diff -f topology.toml")]
    Diff(Diff),
    /// Frames and octets of ports
    #[command(after_help = "Example:\n  tapwayctl stats --watch\n  tapwayctl stats vm1 --json")]
    Stats(Watch),
    /// Frames that did not leave, by port and reason
    #[command(after_help = "Example:\n  tapwayctl drops\n  tapwayctl drops vm1 --watch")]
    Drops(Watch),
    /// What happens from now on: ports that go down and come up, devices that somebody changes and that are repaired
    #[command(after_help = "Example:\n  tapwayctl monitor\n  tapwayctl monitor device --json")]
    Monitor {
        /// Only of these kinds: port, device
        #[arg(value_name = "KIND", value_parser = ["port", "device"])]
        kinds: Vec<String>,
    },
    /// What the switch would do with a frame, step by step; sends nothing
    #[command(after_help = "Example:\n  tapwayctl trace --port vm1 --frame ffffffffffff0200000000010806")]
    Trace(Trace),
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  tapwayctl completion bash > /etc/bash_completion.d/tapwayctl")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a directory
    #[command(after_help = "Example:\n  tapwayctl man /usr/local/share/man/man1")]
    Man {
        /// The directory; it is made where it is not there
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Wait this long for a daemon that has not started yet
    #[arg(long, value_name = "DURATION")]
    pub(crate) wait: Option<Seconds>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bridge {
    /// Make a bridge; nothing happens where it exists with the same settings
    #[command(after_help = "Example:\n  tapwayctl bridge add br0 --ageing 5m")]
    Add(BridgeSpec),
    /// Change settings of a bridge
    #[command(after_help = "Example:\n  tapwayctl bridge set br0 --fdb-limit 100000")]
    Set(BridgeSpec),
    /// Delete a bridge that has no ports
    #[command(after_help = "Example:\n  tapwayctl bridge del br0")]
    Del {
        /// Name of the bridge
        name: BridgeName,
    },
    /// All bridges
    #[command(after_help = "Example:\n  tapwayctl bridge list --json")]
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Port {
    /// Make a port; nothing happens where it exists with the same settings
    ///
    /// A port without VLAN flags carries every VLAN unchanged.
    #[command(
        after_help = "Example:\n  tapwayctl port add vm1 --bridge br0 --access 10 --netns blue --address 198.51.100.1/24\n  \
                      tapwayctl port add up1 --bridge br0 --trunk 10,20-29 --native 1\n  \
                      tapwayctl port add overlay --bridge br0 --type vxlan --vni 1000 --local 198.51.100.1 --remote 198.51.100.2\n  \
                      tapwayctl port add site --bridge br0 --type geneve --vlan-vni 10=1010 --vlan-vni 20=1020 --local 2001:db8::1\n  \
                      tapwayctl port add vm2 --bridge br0 --type netdev --ifname tap2 --secure mac=02:00:00:00:00:02\n  \
                      tapwayctl port add vm3 --bridge br0 --type stream --path /run/tapway/vm3.sock\n  \
                      tapwayctl port add vm4 --bridge br0 --type vhost-user --path /run/tapway/vm4.sock --queues 2"
    )]
    Add(Box<PortSpec>),
    /// Change settings of a port, on live traffic
    ///
    /// Naming any VLAN flag replaces all VLAN flags of the port.
    #[command(
        after_help = "Example:\n  tapwayctl port set vm1 --access 20 --storm-limit 1000\n  tapwayctl port set vm1 --unset secure,mac-limit"
    )]
    Set(Box<PortSet>),
    /// Delete a port
    #[command(after_help = "Example:\n  tapwayctl port del vm1")]
    Del {
        /// Name of the port
        name: PortName,
    },
    /// All ports
    #[command(after_help = "Example:\n  tapwayctl port list --json")]
    List,
    /// Everything about one port, or how a VM is attached to it
    ///
    /// With --for, what is printed can be used as it is; what else has to be done is said on stderr.
    #[command(
        after_help = "Example:\n  tapwayctl port show vm1\n  tapwayctl port show vm1 --for libvirt\n  \
                      tapwayctl port show vm1 --for qemu --memory 2G"
    )]
    Show {
        /// Name of the port
        name: PortName,
        /// What this VM monitor is to be told to attach a VM to the port
        #[arg(long = "for", value_name = "MONITOR")]
        monitor: Option<Monitor>,
        /// Memory of the VM, which it shares with the switch on a vhost-user port
        #[arg(long, value_name = "SIZE", default_value = "1G", requires = "monitor")]
        memory: Memory,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PortSet {
    /// Name of the port
    pub(crate) name: PortName,
    #[command(flatten)]
    pub(crate) options: PortOptions,
    /// Put these settings back to their default
    #[arg(long, value_name = "FLAG,…", value_delimiter = ',', value_parser = setting)]
    pub(crate) unset: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Fdb {
    /// Make a static or sticky entry
    #[command(
        after_help = "Example:\n  tapwayctl fdb add 02:00:00:00:00:07 --bridge br0 --vlan 10 --port vm1 --sticky\n  \
                      tapwayctl fdb add 02:00:00:00:00:08 --bridge br0 --port overlay --remote 198.51.100.2"
    )]
    Add(FdbSpec),
    /// Delete an entry of any kind
    #[command(after_help = "Example:\n  tapwayctl fdb del 02:00:00:00:00:07 --bridge br0 --vlan 10")]
    Del {
        /// The address
        mac: MacAddr,
        /// Bridge of the entry
        #[arg(long, value_name = "BR")]
        bridge: BridgeName,
        /// VLAN of the entry; 0 is for untagged frames of ports without VLAN flags
        #[arg(long, value_name = "V", default_value_t = 0)]
        vlan: u16,
    },
    /// Entries, by bridge, VLAN and address
    #[command(after_help = "Example:\n  tapwayctl fdb list --bridge br0 --vlan 10")]
    List(FdbFilter),
    /// Forget learned entries; static and sticky ones stay
    #[command(after_help = "Example:\n  tapwayctl fdb flush --port vm1")]
    Flush(FdbFilter),
}

#[derive(Debug, Args)]
pub(crate) struct FdbFilter {
    /// Only those of this bridge
    #[arg(long, value_name = "BR")]
    pub(crate) bridge: Option<BridgeName>,
    /// Only those behind this port
    #[arg(long, value_name = "P")]
    pub(crate) port: Option<PortName>,
    /// Only those in this VLAN; 0 is for untagged frames of ports without VLAN flags
    #[arg(long, value_name = "V")]
    pub(crate) vlan: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Remote {
    /// Add another end to a tunnel; nothing happens where it is there
    #[command(after_help = "Example:\n  tapwayctl remote add overlay 198.51.100.2")]
    Add(End),
    /// Take another end from a tunnel
    #[command(after_help = "Example:\n  tapwayctl remote del overlay 198.51.100.2")]
    Del(End),
    /// The other ends of a tunnel: its remotes, and others behind which addresses were learned
    #[command(after_help = "Example:\n  tapwayctl remote list overlay --json")]
    List {
        /// Port of the tunnel
        port: PortName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct End {
    /// Port of the tunnel
    pub(crate) port: PortName,
    /// Address of the other end
    #[arg(value_name = "IP")]
    pub(crate) remote: IpAddr,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Neigh {
    /// Answer for a neighbour; nothing happens where it is known with the same address
    #[command(
        after_help = "Example:\n  tapwayctl neigh add 198.51.100.7 02:00:00:00:00:07 --bridge br0 --vlan 10"
    )]
    Add(NeighSpec),
    /// Forget a neighbour, static or snooped
    #[command(after_help = "Example:\n  tapwayctl neigh del 198.51.100.7 --bridge br0 --vlan 10")]
    Del {
        /// The neighbour's IP address
        ip: IpAddr,
        /// Bridge that answers for it
        #[arg(long, value_name = "BR")]
        bridge: BridgeName,
        /// VLAN of the neighbour; 0 is for untagged frames of ports without VLAN flags
        #[arg(long, value_name = "V", default_value_t = 0)]
        vlan: u16,
    },
    /// Neighbours, by bridge, VLAN and address
    #[command(after_help = "Example:\n  tapwayctl neigh list --bridge br0")]
    List {
        /// Only those of this bridge
        #[arg(long, value_name = "BR")]
        bridge: Option<BridgeName>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Make a kernel device; nothing happens where it exists with the same settings
    ///
    /// A device that tapway made and that is there already is taken over; one of somebody else is left alone.
    /// It stays when the daemon ends.
    #[command(
        after_help = "Example:\n  tapwayctl device add veth0 --type veth --peer eth0 --peer-netns c1 --peer-address 198.51.100.2/24\n  \
                      tapwayctl device add br-c --type bridge --address 198.51.100.1/24 --vlan-filtering on\n  \
                      tapwayctl device add web0 --type macvlan --parent eth0 --mode bridge --netns c1 --create-netns\n  \
                      tapwayctl device add eth0.7 --type vlan --parent eth0 --id 7 --route 203.0.113.0/24\n  \
                      tapwayctl device add vx0 --type vxlan --id 1000 --local 198.51.100.1 --remote 198.51.100.2 --master br-c\n  \
                      tapwayctl device add tun0 --type tun --owner 1000 --address 203.0.113.1/30"
    )]
    Add(Box<DeviceSpec>),
    /// Change settings of a kernel device, in place
    #[command(
        after_help = "Example:\n  tapwayctl device set veth0 --mtu 9000 --down\n  tapwayctl device set veth0 --unset master,route"
    )]
    Set(Box<DeviceSet>),
    /// Delete a kernel device that nothing else is on
    #[command(after_help = "Example:\n  tapwayctl device del veth0")]
    Del {
        /// Name of the device
        name: DeviceName,
    },
    /// All kernel devices that were asked for, and what became of them
    #[command(after_help = "Example:\n  tapwayctl device list --json")]
    List,
    /// One kernel device, as it was asked for and as it is
    #[command(after_help = "Example:\n  tapwayctl device show veth0")]
    Show {
        /// Name of the device
        name: DeviceName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DeviceSet {
    /// Name of the device
    pub(crate) name: DeviceName,
    #[command(flatten)]
    pub(crate) options: DeviceOptions,
    /// Put these settings back to their default
    #[arg(long, value_name = "FLAG,…", value_delimiter = ',', value_parser = device_setting)]
    pub(crate) unset: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Uplink {
    /// Make an uplink; nothing happens where it exists with the same settings
    ///
    /// A tunnel whose --local is the address of an uplink goes by it, and otherwise by UDP sockets.
    #[command(after_help = "Example:\n  tapwayctl uplink add up0 --address 198.51.100.1/30\n  \
                      tapwayctl uplink add up1 --address 2001:db8::1/64 --gateway 2001:db8::2 --mtu 9000")]
    Add(Box<UplinkSpec>),
    /// Delete an uplink that no tunnel goes by
    #[command(after_help = "Example:\n  tapwayctl uplink del up0")]
    Del {
        /// Name of the uplink
        name: PortName,
    },
    /// All uplinks
    #[command(after_help = "Example:\n  tapwayctl uplink list --json")]
    List,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The topology file, - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove what the file does not name
    #[arg(long)]
    pub(crate) prune: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The topology file, - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Only this port
    pub(crate) port: Option<PortName>,
    /// Again every second, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// The port the frame comes from
    #[arg(long, value_name = "P")]
    pub(crate) port: PortName,
    /// The frame in hexadecimal from the destination address on, without FCS; colons and blanks are ignored
    #[arg(long, value_name = "HEX", value_parser = frame)]
    pub(crate) frame: Frame,
    /// Put a tag with this VLAN on the frame first
    #[arg(long, value_name = "V")]
    pub(crate) vlan: Option<Vid>,
}

/// The octets of a frame. A type of its own, because clap takes a `Vec` for a list of values.
#[derive(Clone, Debug)]
pub(crate) struct Frame(pub(crate) Vec<u8>);

fn frame(text: &str) -> Result<Frame, hex::HexError> {
    hex::decode(text).map(Frame)
}

#[derive(Debug, thiserror::Error)]
enum TimeoutError {
    #[error(transparent)]
    Word(#[from] tapway_dataplane::config::words::WordError),
    #[error("is no time to wait: give 1s or more")]
    Zero,
}

fn timeout(text: &str) -> Result<Duration, TimeoutError> {
    let Seconds(seconds) = text.parse()?;
    if seconds == 0 { Err(TimeoutError::Zero) } else { Ok(Duration::from_secs(seconds.into())) }
}

#[derive(Debug, thiserror::Error)]
#[error("is no setting of a {}: name one of {}", .0, .1.join(", "))]
struct SettingError(&'static str, Vec<String>);

/// The key of a flag that `port set` knows.
fn setting(text: &str) -> Result<String, SettingError> {
    let options = PortOptions::augment_args(clap::Command::new("settings"));
    let flags = options.get_arguments().filter_map(|a| a.get_long().map(str::to_owned)).collect();
    setting_of("port", flags, text)
}

/// The key of a device; what is said of its peer by several flags is one.
fn device_setting(text: &str) -> Result<String, SettingError> {
    let flags = keys_of::<DeviceOptions>().iter().map(|key| key.replace('_', "-")).collect();
    setting_of("device", flags, text)
}

fn setting_of(kind: &'static str, flags: Vec<String>, text: &str) -> Result<String, SettingError> {
    let flag = text.trim_start_matches("--").replace('_', "-");
    if flags.contains(&flag) { Ok(flag.replace('-', "_")) } else { Err(SettingError(kind, flags)) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_is_and_shows_an_example_that_parses() {
        fn walk(cmd: &clap::Command) {
            let name = cmd.get_name();
            assert!(cmd.get_about().is_some(), "{name}");
            let after = cmd.get_after_help().unwrap_or_else(|| panic!("{name} has no example")).to_string();
            let (_, examples) = after.split_once("Example:\n").unwrap();
            let mut lines = 0;
            for line in examples.lines() {
                let line = line.split(" > ").next().unwrap().rsplit(" | ").next().unwrap().trim();
                Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|e| panic!("{line}: {e}"));
                lines += 1;
            }
            assert!(lines > 0, "{name}");
            cmd.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn a_command_is_about_itself_not_about_the_struct_of_its_flags() {
        let cli = Cli::command();
        let about = |noun: &str, verb: &str| {
            let noun = cli.find_subcommand(noun).unwrap();
            noun.find_subcommand(verb).unwrap().get_about().unwrap().to_string()
        };
        assert!(about("bridge", "add").starts_with("Make a bridge"));
        assert!(about("port", "add").starts_with("Make a port"));
        assert!(about("port", "set").starts_with("Change settings"));
        assert!(about("fdb", "add").starts_with("Make a static"));
        assert!(about("neigh", "add").starts_with("Answer for a neighbour"));
        assert!(about("device", "add").starts_with("Make a kernel device"));
        assert!(about("device", "set").starts_with("Change settings"));
        assert!(about("uplink", "add").starts_with("Make an uplink"));
    }
}
