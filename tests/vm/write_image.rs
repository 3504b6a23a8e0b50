//! Writes the file system that guests boot with, for `tests/demo_vm.sh`, which is no test of Rust.
//!
//! ```text
//! vm_image FILE      writes it, and prints the words of QEMU for a machine of 96 MiB, one a line
//! ```

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};

#[path = "../topo/mod.rs"]
mod topo;
#[path = "mod.rs"]
mod vm;

use vm::{Image, VmOptions, guest::Parts};

fn main() -> Result<()> {
    let to = PathBuf::from(env::args().nth(1).context("usage: vm_image FILE")?);
    // Built together with this program, and beside it.
    let peer = env::current_exe()?.with_file_name("vm_peer");
    let image = Image::of(Parts::find()?, peer)?;
    fs::copy(image.initrd(), &to).with_context(|| to.display().to_string())?;
    let VmOptions { memory, processors, .. } = VmOptions::default();
    let temporary = image.initrd();
    for word in image.machine(memory, processors) {
        let word = if temporary.as_os_str() == word.as_str() { to.display().to_string() } else { word };
        println!("{word}");
    }
    Ok(())
}
