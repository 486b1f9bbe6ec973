//! Connections to one endpoint, kept by one worker.

mod checkout;
mod connect;
mod heard;
mod limits;
mod link;
mod sender;
mod shared;
mod stream;
mod target;
mod upload;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex, Notify};

pub(crate) use connect::{Announced, ConnectError, Target, connect_bytes};
pub(crate) use limits::Limits;
use link::Link;
pub(crate) use link::{Asked, BodyFault, Cause, SendError, Upgraded, poll_http2};
pub(crate) use sender::{EndpointBody, Sender, write_head};
use shared::Shared;
pub(crate) use stream::EndpointStream;

use crate::protocol::Protocol;

/// Idle connections that a worker keeps to one endpoint; more than that are closed as they become idle.
const MAX_IDLE: usize = 256;

/// Connections to one endpoint of a cluster. Of those with HTTP/1.1, the one that was used last is taken first, so that
/// those beyond the need grow old and are closed. Those with HTTP/2 are shared.
#[derive(Debug)]
pub(crate) struct Pool {
    target: Target,
    protocol: Protocol,
    limits: RefCell<Rc<Limits>>,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<InUse>>,
    /// Held while a shared connection is being opened, so that those who come meanwhile take it.
    opening: Mutex<()>,
    /// Told when a connection has become idle or is gone.
    freed: Notify,
    /// Requests that wait for that.
    waiting: Cell<u32>,
    /// The present, as of the last sweep.
    now: Cell<Instant>,
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
    /// `None` once it is released.
    sender: Option<Sender>,
    pool: Rc<Pool>,
    reused: bool,
}

impl Lease {
    /// The connection; `None` only after it was given back.
    pub(crate) fn sender(&mut self) -> Option<&mut Sender> {
        self.sender.as_mut()
    }

    /// The gateway's own address on the connection.
    pub(crate) fn local(&self) -> Option<Rc<str>> {
        self.sender.as_ref().and_then(Sender::local)
    }

    /// Whether an earlier request went over the connection.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Gives the connection back after its response has ended.
    pub(crate) fn release(mut self) {
        if let Some(sender) = self.sender.take() {
            self.pool.put(sender);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The connection first, so that its place is free when another request looks for one.
        self.sender = None;
        if self.pool.waiting.get() > 0 {
            self.pool.freed.notify_one();
        }
    }
}

impl Pool {
    pub(crate) fn new(target: Target, protocol: Protocol, limits: Rc<Limits>) -> Self {
        Self {
            target,
            protocol,
            limits: RefCell::new(limits),
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Mutex::default(),
            freed: Notify::new(),
            waiting: Cell::new(0),
            now: Cell::new(Instant::now()),
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
        same_tls && self.target.address == target.address && self.target.announced == target.announced
    }

    /// Whether it keeps no connection any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Limits that are in force from now on.
    pub(crate) fn set_limits(&self, limits: &Rc<Limits>) {
        *self.limits.borrow_mut() = Rc::clone(limits);
    }

    fn limits(&self) -> Rc<Limits> {
        Rc::clone(&self.limits.borrow())
    }

    fn put(&self, sender: Sender) {
        let Sender::Http1(link) = sender else { return };
        let mut idle = self.idle.borrow_mut();
        let has_more = self
            .limits
            .borrow()
            .allows_more(link.requests(), link.opened(), self.now.get());
        if !self.closed.get() && has_more && link.is_reusable() && idle.len() < MAX_IDLE {
            let since = self.now.get();
            idle.push(Idle { link, since });
        }
    }

    /// Closes an idle connection, if there is one, to make room for another one of the cluster.
    pub(crate) fn evict(&self) -> bool {
        // The first is the one that was not used for longest.
        let mut idle = self.idle.borrow_mut();
        if !idle.is_empty() {
            drop(idle.remove(0));
            return true;
        }
        let mut shared = self.shared.borrow_mut();
        let unused = shared
            .iter()
            .position(|connection| connection.sender.is_unneeded(true));
        unused.map(|at| shared.remove(at)).is_some()
    }

    /// Closes idle connections that nobody has needed for the idle time or that are too old, and forgets those that the
    /// endpoint closed.
    pub(crate) fn sweep(&self, now: Instant) {
        self.now.set(now);
        let limits = self.limits();
        self.idle.borrow_mut().retain(|idle| {
            !limits.is_idle_too_long(idle.since, now)
                && limits.allows_more(idle.link.requests(), idle.link.opened(), now)
                && idle.link.is_quiet(false)
        });
        self.shared.borrow_mut().retain(|connection| {
            let is_old = limits.is_idle_too_long(connection.last_used, now)
                || !limits.allows_more(connection.sender.requests(), connection.sender.opened(), now);
            !connection.sender.is_unneeded(is_old)
        });
        // Places may have been given back by other workers, too.
        if self.waiting.get() > 0 {
            self.freed.notify_one();
        }
    }

    /// Closes idle connections now, and those in use when they become idle.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }
}
