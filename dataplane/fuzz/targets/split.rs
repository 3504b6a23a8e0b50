//! A virtio header (12 octets) and a frame: whatever they are, splitting stays inside the frame, and what comes out is a frame with
//! lengths and checksums a receiver accepts.

use tapway_dataplane::{
    counters::DropReason,
    frame::{Checksum, Offload},
    offload::{MAX_HEADERS, Split, checksum, validate},
    wire::{Layers, VirtioNetHdr, layers::Version},
};

pub fn run(input: &[u8]) {
    let Some((header, frame)) = input.split_first_chunk::<12>() else { return };
    let header: VirtioNetHdr = zerocopy::transmute!(*header);
    let Some(offload) = Offload::from_vnet(&header, frame.len()) else { return };
    if let Checksum::Partial { start, offset } = offload.csum {
        checksum::complete(&mut frame.to_vec(), start.into(), offset.into())
            .expect("from_vnet has checked it");
    }
    let valid = validate(frame, &offload);
    if offload.gso.is_none() {
        assert_eq!(valid, Ok(None));
        return;
    }
    let split = match Split::plan(frame, &offload) {
        Ok(split) => split,
        Err(reason) => {
            assert!(valid == Err(reason) || reason == DropReason::SegmentLimit);
            return;
        }
    };
    assert_eq!(valid, Ok(Some(split.l3_len())));
    let mut at = split.header_len();
    let mut header = [0xaa; MAX_HEADERS];
    for n in 0..split.count() {
        let payload = split.segment(n, &mut header);
        assert_eq!(payload.start, at);
        at = payload.end;
        verify(&[&header[..split.header_len()], &frame[payload]].concat(), split.l3_len());
    }
    assert!(at <= frame.len());
}

/// What a receiver checks of a segment.
fn verify(segment: &[u8], l3_len: usize) {
    let Layers { l3, ip: Some(ip), .. } = Layers::parse(segment).expect("a segment parses") else {
        panic!("a segment is an IP packet");
    };
    assert_eq!(ip.end, segment.len());
    assert!(segment.len() - l3 <= l3_len);
    let (addresses, fixed_len) = match ip.version {
        Version::V4 => {
            assert_eq!(checksum::sum(&segment[l3..ip.l4]), 0xffff);
            (&segment[l3 + 12..l3 + 20], 20)
        }
        Version::V6 => (&segment[l3 + 8..l3 + 40], 40),
    };
    // Behind options the final destination is known to the sender alone, whose sum is taken as it stands.
    if ip.l4 - l3 == fixed_len {
        let transport = &segment[ip.l4..];
        let len = transport.len() as u32;
        let pseudo = [addresses, &len.to_be_bytes(), &[0, 0, 0, ip.protocol]].concat();
        assert_eq!(checksum::sum(&[&pseudo, transport].concat()), 0xffff);
    }
}
