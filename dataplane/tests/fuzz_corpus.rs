//! The fuzz targets over the corpus that is kept in the repository, with the ordinary toolchain.
//!
//! The files of a corpus are named for what they hold; an input that once failed stays there under a name that says what failed.

use std::{fs, panic, path::Path, sync::LazyLock};

use proptest::prelude::*;
use tapway_dataplane::{
    bridge::Neighbours, frame::Offload, offload::Split, overlay::too_big, tick::Tick, wire::VirtioNetHdr,
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
