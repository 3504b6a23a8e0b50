//! Any 24 octets as a virtio header of an uplink and any others as its frame, by way of what the frame is to what the switch makes of it:
//! what is believed lies inside, says the same when it is written again, and an inner super-frame can be split.

use std::net::IpAddr;

use tapway_dataplane::{
    frame::UplinkOffload,
    offload::{self, MAX_HEADERS, Split},
    overlay::{
        Host,
        host::Handled,
        outer,
        uplink::{Inbound, inbound},
    },
    tick::Tick,
    wire::MacAddr,
};
use zerocopy::IntoBytes;

/// Octets of a VXLAN header.
const VXLAN: u16 = 8;

pub fn run(input: &[u8]) {
    let Some((header, frame)) = input.split_first_chunk::<24>() else { return };
    let said = UplinkOffload::parse(header, frame.len());
    if let Some(said) = said {
        assert_eq!(UplinkOffload::parse(said.to_vnet().as_bytes(), frame.len()), Some(said));
    }
    for (me, prefix) in [("198.51.100.2", 24), ("2001:db8::2", 64)] {
        let me: IpAddr = me.parse().expect("an address");
        host(frame, me, prefix);
        for said in [UplinkOffload::NONE].into_iter().chain(said) {
            // As whoever the frame is for, so that its own headers decide.
            let to = outer::parse(frame, said.offload.gso.is_some()).map_or(me, |packet| packet.destination);
            let Inbound::Datagrams(datagrams) = inbound(frame, &said, to) else { continue };
            let payload = &frame[datagrams.payload.clone()];
            assert!(datagrams.stride > 0 || payload.is_empty());
            let Some(inner) = payload.get(VXLAN.into()..) else { continue };
            let Some(state) = datagrams.offload.within(VXLAN) else { continue };
            if offload::validate(inner, &state) == Ok(None) {
                continue;
            }
            let Ok(split) = Split::plan(inner, &state) else { continue };
            let mut headers = [0; MAX_HEADERS];
            let payload = (0..split.count()).map(|n| split.segment(n, &mut headers).len()).sum::<usize>();
            assert!(payload <= inner.len());
        }
    }
}

/// The frame as one for the host.
fn host(frame: &[u8], me: IpAddr, prefix: u8) {
    let address = format!("{me}/{prefix}").parse().expect("an address");
    let gateway = match me {
        IpAddr::V4(_) => "198.51.100.1",
        IpAddr::V6(_) => "2001:db8::1",
    };
    let gateway = gateway.parse().expect("an address");
    let (mac, interface) = (MacAddr::from_bits(0x0200_0000_0002), MacAddr::from_bits(0x0200_0000_0001));
    let host = Host::new(address, mac, Some(gateway), interface);
    let mut reply = vec![0; frame.len() + 128];
    let room = reply.len();
    if let Handled::Answer(len) = host.handle(frame, Tick::from_secs(1), &mut reply) {
        assert!(len <= room && reply[6..12] == mac.octets());
        assert!(reply[0] & 1 == 0, "an answer goes to one station");
    }
    let known = host.next_hop(gateway).peek();
    assert!(known.is_none_or(MacAddr::is_station));
}
