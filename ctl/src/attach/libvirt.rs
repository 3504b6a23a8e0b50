//! Elements of a libvirt domain (<https://libvirt.org/formatdomain.html#network-interfaces>).

use tapway_dataplane::config::PortType;

use super::{Attachment, Monitor, NoWay, SwitchEnd, Told, USUAL_MTU, no_way};

/// A text as an attribute has it.
fn attribute(text: &str) -> String {
    let escaped = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('\'', "&apos;")];
    escaped.iter().fold(text.to_owned(), |text, (c, word)| text.replace(*c, word))
}

/// An interface of the type, whose `lines` say where its other end is.
fn interface(end: &SwitchEnd, kind: &str, lines: &[String], queues: u16, with_mtu: bool) -> String {
    let mut all = Vec::new();
    all.extend(end.mac().map(|mac| format!("<mac address='{mac}'/>")));
    all.extend_from_slice(lines);
    all.push("<model type='virtio'/>".to_owned());
    if queues > 1 {
        all.push(format!("<driver queues='{queues}'/>"));
    }
    if with_mtu && end.mtu != USUAL_MTU {
        all.push(format!("<mtu size='{}'/>", end.mtu));
    }
    // A macvtap keeps from the guest what multicast its own stack has not asked for, unless libvirt may follow the guest.
    let trust = if kind == "direct" { " trustGuestRxFilters='yes'" } else { "" };
    format!("<interface type='{kind}'{trust}>\n  {}\n</interface>\n", all.join("\n  "))
}

pub(super) fn attach(end: &SwitchEnd) -> Result<Attachment, NoWay> {
    let mut notes = Vec::new();
    let xml = match end.kind() {
        PortType::Tap => {
            if end.options.netns.is_some() {
                end.macvtap_notes(Monitor::Libvirt)?;
            }
            // libvirt makes the macvtap itself, and no word of it for the MTU.
            notes.extend(end.mtu_note());
            let source = format!("<source dev='{}' mode='passthrough'/>", attribute(end.ifname()));
            interface(end, "direct", &[source], 1, false)
        }
        PortType::Netdev => {
            notes.extend(end.namespace_note());
            notes.push(format!(
                "the TAP has to be there first: {} --owner UID, with the number of the user that libvirt runs QEMU as",
                end.make_tap()
            ));
            let target = format!("<target dev='{}' managed='no'/>", attribute(end.ifname()));
            interface(end, "ethernet", &[target], end.queues(), true)
        }
        PortType::Stream | PortType::Dgram => {
            let instead =
                "it has no interface over a Unix socket; give the VM a port of type vhost-user or netdev";
            return Err(no_way(end, Monitor::Libvirt, instead));
        }
        PortType::VhostUser => {
            let path = attribute(end.path());
            let source = if end.options.serves() {
                vec![
                    format!("<source type='unix' path='{path}' mode='client'>"),
                    "  <reconnect enabled='yes' timeout='1'/>".to_owned(),
                    "</source>".to_owned(),
                ]
            } else {
                vec![format!("<source type='unix' path='{path}' mode='server'/>")]
            };
            notes.push("memoryBacking belongs to the domain, interface to its devices".to_owned());
            // The switch reads and writes the guest's frames where they are.
            let memory =
                "<memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>\n";
            memory.to_owned() + &interface(end, "vhostuser", &source, end.queues(), true)
        }
        PortType::Vxlan | PortType::Geneve => String::new(),
    };
    Ok(Attachment { told: Told::Xml(xml), notes })
}
