use proptest::prelude::*;

use super::*;

fn vni(vni: u32) -> Vni {
    Vni::new(vni).unwrap()
}

/// Any option that can be sent.
fn option() -> impl Strategy<Value = GeneveOption> {
    (any::<u16>(), any::<u8>(), 0usize..=31, any::<u8>()).prop_map(|(class, kind, words, fill)| {
        GeneveOption::new(class, kind, &vec![fill; 4 * words]).unwrap()
    })
}

#[test]
fn a_header_without_options_is_read_and_written_as_drawn() {
    let bytes = [0x00, 0x00, 0x65, 0x58, 0x00, 0x0c, 0xe5, 0x00];
    let header = Geneve { vni: vni(3301), critical: false, options: &[], header_len: 8 };
    assert_eq!(Geneve::parse(&bytes, &[]), Ok(header));
    let mut out = [0xaa; 10];
    assert_eq!(Geneve::emit(vni(3301), &[], &mut out), Some(8));
    assert_eq!(out, [0x00, 0x00, 0x65, 0x58, 0x00, 0x0c, 0xe5, 0x00, 0xaa, 0xaa]);
}

#[test]
fn options_stand_behind_the_header_and_set_the_c_bit_where_one_is_critical() {
    let list: Vec<GeneveOption> = ["0102:80:00001111", "ffff:7f:"].map(|o| o.parse().unwrap()).into();
    let mut out = [0; 24];
    let raw = options(&list).unwrap();
    assert_eq!(Geneve::emit(vni(1), &raw, &mut out), Some(20));
    assert_eq!(
        out[..20],
        [
            0x03, 0x40, 0x65, 0x58, 0, 0, 1, 0, // three words of options, critical
            0x01, 0x02, 0x80, 0x01, 0, 0, 0x11, 0x11, // one word of data
            0xff, 0xff, 0x7f, 0x00, // none
        ]
    );
    let header = Geneve::parse(&out, &[(0x0102, 0x80)]).unwrap();
    assert_eq!((header.vni, header.critical, header.header_len), (vni(1), true, 20));
    assert_eq!(header.options, &*raw);
    let read: Vec<_> = RawOptions::new(header.options).map(|o| o.unwrap()).collect();
    assert_eq!(
        read,
        [
            RawOption { class: 0x0102, kind: 0x80, data: &[0, 0, 0x11, 0x11] },
            RawOption { class: 0xffff, kind: 0x7f, data: &[] },
        ]
    );
}

#[test]
fn an_unknown_version_is_dropped() {
    // RFC 8926 §3.4: "Packets received by a tunnel endpoint with an unknown version MUST be dropped."
    for version in 1..4u8 {
        let bytes = [version << 6, 0, 0x65, 0x58, 0, 0, 1, 0];
        assert_eq!(Geneve::parse(&bytes, &[]), Err(Invalid::Version), "{version}");
    }
}

#[test]
fn a_control_packet_is_not_forwarded() {
    // RFC 8926 §3.4: "Tunnel endpoints MUST NOT forward the payload". A control message need be no Ethernet frame.
    assert_eq!(Geneve::parse(&[0, 0x80, 0x65, 0x58, 0, 0, 1, 0], &[]), Err(Invalid::Control));
    assert_eq!(Geneve::parse(&[0, 0x80, 0x08, 0x00, 0, 0, 1, 0], &[]), Err(Invalid::Control));
}

#[test]
fn a_payload_that_is_no_ethernet_frame_is_dropped() {
    for protocol in [0x0800u16, 0x86dd, 0x0000, 0x6559] {
        let [a, b] = protocol.to_be_bytes();
        assert_eq!(Geneve::parse(&[0, 0, a, b, 0, 0, 1, 0], &[]), Err(Invalid::ProtocolType));
    }
}

#[test]
fn reserved_bits_are_ignored() {
    // RFC 8926 §3.4: "Reserved field, which MUST be zero on transmission and MUST be ignored on receipt."
    let bytes = [0x01, 0x3f, 0x65, 0x58, 0, 0, 1, 0xff, 0, 1, 2, 0xe0];
    let header = Geneve::parse(&bytes, &[]).unwrap();
    assert_eq!((header.vni, header.header_len, header.critical), (vni(1), 12, false));
}

#[test]
fn an_unknown_critical_option_drops_the_packet_and_any_other_does_not() {
    let packet = |flags: u8, kind: u8| [0x02, flags, 0x65, 0x58, 0, 0, 1, 0, 0x01, 0x02, kind, 1, 9, 9, 9, 9];
    let parse = |bytes: &[u8], known: &[(u16, u8)]| Geneve::parse(bytes, known).map(|g| g.critical);
    // RFC 8926 §3.5: where the option is not recognized and the bit is set, "the packet MUST be dropped".
    assert_eq!(parse(&packet(0x40, 0x80), &[]), Err(Invalid::CriticalOption));
    assert_eq!(parse(&packet(0x40, 0x80), &[(0x0102, 0x81), (0x0103, 0x80)]), Err(Invalid::CriticalOption));
    assert_eq!(parse(&packet(0x40, 0x80), &[(0x0102, 0x81), (0x0102, 0x80)]), Ok(true));
    assert_eq!(parse(&packet(0x00, 0x00), &[]), Ok(false), "unknown, not critical: skipped");
    // The C bit and the options contradict each other: the options are what counts.
    assert_eq!(parse(&packet(0x00, 0x80), &[]), Err(Invalid::CriticalOption));
    assert_eq!(parse(&packet(0x40, 0x00), &[]), Ok(false));
}

#[test]
fn a_critical_option_behind_others_is_found() {
    let mut bytes = vec![0x05, 0x40, 0x65, 0x58, 0, 0, 1, 0];
    bytes.extend([0, 1, 2, 0]);
    bytes.extend([0, 1, 3, 2, 0, 0, 0x80, 0, 0, 0, 0x80, 0]); // data that looks like critical options
    assert!(Geneve::parse(&[bytes.clone(), vec![0, 1, 3, 0]].concat(), &[]).is_ok());
    assert_eq!(Geneve::parse(&[bytes, vec![0, 1, 0x83, 0]].concat(), &[]), Err(Invalid::CriticalOption));
}

#[test]
fn options_that_do_not_add_up_are_dropped() {
    // RFC 8926 §3.5: "Packets in which the total length of all options is not equal to the 'Opt Len' in the base header are invalid
    // and MUST be silently dropped".
    let packet =
        |words: u8, len: u8| [words, 0, 0x65, 0x58, 0, 0, 1, 0, 0, 1, 2, len, 0, 1, 2, 0, 0, 1, 2, 0];
    assert!(Geneve::parse(&packet(3, 0), &[]).is_ok(), "three of no data");
    assert!(Geneve::parse(&packet(3, 1), &[]).is_ok(), "one word, and one of no data");
    assert!(Geneve::parse(&packet(3, 2), &[]).is_ok(), "two words");
    assert_eq!(Geneve::parse(&packet(3, 3), &[]), Err(Invalid::OptionLength));
    assert_eq!(Geneve::parse(&packet(3, 31), &[]), Err(Invalid::OptionLength));
    assert_eq!(Geneve::parse(&packet(1, 1), &[]), Err(Invalid::OptionLength), "into the frame");
    assert_eq!(Geneve::parse(&packet(4, 0), &[]), Err(Invalid::Truncated));
}

#[test]
fn every_prefix_of_a_header_is_truncated() {
    let raw = options(&["0102:80:00001111".parse().unwrap(), "1:2:".parse().unwrap()]).unwrap();
    let mut out = [0; 20];
    assert_eq!(Geneve::emit(vni(1), &raw, &mut out), Some(20));
    for n in 0..20 {
        assert_eq!(Geneve::parse(&out[..n], &[(0x0102, 0x80)]), Err(Invalid::Truncated), "{n} octets");
        assert_eq!(Geneve::emit(vni(1), &raw, &mut vec![0; n]), None, "{n} octets");
    }
}

#[test]
fn options_fill_a_header_up_to_252_octets() {
    let long = GeneveOption::new(1, 2, &[7; MAX_OPTION_DATA]).unwrap();
    let rest = GeneveOption::new(1, 2, &[7; 120]).unwrap();
    let raw = options(&[long.clone(), rest.clone()]).unwrap();
    assert_eq!(raw.len(), MAX_OPTIONS);
    let mut out = [0; LEN + MAX_OPTIONS];
    assert_eq!(Geneve::emit(vni(1), &raw, &mut out), Some(260));
    assert_eq!(out[0], 63);
    assert_eq!(Geneve::parse(&out, &[]).unwrap().options, &*raw);
    let error = options(&[long.clone(), long, rest]).unwrap_err();
    assert!(error.to_string().contains("380 octets"), "{error}");
    assert_eq!(Geneve::emit(vni(1), &[0; 256], &mut [0; 512]), None);
    assert_eq!(Geneve::emit(vni(1), &[0; 7], &mut out), None, "no sequence of options");
    assert_eq!(Geneve::emit(vni(1), &[0, 0, 0, 1], &mut out), None, "an option beyond the end");
    assert!(GeneveOption::new(1, 2, &[0; 3]).is_none() && GeneveOption::new(1, 2, &[0; 128]).is_none());
}

#[test]
fn an_option_prints_as_it_parses() {
    for (text, printed) in [
        ("0102:80:00001111", "0102:80:00001111"),
        ("102:8:0000AbCd", "0102:08:0000abcd"),
        ("0x102:0x80:0x00001111", "0102:80:00001111"),
        ("0:0:", "0000:00:"),
    ] {
        let option: GeneveOption = text.parse().unwrap();
        assert_eq!(option.to_string(), printed);
        assert_eq!(printed.parse::<GeneveOption>().unwrap(), option);
    }
    let option: GeneveOption = serde_json::from_str("\"0102:80:00001111\"").unwrap();
    assert_eq!((option.class(), option.kind(), option.data()), (0x0102, 0x80, &[0, 0, 0x11, 0x11][..]));
    assert_eq!(serde_json::to_string(&option).unwrap(), "\"0102:80:00001111\"");
}

#[test]
fn a_text_that_is_no_option_is_refused_with_an_example() {
    let too_long = format!("1:2:{}", "00".repeat(128));
    let absurd = format!("1:2:{}", "00".repeat(1 << 20));
    for bad in [
        "",
        "0102",
        "0102:80",
        ":80:00001111",
        "0102::00001111",
        "0102:80:00001111:",
        "0102:80:000011",
        "0102:80:0000111",
        "0102:80:0000111g",
        "0102:80:+1+1+1+1",
        "10102:80:",
        "0102:180:",
        "+102:80:",
        "0102:80:ééé",
        "0x:80:00001111",
        &too_long,
        &absurd,
    ] {
        let error = bad.parse::<GeneveOption>().unwrap_err().to_string();
        assert!(error.contains("0102:80:00001111") && error.len() < 250, "{error}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        number in 0..=Vni::MAX, list in prop::collection::vec(option(), 0..8), payload: [u8; 4],
    ) {
        let Ok(raw) = options(&list) else { return Ok(()) };
        let mut out = [0; LEN + MAX_OPTIONS + 4];
        let len = Geneve::emit(vni(number), &raw, &mut out).unwrap();
        out[len..len + 4].copy_from_slice(&payload);
        let known: Vec<_> = list.iter().map(|o| (o.class(), o.kind())).collect();
        let header = Geneve::parse(&out[..len + 4], &known).unwrap();
        prop_assert_eq!((header.vni, header.header_len, header.options), (vni(number), len, &*raw));
        prop_assert_eq!(header.critical, list.iter().any(|o| o.kind() >= 0x80));
        prop_assert_eq!(out[1] != 0, header.critical, "the C bit");
        let read: Vec<_> = RawOptions::new(header.options)
            .map(|o| o.map(|o| GeneveOption::new(o.class, o.kind, o.data).unwrap()).unwrap())
            .collect();
        prop_assert_eq!(&read, &list);
        // Without a word about what is known, only packets without a critical option are taken.
        prop_assert_eq!(Geneve::parse(&out, &[]).is_err(), header.critical);
    }

    #[test]
    fn any_octets_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..300), lean: bool) {
        if lean && bytes.len() >= 8 {
            bytes[0] &= 0x3f;
            bytes[1..4].copy_from_slice(&[0, 0x65, 0x58]);
        }
        if let Ok(header) = Geneve::parse(&bytes, &[(1, 0x80)]) {
            prop_assert!(header.header_len <= bytes.len());
            let sum: usize = RawOptions::new(header.options).map(|o| 4 + o.unwrap().data.len()).sum();
            prop_assert_eq!(sum + LEN, header.header_len);
        }
    }

    #[test]
    fn an_option_survives_its_text(option in option()) {
        prop_assert_eq!(option.to_string().parse::<GeneveOption>().unwrap(), option);
    }
}
