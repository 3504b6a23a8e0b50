//! Any octets from a client of the control socket: the server answers each message at most once and lives on, and a request that is
//! refused changes nothing.

use std::{
    cell::RefCell,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use mio::{Events, Poll};
use tapway_dataplane::{
    api::{Control, Refusal, Reply, Request},
    clock::Clock,
    engine::{Engine, MemoryBackend, Opener, Options},
    frame::Caps,
    port::tap::Features,
    server::{Limits, Server},
};

/// How long a server may take for what takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// What every client may ask for at any time.
const ALIVE: &[u8] = b"{\"method\":\"io.tapway.Protocol\"}\0";

thread_local! {
    static LOOP: RefCell<Loop> = RefCell::new(Loop::new());
}

pub fn run(input: &[u8]) {
    LOOP.with_borrow_mut(|daemon| daemon.meet(input));
}

/// The control thread of a daemon.
struct Loop {
    poll: Poll,
    server: Server,
}

impl Loop {
    fn new() -> Self {
        let thread = format!("{:?}", std::thread::current().id());
        let number: String = thread.chars().filter(char::is_ascii_digit).collect();
        let path = std::env::temp_dir().join(format!("tapway-call-{}-{number}.sock", std::process::id()));
        let poll = Poll::new().expect("an epoll");
        let mut server =
            Server::bind(&path, Limits { max_request: 4096, ..Limits::default() }).expect("a socket");
        server.register(poll.registry()).expect("room in the epoll");
        Self { poll, server }
    }

    fn meet(&mut self, input: &[u8]) {
        let mut asked = Whole(engine());
        let replies = self.talk(input, &mut asked);
        let messages = input.iter().filter(|octet| **octet == 0).count() + 1;
        assert!(asked.0.snapshot().generation < 100_000);
        for reply in &replies {
            let reply: serde_json::Value = serde_json::from_slice(reply).expect("a reply is JSON");
            assert!(reply["parameters"].is_object(), "{reply}");
        }
        let repeats = input.windows(6).any(|words| words == b"\"more\"");
        assert!(replies.len() <= messages || repeats, "{} replies to {messages} messages", replies.len());
        assert_eq!(self.talk(ALIVE, &mut asked).len(), 1, "the next client is answered");
    }

    /// A client says `input` and hears the replies until the server has no more to say.
    fn talk(&mut self, input: &[u8], control: &mut dyn Control) -> Vec<Vec<u8>> {
        let mut client = UnixStream::connect(self.server.path()).expect("the server listens");
        client.set_nonblocking(true).expect("a flag");
        // A server that has heard enough closes.
        let _ = client.write_all(input);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let (mut heard, mut events, started) = (Vec::new(), Events::with_capacity(16), Instant::now());
        loop {
            let wait = self.server.timers(Instant::now(), control).unwrap_or(Duration::from_millis(1));
            self.poll.poll(&mut events, Some(wait.min(Duration::from_millis(1)))).expect("no signal");
            for event in &events {
                self.server.handle(event.token(), control);
            }
            let mut octets = [0; 4096];
            match client.read(&mut octets) {
                Ok(0) => break,
                Ok(len) => heard.extend(&octets[..len]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break, // closed with input unread
            }
            // A stream of a client that only listens is not over by itself.
            if started.elapsed() > Duration::from_millis(300) && input.windows(6).any(|w| w == b"\"more\"") {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "the server hangs");
        }
        drop(client);
        while self.server.clients() > 0 {
            self.poll.poll(&mut events, Some(Duration::from_millis(1))).expect("no signal");
            for event in &events {
                self.server.handle(event.token(), control);
            }
            self.server.timers(Instant::now(), control);
            assert!(started.elapsed() < PATIENCE, "a client that is gone stays");
        }
        let mut replies: Vec<Vec<u8>> = heard.split(|octet| *octet == 0).map(<[u8]>::to_vec).collect();
        let rest = replies.pop().unwrap_or_default();
        assert!(rest.is_empty() || started.elapsed() > Duration::from_millis(200), "half a reply");
        replies
    }
}

fn engine() -> Engine {
    let opener = Opener::with(|_, _| Ok(MemoryBackend::open(Caps::ALL).0));
    let clock = Clock::stopped();
    let features = Features::default();
    Engine::start(Options { workers: 1, threads: false, clock, bell: None, opener, features })
        .expect("an epoll")
}

/// The engine, with an eye on it: a refusal means that nothing was changed, and every request can be said again as it was read.
struct Whole(Engine);

impl Whole {
    fn export(&mut self) -> Reply {
        self.0.call(Request::Export).expect("an export is always possible")
    }
}

impl Control for Whole {
    fn call(&mut self, request: Request) -> Result<Reply, Refusal> {
        let again = Request::from_varlink(request.method(), request.parameters());
        assert_eq!(again.as_ref(), Ok(&request));
        let before = self.export();
        let reply = self.0.call(request);
        if reply.is_err() {
            assert_eq!(self.export(), before, "refused, and changed all the same");
        }
        reply
    }
}
