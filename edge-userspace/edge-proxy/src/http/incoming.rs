//! The body of a client's request, by what the client speaks.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::connection::Conn;
use crate::pool::{BodyFault, poll_http2};
use crate::server::WireBody;

/// The body of a request.
#[derive(Debug, Default)]
pub(crate) enum Incoming {
    /// None at all.
    #[default]
    Empty,
    Http1(WireBody),
    Http2(Http2Body),
}

/// The body of a request of HTTP/2. One that is let go before its end lingers (`server::linger`).
pub(crate) struct Http2Body {
    /// `None` once it has failed, or is let go.
    body: Option<hyper::body::Incoming>,
    conn: Rc<Conn>,
}

impl Http2Body {
    pub(crate) fn new(body: hyper::body::Incoming, conn: &Rc<Conn>) -> Self {
        Self {
            body: Some(body),
            conn: Rc::clone(conn),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = poll_http2(body, cx);
        if matches!(frame, Poll::Ready(Some(Err(_)))) {
            self.body = None;
        }
        frame
    }
}

impl fmt::Debug for Http2Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Body")
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        let is_gone = self.conn.is_gone();
        if let Some(body) = self.body.take().filter(|body| !is_gone && !body.is_end_stream()) {
            self.conn.open_streams().linger(body, &self.conn);
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.body.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.body.as_ref().map_or_else(SizeHint::new, Body::size_hint),
        }
    }
}
