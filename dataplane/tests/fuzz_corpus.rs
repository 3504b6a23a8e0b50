//! The fuzz targets over the corpus that is kept in the repository, with the ordinary toolchain.
//!
//! The files of a corpus are named for what they hold; an input that once failed stays there under a name that says what failed.

use std::{fs, panic, path::Path, sync::LazyLock};

use proptest::prelude::*;
use tapway_dataplane::{frame::Offload, offload::Split, wire::VirtioNetHdr};

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
