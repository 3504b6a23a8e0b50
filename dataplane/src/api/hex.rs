//! Frames as text: two hexadecimal digits an octet.
//!
//! Colons and blanks are ignored on the way in, so that what tcpdump, wireshark and `ip link` print can be pasted.

use std::fmt::Write as _;

/// A text that is no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// A character that does not belong.
    #[error("'{0}' is not a hexadecimal digit")]
    Digit(char),
    /// The last octet has one digit.
    #[error("has an odd number of digits")]
    Odd,
}

/// The octets that `text` writes.
///
/// # Errors
/// A character that is no digit, or a digit left over.
pub fn decode(text: &str) -> Result<Vec<u8>, HexError> {
    let mut octets = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for c in text.chars().filter(|c| *c != ':' && !c.is_ascii_whitespace()) {
        let digit = c.to_digit(16).ok_or(HexError::Digit(c))? as u8;
        match high.take() {
            None => high = Some(digit),
            Some(high) => octets.push(high << 4 | digit),
        }
    }
    if high.is_some() { Err(HexError::Odd) } else { Ok(octets) }
}

/// `octets` as text without separators.
pub fn encode(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_prints_as_it_parses_and_separators_are_ignored() {
        assert_eq!(encode(&decode("02:00:00:00:00:01 FFff\n").unwrap()), "020000000001ffff");
        assert_eq!(decode("0x00"), Err(HexError::Digit('x')));
        assert_eq!(decode("000"), Err(HexError::Odd));
        assert_eq!(decode(""), Ok(vec![]));
    }
}
