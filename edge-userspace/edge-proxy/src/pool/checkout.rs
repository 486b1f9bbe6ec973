//! How a request gets a connection: an idle one, a share of one, a new one, or the next that is free.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connect::connect;
use super::{ConnectError, InUse, Lease, Limits, Link, Pool, Sender, Shared, Want};
use crate::protocol::Protocol;

/// How often a request that waits looks whether another worker has given back a place.
const LOOK: Duration = Duration::from_millis(5);

impl Pool {
    /// An idle connection or one that is opened now, which may take as long as `timeout`. Where the cluster has as many as
    /// it may, `evict` is asked to close an idle one elsewhere; if there is none, the request waits for its turn.
    ///
    /// # Errors
    /// [`ConnectError::Overflow`] where as many wait as may.
    pub(crate) async fn checkout(
        self: &Rc<Self>,
        want: Want,
        timeout: Duration,
        evict: impl Fn() -> bool,
    ) -> Result<Lease, ConnectError> {
        match self.ready(want) {
            Some(lease) => Ok(lease),
            // Boxed: what opens a connection is large, and would be a part of every request's future.
            None => Box::pin(self.open(want, timeout, evict)).await,
        }
    }

    /// Opens a connection, or waits for one.
    async fn open(
        self: &Rc<Self>,
        want: Want,
        timeout: Duration,
        evict: impl Fn() -> bool,
    ) -> Result<Lease, ConnectError> {
        let limits = self.limits();
        let _pending = limits.pending().ok_or(ConnectError::Overflow)?;
        loop {
            if self.protocol == Protocol::Http2 {
                let opening = tokio::time::timeout(timeout, self.opening.lock()).await;
                let _opening = opening.map_err(|_| ConnectError::Timeout)?;
                if let Some(result) = self.try_once(want, timeout, &limits, &evict).await {
                    return result;
                }
            } else if let Some(result) = self.try_once(want, timeout, &limits, &evict).await {
                return result;
            }
            self.wait().await;
        }
    }

    async fn try_once(
        self: &Rc<Self>,
        want: Want,
        timeout: Duration,
        limits: &Rc<Limits>,
        evict: &impl Fn() -> bool,
    ) -> Option<Result<Lease, ConnectError>> {
        if let Some(lease) = self.ready(want) {
            return Some(Ok(lease));
        }
        if !limits.has_room() {
            evict();
        }
        let place = limits.has_room().then(|| limits.connection()).flatten()?;
        let connecting = connect(&self.target, self.protocol, limits, place);
        Some(match tokio::time::timeout(timeout, connecting).await {
            Ok(Ok(sender)) => Ok(self.opened(sender)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ConnectError::Timeout),
        })
    }

    /// Waits until a connection has become idle or a place is free, perhaps.
    async fn wait(&self) {
        self.waiting.set(self.waiting.get() + 1);
        // Wakes early now and then: other workers do not tell.
        let _ = tokio::time::timeout(LOOK, self.freed.notified()).await;
        self.waiting.set(self.waiting.get().saturating_sub(1));
    }

    /// A connection that is there.
    fn ready(self: &Rc<Self>, want: Want) -> Option<Lease> {
        if want == Want::Fresh {
            return None;
        }
        let sender = match self.protocol {
            Protocol::Http1 => Sender::Http1(self.pop(want == Want::Open)?),
            Protocol::Http2 => Sender::Http2(self.share()?),
        };
        Some(self.lease(sender, true))
    }

    /// The idle connection that was used last, if the endpoint has not closed it.
    fn pop(&self, sure: bool) -> Option<Rc<Link>> {
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            if idle.link.is_quiet(sure) {
                return Some(idle.link);
            }
        }
    }

    /// A shared connection that takes one more request.
    fn share(&self) -> Option<Shared> {
        let limits = self.limits.borrow();
        let mut shared = self.shared.borrow_mut();
        shared.iter_mut().find_map(|connection| {
            let sender = &connection.sender;
            if !limits.allows_more(sender.requests(), sender.opened(), self.now.get()) {
                return None;
            }
            let handle = sender.share(limits.streams())?;
            connection.last_used = self.now.get();
            Some(handle)
        })
    }

    fn opened(self: &Rc<Self>, sender: Sender) -> Lease {
        let now = Instant::now();
        self.now.set(now);
        if let Sender::Http2(shared) = &sender
            && !self.closed.get()
        {
            self.shared.borrow_mut().push(InUse {
                sender: shared.clone(),
                last_used: now,
            });
        }
        self.lease(sender, false)
    }

    fn lease(self: &Rc<Self>, sender: Sender, reused: bool) -> Lease {
        Lease {
            sender: Some(sender),
            pool: Rc::clone(self),
            reused,
        }
    }
}
