//! One client.
//!
//! Owns the stream, what waits on either side of it, and the call that replies more than once.
//! A turn does a bounded amount of work and never blocks; replies leave in the order of the requests.

use std::{
    io,
    time::{Duration, Instant},
};

use mio::net::UnixStream;
use serde_json::json;

use super::{
    Limits,
    dispatch::{self, Failure, Flow, Stream},
    framing::{Inbox, Outbox},
};
use crate::api::Control;

/// Requests, and replies of a stream, that one turn answers.
const CALLS_PER_TURN: usize = 16;
/// Octets that one turn reads.
const READ_PER_TURN: usize = 256 << 10;

/// What becomes of a connection after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing to do until an event or [`Connection::deadline`].
    Wait,
    /// More to do, after the others.
    Again,
    /// Over.
    Close,
}

/// A client.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
    /// The call that still replies; requests behind it wait.
    call: Option<Stream>,
    /// The client sends no more.
    eof: bool,
    /// The last reply is in the outbox.
    closing: bool,
    /// Since when the client has taken nothing of what waits for it.
    stuck: Option<Instant>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            call: None,
            eof: false,
            closing: false,
            stuck: None,
        }
    }

    pub(super) fn source(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// When it needs a turn without an event.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let stuck = self.stuck.map(|since| since + limits.stall);
        // A stream does not go on while its client is stuck.
        stuck.or_else(|| self.call.as_ref().and_then(Stream::due))
    }

    /// Does what can be done now.
    pub(super) fn turn(&mut self, now: Instant, limits: &Limits, control: &mut dyn Control) -> Next {
        let (mut calls, mut read) = (0, 0);
        loop {
            if !self.flush(now, limits.stall) {
                return Next::Close;
            }
            if self.closing {
                return if self.outbox.len() == 0 { Next::Close } else { Next::Wait };
            }
            if self.outbox.len() > 0 && self.outbox.len() >= limits.max_output {
                return Next::Wait;
            }
            if calls >= CALLS_PER_TURN || read >= READ_PER_TURN {
                return Next::Again;
            }
            if self.call.is_some() {
                if self.continue_call(now, control) {
                    calls += 1;
                    continue;
                }
                if self.stuck.is_some() || self.inbox.len() >= READ_PER_TURN {
                    return Next::Wait;
                }
            } else {
                match self.inbox.next(limits.max_request) {
                    Ok(Some(message)) => {
                        calls += 1;
                        match dispatch::answer(message, now, &mut self.outbox, control) {
                            Flow::Done => {}
                            Flow::Stream(call) => self.call = Some(call),
                            Flow::Close => self.closing = true,
                        }
                        continue;
                    }
                    Ok(None) if self.eof => self.closing = true,
                    Ok(None) => {}
                    Err(_) => self.refuse_long(limits.max_request),
                }
                if self.closing {
                    continue;
                }
            }
            if self.eof {
                return Next::Wait;
            }
            match self.inbox.fill(&mut self.stream) {
                Ok(0) => self.eof = true,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Next::Wait,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Next::Close,
            }
        }
    }

    /// Makes the next reply of the call that replies more than once, if it is due.
    fn continue_call(&mut self, now: Instant, control: &mut dyn Control) -> bool {
        let Some(call) = &mut self.call else { return false };
        // A repeating stream skips a beat while the client has not taken the one before.
        if !call.is_due(now) || call.due().is_some() && self.outbox.len() > 0 {
            return false;
        }
        if !call.reply(now, &mut self.outbox, control) {
            self.call = None;
        }
        true
    }

    /// Writes what waits; false where the client is gone or has taken nothing for too long.
    fn flush(&mut self, now: Instant, stall: Duration) -> bool {
        let Ok(taken) = self.outbox.flush(&mut self.stream) else { return false };
        self.stuck = match self.stuck {
            _ if self.outbox.len() == 0 => None,
            Some(since) if taken == 0 => Some(since),
            _ => Some(now),
        };
        let stuck = self.stuck.is_some_and(|since| now.saturating_duration_since(since) >= stall);
        if stuck {
            tracing::warn!(octets = self.outbox.len(), "disconnected a control client that does not read");
        }
        !stuck
    }

    fn refuse_long(&mut self, limit: usize) {
        tracing::warn!(limit, "disconnected a control client: its request is too long");
        let message = format!("the request is longer than {limit} bytes; nothing was done");
        Failure::tapway("TooLarge", json!({ "limit": limit, "message": message })).push(&mut self.outbox);
        self.closing = true;
    }
}
