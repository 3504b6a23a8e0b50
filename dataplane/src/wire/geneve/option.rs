//! An option as an operator writes it: `0102:80:00001111`.

use std::{fmt, fmt::Write as _, str::FromStr};

use serde::{Deserialize, Serialize};

use super::MAX_OPTIONS;

/// The most octets of data of one option: "The total length of each option may be between 4 and 128 bytes" (RFC 8926 §3.5).
pub const MAX_OPTION_DATA: usize = 124;

/// An option to be sent: class, type and data, all in hexadecimal as in iproute2's `geneve_opts`; a leading `0x`, with which
/// Open vSwitch writes class and type, does no harm.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct GeneveOption {
    class: u16,
    kind: u8,
    data: Box<[u8]>,
}

impl GeneveOption {
    /// The option with this data, or `None` where that is no multiple of 4 octets or more than [`MAX_OPTION_DATA`].
    pub fn new(class: u16, kind: u8, data: &[u8]) -> Option<Self> {
        let fits = data.len() <= MAX_OPTION_DATA && data.len().is_multiple_of(4);
        fits.then(|| Self { class, kind, data: data.into() })
    }

    /// Who defines the type.
    pub fn class(&self) -> u16 {
        self.class
    }

    /// Which of the class's options it is; its highest bit says that it is critical.
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// What it carries.
    pub fn data(&self) -> &[u8] {
        &self.data
    }
}

/// Options that do not fit a header together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the options take {0} octets together, each with 4 of its own; a Geneve header has room for 252")]
pub struct OptionsTooLong(usize);

/// The octets of these options, in this order, as [`emit`](super::Geneve::emit) takes them.
pub fn options(list: &[GeneveOption]) -> Result<Box<[u8]>, OptionsTooLong> {
    let mut bytes = Vec::new();
    for GeneveOption { class, kind, data } in list {
        bytes.extend(class.to_be_bytes());
        // The three reserved bits above the length "MUST be zero on transmission" (RFC 8926 §3.5).
        bytes.extend([*kind, (data.len() / 4) as u8]);
        bytes.extend(data);
    }
    if bytes.len() > MAX_OPTIONS { Err(OptionsTooLong(bytes.len())) } else { Ok(bytes.into()) }
}

impl fmt::Display for GeneveOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{:04x}:{:02x}:", self.class, self.kind);
        for octet in &self.data {
            write!(text, "{octet:02x}")?;
        }
        f.pad(&text)
    }
}

impl fmt::Debug for GeneveOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no Geneve option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no Geneve option: write CLASS:TYPE:DATA in hexadecimal, as 0102:80:00001111, \
     with a multiple of 4 octets of data up to 124"
)]
pub struct GeneveOptionError(String);

impl FromStr for GeneveOption {
    type Err = GeneveOptionError;

    fn from_str(s: &str) -> Result<Self, GeneveOptionError> {
        let option = || {
            let mut parts = s.split(':');
            let (class, kind, data) = (parts.next()?, parts.next()?, parts.next()?);
            if parts.next().is_some() {
                return None;
            }
            let data = data.strip_prefix("0x").unwrap_or(data);
            let (pairs, []) = data.as_bytes().as_chunks::<2>() else { return None };
            if pairs.len() > MAX_OPTION_DATA {
                return None; // however long the text is
            }
            let data = pairs
                .iter()
                .map(|pair| number(str::from_utf8(pair).ok()?)?.try_into().ok())
                .collect::<Option<Vec<u8>>>()?;
            let bare = |text| str::strip_prefix(text, "0x").unwrap_or(text);
            Self::new(number(bare(class))?, number(bare(kind))?.try_into().ok()?, &data)
        };
        option().ok_or_else(|| GeneveOptionError(s.chars().take(64).collect()))
    }
}

/// A number of one to four hexadecimal digits, without a sign.
fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_hexdigit()) && text.len() <= 4;
    digits.then(|| u16::from_str_radix(text, 16).ok())?
}

impl From<GeneveOption> for String {
    fn from(option: GeneveOption) -> Self {
        option.to_string()
    }
}

impl TryFrom<String> for GeneveOption {
    type Error = GeneveOptionError;

    fn try_from(s: String) -> Result<Self, GeneveOptionError> {
        s.parse()
    }
}
