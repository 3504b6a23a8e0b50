//! The VXLAN header (RFC 7348 §5), and the group policy extension in its reserved bits (draft-smith-vxlan-group-policy).
//!
//! ```text
//! |R|R|R|R|I|R|R|R|            Reserved                           |
//! |                VXLAN Network Identifier (VNI) |   Reserved    |
//!
//! |G|R|R|R|I|R|R|R|R|D|R|R|A|R|R|R|        Group Policy ID        |   with the extension
//! |                VXLAN Network Identifier (VNI) |   Reserved    |
//! ```
//!
//! The eight octets are read and written as one number: a header costs one load, and a test of all reserved bits one `and`.

use super::Vni;

/// Octets of the header.
pub const LEN: usize = 8;
/// "IANA has assigned the value 4789 for the VXLAN UDP port, and this value SHOULD be used by default" (RFC 7348 §5).
pub const PORT: u16 = 4789;

/// "the I flag MUST be set to 1 for a valid VXLAN Network ID (VNI)" (RFC 7348 §5).
const I: u64 = 0x08 << 56;
/// Where the VNI stands.
const VNI: u64 = 0xffff_ff00;
/// There is a group policy (`VXLAN_HF_GBP`).
const G: u64 = 0x80 << 56;
/// The sender's address is not to be learned (`VXLAN_GBP_DONT_LEARN`).
const D: u64 = 0x40 << 48;
/// The policy has been applied (`VXLAN_GBP_POLICY_APPLIED`).
const A: u64 = 0x08 << 48;
/// The bits that the extension takes out of the reserved ones, its own reserved ones among them (`VXLAN_GBP_USED_BITS`).
const GBP: u64 = G | 0x00ff_ffff << 32;

/// What a receiver does with reserved bits that are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reserved {
    /// They "MUST be set to zero on transmission and ignored on receipt" (RFC 7348 §5).
    #[default]
    Ignore,
    /// The datagram is dropped, as Linux does (`vxlan_rcv`).
    Refuse,
}

/// How a header is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Reserved bits.
    pub reserved: Reserved,
    /// Whether the group policy extension is spoken; without it its bits are reserved ones.
    pub gbp: bool,
}

/// The group policy of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gbp {
    /// The group that the sender is in.
    pub group: u16,
    /// "the egress VTEP MUST NOT learn the source address of the encapsulated frame" (the D bit).
    pub dont_learn: bool,
    /// "Policies MUST NOT be applied by devices when the A bit is set".
    pub applied: bool,
}

/// A VXLAN header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The network that the frame is in.
    pub vni: Vni,
    /// Its group policy, where the extension is spoken and the sender set one.
    pub gbp: Option<Gbp>,
}

/// Why a datagram has no VXLAN header.
///
/// As wide as a VNI, whose place it takes in a `Result`: else the VNI is passed on in two parts, by way of the stack, and reading a
/// header takes ten times as long (bench `wire/vxlan/parse`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u32)]
pub enum Invalid {
    /// The datagram ends before the header does.
    #[error("truncated")]
    Truncated,
    /// The I flag is not set: there is no VNI.
    #[error("no VNI flag")]
    NoVniFlag,
    /// A reserved bit is set, and [`Reserved::Refuse`] asked for.
    #[error("reserved bits")]
    ReservedBits,
}

impl Vxlan {
    /// The header at the start of `bytes`; the frame follows after [`LEN`] octets.
    #[inline]
    pub fn parse(bytes: &[u8], rules: Rules) -> Result<Self, Invalid> {
        let word = u64::from_be_bytes(*bytes.first_chunk().ok_or(Invalid::Truncated)?);
        if word & I == 0 {
            return Err(Invalid::NoVniFlag);
        }
        let used = I | VNI | if rules.gbp { GBP } else { 0 };
        if rules.reserved == Reserved::Refuse && word & !used != 0 {
            return Err(Invalid::ReservedBits);
        }
        let gbp = (rules.gbp && word & G != 0).then_some(Gbp {
            group: (word >> 32) as u16,
            dont_learn: word & D != 0,
            applied: word & A != 0,
        });
        Ok(Self { vni: Vni::from_high(word as u32), gbp })
    }

    /// The eight octets of the header. Reserved bits "MUST be set to zero on transmission" (RFC 7348 §5).
    #[inline]
    pub const fn to_bytes(self) -> [u8; LEN] {
        let mut word = I | (self.vni.get() as u64) << 8;
        if let Some(gbp) = self.gbp {
            word |= G | (gbp.group as u64) << 32;
            if gbp.dont_learn {
                word |= D;
            }
            if gbp.applied {
                word |= A;
            }
        }
        word.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RFC: Rules = Rules { reserved: Reserved::Ignore, gbp: false };
    const LINUX: Rules = Rules { reserved: Reserved::Refuse, gbp: false };
    const LINUX_GBP: Rules = Rules { reserved: Reserved::Refuse, gbp: true };

    fn vni(vni: u32) -> Vni {
        Vni::new(vni).unwrap()
    }

    #[test]
    fn the_header_of_figure_1_is_read_and_written_as_drawn() {
        // VNI 22 of RFC 7348 §6.
        let bytes = [0x08, 0, 0, 0, 0, 0, 22, 0];
        for rules in [RFC, LINUX, LINUX_GBP] {
            assert_eq!(Vxlan::parse(&bytes, rules), Ok(Vxlan { vni: vni(22), gbp: None }));
        }
        assert_eq!(Vxlan { vni: vni(22), gbp: None }.to_bytes(), bytes);
        assert_eq!(Vxlan { vni: vni(0xabcdef), gbp: None }.to_bytes(), [0x08, 0, 0, 0, 0xab, 0xcd, 0xef, 0]);
    }

    #[test]
    fn a_group_policy_stands_where_the_draft_and_linux_put_it() {
        let policy = Gbp { group: 0x1234, dont_learn: true, applied: false };
        for (bytes, gbp) in [
            ([0x88, 0x40, 0x12, 0x34, 0, 0, 7, 0], policy),
            ([0x88, 0x08, 0x12, 0x34, 0, 0, 7, 0], Gbp { dont_learn: false, applied: true, ..policy }),
            ([0x88, 0x48, 0x00, 0x00, 0, 0, 7, 0], Gbp { group: 0, dont_learn: true, applied: true }),
        ] {
            let header = Vxlan { vni: vni(7), gbp: Some(gbp) };
            assert_eq!(Vxlan::parse(&bytes, LINUX_GBP), Ok(header));
            assert_eq!(header.to_bytes(), bytes);
            assert_eq!(
                Vxlan::parse(&bytes, RFC),
                Ok(Vxlan { vni: vni(7), gbp: None }),
                "not spoken: reserved bits, ignored"
            );
            assert_eq!(
                Vxlan::parse(&bytes, LINUX),
                Err(Invalid::ReservedBits),
                "not spoken: reserved bits, refused"
            );
        }
        assert_eq!(
            Vxlan::parse(&[0x08, 0, 0x12, 0x34, 0, 0, 7, 0], LINUX_GBP).unwrap().gbp,
            None,
            "an identifier without the G bit"
        );
    }

    #[test]
    fn every_reserved_bit_is_ignored_or_refused_as_the_rules_say() {
        // RFC 7348 §5: "The other 7 bits (designated "R") are reserved fields and MUST be set to zero on transmission and ignored on receipt."
        // "Reserved fields (24 bits and 8 bits): MUST be set to zero on transmission and ignored on receipt."
        let plain = u64::from_be_bytes([0x08, 0, 0, 0, 1, 2, 3, 0]);
        let mut reserved = 0;
        for bit in (0..64).map(|n| 1u64 << n) {
            let bytes = (plain ^ bit).to_be_bytes();
            if bit == I {
                for rules in [RFC, LINUX, LINUX_GBP] {
                    assert_eq!(Vxlan::parse(&bytes, rules), Err(Invalid::NoVniFlag));
                }
            } else if bit & VNI != 0 {
                let other = vni(0x010203 ^ (bit >> 8) as u32);
                assert_eq!(Vxlan::parse(&bytes, LINUX), Ok(Vxlan { vni: other, gbp: None }), "{bit:#x}");
            } else {
                reserved += 1;
                let header = Vxlan { vni: vni(0x010203), gbp: None };
                assert_eq!(Vxlan::parse(&bytes, RFC), Ok(header), "{bit:#x}");
                assert_eq!(Vxlan::parse(&bytes, LINUX), Err(Invalid::ReservedBits), "{bit:#x}");
                assert_eq!(Vxlan::parse(&bytes, LINUX_GBP).is_ok(), bit & GBP != 0, "{bit:#x}");
            }
        }
        assert_eq!(reserved, 7 + 24 + 8);
    }

    #[test]
    fn a_header_that_is_cut_off_is_truncated() {
        for n in 0..LEN {
            assert_eq!(
                Vxlan::parse(&[0x08, 0, 0, 0, 0, 0, 1, 0][..n], RFC),
                Err(Invalid::Truncated),
                "{n} octets"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            number in 0..=Vni::MAX, group: u16, dont_learn: bool, applied: bool, policy: bool, rest: Vec<u8>,
        ) {
            let header =
                Vxlan { vni: vni(number), gbp: policy.then_some(Gbp { group, dont_learn, applied }) };
            let mut bytes = header.to_bytes().to_vec();
            bytes.extend(rest);
            for reserved in [Reserved::Ignore, Reserved::Refuse] {
                prop_assert_eq!(Vxlan::parse(&bytes, Rules { reserved, gbp: true }), Ok(header));
            }
        }

        #[test]
        fn whatever_linux_takes_the_rfc_takes_alike(bytes: [u8; LEN], gbp: bool) {
            if let Ok(header) = Vxlan::parse(&bytes, Rules { reserved: Reserved::Refuse, gbp }) {
                prop_assert_eq!(Vxlan::parse(&bytes, Rules { reserved: Reserved::Ignore, gbp }), Ok(header));
            }
        }
    }
}
