//! The headers of a super-frame, and whether they are what its virtio header says.

use etherparse::TcpHeaderSlice;

use crate::{
    counters::DropReason,
    frame::{Checksum, Gso, GsoKind, Offload},
    wire::layers::{Fragment, Layers, Version},
};

/// The most octets in front of the payload of a super-frame: Ethernet with four tags (30), IPv6 with 126 octets of extension headers or
/// IPv4 with all options (166), TCP with all options (60).
pub const MAX_HEADERS: usize = 256;

/// IP protocol number of TCP.
pub(super) const TCP: u8 = 6;
/// IP protocol number of UDP.
pub(super) const UDP: u8 = 17;
/// Where the checksum stands in a TCP header (RFC 9293 §3.1).
pub(super) const TCP_CHECKSUM: usize = 16;
/// Where the checksum stands in a UDP header (RFC 768).
pub(super) const UDP_CHECKSUM: usize = 6;
/// Octets of a UDP header (RFC 768).
pub(super) const UDP_LEN: usize = 8;

/// Where the headers of a super-frame stand, in octets from the start of the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headers {
    pub(super) version: Version,
    pub(super) l3: usize,
    pub(super) l4: usize,
    /// Where the payload begins; at most [`MAX_HEADERS`].
    pub(super) payload: usize,
    /// Where the IP packet ends.
    pub(super) end: usize,
}

impl Headers {
    /// The headers of a super-frame, or `None` where they do not fit `gso` and `csum`.
    #[inline]
    pub(super) fn of(frame: &[u8], gso: &Gso, csum: Checksum) -> Option<Self> {
        let Layers { l3, ip: Some(ip), .. } = Layers::parse(frame).ok()? else { return None };
        let protocol = match (gso.kind, ip.version) {
            (GsoKind::TcpV4, Version::V4) | (GsoKind::TcpV6, Version::V6) => TCP,
            (GsoKind::Udp, _) => UDP,
            _ => return None,
        };
        let transport = frame.get(ip.l4..ip.end)?;
        let (len, checksum) = if protocol == TCP {
            (TcpHeaderSlice::from_slice(transport).ok()?.slice().len(), TCP_CHECKSUM)
        } else {
            (UDP_LEN, UDP_CHECKSUM)
        };
        let fits = gso.size > 0
            && ip.protocol == protocol
            && ip.fragment == Fragment::No
            && len <= transport.len()
            && ip.l4 + len <= MAX_HEADERS
            && matches!(csum, Checksum::Partial { start, offset }
                if usize::from(start) == ip.l4 && usize::from(offset) == checksum);
        fits.then_some(Self { version: ip.version, l3, l4: ip.l4, payload: ip.l4 + len, end: ip.end })
    }

    /// The octets of the longest IP packet that the super-frame is made of.
    #[inline]
    pub(super) fn l3_len(&self, gso: &Gso) -> usize {
        self.payload - self.l3 + usize::from(gso.size).min(self.end - self.payload)
    }
}

/// Whether a partial checksum is that of TCP or UDP, whose field nobody reads but the receiver's own check of it.
/// Any other may stand on an address or a port, and change it when it is finished. The frame's type, or next tag, stands at `type_at`.
pub fn is_transport_checksum(frame: &[u8], type_at: usize, start: u16, offset: u16) -> bool {
    let Ok(Layers { ip: Some(ip), .. }) = Layers::parse_at(frame, type_at) else { return false };
    let field = match ip.protocol {
        TCP => TCP_CHECKSUM,
        UDP => UDP_CHECKSUM,
        _ => return false,
    };
    ip.fragment == Fragment::No && usize::from(start) == ip.l4 && usize::from(offset) == field
}

/// Whether a frame that says it is a super-frame is one that can be split, and if so, the octets of the longest IP packet that it
/// is made of: what is compared with an MTU. `None` for a frame that is no super-frame, which is not looked at.
///
/// Called once for every frame that comes in, so that whatever the switch passes on as a super-frame can be split later.
#[inline]
pub fn validate(frame: &[u8], offload: &Offload) -> Result<Option<usize>, DropReason> {
    let Some(gso) = &offload.gso else { return Ok(None) };
    match Headers::of(frame, gso, offload.csum) {
        Some(headers) => Ok(Some(headers.l3_len(gso))),
        None => Err(DropReason::GsoMalformed),
    }
}
