//! A topology file of any octets: it is read, or every mistake has a line of the file; what is read is written and read again the same.

use tapway_dataplane::config::{Topology, plan};

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut topology = match Topology::parse(text) {
        Ok((topology, _)) => topology,
        Err(mistakes) => {
            let lines = text.lines().count() as u32 + 1;
            assert!(
                !mistakes.is_empty() && mistakes.iter().all(|m| m.line <= lines && !m.message.is_empty())
            );
            return;
        }
    };
    topology.sort();
    let written = topology.to_toml();
    assert_eq!(Topology::parse(&written).map(|(read, _)| read).as_ref(), Ok(&topology));
    assert_eq!(plan(&topology, &topology, true, 1), [], "nothing to do where it runs already");
    let empty = Topology::default();
    let made = plan(&empty, &topology, true, 1).len();
    let Topology { device, bridge, uplink, port, fdb, neigh } = &topology;
    assert_eq!(made, device.len() + bridge.len() + uplink.len() + port.len() + fdb.len() + neigh.len());
    assert_eq!(plan(&topology, &empty, true, 1).len(), made);
}
