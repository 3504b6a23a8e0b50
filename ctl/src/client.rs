//! One conversation with the daemon.
//!
//! Owns the stream, the time an answer may take, and the check that both sides speak the same protocol, which goes
//! before every request. The `varlink` crate's `sansio::Client` does the framing; its want of limits is no matter on
//! this side.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tapway_dataplane::api::{INTERFACE, PROTOCOL_VERSION, Request};
use varlink::sansio;

use crate::failure::Failure;

/// A connection on which the daemon has said that it speaks our protocol.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    wire: sansio::Client,
    path: PathBuf,
    timeout: Duration,
}

impl Client {
    pub(crate) fn connect(path: &Path, timeout: Duration) -> Result<Self, Failure> {
        let stream = UnixStream::connect(path).map_err(|e| no_daemon(path, why(&e)))?;
        let mut client = Self { stream, wire: sansio::Client::new(), path: path.to_owned(), timeout };
        client.send("Protocol", json!({}), false)?;
        let answer = match client.receive() {
            Ok((answer, _)) => answer,
            // Whoever does not know this method is no tapwayd, or one from before the first release.
            Err(Failure::Refused { error, .. }) if error.starts_with("org.varlink.service.") => Value::Null,
            Err(e) => return Err(e),
        };
        if answer["protocol"] == PROTOCOL_VERSION {
            return Ok(client);
        }
        let theirs = match (&answer["protocol"], answer["version"].as_str()) {
            (Value::Number(n), Some(version)) => {
                format!("protocol {n}: use the tapwayctl that came with tapwayd {version}")
            }
            _ => "something else; is it tapwayd's socket?".to_owned(),
        };
        Err(client
            .strange(&format!("this tapwayctl speaks protocol {PROTOCOL_VERSION}, they speak {theirs}")))
    }

    /// Asks and waits for the one answer.
    pub(crate) fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Failure> {
        self.send(request.method(), request.parameters(), false)?;
        let (answer, _) = self.receive()?;
        self.read(answer)
    }

    /// Asks and gives every answer to `each`, until the last or until `each` fails.
    pub(crate) fn stream<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        interval: Option<Duration>,
        mut each: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut parameters = request.parameters();
        if let Some(interval) = interval {
            parameters["interval_ms"] = json!(interval.as_millis() as u64);
            self.timeout += interval;
        }
        self.send(request.method(), parameters, true)?;
        loop {
            let (answer, continues) = self.receive()?;
            each(self.read(answer)?)?;
            if !continues {
                return Ok(());
            }
        }
    }

    fn send(&mut self, method: &str, parameters: Value, more: bool) -> Result<(), Failure> {
        let method = format!("{INTERFACE}.{method}");
        let mut request = varlink::Request::create(method.clone(), Some(parameters));
        request.more = more.then_some(true);
        self.wire.send_request(method, request).map_err(|e| self.strange(&e.to_string()))?;
        let _ = self.stream.set_write_timeout(Some(self.timeout)); // Only a zero timeout fails.
        while let Some(bytes) = self.wire.poll_transmit() {
            match self.stream.write_all(&bytes.payload) {
                // It may have said why before it hung up.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                done => done.map_err(|e| no_daemon(&self.path, why(&e)))?,
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(Value, bool), Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut chunk = vec![0; 64 << 10];
        loop {
            if let Some(event) = self.wire.poll_event() {
                let sansio::ClientEvent::Reply { reply, continues, .. } = event else {
                    return Err(self.strange("the answer is no reply"));
                };
                let parameters = reply.parameters.unwrap_or_else(|| json!({}));
                return match reply.error {
                    Some(error) => Err(Failure::Refused { error: error.into_owned(), parameters }),
                    None => Ok((parameters, continues)),
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let late = || no_daemon(&self.path, format!("no answer within {}s", self.timeout.as_secs()));
            if left.is_zero() {
                return Err(late());
            }
            let _ = self.stream.set_read_timeout(Some(left));
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(no_daemon(&self.path, "it closed the connection".to_owned())),
                Ok(n) => self.wire.handle_input(&chunk[..n]).map_err(|e| self.strange(&e.to_string()))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(late());
                }
                Err(e) => return Err(no_daemon(&self.path, why(&e))),
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, answer: Value) -> Result<T, Failure> {
        serde_json::from_value(answer)
            .map_err(|e| self.strange(&format!("its answer is not understood: {e}")))
    }

    fn strange(&self, what: &str) -> Failure {
        Failure::Protocol(format!("cannot talk to who answers on {}: {what}", self.path.display()))
    }
}

fn no_daemon(path: &Path, reason: String) -> Failure {
    Failure::NoDaemon { path: path.to_owned(), reason }
}

/// What an error of the socket means to an operator.
fn why(e: &io::Error) -> String {
    let what = match e.kind() {
        io::ErrorKind::NotFound => "there is no socket; start tapwayd, or name its socket with --socket",
        io::ErrorKind::ConnectionRefused => "nobody listens; start tapwayd, or name its socket with --socket",
        io::ErrorKind::PermissionDenied => {
            "this user may not; use root, the daemon's user, or a member of the socket's group"
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "it closed the connection",
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it takes no request",
        _ => return e.to_string(),
    };
    what.to_owned()
}
