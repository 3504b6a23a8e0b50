//! A frame of any octets at a secured port: what is let in has the port's source address, and is no router advertisement
//! that is in plain sight.

use std::net::{Ipv4Addr, Ipv6Addr};

use tapway_dataplane::{
    bridge::secure::Secure,
    wire::{
        Layers, MacAddr,
        layers::{Fragment, Version},
    },
};

const MAC: MacAddr = MacAddr::from_octets([2, 0, 0, 0, 0, 1]);
const V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

pub fn run(frame: &[u8]) {
    let any = Secure { mac: MAC, ips: Box::new([]) };
    let own = Secure { mac: MAC, ips: Box::new([V4.into(), V6.into()]) };
    for type_at in [12, 16] {
        let strict = own.check(frame, type_at);
        let loose = any.check(frame, type_at);
        assert!(strict.is_err() || loose.is_ok(), "fewer addresses let in more");
        if loose.is_err() {
            continue;
        }
        assert_eq!(frame[6..12], MAC.octets());
        let ip = Layers::parse_at(frame, type_at).expect("what was let in parses").ip;
        if let Some(ip) = ip
            && (ip.version, ip.protocol) == (Version::V6, 58)
            && ip.fragment != Fragment::Later
        {
            assert!(!matches!(frame[ip.l4], 134 | 137));
        }
    }
}
