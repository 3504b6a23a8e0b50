//! A file system in one archive, as the kernel unpacks it before `/init` runs: cpio in the "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).

use std::{collections::BTreeSet, path::Path};

/// Directory, regular file, symbolic link (`S_IFDIR`, `S_IFREG`, `S_IFLNK`).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive that grows; a path is put in once, and the directories above it before it.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// A directory.
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[]);
    }

    /// A file that may be executed.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, REGULAR | 0o755, content);
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, to: &str) {
        self.entry(path, LINK | 0o777, to.as_bytes());
    }

    /// Whether something has been put at this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.names.contains(path.trim_start_matches('/'))
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.record("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = path.trim_start_matches('/');
        if let Some(above) = Path::new(name).parent().and_then(Path::to_str).filter(|above| !above.is_empty())
            && !self.has(above)
        {
            self.directory(above);
        }
        if self.names.insert(name.to_owned()) {
            self.record(name, mode, content);
        }
    }

    fn record(&mut self, name: &str, mode: u32, content: &[u8]) {
        let (inode, length) = (self.names.len() as u32, content.len() as u32);
        // Inode, mode, owner, group, links, time, size, device (2), device that it is (2), length of the name, checksum.
        let fields = [inode, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        fields.iter().for_each(|field| self.bytes.extend(format!("{field:08x}").as_bytes()));
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    /// Name and content each end on a multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
