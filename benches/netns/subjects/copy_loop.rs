//! The floor of cost: see `copy_loop.rs` one level up.

use anyhow::Result;

use super::{Subject, Switch};
use crate::parts;
use crate::process::Process;
use crate::topology::{End, Netns, Site};

pub(crate) struct CopyLoop;

impl Subject for CopyLoop {
    fn name(&self) -> &'static str {
        "copy-loop"
    }

    fn missing(&self) -> Option<String> {
        None
    }

    fn version(&self) -> String {
        "two TAPs, vnet header, all offloads, read and write".to_owned()
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        let netns = Netns::create("switch")?;
        let names = End::BOTH.map(|end| format!("copy-{}", end.name()));
        let mut copy =
            Process::start("copy-loop", &mut parts::command(&netns, &["copy-loop", &names[0], &names[1]])?)?;
        for (name, end) in names.iter().zip(End::BOTH) {
            site.hand_over(&netns, &mut copy, name, end)?;
        }
        Ok(Switch::of([copy], [netns]))
    }
}
