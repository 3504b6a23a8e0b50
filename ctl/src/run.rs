//! From a command to a request, and from the reply to the page.

use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::CommandFactory as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tapway_dataplane::{
    api::{
        self, BridgeView, DeviceView, DropView, FdbView, NeighView, Plan, PortStatsView, PortView,
        RemoteView, Request, UplinkView,
    },
    config::{DeviceOptions, PortName, PortOptions, PortSpec},
};

use crate::{
    attach::{Memory, Monitor, SwitchEnd, attach},
    cli::{
        Apply, Bridge, Cli, Device, DeviceSet, Diff, End, Fdb, FdbFilter, Global, Neigh, Noun, Port, PortSet,
        Remote, Status, Trace, Uplink, Watch,
    },
    client::Client,
    failure::Failure,
    print,
};

/// How often `--watch` asks.
const BEAT: Duration = Duration::from_secs(1);
/// How often `status --wait` tries.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// Does what the command says.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let tool = Tool { global: cli.global };
    match cli.noun {
        Noun::Status(args) => tool.status(&args),
        Noun::Bridge(verb) => tool.bridge(verb),
        Noun::Port(verb) => tool.port(verb),
        Noun::Fdb(verb) => tool.fdb(verb),
        Noun::Remote(verb) => tool.remote(verb),
        Noun::Neigh(verb) => tool.neigh(verb),
        Noun::Device(verb) => tool.device(verb),
        Noun::Uplink(verb) => tool.uplink(verb),
        Noun::Apply(args) => tool.apply(&args),
        Noun::Export => tool.export(),
        Noun::Diff(args) => tool.diff(&args),
        Noun::Stats(args) => tool.stats(args),
        Noun::Drops(args) => tool.drops(args),
        Noun::Monitor { kinds } => tool.monitor(&kinds),
        Noun::Trace(args) => tool.trace(args),
        Noun::Completion { shell } => tool.completion(shell),
        Noun::Man { dir } => tool.man(&dir),
    }
}

#[derive(Deserialize)]
struct Changed {
    changed: bool,
}

#[derive(Deserialize)]
struct Bridges {
    bridges: Vec<BridgeView>,
}

#[derive(Deserialize)]
struct Ports {
    ports: Vec<PortView>,
}

#[derive(Deserialize)]
struct OnePort {
    port: PortView,
}

#[derive(Deserialize)]
struct Entries {
    entries: Vec<FdbView>,
}

#[derive(Deserialize)]
struct Flushed {
    flushed: u64,
}

#[derive(Deserialize)]
struct Remotes {
    remotes: Vec<RemoteView>,
}

#[derive(Deserialize)]
struct Neighbours {
    neighbours: Vec<NeighView>,
}

#[derive(Deserialize)]
struct Devices {
    devices: Vec<DeviceView>,
}

#[derive(Deserialize)]
struct OneDevice {
    device: DeviceView,
}

#[derive(Deserialize)]
struct Uplinks {
    uplinks: Vec<UplinkView>,
}

/// Of an export, what it says of ports.
#[derive(Deserialize)]
struct Export {
    config: ExportedPorts,
}

#[derive(Deserialize)]
struct ExportedPorts {
    #[serde(default)]
    port: Vec<PortSpec>,
}

#[derive(Deserialize)]
struct Exported {
    topology: String,
    config: Value,
}

#[derive(Deserialize)]
struct Stats {
    stats: Vec<PortStatsView>,
}

#[derive(Deserialize)]
struct Drops {
    drops: Vec<DropView>,
}

#[derive(Deserialize)]
struct Events {
    events: Vec<api::Event>,
}

struct Tool {
    global: Global,
}

impl Tool {
    fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&self.global.socket, self.global.timeout)
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        self.connect()?.call(request)
    }

    /// Prints a document, or the text that says the same.
    fn show(&self, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.global.json {
            let mut line = serde_json::to_vec(document).map_err(io::Error::from)?;
            line.push(b'\n');
            let mut out = io::stdout().lock();
            out.write_all(&line)?;
            out.flush()?;
        } else {
            let mut out = anstream::stdout().lock();
            out.write_all(text().as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }

    /// Asks for a change and says whether there was one; like iproute2 it says nothing where all went as asked.
    fn change(&self, request: &Request) -> Result<(), Failure> {
        let Changed { changed } = self.ask(request)?;
        let text = if changed { String::new() } else { "nothing to change\n".to_owned() };
        self.show(&json!({ "changed": changed }), || text)
    }

    fn status(&self, args: &Status) -> Result<(), Failure> {
        let until = args.wait.map(|wait| Instant::now() + wait.duration());
        let status: api::Status = loop {
            match (self.ask(&Request::Status), until) {
                (Err(Failure::NoDaemon { .. }), Some(until)) if Instant::now() < until => {
                    std::thread::sleep(TRY_EVERY);
                }
                (answer, _) => break answer?,
            }
        };
        self.show(&status, || print::status(&status))
    }

    fn bridge(&self, verb: Bridge) -> Result<(), Failure> {
        match verb {
            Bridge::Add(spec) => self.change(&Request::BridgeAdd(spec)),
            Bridge::Set(spec) if spec.options == Default::default() => Err(Failure::Usage(
                "nothing to set: give --ageing, --fdb-limit, --move-limit or --neigh-snoop".to_owned(),
            )),
            Bridge::Set(spec) => self.change(&Request::BridgeSet(spec)),
            Bridge::Del { name } => self.change(&Request::BridgeDel { name }),
            Bridge::List => {
                let Bridges { mut bridges } = self.ask(&Request::BridgeList)?;
                bridges.sort_by(|a, b| a.name.cmp(&b.name));
                self.show(&bridges, || print::bridges(&bridges))
            }
        }
    }

    fn port(&self, verb: Port) -> Result<(), Failure> {
        match verb {
            Port::Add(spec) => self.change(&Request::PortAdd(spec)),
            Port::Set(set) => {
                if set.options == PortOptions::default() && set.unset.is_empty() {
                    let text =
                        "nothing to set: give a setting, or --unset; tapwayctl port set --help lists them";
                    return Err(Failure::Usage(text.to_owned()));
                }
                let PortSet { name, options, unset } = *set;
                self.change(&Request::PortSet { name, options: Box::new(options), unset })
            }
            Port::Del { name } => self.change(&Request::PortDel { name }),
            Port::List => {
                let Ports { mut ports } = self.ask(&Request::PortList)?;
                ports.sort_by(|a, b| a.name.cmp(&b.name));
                self.show(&ports, || print::ports(&ports))
            }
            Port::Show { name, monitor: None, .. } => {
                let OnePort { port } = self.ask(&Request::PortShow { name })?;
                self.show(&port, || print::port(&port))
            }
            Port::Show { name, monitor: Some(monitor), memory } => self.attach(name, monitor, memory),
        }
    }

    fn attach(&self, name: PortName, monitor: Monitor, memory: Memory) -> Result<(), Failure> {
        let OnePort { port } = self.ask(&Request::PortShow { name })?;
        let Export { config } = self.ask(&Request::Export)?;
        let Some(spec) = config.port.iter().find(|spec| spec.name == port.name) else {
            return Err(Failure::Protocol(format!("port {} is shown and not exported", port.name)));
        };
        let status: api::Status = self.ask(&Request::Status)?;
        let end = SwitchEnd::new(spec, status.workers.len() as u16, port.mtu, memory);
        let attachment = attach(&end, monitor)?;
        self.show(&attachment.document(), || attachment.text())?;
        if !self.global.json {
            let mut err = anstream::stderr().lock();
            for note in &attachment.notes {
                writeln!(err, "note: {note}")?;
            }
        }
        Ok(())
    }

    fn fdb(&self, verb: Fdb) -> Result<(), Failure> {
        match verb {
            Fdb::Add(spec) => self.change(&Request::FdbAdd(spec)),
            Fdb::Del { mac, bridge, vlan } => self.change(&Request::FdbDel { mac, bridge, vlan }),
            Fdb::List(FdbFilter { bridge, port, vlan }) => {
                let request = Request::FdbList { bridge, port, vlan, cursor: None, limit: None };
                let mut all = Vec::new();
                self.connect()?.stream(&request, None, |page: Entries| {
                    all.extend(page.entries);
                    Ok(())
                })?;
                // An entry that moved between two pages is on both; the later one is true.
                all.reverse();
                let key = |e: &FdbView| (e.bridge.clone(), e.vlan, e.mac);
                all.sort_by_cached_key(key);
                all.dedup_by_key(|e| key(e));
                self.show(&all, || print::fdb(&all))
            }
            Fdb::Flush(FdbFilter { bridge, port, vlan }) => {
                let Flushed { flushed } = self.ask(&Request::FdbFlush { bridge, port, vlan })?;
                let entries = if flushed == 1 { "entry" } else { "entries" };
                self.show(&json!({ "changed": flushed > 0, "flushed": flushed }), || {
                    format!("{flushed} {entries} forgotten\n")
                })
            }
        }
    }

    fn remote(&self, verb: Remote) -> Result<(), Failure> {
        match verb {
            Remote::Add(End { port, remote }) => self.change(&Request::RemoteAdd { port, remote }),
            Remote::Del(End { port, remote }) => self.change(&Request::RemoteDel { port, remote }),
            Remote::List { port } => {
                let Remotes { mut remotes } = self.ask(&Request::RemoteList { port })?;
                remotes.sort_by_key(|r| r.remote);
                self.show(&remotes, || print::remotes(&remotes))
            }
        }
    }

    fn neigh(&self, verb: Neigh) -> Result<(), Failure> {
        match verb {
            Neigh::Add(spec) => self.change(&Request::NeighAdd(spec)),
            Neigh::Del { ip, bridge, vlan } => self.change(&Request::NeighDel { ip, bridge, vlan }),
            Neigh::List { bridge } => {
                let Neighbours { mut neighbours } = self.ask(&Request::NeighList { bridge })?;
                neighbours.sort_by_cached_key(|n| (n.bridge.clone(), n.vlan, n.ip));
                self.show(&neighbours, || print::neighbours(&neighbours))
            }
        }
    }

    fn device(&self, verb: Device) -> Result<(), Failure> {
        match verb {
            Device::Add(spec) => self.change(&Request::DeviceAdd(spec)),
            Device::Set(set) => {
                if set.options == DeviceOptions::default() && set.unset.is_empty() {
                    let text =
                        "nothing to set: give a setting, or --unset; tapwayctl device set --help lists them";
                    return Err(Failure::Usage(text.to_owned()));
                }
                let DeviceSet { name, options, unset } = *set;
                self.change(&Request::DeviceSet { name, options: Box::new(options), unset })
            }
            Device::Del { name } => self.change(&Request::DeviceDel { name }),
            Device::List => {
                let Devices { mut devices } = self.ask(&Request::DeviceList)?;
                devices.sort_by(|a, b| a.name.cmp(&b.name));
                self.show(&devices, || print::devices(&devices))
            }
            Device::Show { name } => {
                let OneDevice { device } = self.ask(&Request::DeviceShow { name })?;
                self.show(&device, || print::device(&device))
            }
        }
    }

    fn uplink(&self, verb: Uplink) -> Result<(), Failure> {
        match verb {
            Uplink::Add(spec) => self.change(&Request::UplinkAdd(spec)),
            Uplink::Del { name } => self.change(&Request::UplinkDel { name }),
            Uplink::List => {
                let Uplinks { mut uplinks } = self.ask(&Request::UplinkList)?;
                uplinks.sort_by(|a, b| a.name.cmp(&b.name));
                self.show(&uplinks, || print::uplinks(&uplinks))
            }
        }
    }

    fn apply(&self, args: &Apply) -> Result<(), Failure> {
        let topology = read(&args.file)?;
        let plan: Plan = self.ask(&Request::Apply { topology, dry_run: args.dry_run, prune: args.prune })?;
        self.show(&plan, || print::plan(&plan))
    }

    fn diff(&self, args: &Diff) -> Result<(), Failure> {
        let plan: Plan = self.ask(&Request::Diff { topology: read(&args.file)? })?;
        self.show(&plan, || print::plan(&plan))
    }

    fn export(&self) -> Result<(), Failure> {
        let Exported { topology, config } = self.ask(&Request::Export)?;
        self.show(&config, || topology)
    }

    fn stats(&self, args: Watch) -> Result<(), Failure> {
        let request = Request::Stats { port: args.port };
        if !args.watch {
            let Stats { stats } = self.ask(&request)?;
            let rated = print::Rated::all(stats, &[], Duration::ZERO);
            return self.show(&rated, || print::stats(&rated));
        }
        let (mut before, mut at) = (Vec::new(), Instant::now());
        self.connect()?.stream(&request, Some(BEAT), |Stats { stats }| {
            let rated = print::Rated::all(stats.clone(), &before, at.elapsed());
            (before, at) = (stats, Instant::now());
            self.redraw()?;
            self.show(&rated, || print::stats(&rated))
        })
    }

    fn drops(&self, args: Watch) -> Result<(), Failure> {
        let request = Request::Drops { port: args.port };
        if !args.watch {
            let Drops { drops } = self.ask(&request)?;
            return self.show(&drops, || print::drops(&drops));
        }
        self.connect()?.stream(&request, Some(BEAT), |Drops { drops }| {
            self.redraw()?;
            self.show(&drops, || print::drops(&drops))
        })
    }

    fn monitor(&self, kinds: &[String]) -> Result<(), Failure> {
        self.connect()?.stream(&Request::Monitor { after: None }, Some(BEAT), |Events { events }| {
            for event in events.iter().filter(|event| kinds.is_empty() || kinds.contains(&event.kind)) {
                self.show(event, || format!("{} {}: {}\n", event.kind, event.name, event.text))?;
            }
            Ok(())
        })
    }

    /// Clears the terminal, if it is one.
    fn redraw(&self) -> Result<(), Failure> {
        let mut out = io::stdout();
        if out.is_terminal() && !self.global.json {
            out.write_all(b"\x1b[H\x1b[2J")?;
        }
        Ok(())
    }

    fn trace(&self, args: Trace) -> Result<(), Failure> {
        let Trace { port, frame, vlan } = args;
        let trace: api::Trace = self.ask(&Request::Trace { port, frame: frame.0, vlan })?;
        self.show(&trace, || print::trace(&trace))
    }

    fn completion(&self, shell: clap_complete::Shell) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "tapwayctl", &mut script);
        let script = String::from_utf8_lossy(&script).into_owned();
        self.show(&json!({ "shell": shell.to_string(), "script": script }), || script.clone())
    }

    fn man(&self, dir: &Path) -> Result<(), Failure> {
        fn write(cmd: &clap::Command, dir: &Path, pages: &mut Vec<PathBuf>) -> io::Result<()> {
            pages.push(clap_mangen::Man::new(cmd.clone()).generate_to(dir)?);
            cmd.get_subcommands().try_for_each(|sub| write(sub, dir, pages))
        }
        let mut cmd = Cli::command();
        cmd.build();
        let mut pages = Vec::new();
        std::fs::create_dir_all(dir)
            .and_then(|()| write(&cmd, dir, &mut pages))
            .map_err(|e| Failure::Usage(format!("cannot write manual pages to {}: {e}", dir.display())))?;
        self.show(&json!({ "pages": pages }), || format!("{} pages in {}\n", pages.len(), dir.display()))
    }
}

/// The text of a file, or of standard input for `-`.
fn read(file: &Path) -> Result<String, Failure> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|e| Failure::Usage(format!("cannot read {}: {e}", file.display())))
}
