//! A routed TAP to the host's stack: the switch's own place in the underlay.
//!
//! ```text
//!   NIC ── the host's stack ── up0 │ TAP │ the switch, which has the address of its tunnels
//!            routes, forwards      │     │
//! ```
//!
//! Owns the TAP, the address of the host's end of it, and the host's route to the switch's address. Whether the host forwards between
//! the two is its operator's to say (`net.ipv4.ip_forward`), not ours.
//!
//! The host's end gets its address alone, without the rest of the prefix: a route to a whole prefix could take away the host's way to the
//! network that its NIC is in. What it has to know, where the switch is, a route to that one address says.

use std::{
    io::IoSlice,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv6Net};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::{
    SendResult, TapQueue,
    tap::{Health, Tap, TapError, TapOptions},
};
use crate::{
    frame::{Caps, UplinkOffload},
    netlink::{Link, NetlinkError, Socket},
    overlay::{self, Host},
    tick::Tick,
    wire::MacAddr,
};

/// Makes the MAC address of the switch's end of that of the interface: the next one, and locally administered.
const OTHER: u64 = 1;
const LOCAL: u64 = 0x0200_0000_0000;

/// Why an uplink could not be opened. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// Its TAP could not.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The host keeps what is for the address to itself.
    #[error(
        "the host itself has {address}, on interface {ifname}: give the uplink an address of its own, or take it away there"
    )]
    AddressTaken {
        /// The address that the switch was to have.
        address: IpAddr,
        /// Where the host has it.
        ifname: String,
    },
    /// The host goes another way to the address.
    #[error("the host has a route to {address} already: ip route show {address}")]
    RouteTaken {
        /// The address that the switch was to have.
        address: IpAddr,
    },
}

impl From<NetlinkError> for UplinkError {
    fn from(error: NetlinkError) -> Self {
        Self::Tap(error.into())
    }
}

/// The link-local address that an interface has by its MAC address (RFC 4291 appendix A): the one the kernel gives it, as a rule.
fn link_local(mac: MacAddr) -> IpNet {
    let [a, b, c, d, e, f] = mac.octets();
    let address = Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Net::new_assert(address, 64).into()
}

/// An open uplink.
#[derive(Debug)]
pub struct Uplink {
    tap: Tap,
    /// What the control thread sends by: requests for next hops.
    sender: TapQueue,
    queues: Vec<TapQueue>,
    path: overlay::Uplink,
    /// The addresses of the host's end.
    addresses: Vec<IpNet>,
}

impl Uplink {
    /// Makes the TAP of `options`, gives its interface the address `gateway`, and the host a route to the switch's `address` by it.
    /// Of `options`, addresses, persistence and kind are set here.
    pub fn open(options: TapOptions, address: IpNet, gateway: Option<IpAddr>) -> Result<Self, UplinkError> {
        let addresses: Vec<IpNet> = gateway.map(IpNet::from).into_iter().collect();
        let mut tap =
            Tap::open(&TapOptions { addresses: addresses.clone(), persist: false, uplink: true, ..options })?;
        let queues = tap.take_queues();
        let sender = match queues.first().map(TapQueue::share) {
            Some(Ok(sender)) => sender,
            Some(Err(source)) => {
                let name = tap.ifname().to_owned();
                return Err(
                    TapError::Device { operation: "duplicate the descriptor of", name, source }.into()
                );
            }
            None => return Err(TapError::Queues { queues: 0 }.into()),
        };
        let mac = MacAddr::from_bits(bits(tap.mac()) ^ OTHER | LOCAL);
        let host = Arc::new(Host::new(address, mac, gateway, tap.mac()));
        let path = overlay::Uplink { address: address.addr(), mac, caps: *tap.caps(), mtu: tap.mtu(), host };
        let mut uplink = Self { tap, sender, queues, path, addresses };
        if let Err(error) = uplink.lead_here() {
            let _ = uplink.restore(); // the first error is the one to report
            return Err(error);
        }
        Ok(uplink)
    }

    /// The queues, to be handed to the workers; the second call gives none.
    pub fn take_queues(&mut self) -> Vec<TapQueue> {
        std::mem::take(&mut self.queues)
    }

    /// What the packet path is to know.
    pub fn path(&self) -> &overlay::Uplink {
        &self.path
    }

    /// What the kernel takes and gives.
    pub fn caps(&self) -> &Caps {
        self.tap.caps()
    }

    /// The TAP.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// How its TAP is.
    pub fn health(&self) -> Result<Health, TapError> {
        self.tap.health()
    }

    /// Asks for the next hops that are to be asked for, and forgets those that nobody uses. To be called once a second, and when
    /// there is a new remote.
    pub fn look_after_next_hops(&self, now: Tick) {
        self.path.host.prune();
        let before = self.sender.vnet_header_len();
        let header = UplinkOffload::NONE.to_vnet();
        let header = header.as_bytes().get(..before).unwrap_or_default();
        self.path.host.due(now, |frame| {
            let sent = match before {
                0 => self.sender.send(&[IoSlice::new(frame)]),
                _ => self.sender.send(&[IoSlice::new(header), IoSlice::new(frame)]),
            };
            if let SendResult::Refused(errno) = sent {
                tracing::warn!(ifname = %self.tap.ifname(), %errno, "a request for a next hop was refused");
            }
        });
    }

    /// Ends it for good: with the last queue, which must be closed already, the kernel deletes the TAP with its address and its route.
    /// One that was there before stays, without them.
    pub fn destroy(mut self) -> Result<(), UplinkError> {
        self.restore()?;
        Ok(self.tap.destroy()?)
    }

    /// Makes the host send here what is for the switch's address.
    fn lead_here(&mut self) -> Result<(), UplinkError> {
        let address = self.path.address;
        let (mut socket, link) = self.tap.interface_end()?;
        if let Some(ifname) = owner(&mut socket, address)? {
            return Err(UplinkError::AddressTaken { address, ifname });
        }
        if self.tap.is_adopted() {
            socket.delete_host_route(&link, address)?; // one that a daemon left behind which was killed
        }
        match socket.add_host_route(&link, address) {
            Err(error) if error.errno == Errno::EXIST => return Err(UplinkError::RouteTaken { address }),
            result => result?,
        }
        self.use_link_local(&mut socket, &link)
    }

    /// Puts back what the kernel takes away from an interface that is set down: its routes, and its IPv6 addresses. To be called when it
    /// is up again.
    pub fn lead_here_again(&mut self) -> Result<(), UplinkError> {
        self.tap.set_addresses(&self.addresses)?;
        let (mut socket, link) = self.tap.interface_end()?;
        match socket.add_host_route(&link, self.path.address) {
            Err(error) if error.errno == Errno::EXIST => {} // somebody was faster
            result => result?,
        }
        self.use_link_local(&mut socket, &link)
    }

    /// Makes the host ask for the switch at once, over IPv6.
    fn use_link_local(&self, socket: &mut Socket, link: &Link) -> Result<(), UplinkError> {
        if let (IpAddr::V6(_), Some(mac)) = (self.path.address, link.mac) {
            // The host asks for us by its link-local address alone (`ndisc_send_ns`), and not before it has waited for two seconds whether
            // somebody else has it. Nobody can: there is only the switch at the other end.
            let own = link_local(mac);
            socket.delete_address(link, own)?;
            socket.add_address(link, own)?;
        }
        Ok(())
    }

    /// Takes back what an interface that stays would keep.
    fn restore(&mut self) -> Result<(), UplinkError> {
        if !self.tap.is_adopted() {
            return Ok(());
        }
        match self.tap.interface_end() {
            Ok((mut socket, link)) => socket.delete_host_route(&link, self.path.address)?,
            Err(TapError::Gone { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        Ok(self.tap.set_addresses(&[])?)
    }
}

/// The name of the interface that has the address, in the namespace of the socket.
fn owner(socket: &mut Socket, address: IpAddr) -> Result<Option<String>, NetlinkError> {
    for link in socket.links()? {
        let has = |link: &Link, socket: &mut Socket| {
            Ok::<_, NetlinkError>(socket.addresses(link)?.iter().any(|a| a.net.addr() == address))
        };
        if has(&link, socket)? {
            return Ok(Some(link.name));
        }
    }
    Ok(None)
}

fn bits(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.octets();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
