//! Octets to send, and to compare with what arrives. The program in the guests (`tests/vm/peer.rs`) has this file too.

/// Octets that repeat with a period no power of two divides, so that a lost or doubled segment shows.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut octets = vec![0; len];
    Pattern::new(seed).fill(&mut octets);
    octets
}

/// The same, part by part.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(u64);

impl Pattern {
    /// From its beginning.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next of it.
    pub(crate) fn fill(&mut self, octets: &mut [u8]) {
        for octet in octets {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *octet = (self.0 >> 56) as u8;
        }
    }
}
