//! Upgrades: a WebSocket asked for in HTTP/1.1 (RFC 6455) or in HTTP/2 (RFC 8441), to an endpoint of either version.
//!
//! No other protocol is passed on, as on Istio's gateways: what Upgrade names else is left out, and the request is an
//! ordinary one. While the endpoint has not agreed, what the client sends behind its request is held back. Where only
//! one side speaks HTTP/1.1, the gateway has the part of the other one in the exchange of key and proof.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use fastrand::Rng;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::body::{Held, Switched};
use super::finish::Content;
use super::{Record, UpstreamBody};
use crate::connection::Conn;
use crate::server::SendTask;
use crate::tcp;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Among the extensions of a head: the request asks for a WebSocket.
#[derive(Debug, Clone)]
struct WebSocket {
    /// What an endpoint of HTTP/1.1 has to answer to the gateway's own key; a client's own key is the client's to check.
    proof: Option<HeaderValue>,
}

/// How a client asks for a WebSocket.
pub(super) enum Asked {
    Not,
    /// By Upgrade, with this key: the whole connection is its.
    Http1(Option<HeaderValue>),
    /// By extended CONNECT: one stream is its.
    Http2(OnUpgrade),
}

/// Whether a request asks for a WebSocket. One of HTTP/2 is given the form of HTTP/1.1, by which it is routed.
pub(super) fn asked(head: &mut Parts, conn: &Conn) -> Asked {
    if conn.wants_upgrade() {
        head.extensions.insert(WebSocket { proof: None });
        return Asked::Http1(head.headers.get(SEC_WEBSOCKET_KEY).cloned());
    }
    let is_websocket = |protocol: &Protocol| protocol.as_str() == "websocket";
    if head.method != Method::CONNECT || !head.extensions.get().is_some_and(is_websocket) {
        return Asked::Not;
    }
    let Some(upgrade) = head.extensions.remove::<OnUpgrade>() else {
        return Asked::Not;
    };
    head.method = Method::GET;
    // The client has none, and could not tell whether the endpoint proves that it knows this one.
    let key = key(&mut conn.worker().rng());
    head.extensions.insert(WebSocket {
        proof: Some(proof(&key)),
    });
    head.headers.insert(SEC_WEBSOCKET_KEY, key);
    Asked::Http2(upgrade)
}

/// Whether a request asks for a WebSocket.
pub(super) fn is_asked(head: &Parts) -> bool {
    head.extensions.get::<WebSocket>().is_some()
}

/// Whether an answer with 101 is one to a request for a WebSocket (RFC 6455 section 4.2.2, RFC 9110 section 7.8): it
/// names that protocol and no other, and has the proof where the gateway is the one to look at it. From an endpoint of
/// HTTP/2 (`is_http2`) there is none.
pub(super) fn is_agreed(head: &Parts, answer: &HeaderMap, is_http2: bool) -> bool {
    let Some(asked) = head.extensions.get::<WebSocket>() else {
        return false;
    };
    let only = |name: HeaderName| {
        let mut lines = answer.get_all(name).iter();
        lines.next().filter(|_| lines.next().is_none())
    };
    let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes());
    let is_upgrade = |line: &HeaderValue| {
        let options = line.as_bytes().split(|byte| *byte == b',');
        options
            .map(<[u8]>::trim_ascii)
            .any(|option| option.eq_ignore_ascii_case(b"upgrade"))
    };
    let is_proven = match &asked.proof {
        Some(proof) if !is_http2 => only(SEC_WEBSOCKET_ACCEPT) == Some(proof),
        Some(_) | None => true,
    };
    only(UPGRADE).is_some_and(is_websocket)
        && answer.get_all(CONNECTION).iter().any(is_upgrade)
        && !answer.contains_key(CONTENT_LENGTH)
        && !answer.contains_key(TRANSFER_ENCODING)
        && is_proven
}

/// Proves that a key was seen (RFC 6455 section 4.2.2).
fn proof(key: &HeaderValue) -> HeaderValue {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let text = [key.as_bytes(), GUID].concat();
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &text);
    HeaderValue::try_from(BASE64.encode(digest.as_ref())).unwrap_or(WEBSOCKET)
}

/// Asks the endpoint.
pub(super) fn ask(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
}

/// Sixteen random bytes in base64 (RFC 6455 section 4.1), which HTTP/2 has no use for and endpoints of HTTP/1.1 ask for.
fn key(rng: &mut Rng) -> HeaderValue {
    HeaderValue::try_from(BASE64.encode(rng.u128(..).to_be_bytes())).unwrap_or(WEBSOCKET)
}

/// A connection whose both sides have agreed to another protocol.
pub(crate) struct Tunnel {
    upstream: Switched,
    /// The endpoint's account, until the end.
    _held: Held,
    record: Box<Record>,
    idle: Option<Duration>,
}

impl Tunnel {
    /// Forwards bytes both ways until both sides have ended. `ahead` came from the client before.
    ///
    /// # Errors
    /// One of the sides was cut, or silent for too long.
    pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        mut self,
        client: S,
        ahead: Bytes,
    ) -> io::Result<()> {
        self.record.complete();
        match self.upstream {
            Switched::Link(link) => forward(client, link, &ahead, self.idle).await,
            Switched::Stream(stream) => {
                let stream = stream.await.map_err(io::Error::other)?;
                forward(client, TokioIo::new(stream), &ahead, self.idle).await
            }
        }
    }

    /// The same with a client's stream of HTTP/2, which `sends` sends: it is reset where the tunnel did not come to its
    /// end.
    async fn run_stream(self, client: OnUpgrade, sends: Rc<SendTask>) {
        let Ok(client) = client.await else { return };
        let mut client = TokioIo::new(client);
        if self.run(&mut client, Bytes::new()).await.is_err() {
            // What came before the cut is handed over first, by the task and by hyper's.
            let _ = client.flush().await;
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
            sends.abort();
        }
    }
}

async fn forward<C, U>(client: C, mut upstream: U, ahead: &[u8], idle: Option<Duration>) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    if !ahead.is_empty() {
        upstream.write_all(ahead).await?;
    }
    tcp::copy(client, upstream, idle).await
}

/// Both sides of a connection of another protocol, before it begins.
pub(super) struct Switch {
    upstream: Switched,
    held: Held,
    /// The client's stream; `None` where it is the whole connection.
    client: Option<OnUpgrade>,
}

impl Switch {
    /// Forwards bytes once the answer is with the client.
    pub(super) fn begin(self, conn: &Conn, record: Box<Record>) {
        let tunnel = Tunnel {
            upstream: self.upstream,
            _held: self.held,
            idle: record.tcp_idle_timeout(),
            record,
        };
        let Some(client) = self.client else {
            return conn.will_switch(tunnel);
        };
        tokio::task::spawn_local(tunnel.run_stream(client, SendTask::of_next_response()));
    }
}

/// The client's answer where the endpoint has agreed, with what goes on behind it.
pub(super) fn switched(asked: Asked, response: Response<Box<UpstreamBody>>) -> Response<Content> {
    let (mut head, body) = response.into_parts();
    let content = match (asked, body.into_switched()) {
        (Asked::Http1(key), Some((upstream, held))) => {
            ask(&mut head.headers);
            // An endpoint of HTTP/2 has not seen the client's key.
            if let (Switched::Stream(_), Some(key)) = (&upstream, key) {
                head.headers.insert(SEC_WEBSOCKET_ACCEPT, proof(&key));
            }
            let client = None;
            Content::Switched(Box::new(Switch {
                upstream,
                held,
                client,
            }))
        }
        (Asked::Http2(client), Some((upstream, held))) => {
            head.status = StatusCode::OK;
            head.headers.remove(SEC_WEBSOCKET_ACCEPT);
            let client = Some(client);
            Content::Switched(Box::new(Switch {
                upstream,
                held,
                client,
            }))
        }
        // Nothing is passable as 101 that was not asked for.
        (Asked::Not, _) | (_, None) => {
            head.status = StatusCode::BAD_GATEWAY;
            Content::Own(Bytes::new())
        }
    };
    Response::from_parts(head, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_proven_as_in_the_specification() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(proof(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..100 {
            let key = key(&mut rng);
            let text = key.to_str().unwrap();
            let (digits, end) = text.split_at(22);
            assert_eq!(end, "==");
            assert!(
                digits
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
            );
            assert!(digits.ends_with(['A', 'Q', 'g', 'w']), "{text}");
        }
    }
}
