//! The members of each VLAN of a bridge: to whom a frame without a known destination goes.

use crate::index::PortIdx;

/// Why a frame goes to more than one port (BUM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Sent to ff:ff:ff:ff:ff:ff.
    Broadcast,
    /// Sent to another group address.
    Multicast,
    /// Sent to a station that the forwarding database does not know.
    UnknownUnicast,
}

/// A port in a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The port.
    pub port: PortIdx,
    /// Whether frames of the VLAN leave it with a tag.
    pub tagged: bool,
    /// Which classes it takes: a bit for each, see [`Member::takes`].
    pub classes: u8,
    /// It exchanges frames only with members that are not isolated.
    pub isolated: bool,
}

impl Member {
    /// The bits of the classes a port takes.
    pub const fn classes(broadcast: bool, multicast: bool, unknown_unicast: bool) -> u8 {
        (broadcast as u8) << Class::Broadcast as u8
            | (multicast as u8) << Class::Multicast as u8
            | (unknown_unicast as u8) << Class::UnknownUnicast as u8
    }

    /// Whether frames of this class are flooded to the port.
    #[inline]
    pub const fn takes(&self, class: Class) -> bool {
        self.classes & 1 << class as u8 != 0
    }
}

/// The members of all VLANs of a bridge. VLANs that no port names share one list.
#[derive(Clone, Debug)]
pub struct Members {
    /// For each VLAN its list; list 0 is that of the VLANs nobody names.
    list_of: Box<[u16]>,
    lists: Vec<Box<[Member]>>,
}

impl Default for Members {
    fn default() -> Self {
        Self { list_of: vec![0; 4096].into(), lists: vec![Box::new([])] }
    }
}

impl Members {
    /// The lists for ports of which `member(port, vlan)` tells how they are in a VLAN;
    /// `named` are the VLANs that may differ from the others. VLAN 0 always has a list of its own.
    pub fn new<'a, P: 'a>(
        ports: &'a [P],
        named: impl Iterator<Item = u16>,
        member: impl Fn(&'a P, u16) -> Option<Member>,
    ) -> Self {
        let list = |vlan| ports.iter().filter_map(|p| member(p, vlan)).collect();
        let mut list_of: Box<[u16]> = vec![u16::MAX; 4096].into();
        let mut lists = Vec::from([Box::default()]);
        for vlan in named.chain([0]) {
            let slot = &mut list_of[usize::from(vlan)];
            if *slot == u16::MAX {
                *slot = lists.len() as u16;
                lists.push(list(vlan));
            }
        }
        if let Some(unnamed) = (1..4095).find(|&v| list_of[usize::from(v)] == u16::MAX) {
            lists[0] = list(unnamed);
        }
        list_of.iter_mut().filter(|slot| **slot == u16::MAX).for_each(|slot| *slot = 0);
        Self { list_of, lists }
    }

    /// The members of `vlan` (0 to 4095).
    #[inline]
    pub fn of(&self, vlan: u16) -> &[Member] {
        &self.lists[usize::from(self.list_of[usize::from(vlan & 0xfff)])]
    }
}
