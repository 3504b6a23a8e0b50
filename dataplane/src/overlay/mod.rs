//! Frames of a bridge inside datagrams of the network below it.
//! Knows neither forwarding database nor VLANs.

pub mod too_big;
