//! Frames on a stream of octets, as QEMU's `-netdev stream` and passt write them: a length, then the frame.
//!
//! The length has four octets in network byte order and does not count itself (`net_stream_receive` in QEMU's net/stream.c,
//! `net_fill_rstate` in net/net.c). There is no virtio header.
//! Nothing in the stream marks where a frame begins: who meets a length that nobody can have meant has lost its place for good.

/// Octets of the length in front of each frame.
pub const PREFIX_LEN: usize = 4;
/// The longest frame that QEMU passes on (`NET_BUFSIZE`, include/net/net.h): what a guest gives it beyond that is cut off there.
/// passt stops at 65,535 octets (`ETH_MAX_MTU`).
pub const FRAME_MAX: usize = 4096 + 65536;

/// What stands at the beginning of octets that have been received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A frame, of any length up to [`FRAME_MAX`]; an empty one too. It takes [`PREFIX_LEN`] octets more than it has.
    Frame(&'a [u8]),
    /// The beginning of a frame, or nothing.
    Incomplete,
    /// A length beyond [`FRAME_MAX`]: not the length of a frame.
    Absurd(u32),
}

/// What stands at the beginning of `received`.
#[inline]
pub fn next(received: &[u8]) -> Next<'_> {
    let Some((prefix, rest)) = received.split_first_chunk() else { return Next::Incomplete };
    let announced = u32::from_be_bytes(*prefix);
    let len = announced as usize;
    if len > FRAME_MAX {
        return Next::Absurd(announced);
    }
    rest.get(..len).map_or(Next::Incomplete, Next::Frame)
}

/// What stands in front of a frame of `len` octets.
#[inline]
pub const fn prefix(len: usize) -> [u8; PREFIX_LEN] {
    (len as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_where_all_of_it_has_come() {
        let mut stream = prefix(14).to_vec();
        assert_eq!(stream, [0, 0, 0, 14]);
        stream.extend_from_slice(&[7; 14]);
        stream.push(0);
        assert_eq!(next(&stream), Next::Frame(&[7; 14]));
        for len in 0..PREFIX_LEN + 14 {
            assert_eq!(next(&stream[..len]), Next::Incomplete, "{len} octets");
        }
    }

    #[test]
    fn lengths_at_the_edges_are_frames_and_those_beyond_are_absurd() {
        assert_eq!(next(&prefix(0)), Next::Frame(&[]));
        let longest = [&prefix(FRAME_MAX)[..], &[1; FRAME_MAX]].concat();
        assert_eq!(next(&longest), Next::Frame(&[1; FRAME_MAX]));
        assert_eq!(next(&prefix(FRAME_MAX + 1)), Next::Absurd(FRAME_MAX as u32 + 1));
        assert_eq!(next(&[0xff; 4]), Next::Absurd(u32::MAX));
        assert_eq!(next(b"GET / HTTP/1.1"), Next::Absurd(0x4745_5420));
    }
}
