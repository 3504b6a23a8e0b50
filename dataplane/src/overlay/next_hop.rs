//! Where outer packets go next: the MAC address of a router or of the remote itself, found by asking and kept by asking again.
//!
//! Owns the state of each next hop, and when it is asked for. Writes no frame and reads no clock.
//! A worker reads one number; the state changes only when a message of a neighbour comes, which is rare. Two workers that want to ask
//! at once settle by a compare-and-swap which of them does.
//!
//! The times are those of neighbour discovery (RFC 4861 §10), for ARP too; RFC 1122 §2.3.2.1 wants no more than one request a second.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{tick::Tick, wire::MacAddr};

/// How long an answer is good for (`REACHABLE_TIME`, 30 seconds).
const REACHABLE_SECS: u32 = 30;
/// Between two requests (`RETRANS_TIMER`, 1 second).
const RETRY: Duration = Duration::from_secs(1);
/// Unanswered requests after which a MAC address is taken for wrong (`MAX_UNICAST_SOLICIT`).
const TRIES: u32 = 3;
/// The longest pause between two requests to somebody who never answers is [`RETRY`] doubled so often: 8 seconds.
const DOUBLINGS: u32 = 3;

/// In [`NextHop::state`], above the 48 bits of the address: it is known.
const KNOWN: u64 = 1 << 48;
/// And nobody has been heard there yet.
const EXPECTED: u64 = KNOWN << 1;

/// The next hop has not answered (yet). The frame is lost, as [`UplinkUnresolved`](crate::counters::DropReason::UplinkUnresolved).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the next hop has not answered yet")]
pub struct Unresolved;

/// A next hop. Workers share it with whoever keeps it up to date.
#[derive(Debug)]
pub struct NextHop {
    /// `None` where there is nobody to ask: its MAC address is that of the interface at the other end.
    ip: Option<IpAddr>,
    /// The MAC address with [`KNOWN`], or 0.
    state: AtomicU64,
    /// The second of the last answer.
    confirmed: AtomicU32,
    /// The second of the last use.
    used: AtomicU32,
    /// The tick of the last request, in nanoseconds and one; 0 for none.
    asked: AtomicU64,
    /// Requests since the last answer.
    unanswered: AtomicU32,
}

/// A request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asking {
    /// About whom.
    pub(super) ip: IpAddr,
    /// Whom: the station that had the address, or everybody.
    pub(super) of: Option<MacAddr>,
}

impl NextHop {
    /// One that has to be asked for.
    pub(super) fn unknown(ip: IpAddr) -> Self {
        Self {
            ip: Some(ip),
            state: AtomicU64::new(0),
            confirmed: AtomicU32::new(0),
            used: AtomicU32::new(0),
            asked: AtomicU64::new(0),
            unanswered: AtomicU32::new(0),
        }
    }

    /// One that is never asked for.
    pub(super) fn fixed(mac: MacAddr) -> Self {
        let hop = Self::unknown(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        hop.state.store(known(mac), Relaxed);
        Self { ip: None, ..hop }
    }

    /// Takes the MAC address of somebody who was set up as this neighbour; he is asked all the same, and forgotten if he does not answer.
    pub(super) fn presume(&self, mac: MacAddr) {
        self.state.store(known(mac) | EXPECTED, Relaxed);
    }

    /// Its address; `None` where it is the interface at the other end.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// Its MAC address, for a frame that is about to leave.
    ///
    /// # Errors
    /// Where it is not known.
    #[inline]
    pub fn mac(&self, now: Tick) -> Result<MacAddr, Unresolved> {
        // Looked at before it is written, so that the cache line stays shared.
        if self.used.load(Relaxed) != now.secs() {
            self.used.store(now.secs(), Relaxed);
        }
        self.peek().ok_or(Unresolved)
    }

    /// Its MAC address, if it is known, without the use being noted.
    pub fn peek(&self) -> Option<MacAddr> {
        let state = self.state.load(Relaxed);
        (state & KNOWN != 0).then(|| MacAddr::from_bits(state))
    }

    /// Takes up what a neighbour says of itself. What does not override, another address that is known outweighs (RFC 4861 §7.2.5).
    pub(super) fn learn(&self, mac: MacAddr, overrides: bool, now: Tick) {
        if self.ip.is_none() || !overrides && self.peek().is_some_and(|before| before != mac) {
            return;
        }
        self.state.store(known(mac), Relaxed);
        self.confirmed.store(now.secs(), Relaxed);
        self.unanswered.store(0, Relaxed);
    }

    /// Takes up another MAC address of the interface at the other end, which is the next hop without being asked.
    pub(super) fn moved(&self, mac: MacAddr) {
        if self.ip.is_none() {
            self.state.store(known(mac), Relaxed);
        }
    }

    /// The request that is to be sent now, if one is. It counts as sent.
    pub(super) fn asking(&self, now: Tick) -> Option<Asking> {
        let ip = self.ip?;
        let unanswered = self.unanswered.load(Relaxed);
        let mac = self.peek();
        let heard = self.state.load(Relaxed) & EXPECTED == 0;
        let confirmed = self.confirmed.load(Relaxed);
        // Asked again only while it is used: somebody who left is not asked for ever.
        if heard
            && mac.is_some()
            && (now.secs().wrapping_sub(confirmed) < REACHABLE_SECS || self.used.load(Relaxed) <= confirmed)
        {
            return None;
        }
        let asked = self.asked.load(Relaxed);
        let doublings = unanswered.saturating_sub(TRIES).min(DOUBLINGS);
        let pause = RETRY * (1 << if mac.is_some() { 0 } else { doublings });
        if asked != 0 && unanswered > 0 && now < Tick::from_nanos(asked - 1).after(pause) {
            return None;
        }
        self.asked.compare_exchange(asked, now.nanos().saturating_add(1), Relaxed, Relaxed).ok()?;
        // Whom nobody has heard yet, everybody is asked for.
        let of = mac.filter(|_| unanswered < TRIES && heard);
        if mac.is_some() && unanswered >= TRIES {
            self.state.store(0, Relaxed); // whoever had the address is gone; ask everybody
            self.unanswered.store(1, Relaxed);
        } else {
            self.unanswered.store(unanswered.saturating_add(1), Relaxed);
        }
        Some(Asking { ip, of })
    }
}

const fn known(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.octets();
    KNOWN | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2));
    const MAC: MacAddr = MacAddr::from_octets([2, 0, 0, 0, 0, 2]);

    fn at(millis: u64) -> Tick {
        Tick::from_nanos(millis * 1_000_000)
    }

    /// When requests are sent in the first `secs` seconds after `from` (in milliseconds), asked every 100 ms.
    fn sent(hop: &NextHop, from: u64, secs: u64) -> Vec<u64> {
        (0..secs * 10).map(|n| from + n * 100).filter(|&ms| hop.asking(at(ms)).is_some()).collect()
    }

    #[test]
    fn somebody_who_never_answers_is_asked_at_growing_pauses() {
        let hop = NextHop::unknown(IP);
        assert_eq!(hop.mac(at(0)), Err(Unresolved));
        assert_eq!(sent(&hop, 0, 33), [0, 1_000, 2_000, 3_000, 5_000, 9_000, 17_000, 25_000]);
        assert_eq!(hop.asking(at(60_000)), Some(Asking { ip: IP, of: None }), "everybody is asked");
    }

    #[test]
    fn who_was_set_up_is_used_at_once_asked_for_and_forgotten_without_an_answer() {
        let hop = NextHop::unknown(IP);
        hop.presume(MAC);
        assert_eq!(hop.mac(at(0)), Ok(MAC));
        assert_eq!(hop.asking(at(0)), Some(Asking { ip: IP, of: None }), "everybody is asked");
        assert_eq!(sent(&hop, 100, 3), [1_000, 2_000, 3_000]);
        assert_eq!(hop.mac(at(3_100)), Err(Unresolved));
    }

    #[test]
    fn an_answer_is_good_for_half_a_minute_and_then_the_neighbour_itself_is_asked() {
        let hop = NextHop::unknown(IP);
        assert!(hop.asking(at(0)).is_some());
        hop.learn(MAC, true, at(100));
        assert!(sent(&hop, 100, 29).is_empty());
        assert_eq!(hop.mac(at(29_000)), Ok(MAC));
        assert_eq!(hop.asking(at(30_100)), Some(Asking { ip: IP, of: Some(MAC) }));
        assert_eq!(hop.asking(at(30_200)), None, "not twice in a second");
        hop.learn(MAC, false, at(30_300));
        assert!(sent(&hop, 30_300, 120).is_empty(), "nobody uses it, nobody asks");
        assert_eq!(hop.mac(at(200_000)), Ok(MAC), "and it is still used at once");
    }

    #[test]
    fn a_neighbour_that_answers_no_more_is_forgotten_and_everybody_asked() {
        let hop = NextHop::unknown(IP);
        hop.learn(MAC, true, at(0));
        assert_eq!(hop.mac(at(20_000)), Ok(MAC));
        for second in 30..33 {
            assert_eq!(hop.asking(at(second * 1000)), Some(Asking { ip: IP, of: Some(MAC) }), "{second}");
            assert_eq!(hop.mac(at(second * 1000)), Ok(MAC));
        }
        assert_eq!(hop.asking(at(33_000)), Some(Asking { ip: IP, of: None }));
        assert_eq!(hop.mac(at(33_000)), Err(Unresolved));
    }

    #[test]
    fn an_announcement_moves_it_and_what_does_not_override_does_not() {
        let hop = NextHop::unknown(IP);
        let other = MacAddr::from_octets([2, 0, 0, 0, 0, 3]);
        hop.learn(MAC, false, at(0));
        hop.learn(other, false, at(0));
        assert_eq!(hop.peek(), Some(MAC));
        hop.learn(other, true, at(0));
        assert_eq!(hop.peek(), Some(other));
    }

    #[test]
    fn a_fixed_one_is_never_asked_for_and_never_learned() {
        let hop = NextHop::fixed(MAC);
        hop.learn(MacAddr::from_octets([2, 0, 0, 0, 0, 3]), true, at(0));
        assert_eq!((hop.mac(at(100_000)), hop.asking(at(100_000)), hop.ip()), (Ok(MAC), None, None));
    }
}
