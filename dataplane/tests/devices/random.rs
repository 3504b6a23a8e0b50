//! Random wishes, one after the other: each is fulfilled in one go, and others' devices do not notice.

use std::{env, time::Duration};

use tapway_dataplane::{
    netlink::device::{
        Bridge, ChangeError, Device, FdbEntry, Geneve, Ipvlan, IpvlanMode, Kind, Macvlan, MacvlanMode, Mark,
        Peer, Route, Tos, Ttl, Tun, Vlan, VlanProtocol, Vxlan, Whose, change, create, delete, differences,
        list, observe,
    },
    netns::Netns,
};

use crate::topo::{Container, in_netns, ip, look, look_at_all, mac, parent};

/// The names of devices that come and go.
const NAMES: [&str; 5] = ["d0", "d1", "d2", "d3", "d4"];
const STEPS: usize = 250;

struct Random(u64);

impl Random {
    /// A number below `end` (xorshift).
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn maybe<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.coin().then(|| f(self))
    }
}

/// A wish for the device number `n`; what has to be unique is so by its number.
fn wish(random: &mut Random, n: usize, c1: &Netns) -> Device {
    let last = u8::try_from(n).unwrap() * 20 + 1;
    let address = |step: u8| format!("198.51.{}.{}/24", 100 + n, last + step).parse().unwrap();
    // The last four are for a kernel that has everything. Most wishes are for the same kind as before.
    let kinds = if env::var_os("TAPWAY_TEST_GUEST").is_some() { 10 } else { 6 };
    let kind = if random.below(3) == 0 { random.below(kinds) } else { n as u64 * (kinds / 5) };
    let netns = (random.below(4) == 0).then(|| c1.clone());
    let kind = match kind {
        0 => Kind::Veth(Peer {
            name: format!("e{n}{}", random.below(2)),
            netns: random.maybe(|_| c1.clone()),
            mac: random.maybe(|random| mac(u8::try_from(random.below(9)).unwrap())),
            addresses: random.maybe(|_| address(9)).into_iter().collect(),
        }),
        1 => Kind::Bridge(Bridge {
            ageing: random.maybe(|random| Duration::from_secs(1 + random.below(300))),
            stp: random.maybe(Random::coin),
            vlan_filtering: None,
            mcast_snooping: random.maybe(Random::coin),
        }),
        kind @ (2 | 3) => {
            let modes = [MacvlanMode::Bridge, MacvlanMode::Vepa, MacvlanMode::Private];
            let options = Macvlan {
                parent: if random.coin() { "p0" } else { "p1" }.into(),
                mode: random.maybe(|random| modes[usize::try_from(random.below(3)).unwrap()]),
            };
            if kind == 2 { Kind::Macvlan(options) } else { Kind::Macvtap(options) }
        }
        4 => Kind::Vxlan(Vxlan {
            id: u32::from(last),
            local: random.maybe(|random| [203, 0, 113, u8::try_from(1 + random.below(3)).unwrap()].into()),
            remote: random.maybe(|random| [203, 0, 113, u8::try_from(8 + random.below(3)).unwrap()].into()),
            dev: random.maybe(|_| "p0".into()),
            learning: random.maybe(Random::coin),
            ttl: random.maybe(|random| if random.coin() { Ttl::Inherit } else { Ttl::Fixed(7) }),
            tos: random.maybe(|random| if random.coin() { Tos::Inherit } else { Tos::Fixed(8) }),
            // Each station once.
            fdb: (0..u8::try_from(random.below(3)).unwrap())
                .map(|n| FdbEntry {
                    mac: mac(n),
                    dst: [203, 0, 113, 200].into(),
                    vni: random.maybe(|_| 77),
                    port: None,
                })
                .collect(),
            ..Vxlan::default()
        }),
        6 => Kind::Dummy,
        7 => Kind::Vlan(Vlan {
            parent: "p0".into(),
            id: u16::from(last) + u16::try_from(random.below(2)).unwrap(),
            protocol: random.maybe(|_| VlanProtocol::Dot1ad),
        }),
        8 => Kind::Ipvlan(Ipvlan {
            parent: "q0".into(), // a parent has macvlans or ipvlans
            mode: random.maybe(|random| if random.coin() { IpvlanMode::L2 } else { IpvlanMode::L3 }),
            flag: None,
        }),
        9 => Kind::Geneve(Geneve {
            id: u32::from(last),
            remote: Some([203, 0, 113, u8::try_from(1 + random.below(3)).unwrap()].into()),
            ttl: random.maybe(|random| if random.coin() { Ttl::Inherit } else { Ttl::Fixed(7) }),
            tos: random.maybe(|random| if random.coin() { Tos::Inherit } else { Tos::Fixed(8) }),
            ..Geneve::default()
        }),
        _ => Kind::Tap(Tun {
            owner: random.maybe(|random| u32::try_from(random.below(3)).unwrap()),
            group: None,
            multi_queue: random.maybe(Random::coin),
            vnet_hdr: random.maybe(Random::coin),
            persistent: None,
        }),
    };
    let up = random.coin();
    let addresses: Vec<_> = (0..u8::try_from(random.below(3)).unwrap()).map(address).collect();
    let to = format!("10.{n}.0.0/16").parse().unwrap();
    let via = addresses.first().map(|_| format!("198.51.{}.254", 100 + n).parse().unwrap());
    Device {
        // An ipvlan has that of its parent.
        mac: random
            .maybe(|random| mac(u8::try_from(10 + random.below(9)).unwrap()))
            .filter(|_| !matches!(kind, Kind::Ipvlan(_))),
        mtu: random.maybe(|random| u32::try_from(1280 + random.below(160)).unwrap()),
        routes: random
            .maybe(|random| Route { to, via, src: None, metric: random.maybe(|_| 9) })
            .into_iter()
            .collect(),
        addresses,
        up,
        sysctls: random
            .maybe(|random| ("ipv4.rp_filter".parse().unwrap(), random.below(3).to_string()))
            .into_iter()
            .collect(),
        netns,
        ..Device::new(NAMES[n], kind)
    }
}

#[test]
fn any_wish_follows_any_other_and_foreign_devices_do_not_notice() {
    in_netns(|| {
        parent();
        ip("link add q0 type veth peer name q1");
        ip("link add foreign type bridge ageing_time 1234");
        ip("address add 192.168.7.1/24 dev foreign");
        let container = Container::new();
        let c1 = container.netns();
        let foreign = || {
            let mut all = look_at_all(None, &[]);
            all.retain(|one| one.mark == Mark::Foreign);
            all
        };
        let before = foreign();
        let mut random = Random(0x7a70_7761_7901);
        let (mut created, mut changed, mut replaced) = (0, 0, 0);
        for step in 0..STEPS {
            let n = usize::try_from(random.below(NAMES.len() as u64)).unwrap();
            let wanted = wish(&mut random, n, &c1);
            // It may be in the other namespace, and its addresses with it.
            let other = if wanted.netns.is_some() { None } else { Some(&c1) };
            let moved = observe(&wanted.name, other, None).unwrap();
            if let Some(found) = moved.filter(|found| found.mark == Mark::Ours) {
                delete(&found.name, other, Whose::Ours).unwrap();
            }
            match observe(&wanted.name, wanted.netns.as_ref(), Some(&wanted)).unwrap() {
                None => {
                    create(&wanted).unwrap_or_else(|e| panic!("step {step}: {e}: {wanted:#?}"));
                    created += 1;
                }
                Some(found) => match change(&found, &wanted) {
                    Ok(_) => changed += 1,
                    Err(ChangeError::NeedsReplace { .. }) => {
                        delete(&wanted.name, wanted.netns.as_ref(), Whose::Ours).unwrap();
                        create(&wanted).unwrap_or_else(|e| panic!("step {step}: {e}: {wanted:#?}"));
                        replaced += 1;
                    }
                    Err(error) => panic!("step {step}: {error}: {found:#?} to {wanted:#?}"),
                },
            }
            assert_eq!(differences(&look(&wanted), &wanted), [], "step {step}: {wanted:#?}");
            assert_eq!(foreign(), before, "step {step}");
        }
        assert!(created > 20 && changed > 20 && replaced > 20, "{created} {changed} {replaced}");
        for netns in [None, Some(&c1)] {
            for one in list(netns, &[]).unwrap() {
                // A pair may have ended with its other end.
                if one.mark == Mark::Ours {
                    delete(&one.name, netns, Whose::Ours).unwrap();
                }
            }
        }
        assert_eq!(foreign(), before);
        assert_eq!(crate::topo::names(), ["foreign", "lo", "p0", "p1", "q0", "q1"]);
        assert_eq!(container.run(crate::topo::names), ["lo"]);
    });
}
