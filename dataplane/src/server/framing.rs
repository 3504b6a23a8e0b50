//! Messages on a stream: JSON ended by a zero octet, both ways.
//!
//! Owns the bytes that wait on either side of a connection. [`Inbox`] holds at most one unfinished message up to the
//! limit and looks at each octet once; [`Outbox`] keeps what the peer has not taken yet.

use std::io::{self, Read, Write};

/// Octets asked of the socket at once.
const CHUNK: usize = 16 << 10;
/// Memory kept between messages.
const KEEP: usize = 64 << 10;

/// A message is longer than the limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What arrived.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    scanned: usize,
}

impl Inbox {
    /// The next whole message, without its zero octet.
    pub(super) fn next(&mut self, limit: usize) -> Result<Option<&[u8]>, TooLong> {
        let end = self.bytes[self.scanned..].iter().position(|&b| b == 0).map(|at| self.scanned + at);
        if end.unwrap_or(self.bytes.len()) - self.start > limit {
            return Err(TooLong);
        }
        let Some(end) = end else {
            self.scanned = self.bytes.len();
            return Ok(None);
        };
        let start = std::mem::replace(&mut self.start, end + 1);
        self.scanned = self.start;
        Ok(Some(&self.bytes[start..end]))
    }

    /// Octets that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Reads once; 0 is the end of the stream.
    pub(super) fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        self.bytes.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
        let len = self.bytes.len();
        self.bytes.resize(len + CHUNK, 0);
        let read = source.read(&mut self.bytes[len..]);
        self.bytes.truncate(len + *read.as_ref().unwrap_or(&0));
        read
    }
}

/// What the peer has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Outbox {
    /// Appends a message.
    pub(super) fn push(&mut self, message: &impl serde::Serialize) -> serde_json::Result<()> {
        let len = self.bytes.len();
        let done = serde_json::to_writer(&mut self.bytes, message);
        if done.is_ok() {
            self.bytes.push(0);
        } else {
            self.bytes.truncate(len);
        }
        done
    }

    /// Octets that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Writes until the peer takes no more; says how much it took.
    pub(super) fn flush(&mut self, sink: &mut impl Write) -> io::Result<usize> {
        let before = self.start;
        while self.start < self.bytes.len() {
            match sink.write(&self.bytes[self.start..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.start += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        let taken = self.start - before;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
            self.start = 0;
        } else if self.start > KEEP {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let stream = b"{\"a\":1}\0\0{}\0rest";
        for cut in 1..stream.len() {
            let (mut inbox, mut out) = (Inbox::default(), Vec::new());
            for piece in stream.chunks(cut) {
                inbox.fill(&mut &piece[..]).unwrap();
                while let Some(m) = inbox.next(100).unwrap() {
                    out.push(m.to_vec());
                }
            }
            assert_eq!(out, [&b"{\"a\":1}"[..], b"", b"{}"], "cut at {cut}");
            assert_eq!(inbox.len(), 4);
        }
    }

    #[test]
    fn a_message_above_the_limit_is_refused_with_and_without_its_end() {
        for message in [&b"123456"[..], b"123456\0"] {
            let mut inbox = Inbox::default();
            inbox.fill(&mut &message[..]).unwrap();
            assert_eq!(inbox.next(5), Err(TooLong));
        }
        let mut inbox = Inbox::default();
        inbox.fill(&mut &b"12345\0"[..]).unwrap();
        assert_eq!(inbox.next(5), Ok(Some(&b"12345"[..])));
    }

    #[test]
    fn what_the_peer_does_not_take_stays_in_order() {
        struct Narrow(Vec<u8>, usize);
        impl Write for Narrow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.1 == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let n = bytes.len().min(self.1);
                self.1 -= n;
                self.0.extend_from_slice(&bytes[..n]);
                Ok(n)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut outbox, mut sink) = (Outbox::default(), Narrow(Vec::new(), 0));
        let long = "x".repeat(2 * KEEP);
        outbox.push(&long).unwrap();
        assert_eq!(outbox.flush(&mut sink).unwrap(), 0);
        outbox.push(&1).unwrap();
        while outbox.len() > 0 {
            sink.1 = 50_000;
            assert!(outbox.flush(&mut sink).unwrap() > 0);
        }
        assert_eq!(sink.0, [b"\"", long.as_bytes(), b"\"\x001\0"].concat());
    }
}
