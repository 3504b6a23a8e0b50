//! VLAN admission at the ingress, tags at the egress (IEEE 802.1Q-2018 §6.9, §8.6.2; 802.1ad for service tags).
//!
//! A frame is in exactly one VLAN of its bridge: 1 to 4094, or 0 for the untagged frames of ports without VLAN flags.
//! The VLAN is a number only; whether a frame wears a customer (0x8100) or a service tag (0x88a8) belongs to the frame,
//! so that a switch with nothing but trunks passes service VLANs on as they came.

use std::sync::Arc;

use crate::{
    counters::DropReason,
    wire::{EtherType, Tag, Tci, Vid, VlanList, dot1q::TAG_LEN, ethernet::ADDRS_LEN},
};

/// How a port treats tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VlanMode {
    /// Carries every VLAN unchanged; untagged frames are in VLAN 0.
    Transparent,
    /// Untagged in and out, member of one VLAN.
    Access(Vid),
    /// Tagged, except for the native VLAN.
    Trunk {
        /// The VLANs that are tagged.
        tagged: Arc<VlanList>,
        /// The VLAN of untagged frames.
        native: Option<Vid>,
    },
    /// Every frame, tagged or not, is in this service VLAN; its own tags are payload.
    Qinq(Vid),
    /// Of a tunnel with a VNI for each of these VLANs, in which frames have no tag (RFC 7348 §6.1). A frame that came by such a VNI
    /// is admitted as by an access port of its VLAN; this is about the frames of the VNI that carries the others.
    Mapped {
        /// The VLANs with a VNI of their own.
        vlans: Arc<VlanList>,
        /// A further VNI carries all other VLANs unchanged.
        rest: bool,
    },
}

/// The VLAN of a frame, and which of its octets are the tag that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// 1 to 4094, or 0.
    pub vlan: u16,
    /// Whether the outermost tag of the frame is the switch's business: it is taken off where the frame leaves untagged.
    pub wears_tag: bool,
    /// The tag with which the frame leaves where it leaves tagged; priority and drop eligibility as it came.
    pub tag: Tag,
}

/// What happens to the outermost tag of a frame on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Octets taken out after the addresses: 0 or 4.
    pub pop: u8,
    /// The tag put in their place.
    pub push: Option<Tag>,
}

impl Rewrite {
    /// The frame leaves as it came.
    pub const KEEP: Self = Self { pop: 0, push: None };

    /// By how many octets the frame grows (or shrinks).
    #[inline]
    pub const fn shift(&self) -> i16 {
        (if self.push.is_some() { TAG_LEN as i16 } else { 0 }) - self.pop as i16
    }
}

/// The outermost tag of a frame of at least 14 octets, if it has one; an error where the frame ends inside it.
#[inline]
fn outer_tag(frame: &[u8]) -> Result<Option<Tag>, DropReason> {
    let Some(&[a, b]) = frame.get(ADDRS_LEN..ADDRS_LEN + 2) else { return Err(DropReason::Runt) };
    if !EtherType(u16::from_be_bytes([a, b])).is_tag() {
        return Ok(None);
    }
    // The tag, and the type that follows it.
    match frame.get(ADDRS_LEN..ADDRS_LEN + TAG_LEN + 2) {
        Some(&[a, b, c, d, _, _]) => Ok(Some(Tag::from_bytes([a, b, c, d]))),
        _ => Err(DropReason::VlanTruncated),
    }
}

const fn customer_tag(vid: u16) -> Tag {
    Tag { tpid: EtherType::VLAN, tci: Tci(vid) }
}

impl VlanMode {
    /// In which VLAN a frame from this port is.
    ///
    /// # Errors
    /// The reason why it may not enter.
    #[inline]
    pub fn admit(&self, frame: &[u8]) -> Result<Admitted, DropReason> {
        if let Self::Qinq(vid) = self {
            let tag = Tag { tpid: EtherType::SVLAN, tci: Tci(vid.get()) };
            return Ok(Admitted { vlan: vid.get(), wears_tag: false, tag });
        }
        match outer_tag(frame)? {
            // 802.1Q-2018 table 9-2: 0xfff is reserved, 0 says priority only.
            Some(tag) if tag.tci.vid() == 0xfff => Err(DropReason::VlanReserved),
            Some(tag) if tag.tci.vid() != 0 => self.admit_tagged(tag),
            other => self.admit_untagged(other),
        }
    }

    #[inline]
    fn admit_tagged(&self, tag: Tag) -> Result<Admitted, DropReason> {
        let vlan = tag.tci.vid();
        let member = match self {
            Self::Transparent => true,
            // "Untagged in and out": a tag is refused even where it names the VLAN of the port.
            Self::Access(_) | Self::Qinq(_) => false,
            Self::Trunk { .. } => self.tags(vlan).is_some(),
            Self::Mapped { vlans, rest } => *rest && !vlans.contains(vlan),
        };
        if member { Ok(Admitted { vlan, wears_tag: true, tag }) } else { Err(DropReason::VlanNotMember) }
    }

    /// An untagged frame, or one with a priority tag (VID 0), which is treated as untagged but keeps its priority.
    #[inline]
    fn admit_untagged(&self, priority: Option<Tag>) -> Result<Admitted, DropReason> {
        let vlan = match self {
            // The priority tag is left alone: only transparent ports are in VLAN 0.
            Self::Transparent | Self::Mapped { rest: true, .. } => {
                return Ok(Admitted { vlan: 0, wears_tag: false, tag: customer_tag(0) });
            }
            Self::Access(vid) | Self::Qinq(vid) => vid.get(),
            Self::Trunk { native: Some(vid), .. } => vid.get(),
            Self::Trunk { native: None, .. } | Self::Mapped { rest: false, .. } => {
                return Err(DropReason::NoNativeVlan);
            }
        };
        let tag = priority.map_or(customer_tag(vlan), |tag| Tag { tci: tag.tci.with_vid(vlan), ..tag });
        Ok(Admitted { vlan, wears_tag: priority.is_some(), tag })
    }

    /// Whether frames of `vlan` leave by this port with a tag; `None` where the port is not in it.
    #[inline]
    pub fn tags(&self, vlan: u16) -> Option<bool> {
        match self {
            Self::Transparent => Some(vlan != 0),
            Self::Access(vid) | Self::Qinq(vid) => (vid.get() == vlan).then_some(false),
            Self::Trunk { native: Some(vid), .. } if vid.get() == vlan => Some(false),
            Self::Trunk { tagged, .. } => tagged.contains(vlan).then_some(true),
            Self::Mapped { vlans, .. } if vlans.contains(vlan) => Some(false),
            Self::Mapped { rest, .. } => rest.then_some(vlan != 0),
        }
    }

    /// The VLANs that this mode treats in another way than those it does not name.
    pub fn named(&self) -> impl Iterator<Item = u16> + '_ {
        let (one, list) = match self {
            Self::Transparent => (None, None),
            Self::Access(vid) | Self::Qinq(vid) => (Some(*vid), None),
            Self::Trunk { tagged, native } => (*native, (!tagged.is_all()).then_some(tagged)),
            Self::Mapped { vlans, .. } => (None, Some(vlans)),
        };
        one.into_iter().chain(list.into_iter().flat_map(|l| l.iter())).map(Vid::get)
    }
}

impl Admitted {
    /// What happens to the tag where the frame leaves with (`tagged`) or without one.
    #[inline]
    pub fn rewrite(&self, tagged: bool, frame: &[u8]) -> Rewrite {
        match (self.wears_tag, tagged) {
            (false, false) => Rewrite::KEEP,
            (false, true) => Rewrite { pop: 0, push: Some(self.tag) },
            (true, false) => Rewrite { pop: TAG_LEN as u8, push: None },
            // A priority tag is replaced by one with the VLAN; any other stays as it is.
            (true, true) if frame.get(ADDRS_LEN..ADDRS_LEN + TAG_LEN) == Some(&self.tag.to_bytes()) => {
                Rewrite::KEEP
            }
            (true, true) => Rewrite { pop: TAG_LEN as u8, push: Some(self.tag) },
        }
    }

    /// Where the type of the payload stands: behind the switch's own tag, before any tag of the customer.
    #[inline]
    pub const fn payload_type_at(&self) -> usize {
        if self.wears_tag { ADDRS_LEN + TAG_LEN } else { ADDRS_LEN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tags: &[[u8; 4]]) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        tags.iter().for_each(|t| f.extend(t));
        f.extend([0x08, 0x00, 1, 2, 3, 4]);
        f
    }

    fn c(vid: u16) -> [u8; 4] {
        customer_tag(vid).to_bytes()
    }

    fn trunk(list: &str, native: Option<u16>) -> VlanMode {
        VlanMode::Trunk { tagged: Arc::new(list.parse().unwrap()), native: native.and_then(Vid::new) }
    }

    fn access(vid: u16) -> VlanMode {
        VlanMode::Access(Vid::new(vid).unwrap())
    }

    #[test]
    fn each_mode_admits_what_the_contract_says() {
        use DropReason::{NoNativeVlan, VlanNotMember, VlanReserved, VlanTruncated};
        let qinq = VlanMode::Qinq(Vid::new(9).unwrap());
        for (mode, tags, vlan) in [
            (VlanMode::Transparent, vec![], Ok(0)),
            (VlanMode::Transparent, vec![c(0)], Ok(0)),
            (VlanMode::Transparent, vec![c(7)], Ok(7)),
            (VlanMode::Transparent, vec![c(4095)], Err(VlanReserved)),
            (access(10), vec![], Ok(10)),
            (access(10), vec![c(0)], Ok(10)),
            (access(10), vec![c(10)], Err(VlanNotMember)),
            (access(10), vec![c(11)], Err(VlanNotMember)),
            (trunk("10,20", None), vec![c(10)], Ok(10)),
            (trunk("10,20", None), vec![c(11)], Err(VlanNotMember)),
            (trunk("10,20", None), vec![], Err(NoNativeVlan)),
            (trunk("10,20", None), vec![c(0)], Err(NoNativeVlan)),
            (trunk("10,20", Some(1)), vec![], Ok(1)),
            (trunk("10,20", Some(1)), vec![c(0)], Ok(1)),
            (trunk("10,20", Some(1)), vec![c(1)], Ok(1)),
            (trunk("all", None), vec![c(4094)], Ok(4094)),
            (trunk("10", None), vec![[0x88, 0xa8, 0, 10], c(77)], Ok(10)),
            (qinq.clone(), vec![], Ok(9)),
            (qinq.clone(), vec![c(4095)], Ok(9)),
            (qinq, vec![[0x88, 0xa8, 0, 10], c(77)], Ok(9)),
        ] {
            assert_eq!(mode.admit(&frame(&tags)).map(|a| a.vlan), vlan, "{mode:?} {tags:x?}");
        }
        let mut cut = frame(&[]);
        cut[12..14].copy_from_slice(&[0x81, 0]);
        cut.truncate(17);
        assert_eq!(access(10).admit(&cut), Err(VlanTruncated));
    }

    /// Octets of the frame after the rewrite.
    fn out(mode: &VlanMode, tags: &[[u8; 4]], tagged: bool) -> Vec<u8> {
        let f = frame(tags);
        let rewrite = mode.admit(&f).unwrap().rewrite(tagged, &f);
        let push = rewrite.push.map(Tag::to_bytes);
        [&f[..12], push.as_ref().map_or(&[][..], |p| p), &f[12 + usize::from(rewrite.pop)..]].concat()
    }

    #[test]
    fn tags_are_pushed_popped_and_rewritten_with_priority_kept() {
        assert_eq!(out(&access(10), &[], true), frame(&[c(10)]));
        assert_eq!(out(&trunk("10", None), &[[0x81, 0, 0xb0, 10]], false), frame(&[]));
        assert_eq!(out(&trunk("10", None), &[[0x81, 0, 0xb0, 10]], true), frame(&[[0x81, 0, 0xb0, 10]]));
        assert_eq!(
            out(&access(10), &[[0x81, 0, 0xb0, 0]], true),
            frame(&[[0x81, 0, 0xb0, 10]]),
            "priority tag gets the VLAN"
        );
        assert_eq!(out(&access(10), &[[0x81, 0, 0xb0, 0]], false), frame(&[]));
        let qinq = VlanMode::Qinq(Vid::new(9).unwrap());
        assert_eq!(
            out(&qinq, &[c(7)], true),
            frame(&[[0x88, 0xa8, 0, 9], c(7)]),
            "the customer's tag is payload"
        );
        assert_eq!(out(&qinq, &[c(7)], false), frame(&[c(7)]));
        assert_eq!(
            out(&VlanMode::Transparent, &[c(0)], false),
            frame(&[c(0)]),
            "a priority tag passes a transparent port"
        );
    }

    #[test]
    fn the_native_vlan_leaves_a_trunk_untagged() {
        assert_eq!(trunk("10,20", Some(10)).tags(10), Some(false));
        assert_eq!(trunk("10,20", Some(10)).tags(20), Some(true));
        assert_eq!(trunk("10,20", Some(5)).tags(5), Some(false), "also where the list does not name it");
        assert_eq!(trunk("10,20", None).tags(0), None);
        assert_eq!(VlanMode::Transparent.tags(0), Some(false));
        assert_eq!(VlanMode::Transparent.tags(20), Some(true));
    }
}
