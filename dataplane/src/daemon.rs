//! The control thread's loop: the socket, what workers report, the timers, and the signal that ends it.

use std::{
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};

use crate::{
    api::{Control, Refusal, Request},
    clock::Clock,
    engine::{Engine, Opener, Options},
    port::tap::Features,
    server::{BindError, Limits, Server},
    state::StateDir,
    sys,
};

const BELL: Token = Token(0);
const SIGNAL: Token = Token(1);
const PORTS: Token = Token(2);

/// What the daemon is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub socket: PathBuf,
    /// A topology file to begin with.
    pub config: Option<PathBuf>,
    /// Where the topology that runs is kept, to be brought back at the next start.
    pub state_dir: Option<PathBuf>,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Whether kernel devices that somebody has changed or deleted are put back.
    pub enforce: bool,
}

/// Why the daemon cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DaemonError {
    #[error("cannot listen: {0}")]
    Bind(#[from] BindError),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot keep the topology in {path}: {source}")]
    State { path: PathBuf, source: io::Error },
    #[error("{path}: {refusal}")]
    Config { path: PathBuf, refusal: Refusal },
    #[error("the kernel has no more threads or descriptors: {0}")]
    Io(#[from] io::Error),
}

/// Runs the daemon until SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// Where it cannot start.
pub fn run(settings: &Settings) -> Result<(), DaemonError> {
    // First of all, so that every thread inherits the blocked signals.
    let signal = sys::signal::termination()?;
    raise_descriptor_limit();
    let mut server = Server::bind(&settings.socket, Limits::default())?;
    let mut poll = Poll::new()?;
    let bell = Arc::new(Waker::new(poll.registry(), BELL)?);
    poll.registry().register(&mut SourceFd(&signal.as_raw_fd()), SIGNAL, Interest::READABLE)?;
    server.register(poll.registry())?;
    let mut engine = Engine::start(Options {
        workers: settings.workers,
        threads: true,
        clock: Clock::monotonic(),
        bell: Some(bell),
        opener: Opener::kernel(),
        features: Features::probe(),
    })?;
    engine.register(poll.registry(), PORTS)?;
    if settings.enforce {
        engine.enforce_devices();
    }
    let mut state = settings
        .state_dir
        .as_deref()
        .map(|path| state_dir(path, &settings.config, &mut engine))
        .transpose()?;
    if let Some(path) = &settings.config {
        load(&mut engine, path)?;
    }
    tracing::info!(socket = %settings.socket.display(), workers = settings.workers, "ready");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "the service manager was not told");
    }
    let mut events = Events::with_capacity(256);
    loop {
        if let Some(Err(error)) = state.as_mut().map(|state| state.keep(&mut engine)) {
            tracing::error!(%error, "the topology could not be kept");
        }
        let idle = engine.housekeep();
        let timeout = server.timers(Instant::now(), &mut engine).map_or(idle, |t| t.min(idle));
        match poll.poll(&mut events, Some(timeout)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match event.token() {
                BELL | PORTS => {} // what a worker has to say, and what a port waits for, is looked at by housekeep
                SIGNAL => {
                    tracing::info!("ending");
                    engine.stop();
                    return Ok(());
                }
                token => server.handle(token, &mut engine),
            }
        }
    }
}

/// Opens the state directory, and brings back what is in it unless a file says what to begin with.
fn state_dir(path: &Path, config: &Option<PathBuf>, engine: &mut Engine) -> Result<StateDir, DaemonError> {
    let failed = |source| DaemonError::State { path: path.to_owned(), source };
    let mut state = StateDir::open(path).map_err(failed)?;
    if config.is_none()
        && let Some(refusal) = state.restore(engine).map_err(failed)?
    {
        let file = state.file().display();
        tracing::error!(%refusal, "the topology of {file} could not be brought back; it is kept as {file}.failed");
    }
    Ok(state)
}

/// Applies the topology file that the daemon begins with.
fn load(engine: &mut Engine, path: &Path) -> Result<(), DaemonError> {
    let topology = std::fs::read_to_string(path)
        .map_err(|source| DaemonError::Read { path: path.to_owned(), source })?;
    engine
        .call(Request::Apply { topology, dry_run: false, prune: false })
        .map_err(|refusal| DaemonError::Config { path: path.to_owned(), refusal })?;
    Ok(())
}

/// Each queue of each port is a descriptor for every worker; the soft limit of 1,024 would end at 256 ports.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}
