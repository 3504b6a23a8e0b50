//! Vhost-user ports: the rings of a guest, in memory that its monitor shares.

use std::os::fd::BorrowedFd;

use super::{Backend, BackendError, Desk, Opened};
use crate::{
    config::{PortOptions, PortSpec},
    frame::Caps,
    port::{
        Queue,
        vhost_user::{Change, VhostUser, VhostUserOptions},
    },
    wire::MacAddr,
};

/// Opens what is behind a port: the socket. Queues come when a guest's driver has started its rings.
///
/// # Errors
/// Where the socket cannot be made.
pub(super) fn open(spec: &PortSpec, queues: u16) -> Result<Opened, BackendError> {
    let options = &spec.options;
    let port = VhostUser::open(VhostUserOptions {
        path: options.path.clone().ok_or("a vhost-user port needs the path of a socket")?.into(),
        server: options.serves(),
        pairs: queues,
        offload: options.offload_or_default().0,
    })?;
    Ok(Opened { backend: Box::new(VhostUserBackend { port, refused: None }), queues: Vec::new() })
}

/// A vhost-user port.
#[derive(Debug)]
struct VhostUserBackend {
    port: VhostUser,
    /// Why the workers could not be given the queues.
    refused: Option<String>,
}

impl Backend for VhostUserBackend {
    fn caps(&self) -> Caps {
        self.port.caps()
    }

    fn ifname(&self) -> String {
        String::new()
    }

    fn mac(&self) -> Option<MacAddr> {
        None
    }

    fn health(&self) -> Result<(), String> {
        self.refused.clone().map_or_else(|| self.port.health(), Err)
    }

    fn change(&mut self, _: &PortOptions, _: &PortOptions) -> Result<(), BackendError> {
        Ok(())
    }

    fn watched(&self) -> Vec<BorrowedFd<'_>> {
        self.port.watched()
    }

    fn tend(&mut self, desk: &mut dyn Desk) {
        if self.port.tend() == Change::Queues {
            self.refused = None;
            drop(desk.take_back());
            let queues: Vec<Queue> = self.port.queues().into_iter().map(Queue::Vhost).collect();
            if !queues.is_empty()
                && let Err(error) = desk.hand_out(queues)
            {
                self.refused = Some(format!("its queues cannot be handed out: {error}"));
            }
        }
    }

    fn destroy(self: Box<Self>) -> Result<(), BackendError> {
        Ok(())
    }
}
