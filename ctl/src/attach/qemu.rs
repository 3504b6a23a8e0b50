//! QEMU's command line.

use tapway_dataplane::config::PortType;

use super::{Attachment, Monitor, NoWay, SwitchEnd, Told, USUAL_MTU};

/// The descriptor by which a shell hands QEMU a macvtap.
const FD: u8 = 3;

/// A name as QEMU takes it for an object (`id_wellformed`): a letter, then letters, digits and `-._`.
fn id(end: &SwitchEnd) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
    let name: String = end.name.as_str().chars().map(legal).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("p{name}") }
}

/// A value among options that commas part: a comma in it is written twice.
fn value(text: &str) -> String {
    text.replace(',', ",,")
}

/// The card that the guest sees.
fn device(end: &SwitchEnd, queues: u16) -> [String; 2] {
    let mut device = format!("virtio-net-pci,netdev={}", id(end));
    if let Some(mac) = end.mac() {
        device += &format!(",mac={mac}");
    }
    if queues > 1 {
        // A vector for each queue in each direction, one for changes of the configuration and one for control.
        device += &format!(",mq=on,vectors={}", 2 * u32::from(queues) + 2);
    }
    if end.mtu != USUAL_MTU {
        device += &format!(",host_mtu={}", end.mtu);
    }
    ["-device".to_owned(), device]
}

pub(super) fn attach(end: &SwitchEnd) -> Result<Attachment, NoWay> {
    let (id, path) = (id(end), value(end.path()));
    let netdev = |backend: String| ["-netdev".to_owned(), backend];
    let mut notes = Vec::new();
    if end.mac().is_none() {
        notes.push(
            "QEMU gives every VM the same MAC address: add mac= to -device, or --secure mac= to the port"
                .to_owned(),
        );
    }
    let mut shell = None;
    let options = match end.kind() {
        PortType::Tap => {
            notes.extend(end.macvtap_notes(Monitor::Qemu)?);
            notes.push("the MAC address of -device has to be that of the macvtap".to_owned());
            shell = Some(format!("{FD}<>/dev/tap$(cat /sys/class/net/{}/ifindex)", end.macvtap()));
            vec![netdev(format!("tap,id={id},fd={FD}")), device(end, 1)]
        }
        PortType::Netdev => {
            notes.extend(end.namespace_note());
            let queues = end.queues();
            let several = if queues > 1 { format!(",queues={queues}") } else { String::new() };
            let header = if end.offload() { "on" } else { "off" };
            let backend = format!(
                "tap,id={id},ifname={},script=no,downscript=no,vnet_hdr={header}{several}",
                value(end.ifname())
            );
            vec![netdev(backend), device(end, queues)]
        }
        PortType::Stream => {
            let server = if end.options.listens() {
                notes.push(
                    "add reconnect-ms=1000 to -netdev (reconnect=1 before QEMU 9.2, neither before 8.0), or QEMU does not come back \
                     when the switch does"
                        .to_owned(),
                );
                "off"
            } else {
                "on"
            };
            let backend = format!("stream,id={id},server={server},addr.type=unix,addr.path={path}");
            vec![netdev(backend), device(end, 1)]
        }
        PortType::Dgram => {
            // Of a port that waits for whoever comes, QEMU needs a socket of its own beside it.
            let own = end.options.peer_path.clone().unwrap_or_else(|| format!("{}.vm", end.path()));
            let backend = format!(
                "dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={path}",
                value(&own)
            );
            vec![netdev(backend), device(end, 1)]
        }
        PortType::VhostUser => {
            let queues = end.queues();
            let server = if end.options.serves() {
                notes.push("since QEMU 9.2 the word for reconnect=1 is reconnect-ms=1000".to_owned());
                ",reconnect=1"
            } else {
                ",server=on"
            };
            let several = if queues > 1 { format!(",queues={queues}") } else { String::new() };
            let memory = format!("memory-backend-memfd,id=mem-{id},size={},share=on", end.memory.0);
            vec![
                // The switch reads and writes the guest's frames where they are.
                ["-object".to_owned(), memory],
                ["-machine".to_owned(), format!("memory-backend=mem-{id}")],
                ["-chardev".to_owned(), format!("socket,id=chr-{id},path={path}{server}")],
                netdev(format!("vhost-user,id={id},chardev=chr-{id}{several}")),
                device(end, queues),
            ]
        }
        PortType::Vxlan | PortType::Geneve => Vec::new(),
    };
    Ok(Attachment { told: Told::Arguments(options, shell), notes })
}
