//! Listening sockets of the node's workers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use edge_common::maps::{MAX_LOCAL_WORKERS, socket_index};
use edge_model::{Protocol, WorkerId};

use super::indexes::Indexes;
use super::names::ListenerName;
use crate::{Error, sys};

/// A listening socket of a worker, for socket selection.
///
/// It must listen (TCP) or be bound (UDP), on a local address that takes the VIP's family: `[::]` for both.
#[derive(Debug, Clone, Copy)]
pub struct WorkerSocket<'fd> {
    /// The worker that accepts on it.
    pub worker: WorkerId,
    /// Port it is bound to: [`Vip::listener_port`](edge_model::Vip::listener_port) of the VIPs it serves.
    pub port: u16,
    /// The only address that it is bound to: [`Vip::listener_address`](edge_model::Vip::listener_address). `None` for every one.
    pub address: Option<IpAddr>,
    /// Protocol of the socket.
    pub protocol: Protocol,
    /// The socket. It is looked at during the call only; the kernel forgets it when it is closed.
    pub fd: BorrowedFd<'fd>,
}

impl WorkerSocket<'_> {
    /// What it listens on.
    pub(crate) fn listener(&self) -> ListenerName {
        (self.address, self.port, self.protocol)
    }
}

/// A socket's place and identity in the socket map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketId {
    /// The worker.
    pub worker: WorkerId,
    /// Port that the socket is bound to.
    pub port: u16,
    /// The kernel's number for the socket (SO_COOKIE).
    pub cookie: u64,
}

/// Each socket's place in the socket map, and its identity.
pub(super) fn socket_ids(
    listeners: &Indexes<ListenerName>,
    sockets: &[WorkerSocket<'_>],
) -> Result<BTreeMap<u32, SocketId>, Error> {
    let mut ids = BTreeMap::new();
    for socket in sockets {
        let WorkerSocket { worker, port, .. } = *socket;
        if u32::from(worker.0) >= MAX_LOCAL_WORKERS {
            return Err(Error::BadWorker {
                worker,
                limit: MAX_LOCAL_WORKERS - 1,
            });
        }
        let cookie =
            sys::socket_cookie(socket.fd).map_err(|source| Error::Socket { worker, port, source })?;
        if let Some(listener) = listeners.get(&socket.listener()) {
            ids.insert(
                socket_index(listener, u32::from(worker.0)),
                SocketId { worker, port, cookie },
            );
        }
    }
    Ok(ids)
}
