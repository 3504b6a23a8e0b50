//! Watching the path decide: what `tapwayctl trace` is made of, and nothing at all in the dataplane.

use super::TxFrame;
use crate::{
    bridge::{Admitted, Class},
    counters::DropReason,
    fdb::{Dest, EntryKind, Fdb, Hashed, Learn, LearnRefusal},
    index::PortIdx,
    wire::MacAddr,
};

/// One decision on one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It may enter.
    Admitted(Admitted),
    /// Its source address was (or would be) learned.
    Learned(Learn),
    /// Its destination is known.
    Found(Dest),
    /// It goes to the members of its VLAN that take this class.
    Flooded(Class),
    /// It asked for a known neighbour, and the switch answered.
    Answered {
        /// The address the answer gave.
        neighbour: MacAddr,
    },
    /// A copy leaves.
    Planned {
        /// The VLAN it is in.
        vlan: u16,
        /// Whether it leaves with a tag.
        tagged: bool,
        /// The entry of the plan.
        out: TxFrame,
    },
    /// It does not leave, or a copy of it does not.
    Dropped {
        /// Why.
        reason: DropReason,
        /// The port that counts it.
        port: PortIdx,
    },
}

/// Somebody who watches.
pub trait Observer {
    /// Whether the path only tells what it would do: it learns nothing and counts nothing.
    const DRY: bool;

    /// The path has decided `step` on the frame in `slot`.
    fn observe(&mut self, slot: u8, step: Step);
}

/// Nobody watches; costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Observer for Silent {
    const DRY: bool = false;

    #[inline(always)]
    fn observe(&mut self, _: u8, _: Step) {}
}

/// Remembers every step of a dry run.
impl Observer for Vec<Step> {
    const DRY: bool = true;

    fn observe(&mut self, _: u8, step: Step) {
        self.push(step);
    }
}

/// What learning would answer, without learning. A full table is not foreseen, as who yields depends on all others, nor that a move is
/// one too many.
#[derive(Clone, Copy, Debug)]
pub struct Foresight;

impl Foresight {
    /// The answer for a station with this key that is heard at `here`, which may hold `port_limit` dynamic entries (0 = no limit).
    pub fn of(fdb: &Fdb, key: &Hashed, here: Dest, port_limit: u32) -> Learn {
        let at_limit = || port_limit != 0 && fdb.port_len(here.port) >= port_limit as usize;
        match fdb.get(key.key()) {
            None if at_limit() => Learn::Refused(LearnRefusal::PortLimit),
            None => Learn::New,
            Some(entry) if entry.dest == here => Learn::Known,
            Some(entry) if entry.kind == EntryKind::Sticky => Learn::Refused(LearnRefusal::Sticky),
            Some(entry) if entry.damped => Learn::Refused(LearnRefusal::Damped),
            Some(entry) if entry.kind == EntryKind::Dynamic && entry.dest.port != here.port && at_limit() => {
                Learn::Refused(LearnRefusal::PortLimit)
            }
            Some(entry) => Learn::Moved { from: entry.dest },
        }
    }
}
