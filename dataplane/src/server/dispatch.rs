//! From a message to its replies: envelopes, `org.varlink.service`, `oneway`, `more`.
//!
//! Pure but for the [`Control`] it asks: bytes in, bytes out, time as an argument.

use std::{
    borrow::Cow,
    io::Write,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::framing::Outbox;
use crate::api::{Call, CallError, Control, DESCRIPTION, INTERFACE, PROTOCOL_VERSION, Reply, Request};

/// Entries of an FDB page where the client does not say.
const PAGE: u32 = 1024;
/// Entries of an FDB page at most: with about 150 octets each, a page holds the control thread for milliseconds.
const MAX_PAGE: u32 = 8192;

const SERVICE: &str = "org.varlink.service";

/// What follows a message.
#[derive(Debug)]
pub(super) enum Flow {
    /// The next message.
    Done,
    /// More replies.
    Stream(Stream),
    /// Nothing: the client does not speak the protocol.
    Close,
}

/// A call that replies more than once.
#[derive(Debug)]
pub(super) struct Stream {
    request: Request,
    /// For a call that repeats: how often, and when next. A call without goes page by page, as fast as the client reads.
    beat: Option<(Duration, Instant)>,
}

impl Stream {
    /// When it replies next; `None` means as soon as the client reads.
    pub(super) fn due(&self) -> Option<Instant> {
        self.beat.map(|(_, at)| at)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due().is_none_or(|at| at <= now)
    }

    /// Makes one reply; false after the last.
    pub(super) fn reply(&mut self, now: Instant, out: &mut Outbox, control: &mut dyn Control) -> bool {
        let reply = match control.call(self.request.clone()) {
            Ok(reply) => reply,
            Err(refusal) => {
                let (error, parameters) = refusal.to_varlink();
                Failure { error: error.into(), parameters }.push(out);
                return false;
            }
        };
        let more = match (&mut self.beat, &mut self.request, &reply) {
            (Some((every, at)), request, reply) => {
                if let (Request::Monitor { after }, Reply::Events { next, .. }) = (request, reply) {
                    *after = Some(*next);
                }
                *at = now + *every;
                true
            }
            (None, Request::FdbList { cursor, .. }, Reply::Fdb { next, .. }) => {
                *cursor = *next;
                next.is_some()
            }
            _ => false,
        };
        push(out, more, &reply) && more
    }
}

/// An error reply.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    error: Cow<'static, str>,
    parameters: Value,
}

impl Failure {
    /// An error of the interface `io.tapway`.
    pub(super) fn tapway(name: &str, parameters: Value) -> Self {
        Self { error: format!("{INTERFACE}.{name}").into(), parameters }
    }

    fn service(name: &str, parameters: Value) -> Self {
        Self { error: format!("{SERVICE}.{name}").into(), parameters }
    }

    pub(super) fn push(&self, out: &mut Outbox) {
        if let Err(error) = out.push(self) {
            tracing::error!(%error, "an error reply cannot be written as JSON");
        }
    }

    /// Sends it to a client that is not let in. The socket's buffer is empty, so that it takes the few octets at once.
    pub(super) fn send_last(&self, stream: &mut impl Write) {
        if let Ok(mut message) = serde_json::to_vec(self) {
            message.push(0);
            let _ = stream.write(&message); // The client may be gone already, and is to go in any case.
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let message = error.to_string();
        match error {
            CallError::MethodNotFound(method) => Self::service("MethodNotFound", json!({ "method": method })),
            CallError::InvalidParameter { parameter, .. } => {
                Self::service("InvalidParameter", json!({ "parameter": parameter, "message": message }))
            }
        }
    }
}

/// Answers one message.
pub(super) fn answer(message: &[u8], now: Instant, out: &mut Outbox, control: &mut dyn Control) -> Flow {
    let envelope: varlink::Request<'_> = match serde_json::from_slice(message) {
        Ok(envelope) => envelope,
        Err(e) => {
            let reason = e.to_string();
            let message = format!("the request is no Varlink call: {reason}; the connection is closed");
            Failure::tapway("Malformed", json!({ "reason": reason, "message": message })).push(out);
            return Flow::Close;
        }
    };
    let mut unheard = Outbox::default();
    let oneway = envelope.oneway.unwrap_or(false);
    let out = if oneway { &mut unheard } else { out };
    let more = envelope.more.unwrap_or(false) && !oneway;
    match call(envelope, more, now, out, control) {
        Ok(Some(stream)) => Flow::Stream(stream),
        Ok(None) => Flow::Done,
        Err(failure) => {
            failure.push(out);
            Flow::Done
        }
    }
}

fn call(
    envelope: varlink::Request<'_>,
    more: bool,
    now: Instant,
    out: &mut Outbox,
    control: &mut dyn Control,
) -> Result<Option<Stream>, Failure> {
    let (interface, method) = envelope.method.rsplit_once('.').unwrap_or((&envelope.method, ""));
    let parameters = envelope.parameters.unwrap_or(Value::Null);
    if envelope.upgrade.unwrap_or(false) {
        return Err(Failure::service("MethodNotImplemented", json!({ "method": envelope.method })));
    }
    match (interface, method) {
        (SERVICE, _) => push(out, false, &service(method, &parameters)?),
        (INTERFACE, "Protocol") => {
            push(out, false, &json!({ "protocol": PROTOCOL_VERSION, "version": env!("CARGO_PKG_VERSION") }))
        }
        (INTERFACE, _) => return request(method, parameters, more, now, out, control),
        _ => return Err(Failure::service("InterfaceNotFound", json!({ "interface": interface }))),
    };
    Ok(None)
}

fn request(
    method: &str,
    parameters: Value,
    more: bool,
    now: Instant,
    out: &mut Outbox,
    control: &mut dyn Control,
) -> Result<Option<Stream>, Failure> {
    let Call { mut request, interval } = Call::from_varlink(method, parameters)?;
    if interval.is_some() && !more {
        let problem = "is for calls with \"more\"".to_owned();
        return Err(CallError::InvalidParameter { parameter: "interval_ms".to_owned(), problem }.into());
    }
    let mut pages = false;
    if let Request::FdbList { limit, .. } = &mut request {
        *limit = Some(limit.unwrap_or(PAGE).clamp(1, MAX_PAGE));
        pages = more;
    }
    let beat = interval.map(|every| (every, now));
    let mut stream = Stream { request, beat };
    if pages || beat.is_some() {
        return Ok(stream.reply(now, out, control).then_some(stream));
    }
    match control.call(stream.request) {
        Ok(reply) => {
            push(out, false, &reply);
            Ok(None)
        }
        Err(refusal) => {
            let (error, parameters) = refusal.to_varlink();
            Err(Failure { error: error.into(), parameters })
        }
    }
}

fn service(method: &str, parameters: &Value) -> Result<Value, Failure> {
    match method {
        "GetInfo" => Ok(json!({
            "vendor": "Tapway",
            "product": "tapwayd",
            "version": env!("CARGO_PKG_VERSION"),
            "url": env!("CARGO_PKG_REPOSITORY"),
            "interfaces": [SERVICE, INTERFACE],
        })),
        "GetInterfaceDescription" => match parameters["interface"].as_str() {
            Some(INTERFACE) => Ok(json!({ "description": DESCRIPTION })),
            Some(SERVICE) => {
                let service = varlink::VarlinkService::new("", "", "", "", Vec::new());
                Ok(json!({ "description": varlink::Interface::get_description(&service) }))
            }
            Some(interface) => Err(Failure::service("InterfaceNotFound", json!({ "interface": interface }))),
            None => Err(Failure::service("InvalidParameter", json!({ "parameter": "interface" }))),
        },
        _ => Err(Failure::service("MethodNotFound", json!({ "method": format!("{SERVICE}.{method}") }))),
    }
}

fn push(out: &mut Outbox, continues: bool, parameters: &impl Serialize) -> bool {
    #[derive(Serialize)]
    struct Envelope<'a, P> {
        parameters: &'a P,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        continues: bool,
    }
    match out.push(&Envelope { parameters, continues }) {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "a reply cannot be written as JSON");
            false
        }
    }
}
