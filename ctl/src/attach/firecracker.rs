//! Firecracker's configuration file.

use serde_json::json;
use tapway_dataplane::config::PortType;

use super::{Attachment, Monitor, NoWay, SwitchEnd, Told, no_way, quoted};

pub(super) fn attach(end: &SwitchEnd) -> Result<Attachment, NoWay> {
    if end.kind() != PortType::Netdev {
        let instead =
            "it opens the descriptor end of a TAP, and nothing else; give the VM a port of type netdev";
        return Err(no_way(end, Monitor::Firecracker, instead));
    }
    // Letters, digits and _ are what it takes for an identifier.
    let id: String =
        end.name.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let mut interface = json!({ "iface_id": id, "host_dev_name": end.ifname() });
    if let Some(mac) = end.mac() {
        interface["guest_mac"] = json!(mac);
    }
    let mut notes = vec![format!(
        "the TAP has to be there first, with one queue: tapwayctl device add {} --type tap --owner UID, with the number of the user \
         that Firecracker runs as",
        quoted(end.ifname())
    )];
    notes.extend(end.namespace_note());
    notes.extend(end.mtu_note());
    Ok(Attachment { told: Told::Config(json!({ "network-interfaces": [interface] })), notes })
}
