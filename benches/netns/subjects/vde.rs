//! `vde_switch` with two TAPs that it holds itself.

use anyhow::Result;

use super::{Subject, Switch, first_missing};
use crate::process::Process;
use crate::topology::{End, Netns, Site};

pub(crate) struct VdeSwitch;

impl Subject for VdeSwitch {
    fn name(&self) -> &'static str {
        "vde"
    }

    fn missing(&self) -> Option<String> {
        first_missing(&["vde_switch"], "vde2")
    }

    fn version(&self) -> String {
        "vde_switch, TAPs".to_owned()
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        let netns = Netns::create("switch")?;
        let taps = End::BOTH.map(|end| format!("vde-{}", end.name()));
        // In the foreground, where it serves a console on standard input and ends with it; an empty rc file, so that
        // the machine's is not read. Its own TAPs spare it the second process and socket of `vde_plug2tap`.
        let mut switch = Process::start(
            "vde_switch",
            netns
                .command("vde_switch")
                .args(["-sock", "/run/bench-vde.ctl", "-f", "/dev/null"])
                .args(["-tap", &taps[0], "-tap", &taps[1]]),
        )?;
        for (tap, end) in taps.iter().zip(End::BOTH) {
            site.hand_over(&netns, &mut switch, tap, end)?;
        }
        Ok(Switch::of([switch], [netns]))
    }
}
