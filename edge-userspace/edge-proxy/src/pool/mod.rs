//! Connections to one endpoint, kept by one worker.

mod connect;
mod link;
mod stream;
mod target;
mod upload;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

pub(crate) use connect::{ConnectError, EndpointBody, Sender, Target, connect_bytes};
use connect::{Shared, connect};
use link::Link;
pub(crate) use link::{BodyFault, SendError, Upgraded};
pub(crate) use stream::EndpointStream;

use crate::protocol::Protocol;

/// Idle connections that a worker keeps to one endpoint; more than that are closed as they become idle.
const MAX_IDLE: usize = 256;

/// Connections to one endpoint. Of those with HTTP/1.1, the one that was used last is taken first, so that those beyond
/// the need grow old and are closed. Those with HTTP/2 are shared.
#[derive(Debug)]
pub(crate) struct Pool {
    target: Target,
    protocol: Protocol,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<InUse>>,
    /// Held while a shared connection is being opened, so that those who come meanwhile take it.
    opening: Mutex<()>,
    closed: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    link: Rc<Link>,
    since: Instant,
}

#[derive(Debug)]
struct InUse {
    sender: Shared,
    last_used: Instant,
}

/// What connection a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Any: if the endpoint closes it just now, the request is sent once more.
    Any,
    /// One that the endpoint has not closed by now, which is asked of the kernel: the request can be sent only once.
    Open,
    /// One that is opened for it.
    Fresh,
}

/// A connection in use by one request. It is closed when dropped, and kept when released, unless others share it.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: Sender,
    pool: Rc<Pool>,
    reused: bool,
}

impl Lease {
    pub(crate) fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// Whether an earlier request went over the connection.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Gives the connection back after its response has ended.
    pub(crate) fn release(self) {
        self.pool.put(self.sender);
    }
}

impl Pool {
    pub(crate) fn new(target: Target, protocol: Protocol) -> Self {
        Self {
            target,
            protocol,
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Mutex::default(),
            closed: Cell::new(false),
        }
    }

    /// Whether its connections lead where those to `target` do.
    pub(crate) fn leads_to(&self, target: &Target) -> bool {
        let same_tls = match (&self.target.tls, &target.tls) {
            (None, None) | (Some(None), Some(None)) => true,
            (Some(Some(own)), Some(Some(other))) => Arc::ptr_eq(own, other),
            _ => false,
        };
        same_tls && self.target.address == target.address
    }

    /// An idle connection, or one that is opened now.
    pub(crate) async fn checkout(
        self: &Rc<Self>,
        want: Want,
        timeout: Duration,
    ) -> Result<Lease, ConnectError> {
        match self.protocol {
            Protocol::Http1 => self.checkout_idle(want, timeout).await,
            Protocol::Http2 => self.checkout_shared(want == Want::Fresh, timeout).await,
        }
    }

    async fn checkout_idle(self: &Rc<Self>, want: Want, timeout: Duration) -> Result<Lease, ConnectError> {
        if want != Want::Fresh {
            while let Some(link) = self.pop() {
                if link.is_quiet(want == Want::Open) {
                    return Ok(self.lease(Sender::Http1(link), true));
                }
            }
        }
        Ok(self.lease(self.open(timeout).await?, false))
    }

    async fn checkout_shared(self: &Rc<Self>, fresh: bool, timeout: Duration) -> Result<Lease, ConnectError> {
        if !fresh && let Some(shared) = self.share() {
            return Ok(self.lease(Sender::Http2(shared), true));
        }
        let opening = tokio::time::timeout(timeout, self.opening.lock()).await;
        let _opening = opening.map_err(|_| ConnectError::Timeout)?;
        if !fresh && let Some(shared) = self.share() {
            return Ok(self.lease(Sender::Http2(shared), true));
        }
        let sender = self.open(timeout).await?;
        if let Sender::Http2(shared) = &sender
            && !self.closed.get()
        {
            self.shared.borrow_mut().push(InUse {
                sender: shared.clone(),
                last_used: Instant::now(),
            });
        }
        Ok(self.lease(sender, false))
    }

    async fn open(&self, timeout: Duration) -> Result<Sender, ConnectError> {
        let connecting = tokio::time::timeout(timeout, connect(&self.target, self.protocol));
        connecting.await.map_err(|_| ConnectError::Timeout)?
    }

    fn pop(&self) -> Option<Rc<Link>> {
        self.idle.borrow_mut().pop().map(|idle| idle.link)
    }

    /// A shared connection that takes one more request.
    fn share(&self) -> Option<Shared> {
        let mut shared = self.shared.borrow_mut();
        shared.iter_mut().find_map(|connection| {
            let handle = connection.sender.share()?;
            connection.last_used = Instant::now();
            Some(handle)
        })
    }

    fn lease(self: &Rc<Self>, sender: Sender, reused: bool) -> Lease {
        Lease {
            sender,
            pool: Rc::clone(self),
            reused,
        }
    }

    fn put(&self, sender: Sender) {
        let Sender::Http1(link) = sender else { return };
        let mut idle = self.idle.borrow_mut();
        if !self.closed.get() && link.is_reusable() && idle.len() < MAX_IDLE {
            let since = Instant::now();
            idle.push(Idle { link, since });
        }
    }

    /// Closes idle connections that nobody has needed since `before`, and forgets those that the endpoint closed.
    pub(crate) fn sweep(&self, before: Instant) {
        let keep = |idle: &Idle| idle.since > before && idle.link.is_quiet(false);
        self.idle.borrow_mut().retain(keep);
        self.shared
            .borrow_mut()
            .retain(|connection| !connection.sender.is_unneeded(connection.last_used <= before));
    }

    /// Closes idle connections now, and those in use when they become idle.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }
}
