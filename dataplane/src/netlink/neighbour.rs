//! Forwarding entries of links, and the numbers of namespaces.

use std::{
    fmt,
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourMessage},
    nsid::{NsidAttribute, NsidMessage},
};
use rustix::io::Errno;

use super::socket::{NetlinkError, Purpose, Socket};

impl Socket {
    /// Every forwarding entry of one link or of all (`bridge fdb show`).
    pub(super) fn bridge_neighbours(
        &mut self,
        index: Option<u32>,
    ) -> Result<Vec<NeighbourMessage>, NetlinkError> {
        let mut question = NeighbourMessage::default();
        question.header.family = AddressFamily::Bridge;
        question.attributes.extend(index.map(NeighbourAttribute::IfIndex));
        let purpose = Purpose { operation: "list", object: &"forwarding entries" };
        let answers = self.dump(purpose, RouteNetlinkMessage::GetNeighbour(question))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => Some(message),
                _ => None,
            })
            .collect())
    }

    /// Adds a forwarding entry. Only a group or the unknown station may have several (`vxlan_fdb_update`), which is what `append` asks for.
    pub(super) fn add_neighbour(
        &mut self,
        object: &dyn fmt::Display,
        message: NeighbourMessage,
        append: bool,
    ) -> Result<(), NetlinkError> {
        let flags = NLM_F_CREATE | if append { NLM_F_APPEND } else { NLM_F_EXCL };
        self.change(Purpose { operation: "add", object }, RouteNetlinkMessage::NewNeighbour(message), flags)
    }

    /// Removes a forwarding entry; one that is not there is no error.
    pub(super) fn delete_neighbour(
        &mut self,
        object: &dyn fmt::Display,
        message: NeighbourMessage,
    ) -> Result<(), NetlinkError> {
        let purpose = Purpose { operation: "remove", object };
        match self.change(purpose, RouteNetlinkMessage::DelNeighbour(message), 0) {
            Err(error) if error.errno == Errno::NOENT => Ok(()),
            result => result,
        }
    }

    /// The number by which this socket's namespace knows another one, or `None` where it has none for it.
    pub(super) fn netns_id(&mut self, netns: BorrowedFd<'_>) -> Result<Option<i32>, NetlinkError> {
        let mut question = NsidMessage::default();
        question.attributes.push(NsidAttribute::Fd(netns.as_raw_fd().unsigned_abs()));
        let purpose = Purpose { operation: "look up", object: &"a network namespace" };
        let answer = self.ask(purpose, RouteNetlinkMessage::GetNsId(question))?;
        Ok(answer.and_then(|answer| match answer {
            RouteNetlinkMessage::NewNsId(message) => message.attributes.iter().find_map(|a| match a {
                NsidAttribute::Id(id) => Some(*id).filter(|id| *id >= 0),
                _ => None,
            }),
            _ => None,
        }))
    }
}
