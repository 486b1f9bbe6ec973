//! A connection to an endpoint as a request sees it: whatever is spoken on it, a head and a body go in and come out.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{TE, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::link::{Asked, BodyFault, Link, LinkBody, SendError, poll_http2};
use super::shared::Shared;
use crate::h1::push_field;
use crate::http::RequestBody;

/// A connection, or a share of one.
#[derive(Debug)]
pub(crate) enum Sender {
    Http1(Rc<Link>),
    Http2(Shared),
}

impl Sender {
    /// The gateway's own address on it.
    pub(super) fn local(&self) -> Option<Rc<str>> {
        match self {
            Self::Http1(link) => link.local(),
            Self::Http2(shared) => shared.local(),
        }
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<EndpointBody>, SendError> {
        match self {
            Self::Http1(link) => {
                // A field of one hop, which servers of gRPC over HTTP/2 ask for and nobody else.
                request.headers_mut().remove(TE);
                let (head, body) = request.into_parts();
                let asked = Asked {
                    no_body: head.method == Method::HEAD,
                    upgrade: head.headers.contains_key(UPGRADE),
                };
                let write_head = |_: &RequestBody, text: &mut Vec<u8>| write_head(&head, text);
                let response = link.exchange(asked, write_head, body).await?;
                Ok(response.map(EndpointBody::Http1))
            }
            Self::Http2(shared) => shared.send(request).await,
        }
    }
}

/// Writes a head as HTTP/1.1 has it. Its fields are all there, those for framing too.
pub(crate) fn write_head(head: &Parts, text: &mut Vec<u8>) {
    text.extend_from_slice(head.method.as_str().as_bytes());
    text.extend_from_slice(b" ");
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    text.extend_from_slice(target.as_bytes());
    text.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &head.headers {
        push_field(text, name.as_str(), value.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
}

/// The body of a response.
#[derive(Debug)]
pub(crate) enum EndpointBody {
    Http1(LinkBody),
    Http2(Incoming),
    /// None: the stream is one of another protocol from now on (RFC 8441).
    Http2Tunnel(OnUpgrade),
}

impl Body for EndpointBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => poll_http2(body, cx),
            Self::Http2Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Http2Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Http2Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
