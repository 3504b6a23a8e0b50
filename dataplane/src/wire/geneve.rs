//! The Geneve header and its options (RFC 8926 §3.4, §3.5).
//!
//! ```text
//! |Ver|  Opt Len  |O|C|    Rsvd.  |          Protocol Type        |
//! |        Virtual Network Identifier (VNI)       |    Reserved   |
//! |                    Variable-Length Options                    |
//!
//! |          Option Class         |      Type     |R|R|R| Length  |   an option
//! |                  Variable-Length Option Data                  |
//! ```
//!
//! Options stay raw octets here: what one of them means is not known to this module, only whether somebody knows it.
//! All of them are looked at in every packet, and nothing is remembered from one to the next, because two packets of one tunnel
//! may carry different ones.

mod option;
#[cfg(test)]
mod tests;

pub use option::{GeneveOption, GeneveOptionError, MAX_OPTION_DATA, OptionsTooLong, options};

use super::Vni;

/// Octets of the header without options.
pub const LEN: usize = 8;
/// The most octets of all options: "a minimum total Geneve header size of 8 bytes and a maximum of 260 bytes" (RFC 8926 §3.4).
pub const MAX_OPTIONS: usize = 252;
/// The UDP port that IANA assigned (RFC 8926 §3.3).
pub const PORT: u16 = 6081;

/// "Ethernet itself being represented by the value 0x6558" (RFC 8926 §3.4).
const ETHERNET: u16 = 0x6558;
/// The O bit, in the second octet: "Control packet".
const CONTROL: u8 = 0x80;
/// The C bit, in the second octet: "Critical options present".
const CRITICAL: u8 = 0x40;
/// "The high-order bit of the option type indicates that this is a critical option" (RFC 8926 §3.5).
const CRITICAL_TYPE: u8 = 0x80;
/// Octets of an option before its data.
const OPTION_HEADER: usize = 4;

/// A Geneve header in front of an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geneve<'a> {
    /// The network that the frame is in.
    pub vni: Vni,
    /// Whether one of the options is critical.
    pub critical: bool,
    /// The options as they came.
    pub options: &'a [u8],
    /// Octets of the header with its options, behind which the frame begins.
    pub header_len: usize,
}

/// Why a datagram is not taken for a Geneve packet with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The datagram ends before the header or its options do.
    #[error("truncated")]
    Truncated,
    /// "Packets received by a tunnel endpoint with an unknown version MUST be dropped" (RFC 8926 §3.4).
    #[error("unknown version")]
    Version,
    /// "This packet contains a control message. … Tunnel endpoints MUST NOT forward the payload" (RFC 8926 §3.4).
    #[error("control packet")]
    Control,
    /// The payload is no Ethernet frame.
    #[error("unknown protocol type")]
    ProtocolType,
    /// "Packets in which the total length of all options is not equal to the 'Opt Len' in the base header are invalid and MUST be
    /// silently dropped" (RFC 8926 §3.5).
    #[error("option length")]
    OptionLength,
    /// An option that nobody knows has the critical bit set: the packet "MUST be dropped" (RFC 8926 §3.5).
    #[error("unknown critical option")]
    CriticalOption,
}

/// One option of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawOption<'a> {
    /// Who defines the type.
    pub class: u16,
    /// Which of the class's options it is; its highest bit says that it is critical.
    pub kind: u8,
    /// What it carries: a multiple of 4 octets, up to [`MAX_OPTION_DATA`].
    pub data: &'a [u8],
}

impl RawOption<'_> {
    /// Whether a receiver that does not know it must drop the packet.
    #[inline]
    pub const fn is_critical(&self) -> bool {
        self.kind & CRITICAL_TYPE != 0
    }
}

/// The options in `bytes` one after another; the last is an [`Invalid::OptionLength`] where it reaches beyond the end.
#[derive(Clone, Copy, Debug)]
pub struct RawOptions<'a>(&'a [u8]);

impl<'a> RawOptions<'a> {
    /// The options that stand in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for RawOptions<'a> {
    type Item = Result<RawOption<'a>, Invalid>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let option = self.0.split_first_chunk::<OPTION_HEADER>().and_then(|(header, rest)| {
            // "Length of the option, expressed in 4-byte multiples, excluding the option header"; the three bits above it
            // "MUST be ignored on receipt" (RFC 8926 §3.5).
            let &[c0, c1, kind, len] = header;
            let (data, rest) = rest.split_at_checked(usize::from(len & 0x1f) * 4)?;
            Some((RawOption { class: u16::from_be_bytes([c0, c1]), kind, data }, rest))
        });
        match option {
            Some((option, rest)) => {
                self.0 = rest;
                Some(Ok(option))
            }
            None => {
                self.0 = &[];
                Some(Err(Invalid::OptionLength))
            }
        }
    }
}

impl<'a> Geneve<'a> {
    /// The header at the start of `bytes`. `known` are the options, each its class and its type, that may be critical.
    ///
    /// The C bit is not relied on: it is set wherever an option is critical (RFC 8926 §3.5), but a packet with a critical option and
    /// without the bit is judged by the option, and the bit alone does no harm.
    #[inline]
    pub fn parse(bytes: &'a [u8], known: &[(u16, u8)]) -> Result<Self, Invalid> {
        let (header, rest) = bytes.split_first_chunk::<LEN>().ok_or(Invalid::Truncated)?;
        let &[lengths, flags, p0, p1, v0, v1, v2, reserved] = header;
        if lengths >> 6 != 0 {
            return Err(Invalid::Version);
        }
        let options = rest.get(..usize::from(lengths & 0x3f) * 4).ok_or(Invalid::Truncated)?;
        if flags & CONTROL != 0 {
            return Err(Invalid::Control);
        }
        if u16::from_be_bytes([p0, p1]) != ETHERNET {
            return Err(Invalid::ProtocolType);
        }
        let mut critical = false;
        for option in RawOptions::new(options) {
            let option = option?;
            if option.is_critical() {
                critical = true;
                if !known.contains(&(option.class, option.kind)) {
                    return Err(Invalid::CriticalOption);
                }
            }
        }
        let vni = Vni::from_high(u32::from_be_bytes([v0, v1, v2, reserved]));
        Ok(Self { vni, critical, options, header_len: LEN + options.len() })
    }

    /// Writes the header for a frame of `vni` with these options to the start of `out`, and says how many octets it has.
    ///
    /// `None` where `out` is too short, or `options` is not a sequence of options of at most [`MAX_OPTIONS`] octets as
    /// [`options`] makes it.
    #[inline]
    pub fn emit(vni: Vni, options: &[u8], out: &mut [u8]) -> Option<usize> {
        if options.len() > MAX_OPTIONS {
            return None;
        }
        let (header, rest) = out.split_first_chunk_mut::<LEN>()?;
        let space = rest.get_mut(..options.len())?;
        let mut flags = 0;
        for option in RawOptions::new(options) {
            // A critical bit in any option wants "the 'C' bit in the Geneve base header" set as well (RFC 8926 §3.5).
            if option.ok()?.is_critical() {
                flags = CRITICAL;
            }
        }
        let [_, v0, v1, v2] = vni.get().to_be_bytes();
        let [p0, p1] = ETHERNET.to_be_bytes();
        *header = [(options.len() / 4) as u8, flags, p0, p1, v0, v1, v2, 0];
        space.copy_from_slice(options);
        Some(LEN + options.len())
    }
}
