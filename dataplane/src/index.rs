//! Dense numbers that the packet path uses where people use names.

/// A port's place in the tables of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortIdx(pub u16);

/// A bridge's place in the tables of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeIdx(pub u16);

/// A remote tunnel endpoint's place in the tables of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteIdx(pub u16);

/// A tunnel endpoint of ours, a VTEP: its place in the tables of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VtepIdx(pub u16);

impl PortIdx {
    /// As an array index.
    #[inline]
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

impl BridgeIdx {
    /// As an array index.
    #[inline]
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

impl RemoteIdx {
    /// As an array index.
    #[inline]
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

impl VtepIdx {
    /// As an array index.
    #[inline]
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}
