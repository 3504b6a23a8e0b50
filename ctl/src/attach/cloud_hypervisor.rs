//! Cloud Hypervisor's command line.

use tapway_dataplane::config::PortType;

use super::{Attachment, Monitor, NoWay, SwitchEnd, Told, USUAL_MTU, no_way};

/// The descriptor by which a shell hands it a macvtap.
const FD: u8 = 3;

pub(super) fn attach(end: &SwitchEnd) -> Result<Attachment, NoWay> {
    let mut notes = Vec::new();
    let mut shell = None;
    let mac = end.mac().map(|mac| format!(",mac={mac}")).unwrap_or_default();
    let mtu = if end.mtu == USUAL_MTU { String::new() } else { format!(",mtu={}", end.mtu) };
    // It counts the queues of both directions.
    let queues =
        |pairs: u16| if pairs > 1 { format!(",num_queues={}", 2 * u32::from(pairs)) } else { String::new() };
    let net = |text: String| ["--net".to_owned(), text];
    let comma = |text: &str| {
        let why = "a comma in a name or path has no place on its command line";
        if text.contains(',') { Err(no_way(end, Monitor::CloudHypervisor, why)) } else { Ok(text.to_owned()) }
    };
    let options = match end.kind() {
        PortType::Tap => {
            notes.extend(end.macvtap_notes(Monitor::CloudHypervisor)?);
            notes.push("the guest has to have the MAC address of the macvtap".to_owned());
            notes.extend(end.mtu_note());
            shell = Some(format!("{FD}<>/dev/tap$(cat /sys/class/net/{}/ifindex)", end.macvtap()));
            vec![net(format!("fd={FD}{mac}"))]
        }
        PortType::Netdev => {
            notes.extend(end.namespace_note());
            notes.push(format!(
                "it gives a TAP that it makes itself an address of its own, and takes one that is there as it is: {}",
                end.make_tap()
            ));
            vec![net(format!("tap={}{mac}{}{mtu}", comma(end.ifname())?, queues(end.queues())))]
        }
        PortType::Stream | PortType::Dgram => {
            let instead = "it has no network over a Unix socket but vhost-user; give the VM a port of that type, or of type netdev";
            return Err(no_way(end, Monitor::CloudHypervisor, instead));
        }
        PortType::VhostUser => {
            let mode = if end.options.serves() { "" } else { ",vhost_mode=server" };
            let (path, queues) = (comma(end.path())?, queues(end.queues()));
            vec![
                // The switch reads and writes the guest's frames where they are.
                ["--memory".to_owned(), format!("size={},shared=on", end.memory.0)],
                net(format!("vhost_user=true,socket={path}{mac}{queues}{mode}{mtu}")),
            ]
        }
        PortType::Vxlan | PortType::Geneve => Vec::new(),
    };
    Ok(Attachment { told: Told::Arguments(options, shell), notes })
}
