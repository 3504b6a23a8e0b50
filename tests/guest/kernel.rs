//! The guest's kernel: Debian's `linux-image-cloud-amd64`, unpacked below `target/guest` by `.ci/guest`, and its modules.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// A kernel, and where its modules are.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What QEMU boots.
    pub(crate) image: PathBuf,
    /// Modules by their names, in which `-` is `_`.
    modules: BTreeMap<String, PathBuf>,
}

impl Kernel {
    /// The one that was unpacked in `root`.
    pub(crate) fn find(root: &Path) -> Result<Self> {
        let image = files_below(&root.join("boot"))?
            .into_iter()
            .find(|path| stem(path).starts_with("vmlinuz"))
            .with_context(|| format!("no kernel in {}", root.display()))?;
        let modules = files_below(&root.join("lib/modules"))?
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "ko"))
            .map(|path| (stem(&path).replace('-', "_"), path))
            .collect();
        Ok(Self { image, modules })
    }

    /// These modules after all that they depend on, in the order in which they can be loaded.
    pub(crate) fn with_dependencies(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut loaded = Vec::new();
        names.iter().try_for_each(|name| self.load(name, &mut loaded))?;
        Ok(loaded)
    }

    fn load(&self, name: &str, loaded: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        if loaded.iter().any(|(other, _)| other == name) {
            return Ok(());
        }
        let path = self.modules.get(name).with_context(|| format!("the kernel has no module {name}"))?;
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        for dependency in dependencies(&bytes) {
            self.load(&dependency, loaded)?;
        }
        loaded.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// What a module says that it depends on: `depends=a,b` in its section `.modinfo`, a list of strings that end with a zero.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|octet| *octet == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

/// All files in a directory and below.
fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
