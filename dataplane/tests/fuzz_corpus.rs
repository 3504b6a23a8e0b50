//! The fuzz targets over the corpus that is kept in the repository, with the ordinary toolchain.
//!
//! The files of a corpus are named for what they hold; an input that once failed stays there under a name that says what failed.

use std::{fs, panic, path::Path, sync::LazyLock};

use proptest::prelude::*;
use tapway_dataplane::{
    bridge::Neighbours,
    frame::{Offload, UplinkOffload},
    offload::Split,
    overlay::{
        Host,
        host::Handled,
        outer, too_big,
        uplink::{Inbound, inbound},
    },
    tick::Tick,
    wire::{
        Geneve, MacAddr, VirtioNetHdr, Vxlan, geneve,
        vxlan::{self, Reserved, Rules},
    },
};

#[path = "../fuzz/targets/mod.rs"]
#[allow(unreachable_pub, missing_docs, reason = "shared with the fuzzing crate")]
mod targets;

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"))
}

#[test]
fn every_kept_input_still_passes_its_target() {
    let mut known: Vec<_> = targets::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut kept: Vec<_> =
        fs::read_dir(corpus()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    known.sort();
    kept.sort();
    assert_eq!(kept, known, "each target has a directory of inputs, and each directory a target");
    for (name, run) in targets::ALL {
        let inputs: Vec<_> = fs::read_dir(corpus().join(name)).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "{name} has no inputs");
        for path in inputs {
            assert!(
                path.to_str().unwrap().contains('-'),
                "{} is not named for what it holds",
                path.display()
            );
            let input = fs::read(&path).unwrap();
            assert!(panic::catch_unwind(|| run(&input)).is_ok(), "{} fails", path.display());
        }
    }
}

#[test]
fn cargo_fuzz_has_every_target() {
    let manifest = fs::read_to_string(corpus().with_file_name("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let mut bins: Vec<_> =
        manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap()).collect();
    let mut known: Vec<_> = targets::ALL.iter().map(|(name, _)| *name).collect();
    bins.sort_unstable();
    known.sort_unstable();
    assert_eq!(bins, known);
}

#[test]
fn the_inputs_for_merge_reach_what_they_are_named_for() {
    let merged = |name: &str| targets::merge::merged(&fs::read(corpus().join("merge").join(name)).unwrap());
    assert_eq!(merged("tcp4-three-segments"), [3]);
    assert_eq!(merged("tcp6-behind-two-tags"), [3]);
    assert_eq!(merged("udp4-with-a-shorter-last"), [4]);
    assert_eq!(merged("udp6-nobody-takes-them"), [1, 1, 1]);
    assert_eq!(merged("two-flows-in-turn-apart"), [3, 3]);
    assert_eq!(merged("two-flows-in-turn-together"), [1; 6]);
    assert_eq!(merged("push-between-segments"), [2, 2]);
    assert_eq!(merged("tcp4-fixed-identification"), [3]);
    assert_eq!(merged("tcp4-damaged-between-segments"), [1, 1, 2]);
}

/// A kept input, and the function of the target that it is for.
type Kept = (fn(&[u8]), Vec<u8>);

fn kept() -> &'static [Kept] {
    static KEPT: LazyLock<Vec<Kept>> = LazyLock::new(|| {
        let of = |&(name, run): &targets::Target| {
            let files = fs::read_dir(corpus().join(name)).unwrap();
            files.map(move |file| (run, fs::read(file.unwrap().path()).unwrap()))
        };
        targets::ALL.iter().flat_map(of).collect()
    });
    &KEPT
}

#[test]
fn the_inputs_for_vhost_reach_what_they_are_named_for() {
    let health = |name: &str| targets::vhost::health(&fs::read(corpus().join("vhost").join(name)).unwrap());
    for good in
        ["frames-both-ways", "event-index-and-four-frames", "indirect-table", "small-buffers-not-mergeable"]
    {
        assert_eq!(health(good), "", "{good}");
    }
    for (bad, why) in [
        ("descriptor-loop", "descriptor loop"),
        ("indirect-in-indirect", "an indirect descriptor where there can be none"),
        ("index-far-ahead", "40000 entries are available, more than there are"),
        ("wrong-direction", "a buffer of the wrong direction"),
        ("buffers-outside-the-memory", "a buffer at 0x10000, outside the guest's memory"),
    ] {
        assert!(health(bad).ends_with(why), "{bad}: {}", health(bad));
    }
}

#[test]
fn the_inputs_for_split_reach_what_they_are_named_for() {
    let split = |name: &str| {
        let input = fs::read(corpus().join("split").join(name)).unwrap();
        let (header, frame) = input.split_first_chunk::<12>().unwrap();
        let header: VirtioNetHdr = zerocopy::transmute!(*header);
        let offload = Offload::from_vnet(&header, frame.len())?;
        Some(Split::plan(frame, &offload).map(|s| s.count()).map_err(|r| r.name()))
    };
    assert_eq!(split("tcp4-three-segments"), Some(Ok(3)));
    assert_eq!(split("tcp6-behind-options"), Some(Ok(3)));
    assert_eq!(split("udp4-behind-two-tags"), Some(Ok(3)));
    assert_eq!(split("tcp4-one-octet-a-segment"), Some(Err("segment_limit")));
    assert_eq!(split("tcp4-length-beyond-the-frame"), Some(Err("gso_malformed")));
    assert_eq!(split("checksum-beyond-the-frame"), None);
}

#[test]
fn the_inputs_for_neigh_reach_what_they_are_named_for() {
    let neighbours = Neighbours::new();
    for ip in ["198.51.100.7", "2001:db8::7"] {
        let mac = "02:00:00:00:00:07".parse().unwrap();
        neighbours.insert_static(0, ip.parse().unwrap(), mac, Tick::from_secs(1)).unwrap();
    }
    let mut out = [0; too_big::MAX_REPLY];
    let (mut answered, mut too_large) = (Vec::new(), Vec::new());
    for file in fs::read_dir(corpus().join("neigh")).unwrap() {
        let file = file.unwrap();
        let (name, frame) = (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap());
        if neighbours.answer(0, &frame, 12, &mut out).is_some() {
            answered.push(name.clone());
        }
        if too_big::reply(&frame, 12, 1400, &mut out).is_some() {
            too_large.push(name);
        }
    }
    answered.sort();
    too_large.sort();
    assert_eq!(answered, ["arp-request", "arp-request-behind-priority-tag", "nd-solicitation"]);
    // Whether it is too large the caller says: a solicitation to one station would get a message as well.
    assert_eq!(
        too_large,
        [
            "nd-solicitation-to-one",
            "tcp4-with-df",
            "tcp4-with-options-and-tags",
            "tcp6-first-fragment-behind-options",
            "tcp6-plain"
        ]
    );
}

#[test]
fn the_inputs_for_overlay_reach_what_they_are_named_for() {
    let input = |name: &str| fs::read(corpus().join("overlay").join(name)).unwrap();
    let outer = |name: &str| {
        let frame = input(name);
        outer::parse(&frame, false).map(|inbound| {
            let right = outer::verify(&frame, &inbound);
            (frame[inbound.payload].to_vec(), inbound.has_checksum, right)
        })
    };
    for (name, reason) in [
        ("outer4-fragment", outer::Invalid::Fragment),
        ("outer6-fragment", outer::Invalid::Fragment),
        ("outer4-wrong-header-checksum", outer::Invalid::Ipv4Checksum),
        ("outer4-super-frame-without-length", outer::Invalid::IpLength),
        ("outer4-udp-length-beyond-the-packet", outer::Invalid::UdpLength),
        ("outer-tagged-and-not-udp", outer::Invalid::NotUdp),
    ] {
        assert_eq!(outer(name), Err(reason), "{name}");
    }
    let rules = |reserved| Rules { reserved, gbp: false };
    for (name, checksum, right, loose, strict) in [
        ("vxlan4-around-tcp4", true, true, Ok(22), Ok(22)),
        ("vxlan4-without-checksum", false, true, Ok(0xffffff), Ok(0xffffff)),
        ("vxlan4-with-wrong-checksum", true, false, Ok(22), Ok(22)),
        ("vxlan4-group-policy", true, true, Ok(7), Err(vxlan::Invalid::ReservedBits)),
        ("vxlan4-all-reserved-bits", true, true, Ok(7), Err(vxlan::Invalid::ReservedBits)),
        (
            "vxlan4-without-vni-flag",
            true,
            true,
            Err(vxlan::Invalid::NoVniFlag),
            Err(vxlan::Invalid::NoVniFlag),
        ),
        ("vxlan6-around-tcp6-marked", true, true, Ok(1010), Ok(1010)),
        ("vxlan6-without-checksum", false, true, Ok(1010), Ok(1010)),
        ("outer4-with-ip-options", true, true, Ok(22), Ok(22)),
        ("outer4-with-padding", true, true, Ok(22), Ok(22)),
        ("outer6-behind-options", true, true, Ok(22), Ok(22)),
    ] {
        let (payload, has_checksum, holds) = outer(name).unwrap();
        assert_eq!((has_checksum, holds), (checksum, right), "{name}");
        let vni = |reserved| Vxlan::parse(&payload, rules(reserved)).map(|h| h.vni.get());
        assert_eq!((vni(Reserved::Ignore), vni(Reserved::Refuse)), (loose, strict), "{name}");
    }
    for (name, expected) in [
        ("geneve4-no-options", Ok(8)),
        ("geneve4-known-critical-option", Ok(28)),
        ("geneve4-unknown-critical-option", Err(geneve::Invalid::CriticalOption)),
        ("geneve6-critical-option-without-c-bit", Ok(28)),
        ("geneve4-63-words-of-options", Ok(260)),
    ] {
        let (payload, ..) = outer(name).unwrap();
        assert_eq!(Geneve::parse(&payload, &[(0x0102, 0x80)]).map(|h| h.header_len), expected, "{name}");
    }
    for (name, expected) in [
        ("geneve-options-beyond-the-end", geneve::Invalid::OptionLength),
        ("geneve-control-packet", geneve::Invalid::Control),
        ("geneve-unknown-version", geneve::Invalid::Version),
        ("geneve-around-ip", geneve::Invalid::ProtocolType),
    ] {
        assert_eq!(Geneve::parse(&input(name), &[]), Err(expected), "{name}");
    }
}

#[test]
fn the_inputs_for_uplink_reach_what_they_are_named_for() {
    let input = |name: &str| fs::read(corpus().join("uplink").join(name)).unwrap();
    let me = |frame: &[u8]| if frame[12..14] == [0x86, 0xdd] { "2001:db8::2" } else { "198.51.100.2" };
    let inbound = |name: &str| {
        let input = input(name);
        let (header, frame) = input.split_at(24);
        let said = UplinkOffload::parse(header, frame.len()).unwrap();
        inbound(frame, &said, me(frame).parse().unwrap())
    };
    for (name, segments, checksum) in [
        ("tunnel4-around-tcp4-super-frame", 4, false),
        ("tunnel4-around-tcp6-super-frame", 4, false),
        ("tunnel6-with-checksum", 4, true),
    ] {
        let Inbound::Datagrams(datagrams) = inbound(name) else { panic!("{name}") };
        assert_eq!(datagrams.has_checksum, checksum, "{name}");
        let inner = &input(name)[24 + datagrams.payload.start + 8..];
        let split = Split::plan(inner, &datagrams.offload.within(8).unwrap()).unwrap();
        assert_eq!(split.count(), segments, "{name}");
    }
    for (name, stride, checksum) in [
        ("train-of-four-datagrams", 100, true),
        ("inner-checksum-partial", 102, false),
        ("local-checksum-offload", 102, true),
    ] {
        let Inbound::Datagrams(datagrams) = inbound(name) else { panic!("{name}") };
        assert_eq!((datagrams.stride, datagrams.has_checksum), (stride, checksum), "{name}");
    }
    for (name, reason) in [
        ("tunnel-positions-that-lie", "vnet_header_invalid"),
        ("local-checksum-that-is-wrong", "underlay_malformed"),
        ("udp-fragment", "underlay_fragment"),
    ] {
        let Inbound::Refused(refused) = inbound(name) else { panic!("{name}") };
        assert_eq!(refused.name(), reason, "{name}");
    }
    let (four, six) = ("203.0.113.9".parse().unwrap(), "2001:db8::99".parse().unwrap());
    for (name, expected) in [
        ("arp-request", Handled::Answer(42)),
        ("arp-reply-of-the-gateway", Handled::Learned),
        ("neighbour-solicitation", Handled::Answer(86)),
        ("neighbour-advertisement-of-the-gateway", Handled::Learned),
        ("echo4-request", Handled::Answer(74)),
        ("echo6-request", Handled::Answer(94)),
        ("fragmentation-needed", Handled::PathMtu { remote: four, mtu: 1400 }),
        ("packet-too-big", Handled::PathMtu { remote: six, mtu: 1400 }),
    ] {
        assert_eq!(inbound(name), Inbound::Local, "{name}");
        let frame = &input(name)[24..];
        let (prefix, gateway) =
            if me(frame).contains(':') { (64, "2001:db8::1") } else { (24, "198.51.100.1") };
        let address = format!("{}/{prefix}", me(frame)).parse().unwrap();
        let mac = |last: u64| MacAddr::from_bits(0x0200_0000_0000 + last);
        let host = Host::new(address, mac(2), Some(gateway.parse().unwrap()), mac(1));
        assert_eq!(host.handle(frame, Tick::from_secs(1), &mut [0; 200]), expected, "{name}");
    }
}

#[test]
fn the_inputs_for_decap_reach_what_they_are_named_for() {
    let fate = |name: &str| {
        let fate = targets::decap::fate(&fs::read(corpus().join("decap").join(name)).unwrap());
        (fate.frames, fate.merged, fate.dropped.into_iter().collect::<Vec<_>>())
    };
    for (name, frames, merged, dropped) in [
        ("vxlan-three-networks", 3, 3, &[][..]),
        ("vxlan-train-of-four", 4, 4, &[]),
        ("vxlan-train-of-two-networks", 6, 6, &[]),
        ("vxlan-tcp-train-to-merge", 5, 1, &[]),
        ("vxlan-whole-super-frame", 1, 1, &[]),
        ("vxlan-tcp-super-frame-without-stride", 1, 1, &[]),
        ("vxlan-liar-before-a-train", 0, 0, &["gso_malformed"]),
        ("vxlan-headers-in-a-super-frame", 0, 0, &["gso_malformed"]),
        ("vxlan-header-alone", 1, 1, &["runt"]),
        ("vxlan-no-octets-at-all", 0, 0, &["vxlan_malformed"]),
        ("vxlan-without-vni-flag", 0, 0, &["vxlan_malformed"]),
        ("vxlan-reserved-bits-refused", 0, 0, &["vxlan_reserved_bits"]),
        ("vxlan-from-ourselves", 0, 0, &["remote_is_self"]),
        ("vxlan-from-a-stranger", 0, 0, &["remote_unknown"]),
        ("vxlan-network-of-nobody", 0, 0, &["vni_unknown"]),
        ("vxlan-mark-that-nobody-understands", 0, 0, &["ecn_invalid"]),
        ("vxlan-group-not-to-be-learned", 1, 1, &[]),
        ("geneve-options-in-a-train", 3, 3, &[]),
        ("geneve-unknown-critical-option-in-a-train", 1, 1, &["geneve_critical_option"]),
        ("geneve-control-packet", 0, 0, &["geneve_control"]),
        ("geneve-longer-than-its-part", 0, 0, &["geneve_malformed", "vni_unknown"]),
    ] {
        assert_eq!(fate(name), (frames, merged, dropped.to_vec()), "{name}");
    }
}

#[test]
fn the_inputs_for_stream_reach_what_they_are_named_for() {
    let seen = |name: &str| {
        let input = fs::read(corpus().join("stream").join(name)).unwrap();
        let (frames, absurd) = targets::stream::in_pieces(&input[1..], input[0].into());
        (frames.iter().map(Vec::len).collect::<Vec<_>>(), absurd)
    };
    for (name, lengths, absurd) in [
        ("three-frames-in-one-piece", &[14, 60, 15][..], None),
        ("three-frames-octet-by-octet", &[14, 60, 15], None),
        ("length-across-two-pieces", &[18, 20], None),
        ("frame-that-never-ends", &[14], None),
        ("empty-and-short-frames-between", &[0, 14, 13, 1, 14], None),
        ("longer-than-the-switch-takes", &[14, 65_558, 14], None),
        ("absurd-length-behind-a-frame", &[14], Some(u32::MAX)),
        ("absurd-by-one-octet", &[], Some(69_633)),
        ("http-request", &[], Some(u32::from_be_bytes(*b"GET "))),
        ("half-a-length", &[14], None),
    ] {
        assert_eq!(seen(name), (lengths.to_vec(), absurd), "{name}");
    }
}

proptest! {
    #[test]
    fn random_octets_pass_every_target(input in prop::collection::vec(any::<u8>(), 0..200)) {
        for (_, run) in targets::ALL {
            run(&input);
        }
    }

    #[test]
    fn kept_inputs_with_some_octets_changed_pass_their_target(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let inputs = kept();
        let (run, input) = &inputs[which.index(inputs.len())];
        let mut input = input.clone();
        if let Some(cut) = cut {
            input.truncate(1 + cut.index(input.len()));
        }
        for (at, octet) in changes {
            let at = at.index(input.len());
            input[at] = octet;
        }
        run(&input);
    }
}
