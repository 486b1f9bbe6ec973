//! The last of a response's head: what it says of its connection and of the length of its body. From here on the head is
//! what the client gets, and what the access log tells of.

use std::rc::Rc;

use bytes::Bytes;
use edge_model::{Route, WeightedDestination};
use edge_routing::{FormatValues, apply_response_ops};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::upgrade::Switch;
use super::{Record, ResponseBody, UpstreamBody};
use crate::connection::Conn;
use crate::protocol::Protocol;

/// What stands behind the head of a response.
pub(super) enum Content {
    /// A body of the gateway's own.
    Own(Bytes),
    /// The endpoint's body.
    Upstream(Box<UpstreamBody>),
    /// Another protocol.
    Switched(Box<Switch>),
}

impl Content {
    /// The body, which has the account of its request. What another protocol goes on with begins.
    pub(super) fn into_body(self, conn: &Rc<Conn>, record: Box<Record>) -> ResponseBody {
        match self {
            Self::Own(body) => ResponseBody::local(body, record),
            Self::Upstream(body) => ResponseBody::upstream(body, record),
            Self::Switched(switch) => {
                switch.begin(conn, record);
                ResponseBody::none()
            }
        }
    }
}

/// The length that a response tells, by a Content-Length (RFC 9110 section 8.6). `body` is its body's, if that is known.
///
/// What has no body tells the length that it would have, as far as it says so by `own`. An empty body is told of in
/// HTTP/1.1, and in HTTP/2 by the end of the stream alone, which comes with the head.
pub(super) fn told_length(
    protocol: Protocol,
    (method, status): (&Method, StatusCode),
    body: Option<u64>,
    own: impl FnOnce() -> Option<u64>,
) -> Option<u64> {
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        None
    } else if has_no_body(*method == Method::HEAD, status) {
        own()
    } else {
        body.filter(|length| *length > 0 || protocol == Protocol::Http1)
    }
}

/// Whether a response ends with its head, whatever that says (RFC 9110 section 6.4.1). `is_head`: HEAD was asked for.
pub(crate) fn has_no_body(is_head: bool, status: StatusCode) -> bool {
    is_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Edits a response as its route and its destination say; false where they say nothing. Framing is not theirs: what they
/// have put there is taken away, and what was there with it.
pub(super) fn edit(
    headers: &mut HeaderMap,
    route: &Route,
    destination: Option<&WeightedDestination>,
    values: FormatValues<'_>,
) -> bool {
    let theirs = destination.map(|destination| &destination.headers.response);
    if route.headers.response.is_empty() && theirs.is_none_or(|theirs| theirs.is_empty()) {
        return false;
    }
    apply_response_ops(headers, route, destination, values);
    for name in [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH, UPGRADE] {
        headers.remove(name);
    }
    true
}

/// Cuts the body of the gateway's own `response` to `method` where there must be none, and tells its length.
///
/// HTTP/2 would have sent a body behind the answer to HEAD, for which clients reset the stream.
pub(super) fn frame_own(protocol: Protocol, method: &Method, response: &mut Response<Bytes>) {
    let status = response.status();
    let length = response.body().len() as u64;
    let told = told_length(protocol, (method, status), Some(length), || {
        Some(length).filter(|length| *length > 0)
    });
    if let Some(length) = told {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if has_no_body(*method == Method::HEAD, status) {
        *response.body_mut() = Bytes::new();
    }
}

/// Says whether the connection ends with a response.
pub(super) fn tell_of_connection(conn: &Conn, status: StatusCode, headers: &mut HeaderMap) {
    match conn.protocol() {
        Protocol::Http1 if conn.closes_after_response() && status != StatusCode::SWITCHING_PROTOCOLS => {
            // An answer of the gateway's own may say more than that.
            headers
                .entry(CONNECTION)
                .or_insert(HeaderValue::from_static("close"));
        }
        Protocol::Http1 => {}
        // HTTP/2 says it by GOAWAY.
        Protocol::Http2 => {
            headers.remove(CONNECTION);
        }
    }
}
