//! Bodies on their way through: never collected, one piece at a time in both directions, with their trailers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use edge_upstream::ActiveRequest;
use edge_upstream::circuit::Place;
use http_body::{Body, Frame, SizeHint};

use super::trailers::{has_blank_ends, passable};
use super::{Flag, Record};
use crate::pool::{BodyFault, Cause, EndpointBody, Lease, Upgraded};
use crate::timer::Timer;
use hyper::upgrade::OnUpgrade;

/// The next frame, with trailers as they are passed on.
fn next_frame(
    body: &mut EndpointBody,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
    let frame = ready!(Pin::new(body).poll_frame(cx));
    Poll::Ready(frame.map(|frame| {
        frame.and_then(|frame| match frame.into_trailers() {
            Ok(trailers) if has_blank_ends(&trailers) => {
                Err(BodyFault::Malformed("white space around a trailer"))
            }
            Ok(trailers) => Ok(Frame::trailers(passable(trailers))),
            Err(data) => Ok(data),
        })
    }))
}

/// Why a body broke off. The server then closes the client's connection without ending the body, so that the client can
/// tell that a part is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the upstream's body broke off: {0}")]
    Upstream(#[from] BodyFault),
    #[error("the route's timeout ran out")]
    Timeout,
}

/// The response's body on its way to the client, with the account of its request.
pub(crate) struct ResponseBody {
    kind: Kind,
    /// `None` where another protocol goes on, and has the account.
    record: Option<Box<Record>>,
}

enum Kind {
    Done,
    Whole(Bytes),
    Upstream(Box<UpstreamBody>),
}

/// Places that a forwarded request holds in its cluster's circuit.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) request: Option<Place>,
    pub(crate) retry: Option<Place>,
}

/// A body from the upstream, and what is held until it has ended.
pub(crate) struct UpstreamBody {
    pub(crate) body: EndpointBody,
    /// The connection it comes over.
    pub(crate) lease: Lease,
    /// The route's timeout.
    pub(crate) timer: Option<Timer>,
    /// Counts as active on its endpoint until here.
    pub(crate) _active: ActiveRequest,
    /// Its places in the cluster's circuit.
    pub(crate) _places: Places,
}

impl ResponseBody {
    /// A body of the gateway's own.
    pub(crate) fn local(body: Bytes, mut record: Box<Record>) -> Self {
        // It is at hand, and not asked for where it is empty: there is no later moment to call it complete.
        record.complete();
        record.sent(&body);
        let kind = match body.is_empty() {
            true => Kind::Done,
            false => Kind::Whole(body),
        };
        Self {
            kind,
            record: Some(record),
        }
    }

    /// Nothing, where another protocol goes on.
    pub(crate) fn none() -> Self {
        Self {
            kind: Kind::Done,
            record: None,
        }
    }

    /// The upstream's body.
    pub(crate) fn upstream(body: Box<UpstreamBody>, mut record: Box<Record>) -> Self {
        let kind = match body.body.is_end_stream() {
            true => {
                body.release();
                record.complete();
                Kind::Done
            }
            false => Kind::Upstream(body),
        };
        Self {
            kind,
            record: Some(record),
        }
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Kind::Upstream(upstream) = &mut self.kind else {
            return Poll::Ready(None);
        };
        if let Some(timer) = &mut upstream.timer
            && Pin::new(timer).poll(cx).is_ready()
        {
            self.break_off(Flag::UpstreamRequestTimeout, "upstream_response_timeout");
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        let frame = ready!(next_frame(&mut upstream.body, cx));
        let ended = match &frame {
            Some(Ok(frame)) => {
                if let Some(record) = &mut self.record {
                    if let Some(data) = frame.data_ref() {
                        record.sent(data);
                    }
                    if let Some(trailers) = frame.trailers_ref() {
                        record.trailers(trailers);
                    }
                }
                frame.is_trailers() || upstream.body.is_end_stream()
            }
            Some(Err(fault)) => {
                let (flag, details) = late_reset(fault.cause());
                self.break_off(flag, details);
                false
            }
            None => true,
        };
        if ended && let Kind::Upstream(upstream) = std::mem::replace(&mut self.kind, Kind::Done) {
            upstream.release();
            if let Some(record) = &mut self.record {
                record.complete();
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn break_off(&mut self, flag: Flag, details: &'static str) {
        self.kind = Kind::Done;
        if let Some(record) = &mut self.record {
            record.broke_off(flag, details);
        }
    }
}

/// Flag and details of a response that breaks off behind its head (Envoy's `LateUpstreamReset`, with the reason).
fn late_reset(cause: Cause) -> (Flag, &'static str) {
    match cause {
        Cause::Ended => (
            Flag::UpstreamConnectionTermination,
            "upstream_reset_after_response_started{connection_termination}",
        ),
        Cause::Reset => (
            Flag::UpstreamRemoteReset,
            "upstream_reset_after_response_started{remote_reset}",
        ),
        Cause::ResetHere => (
            Flag::LocalReset,
            "upstream_reset_after_response_started{local_reset}",
        ),
        Cause::Malformed => (
            Flag::UpstreamProtocolError,
            "upstream_reset_after_response_started{protocol_error}",
        ),
    }
}

/// What goes on where the endpoint has agreed to another protocol.
#[derive(Debug)]
pub(crate) enum Switched {
    /// A connection of HTTP/1.1.
    Link(Upgraded),
    /// A stream of HTTP/2.
    Stream(OnUpgrade),
}

/// What is held of an endpoint while a request, or what came of it, is under way.
pub(crate) type Held = (Lease, ActiveRequest, Places);

impl UpstreamBody {
    /// The connection or stream as bytes, where the endpoint has agreed to another protocol.
    pub(crate) fn into_switched(self) -> Option<(Switched, Held)> {
        let switched = match self.body {
            EndpointBody::Http1(body) => Switched::Link(body.into_upgraded()?),
            EndpointBody::Http2Tunnel(stream) => Switched::Stream(stream),
            EndpointBody::Http2(_) => return None,
        };
        Some((switched, (self.lease, self._active, self._places)))
    }

    /// Gives the connection back, which keeps it if request and response have both ended.
    fn release(self) {
        self.lease.release();
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
