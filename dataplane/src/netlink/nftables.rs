//! Keeps the host's own stack away from an interface: a table of nftables that drops what comes in by it.
//!
//! ```text
//!   driver ─▶ packet sockets ─▶ tc ingress ─▶ nftables ingress ─▶ the host's stack      (__netif_receive_skb_core)
//!                                                  └ drop
//! ```
//!
//! Packet sockets have their copy before; bridges, macvlans and IP never see the frame.
//! The table has an owner (`NFT_TABLE_F_OWNER`, Linux 5.12), which is the socket that made it: nobody else can change it, a flush of
//! all rules leaves it alone, and the kernel deletes it with the socket, however the process ends. There is nothing to
//! clean up, ever.

use std::{fmt, io, os::fd::BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_sys::{SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::io::Errno;

use super::socket::{ACK_ATTRIBUTES, HEADER_LEN, NetlinkError, explanation};
use crate::sys::netns;

// linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;

// linux/netfilter/nf_tables.h
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_NEWCHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 3;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_OWNER: u32 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;

// linux/netfilter.h
const NFPROTO_NETDEV: u8 = 5;
const NF_NETDEV_INGRESS: u32 = 0;
const NF_DROP: u32 = 0;

/// Before every other chain at this place: what is for the switch is nobody else's to look at.
const PRIORITY: i32 = i32::MIN;
/// `NLA_F_NESTED` (linux/netlink.h).
const NESTED: u16 = 1 << 15;
/// The type of an acknowledgement (`NLMSG_ERROR`).
const ACKNOWLEDGEMENT: u16 = 2;

// The sequence numbers of the messages of a request.
const BEGIN: u32 = 1;
const TABLE: u32 = 2;
const CHAIN: u32 = 3;
const END: u32 = 4;

/// While it lives, nothing that comes in by an interface reaches the host's stack.
pub struct IngressDrop {
    /// The table.
    table: String,
    /// Its owner.
    _socket: netlink_sys::Socket,
}

impl fmt::Debug for IngressDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IngressDrop").field("table", &self.table).finish_non_exhaustive()
    }
}

/// Why there can be none.
#[derive(Debug, thiserror::Error)]
pub enum IngressDropError {
    /// Another switch has made one for the interface.
    #[error("table {table} of nftables has another owner")]
    Owned {
        /// The table.
        table: String,
    },
    /// The kernel has no nftables, an old one, or refuses.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl IngressDrop {
    /// Drops, from now on, what comes in by the interface of this name in the namespace.
    ///
    /// # Errors
    /// Where the kernel cannot, or another switch does so already.
    pub fn new(netns: BorrowedFd<'_>, ifname: &str) -> Result<Self, IngressDropError> {
        let table = format!("tapway-{ifname}");
        let error = |errno, message| NetlinkError {
            operation: "keep the host from answering on",
            object: format!("interface {ifname}"),
            errno,
            message,
        };
        let io = |e: io::Error| error(Errno::from_io_error(&e).unwrap_or(Errno::IO), None);
        let mut socket = netns::within(netns, || netlink_sys::Socket::new(NETLINK_NETFILTER))
            .and_then(|s| s)
            .map_err(io)?;
        socket.bind_auto().map_err(io)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(io)?;
        socket.set_ext_ack(true).map_err(io)?;
        socket.set_cap_ack(true).map_err(io)?;
        socket.send(&request(&table, ifname), 0).map_err(io)?;
        loop {
            let (datagram, _) = socket.recv_from_full().map_err(io)?;
            for answer in answers(&datagram) {
                match (answer.sequence, answer.error) {
                    (CHAIN, None) => return Ok(Self { table, _socket: socket }),
                    (_, None) => {}
                    (TABLE, Some(Errno::PERM)) => return Err(IngressDropError::Owned { table }),
                    (_, Some(errno)) => return Err(error(errno, answer.explanation).into()),
                }
            }
        }
    }
}

/// What `nft` would send for `table netdev TABLE { flags owner; chain ingress { type filter hook ingress device IFNAME priority …;
/// policy drop; } }`, where there is no such table.
fn request(table: &str, ifname: &str) -> Vec<u8> {
    let mut request = Vec::new();
    let make = NLM_F_CREATE | NLM_F_ACK;
    message(&mut request, NFNL_MSG_BATCH_BEGIN, 0, BEGIN, NFNL_SUBSYS_NFTABLES, |_| {});
    message(&mut request, NFT_MSG_NEWTABLE, make | NLM_F_EXCL, TABLE, 0, |m| {
        text(m, NFTA_TABLE_NAME, table);
        number(m, NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER);
    });
    message(&mut request, NFT_MSG_NEWCHAIN, make, CHAIN, 0, |m| {
        text(m, NFTA_CHAIN_TABLE, table);
        text(m, NFTA_CHAIN_NAME, "ingress");
        attribute(m, NFTA_CHAIN_HOOK | NESTED, |m| {
            number(m, NFTA_HOOK_HOOKNUM, NF_NETDEV_INGRESS);
            number(m, NFTA_HOOK_PRIORITY, PRIORITY.cast_unsigned());
            text(m, NFTA_HOOK_DEV, ifname);
        });
        text(m, NFTA_CHAIN_TYPE, "filter");
        number(m, NFTA_CHAIN_POLICY, NF_DROP);
    });
    message(&mut request, NFNL_MSG_BATCH_END, 0, END, NFNL_SUBSYS_NFTABLES, |_| {});
    request
}

/// Appends a message: `struct nlmsghdr`, `struct nfgenmsg` and attributes.
fn message(
    request: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    resource: u16,
    attributes: impl FnOnce(&mut Vec<u8>),
) {
    let family = if kind < NFNL_SUBSYS_NFTABLES << 8 { 0 } else { NFPROTO_NETDEV };
    let start = request.len();
    request.extend([0; 4]);
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    request.extend([0; 4]);
    request.extend([family, 0]);
    request.extend(resource.to_be_bytes());
    attributes(request);
    let len = (request.len() - start) as u32;
    request[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
    let start = message.len();
    message.extend([0; 2]);
    message.extend(kind.to_ne_bytes());
    value(message);
    let len = (message.len() - start) as u16;
    message[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    message.resize(message.len().next_multiple_of(4), 0);
}

fn text(message: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(message, kind, |m| {
        m.extend(value.as_bytes());
        m.push(0);
    });
}

/// Numbers are in network byte order, unlike those of rtnetlink.
fn number(message: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(message, kind, |m| m.extend(value.to_be_bytes()));
}

/// An acknowledgement.
struct Answer {
    sequence: u32,
    error: Option<Errno>,
    explanation: Option<String>,
}

/// The acknowledgements in a datagram: `struct nlmsghdr`, an error number, the header of the message that is answered, attributes.
fn answers(datagram: &[u8]) -> impl Iterator<Item = Answer> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        loop {
            let len = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
            let message = rest.get(..len.max(HEADER_LEN))?;
            rest = rest.get(message.len().next_multiple_of(4)..).unwrap_or_default();
            let [_, _, _, _, k0, k1, f0, f1, s0, s1, s2, s3, _, _, _, _, body @ ..] = message else {
                return None;
            };
            if u16::from_ne_bytes([*k0, *k1]) != ACKNOWLEDGEMENT {
                continue;
            }
            let code = i32::from_ne_bytes(*body.first_chunk()?);
            let attributes = match u16::from_ne_bytes([*f0, *f1]) & ACK_ATTRIBUTES {
                0 => None,
                _ => body.get(4 + HEADER_LEN..),
            };
            return Some(Answer {
                sequence: u32::from_ne_bytes([*s0, *s1, *s2, *s3]),
                error: (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg())),
                explanation: attributes.and_then(explanation),
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_aligned_and_say_how_long_they_are() {
        let request = request("tapway-eth0", "eth0");
        let (mut rest, mut kinds) = (&request[..], Vec::new());
        while let Some(len) = rest.first_chunk() {
            let len = u32::from_ne_bytes(*len) as usize;
            assert_eq!(len % 4, 0);
            kinds.push((u16::from_ne_bytes([rest[4], rest[5]]), rest[HEADER_LEN]));
            rest = &rest[len..];
        }
        assert_eq!(kinds, [(0x10, 0), (0xa00, 5), (0xa03, 5), (0x11, 0)]);
        // The hook: number, priority, device, each with its length, inside one attribute.
        let hook = [
            &[32, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0, 0, 8, 0, 2, 0, 0x80, 0, 0, 0][..],
            &[9, 0, 3, 0],
            b"eth0\0\0\0\0",
        ];
        let hook = hook.concat();
        assert!(request.windows(hook.len()).any(|w| w == hook), "{request:?}");
    }

    #[test]
    fn an_answer_is_told_from_noise_and_one_cut_off_ends_the_walk() {
        let refused = [
            &36u32.to_ne_bytes()[..],
            &ACKNOWLEDGEMENT.to_ne_bytes(),
            &[0; 2],
            &CHAIN.to_ne_bytes(),
            &[0; 4],
            &(-95i32).to_ne_bytes(),
            &[0; 16],
        ]
        .concat();
        let mut datagram = refused.clone();
        datagram[4] = 3; // NLMSG_DONE
        datagram.extend(&refused);
        let found: Vec<_> = answers(&datagram).map(|a| (a.sequence, a.error)).collect();
        assert_eq!(found, [(CHAIN, Some(Errno::OPNOTSUPP))]);
        for len in 0..refused.len() {
            assert_eq!(answers(&refused[..len]).count(), 0, "{len}");
        }
    }
}
