//! What outlives the daemon: the topology that ran last, in a file of `--state-dir`.
//!
//! The file is a topology file like any other. It is written whole beside the old one and put in its place, so that whatever
//! happens there is always one that can be read.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    api::{Control as _, Refusal, Reply, Request},
    engine::Engine,
};

/// The file of the topology.
const FILE: &str = "topology.toml";

/// The directory of `--state-dir`, and what of the engine is in it.
#[derive(Debug)]
pub struct StateDir {
    file: PathBuf,
    kept: u64,
}

impl StateDir {
    /// Uses `directory`, which is made where it does not exist.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { file: directory.join(FILE), kept: 0 })
    }

    /// The file in which the topology is kept.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Brings back what ran last. What cannot be brought back, because a namespace is gone, is moved out of the way and told:
    /// a switch that starts empty can be reached and repaired, one that does not start cannot.
    ///
    /// # Errors
    /// Where the file cannot be read or moved.
    pub fn restore(&mut self, engine: &mut Engine) -> io::Result<Option<Refusal>> {
        let topology = match fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let refusal = engine.call(Request::Apply { topology, dry_run: false, prune: false }).err();
        if refusal.is_some() {
            fs::rename(&self.file, self.file.with_extension("toml.failed"))?;
        }
        self.kept = engine.revision();
        Ok(refusal)
    }

    /// Writes the topology down if it has changed since the last time.
    ///
    /// # Errors
    /// The file system's; the next call tries again.
    pub fn keep(&mut self, engine: &mut Engine) -> io::Result<()> {
        let revision = engine.revision();
        if revision == self.kept {
            return Ok(());
        }
        if let Ok(Reply::Exported { topology, .. }) = engine.call(Request::Export) {
            let new = self.file.with_extension("toml.new");
            let mut file = File::create(&new)?;
            file.write_all(topology.as_bytes())?;
            file.sync_data()?;
            fs::rename(&new, &self.file)?;
        }
        self.kept = revision;
        Ok(())
    }
}
