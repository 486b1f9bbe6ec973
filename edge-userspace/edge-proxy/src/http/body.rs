//! Bodies on their way through: never collected, one piece at a time in both directions. Trailers are not passed on.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use edge_upstream::ActiveRequest;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::{Flag, Record};
use crate::pool::Lease;

/// The client's body on its way to the upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None at all.
    Empty,
    /// As it comes from the client.
    Client {
        body: Incoming,
        /// Becomes true when the last byte was taken.
        finished: Rc<Cell<bool>>,
    },
}

impl RequestBody {
    pub(crate) fn new(body: Incoming) -> Self {
        match body.is_end_stream() {
            true => Self::Empty,
            false => Self::Client {
                body,
                finished: Rc::default(),
            },
        }
    }

    /// Tells later whether the body was taken to its end; `None` when there is nothing to take.
    pub(crate) fn finished(&self) -> Option<Rc<Cell<bool>>> {
        match self {
            Self::Empty => None,
            Self::Client { finished, .. } => Some(Rc::clone(finished)),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Client { body, finished } = &mut *self else {
            return Poll::Ready(None);
        };
        let frame = ready!(next_data(body, cx));
        if frame.is_none() || body.is_end_stream() {
            finished.set(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client { body, .. } => body.size_hint(),
        }
    }
}

/// The next frame with data; trailers are taken for the end.
fn next_data(body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let frame = ready!(Pin::new(body).poll_frame(cx));
    Poll::Ready(match frame {
        Some(Ok(frame)) if frame.is_data() => Some(Ok(frame)),
        Some(Ok(_)) | None => None,
        Some(Err(error)) => Some(Err(error)),
    })
}

/// Why a body broke off. hyper then closes the client's connection without ending the body, so that the client can
/// tell that a part is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the upstream's body broke off: {0}")]
    Upstream(#[from] hyper::Error),
    #[error("the route's timeout ran out")]
    Timeout,
}

/// The response's body on its way to the client, with the account of its request.
pub(crate) struct ResponseBody {
    kind: Kind,
    record: Record,
}

enum Kind {
    Done,
    Whole(Bytes),
    Upstream(Box<UpstreamBody>),
}

/// A body from the upstream, and what is held until it has ended.
pub(crate) struct UpstreamBody {
    pub(crate) body: Incoming,
    /// The connection it comes over.
    pub(crate) lease: Lease,
    /// Whether the request's body was sent to its end; `None` when it had none.
    pub(crate) request_finished: Option<Rc<Cell<bool>>>,
    /// The route's timeout.
    pub(crate) timer: Option<Pin<Box<Sleep>>>,
    /// Counts as active on its endpoint until here.
    pub(crate) _active: ActiveRequest,
}

impl ResponseBody {
    /// A body of the gateway's own.
    pub(crate) fn local(body: Bytes, mut record: Record) -> Self {
        // hyper does not ask for the body of an answer to HEAD, so there is no later moment to call it complete.
        record.complete();
        let kind = match body.is_empty() {
            true => Kind::Done,
            false => Kind::Whole(body),
        };
        Self { kind, record }
    }

    /// The upstream's body.
    pub(crate) fn upstream(body: UpstreamBody, mut record: Record) -> Self {
        let kind = match body.body.is_end_stream() {
            true => {
                body.release();
                record.complete();
                Kind::Done
            }
            false => Kind::Upstream(Box::new(body)),
        };
        Self { kind, record }
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Kind::Upstream(upstream) = &mut self.kind else {
            return Poll::Ready(None);
        };
        if let Some(timer) = &mut upstream.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            self.break_off(Flag::UpstreamRequestTimeout);
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        let frame = ready!(next_data(&mut upstream.body, cx));
        let ended = match &frame {
            Some(Ok(_)) => upstream.body.is_end_stream(),
            Some(Err(_)) => {
                self.break_off(Flag::UpstreamConnectionTermination);
                false
            }
            None => true,
        };
        if ended && let Kind::Upstream(upstream) = std::mem::replace(&mut self.kind, Kind::Done) {
            upstream.release();
            self.record.complete();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn break_off(&mut self, flag: Flag) {
        self.kind = Kind::Done;
        self.record.broke_off(flag);
    }
}

impl UpstreamBody {
    /// Gives the connection back, unless the upstream answered before it had the whole request: the rest would still
    /// be on its way when the next request is to go over it.
    fn release(self) {
        if self.request_finished.is_none_or(|finished| finished.get()) {
            self.lease.release();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Kind::Whole(body) = &mut self.kind {
            let body = std::mem::take(body);
            self.kind = Kind::Done;
            return Poll::Ready(Some(Ok(Frame::data(body))));
        }
        self.poll_upstream(cx)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Done => SizeHint::with_exact(0),
            Kind::Whole(body) => SizeHint::with_exact(body.len() as u64),
            Kind::Upstream(upstream) => upstream.body.size_hint(),
        }
    }
}
