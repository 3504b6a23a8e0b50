//! A stream of any octets, received in pieces: whatever the pieces, the frames are those that stand in the octets.
//! The first octet is the size of the pieces.

use tapway_dataplane::{
    port::stream::Staging,
    wire::stream::{Next, PREFIX_LEN, next, prefix},
};

/// How a stream ends: the frames that were whole, and the length that was none.
pub type Seen = (Vec<Vec<u8>>, Option<u32>);

pub fn run(input: &[u8]) {
    let Some((&piece, octets)) = input.split_first() else { return };
    let (frames, absurd) = whole(octets);
    let mut again: Vec<u8> = frames.iter().flat_map(|f| [&prefix(f.len())[..], f].concat()).collect();
    again.extend(absurd.map(u32::to_be_bytes).into_iter().flatten());
    assert!(octets.starts_with(&again), "frames hold other octets than the stream");
    for size in [usize::from(piece).max(1), octets.len().max(1)] {
        assert_eq!(in_pieces(octets, size), (frames.clone(), absurd), "in pieces of {size}");
    }
}

fn whole(mut octets: &[u8]) -> Seen {
    let mut frames = Vec::new();
    loop {
        match next(octets) {
            Next::Frame(frame) => {
                frames.push(frame.to_vec());
                octets = &octets[PREFIX_LEN + frame.len()..];
            }
            Next::Incomplete => return (frames, None),
            Next::Absurd(len) => return (frames, Some(len)),
        }
    }
}

/// What comes out where at most `size` octets come with each read.
pub fn in_pieces(mut octets: &[u8], size: usize) -> Seen {
    let (mut staging, mut frames) = (Staging::default(), Vec::new());
    loop {
        match staging.take() {
            Next::Frame(frame) => frames.push(frame.to_vec()),
            Next::Absurd(len) => return (frames, Some(len)),
            Next::Incomplete if octets.is_empty() => return (frames, None),
            Next::Incomplete => {
                let vacant = staging.vacant();
                let len = size.min(octets.len()).min(vacant.len());
                assert!(len > 0, "nowhere to read to");
                vacant[..len].copy_from_slice(&octets[..len]);
                octets = &octets[len..];
                staging.filled(len);
            }
        }
    }
}
