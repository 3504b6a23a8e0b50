//! Which offloads this kernel takes.

use std::{io, os::fd::AsFd as _};

use super::{Tap, TapOptions, offload_words};
use crate::{
    frame::Caps,
    sys::{tun, uring::Batcher},
};

const ALL: Caps = Caps::ALL;
const NO_USO: Caps = Caps { uso: false, ..ALL };
const NO_ECN: Caps = Caps { tso_ecn: false, ..NO_USO };
const NO_TSO: Caps = Caps { tso4: false, tso6: false, ..NO_ECN };
const NO_CSUM: Caps = Caps { csum: false, ..NO_TSO };

/// What is tried, in this order; the youngest offload goes first (USO: Linux 6.2, ECN and TSO: 2.6.27).
const STEPS: [Caps; 5] = [ALL, NO_USO, NO_ECN, NO_TSO, NO_CSUM];
/// What an uplink tries before (UDP tunnel GSO: Linux 6.17).
const UPLINK_STEPS: [Caps; 2] = [Caps::UPLINK, Caps { tunnel_csum: false, ..Caps::UPLINK }];

/// The `TUN_F_*` bits for these capabilities.
const fn mask(caps: &Caps) -> u32 {
    let mut mask = 0;
    if caps.csum {
        mask |= tun::F_CSUM;
    }
    if caps.tso4 {
        mask |= tun::F_TSO4;
    }
    if caps.tso6 {
        mask |= tun::F_TSO6;
    }
    if caps.tso_ecn {
        mask |= tun::F_TSO_ECN;
    }
    if caps.uso {
        mask |= tun::F_USO4 | tun::F_USO6;
    }
    if caps.tunnel {
        mask |= tun::F_UDP_TUNNEL_GSO;
    }
    if caps.tunnel_csum {
        mask |= tun::F_UDP_TUNNEL_GSO_CSUM;
    }
    mask
}

/// Finds the most that `set_offload` takes, and leaves it set. An `uplink` also asks for super-frames in tunnels.
pub(super) fn negotiate(
    uplink: bool,
    mut set_offload: impl FnMut(u32) -> io::Result<()>,
) -> io::Result<Caps> {
    let mut refusal = io::Error::from_raw_os_error(libc::EINVAL);
    for caps in UPLINK_STEPS.into_iter().filter(|_| uplink).chain(STEPS) {
        match set_offload(mask(&caps)) {
            Ok(()) => return Ok(caps),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => refusal = e,
            Err(e) => return Err(e),
        }
    }
    Err(refusal)
}

/// The offloads in words, as `status` and `port show` print them.
pub fn words(caps: &Caps) -> Vec<&'static str> {
    [
        (caps.vnet_hdr, "vnet_hdr"),
        (caps.csum, "csum"),
        (caps.tso4, "tso4"),
        (caps.tso6, "tso6"),
        (caps.tso_ecn, "tso_ecn"),
        (caps.uso, "uso"),
        (caps.tunnel, "udp_tunnel"),
        (caps.tunnel_csum, "udp_tunnel_csum"),
    ]
    .into_iter()
    .filter_map(|(has, word)| has.then_some(word))
    .collect()
}

/// A ring by which the calling thread reads and writes TAPs.
///
/// # Errors
/// Where the kernel has no io_uring, or one that does not do for TAPs: before Linux 6.4 every operation on a TAP failed, since only
/// `tun_chr_open` of later ones says that reads and writes need not wait (`FMODE_NOWAIT`). Or where there are no TAPs.
pub fn batcher() -> io::Result<Batcher> {
    let mut ring = Batcher::new()?;
    ring.check(tun::open()?.as_fd())?; // of no device: what is read is the error EBADFD, where the question gets that far
    Ok(ring)
}

/// What this kernel offers to TAP ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// In words: `tun`, `multi_queue`, `io_uring`, `vnet_hdr`, `csum`, `tso4`, `tso6`, `tso_ecn`, `uso`.
    pub found: Vec<String>,
    /// Those it does not have.
    pub missing: Vec<String>,
}

impl Features {
    /// Tries them on a TAP that lives no longer than the question.
    pub fn probe() -> Self {
        let caps = |queues| Tap::open(&TapOptions { queues, ..TapOptions::default() }).map(|tap| *tap.caps());
        let multi_queue = caps(2);
        let found = multi_queue.as_ref().map_or_else(|_| caps(1), |caps| Ok(*caps));
        let words = offload_words(&found.as_ref().map_or(Caps::NONE, |caps| *caps));
        let all =
            [("tun", found.is_ok()), ("multi_queue", multi_queue.is_ok()), ("io_uring", batcher().is_ok())];
        let all = all
            .into_iter()
            .chain(offload_words(&Caps::ALL).into_iter().map(|word| (word, words.contains(&word))));
        let mut features = Self::default();
        for (word, has) in all {
            if has { &mut features.found } else { &mut features.missing }.push(word.to_owned());
        }
        features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that knows the bits `known`.
    fn kernel(known: u32, set: &mut u32) -> impl FnMut(u32) -> io::Result<()> + '_ {
        move |mask| {
            if mask & !known != 0 {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            *set = mask;
            Ok(())
        }
    }

    #[test]
    fn an_older_kernel_gets_what_it_knows_and_nothing_else_stays_set() {
        for (known, caps) in [
            (0x6f, ALL),
            (0x0f, NO_USO),
            (0x2f, NO_USO), // one UDP family alone is of no use
            (0x07, NO_ECN),
            (0x01, NO_TSO),
            (0x00, NO_CSUM),
        ] {
            let mut set = u32::MAX;
            assert_eq!(negotiate(false, kernel(known, &mut set)).unwrap(), caps, "{known:#x}");
            assert_eq!(set, mask(&caps), "{known:#x}");
        }
    }

    #[test]
    fn an_uplink_asks_for_tunnels_first_and_steps_down_like_any_port() {
        for (known, caps) in [
            (0x1ef, Caps::UPLINK),
            (0x0ef, Caps { tunnel_csum: false, ..Caps::UPLINK }),
            (0x06f, ALL),
            (0x00f, NO_USO),
        ] {
            let mut set = u32::MAX;
            assert_eq!(negotiate(true, kernel(known, &mut set)).unwrap(), caps, "{known:#x}");
            assert_eq!(set, mask(&caps), "{known:#x}");
        }
        let mut set = u32::MAX;
        assert_eq!(negotiate(false, kernel(u32::MAX, &mut set)).unwrap(), ALL, "other ports never ask");
    }

    #[test]
    fn an_error_other_than_einval_is_no_reason_to_step_down() {
        let mut calls = 0;
        let error = negotiate(false, |_| {
            calls += 1;
            Err(io::Error::from_raw_os_error(libc::EBADFD))
        })
        .unwrap_err();
        assert_eq!((error.raw_os_error(), calls), (Some(libc::EBADFD), 1));
    }

    #[test]
    fn words_name_what_was_agreed() {
        assert_eq!(words(&NO_USO), ["vnet_hdr", "csum", "tso4", "tso6", "tso_ecn"]);
        assert_eq!(words(&NO_CSUM), ["vnet_hdr"]);
        assert!(words(&Caps::NONE).is_empty());
    }
}
