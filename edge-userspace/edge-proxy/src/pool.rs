//! Connections to one endpoint, kept by one worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::http::RequestBody;

/// Idle connections that a worker keeps to one endpoint; more than that are closed as they become idle.
const MAX_IDLE: usize = 256;

/// Largest response head, as for request heads.
const MAX_HEAD: usize = 64 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("connecting failed: {0}")]
    Io(#[from] io::Error),
    #[error("connecting took longer than the cluster's connectTimeout")]
    Timeout,
    #[error("the connection was lost as it was opened: {0}")]
    Http(#[from] hyper::Error),
}

/// Idle connections to one endpoint. The one that was used last is taken first, so that those beyond the need grow old
/// and are closed.
#[derive(Debug)]
pub(crate) struct Pool {
    address: SocketAddr,
    idle: RefCell<Vec<Idle>>,
    closed: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection in use by one request. It is closed when dropped, and kept when released.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: SendRequest<RequestBody>,
    pool: Rc<Pool>,
    reused: bool,
}

impl Lease {
    pub(crate) fn sender(&mut self) -> &mut SendRequest<RequestBody> {
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
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: RefCell::default(),
            closed: Cell::new(false),
        }
    }

    /// An idle connection, or one that is opened now; `fresh` asks for the latter.
    pub(crate) async fn checkout(
        self: &Rc<Self>,
        fresh: bool,
        timeout: Duration,
    ) -> Result<Lease, ConnectError> {
        if !fresh {
            while let Some(mut sender) = self.pop() {
                // Fails at once for a connection that the endpoint has closed, as far as is known by now.
                if sender.ready().await.is_ok() {
                    return Ok(self.lease(sender, true));
                }
            }
        }
        let connecting = tokio::time::timeout(timeout, connect(self.address));
        let sender = connecting.await.map_err(|_| ConnectError::Timeout)??;
        Ok(self.lease(sender, false))
    }

    fn pop(&self) -> Option<SendRequest<RequestBody>> {
        self.idle.borrow_mut().pop().map(|idle| idle.sender)
    }

    fn lease(self: &Rc<Self>, sender: SendRequest<RequestBody>, reused: bool) -> Lease {
        Lease {
            sender,
            pool: Rc::clone(self),
            reused,
        }
    }

    fn put(&self, sender: SendRequest<RequestBody>) {
        let mut idle = self.idle.borrow_mut();
        if !self.closed.get() && !sender.is_closed() && idle.len() < MAX_IDLE {
            let since = Instant::now();
            idle.push(Idle { sender, since });
        }
    }

    /// Closes idle connections that nobody has needed since `before`, and forgets those that the endpoint closed.
    pub(crate) fn sweep(&self, before: Instant) {
        let keep = |idle: &Idle| idle.since > before && !idle.sender.is_closed();
        self.idle.borrow_mut().retain(keep);
    }

    /// Closes idle connections now, and those in use when they become idle.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<RequestBody>, ConnectError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut builder = Builder::new();
    builder.max_buf_size(MAX_HEAD).max_header_size(MAX_HEAD);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "connection to endpoint ended");
        }
    });
    Ok(sender)
}
