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

/// A local tunnel endpoint's place in the tables of a snapshot: one address and UDP port that tunnels share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VtepIdx(pub u16);

/// The number of a set of sockets by which workers send tunnelled frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxSetIdx(pub u16);

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

impl TxSetIdx {
    /// As an array index.
    #[inline]
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}
