//! Four octets of limits and layout, then frames, each behind its length (16 bits) and its state: whatever they are, merging loses and
//! changes nothing. What comes out, split again, is what went in, and each flow is in its order.

use tapway_dataplane::{
    frame::{BATCH, Batch, Checksum, Gso, GsoKind, Offload},
    offload::{Limits, MAX_HEADERS, Split, checksum, merge, validate},
    wire::{
        Layers,
        layers::{Fragment, Version},
    },
};

pub fn run(input: &[u8]) {
    merged(input);
}

/// The frames that are left, and of how many each is made.
pub fn merged(input: &[u8]) -> Vec<usize> {
    let Some((&[flags, gap, a, b], mut rest)) = input.split_first_chunk::<4>() else { return Vec::new() };
    let limits = Limits { mtu: u16::from_be_bytes([a, b]).into(), udp: flags & 1 != 0 };
    let mut batch = Batch::new();
    let mut at = Batch::slot_at(0);
    let mut all_verified = true;
    while let Some((&[a, b, state], after)) = rest.split_first_chunk::<3>()
        && batch.len() < BATCH
    {
        let (frame, after) = after.split_at(usize::from(u16::from_be_bytes([a, b])).min(after.len()));
        rest = after;
        at += usize::from(gap);
        if flags & 2 != 0 || at + frame.len() > Batch::slot_end(at) {
            at = Batch::slot_at(batch.len());
        }
        let range = at..at + frame.len();
        let placed = &mut batch.memory_mut()[range.clone()];
        placed.copy_from_slice(frame);
        if state > 3 {
            finish(placed);
        }
        at = range.end;
        all_verified &= state != 1;
        batch.push_at(range, offload(state), None);
    }
    let before: Vec<Vec<u8>> = (0..batch.len()).map(|n| batch.bytes(n).to_vec()).collect();
    merge(&mut batch, &limits);

    let mut after = Vec::new();
    for n in 0..batch.len() {
        let (frame, offload) = (batch.bytes(n), &batch.frame(n).offload);
        assert!(offload.gso.is_none() || validate(frame, offload).is_ok());
        if before.iter().any(|f| f == frame) {
            after.push(vec![frame.to_vec()]);
            continue;
        }
        let split = Split::plan(frame, offload).expect("what was merged can be split");
        let mut header = [0xaa; MAX_HEADERS];
        let segments = (0..split.count()).map(|n| {
            let payload = split.segment(n, &mut header);
            [&header[..split.header_len()], &frame[payload]].concat()
        });
        after.push(segments.collect());
    }
    // A checksum that is said to be good need not be, and is right afterwards.
    if all_verified {
        let of_flow = |frames: &[Vec<u8>], key: &[u8]| -> Vec<Vec<u8>> {
            frames.iter().filter(|f| flow(f) == key).map(|f| without_id(f)).collect()
        };
        let all = after.concat();
        assert_eq!(all.len(), before.len());
        for frame in &before {
            let key = flow(frame);
            assert!(of_flow(&all, &key) == of_flow(&before, &key), "a flow is not what it was");
        }
    }
    after.iter().map(Vec::len).collect()
}

fn offload(state: u8) -> Offload {
    let hint = Gso { kind: GsoKind::Udp, size: 100, hdr_len: 0, ecn: false };
    match state {
        1 => Offload { csum: Checksum::Good, gso: None },
        2 => Offload { csum: Checksum::Partial { start: 34, offset: 16 }, gso: None },
        3 => Offload { csum: Checksum::Unknown, gso: Some(hint) },
        _ => Offload::NONE,
    }
}

/// Makes the checksums of a frame right, without which changed octets would seldom get past their verification.
fn finish(frame: &mut [u8]) -> Option<()> {
    let Layers { l3, ip: Some(ip), .. } = Layers::parse(frame).ok()? else { return None };
    let addresses = match ip.version {
        Version::V4 => {
            frame[l3 + 10..l3 + 12].fill(0);
            let sum = !checksum::sum(&frame[l3..ip.l4]);
            frame[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
            l3 + 12..l3 + 20
        }
        Version::V6 => l3 + 8..l3 + 40,
    };
    let len = (ip.end - ip.l4) as u32;
    let pseudo = [&frame[addresses], &len.to_be_bytes(), &[0, 0, 0, ip.protocol]].concat();
    let transport = &mut frame[ip.l4..ip.end];
    let offset = if ip.protocol == 6 { 16 } else { 6 };
    transport.get_mut(offset..offset + 2)?.fill(0);
    let sum = !checksum::sum(&[&pseudo, &*transport].concat());
    transport[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// What the packets of one flow have in common; the frame itself where it has no ports.
fn flow(frame: &[u8]) -> Vec<u8> {
    match Layers::parse(frame) {
        Ok(Layers { l3, ip: Some(ip), .. })
            if [6, 17].contains(&ip.protocol) && ip.fragment == Fragment::No && ip.l4 + 4 <= ip.end =>
        {
            let addresses = match ip.version {
                Version::V4 => l3 + 12..l3 + 20,
                Version::V6 => l3 + 8..l3 + 40,
            };
            [&frame[..l3], &frame[addresses], &[ip.protocol], &frame[ip.l4..ip.l4 + 4]].concat()
        }
        _ => without_id(frame),
    }
}

/// The frame without the identification of IPv4 and the checksum over it: where all had the same, they count up afterwards.
fn without_id(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Ok(Layers { l3, ip: Some(ip), .. }) = Layers::parse(&frame)
        && ip.version == Version::V4
    {
        frame[l3 + 4..l3 + 6].fill(0);
        frame[l3 + 10..l3 + 12].fill(0);
    }
    frame
}
