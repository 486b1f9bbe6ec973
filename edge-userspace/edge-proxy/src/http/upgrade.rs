//! Upgrades: a WebSocket asked for in HTTP/1.1 (RFC 6455) or in HTTP/2 (RFC 8441), to an endpoint of HTTP/1.1.
//!
//! No other protocol is passed on, as on Istio's gateways: what Upgrade names else is left out, and the request is an
//! ordinary one. While the endpoint has not agreed, what the client sends behind its request is held back.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::body::Held;
use super::{Record, ResponseBody, UpstreamBody};
use crate::connection::Conn;
use crate::pool::Upgraded;
use crate::tcp;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Among the extensions of a head: the request asks for a WebSocket.
#[derive(Debug, Clone, Copy)]
struct WebSocket;

/// How a client asks for a WebSocket.
pub(super) enum Asked {
    Not,
    /// By Upgrade: the whole connection is its.
    Http1,
    /// By extended CONNECT: one stream is its.
    Http2(OnUpgrade),
}

/// Whether a request asks for a WebSocket. One of HTTP/2 is given the form of HTTP/1.1, by which it is routed.
pub(super) fn asked(head: &mut Parts, conn: &Conn) -> Asked {
    if conn.wants_upgrade() {
        head.extensions.insert(WebSocket);
        return Asked::Http1;
    }
    let is_websocket = |protocol: &Protocol| protocol.as_str() == "websocket";
    if head.method != Method::CONNECT || !head.extensions.get().is_some_and(is_websocket) {
        return Asked::Not;
    }
    let Some(upgrade) = head.extensions.remove::<OnUpgrade>() else {
        return Asked::Not;
    };
    head.method = Method::GET;
    head.extensions.insert(WebSocket);
    if !head.headers.contains_key(SEC_WEBSOCKET_KEY) {
        head.headers
            .insert(SEC_WEBSOCKET_KEY, key(&mut conn.worker().rng()));
    }
    Asked::Http2(upgrade)
}

/// Whether a request asks for a WebSocket.
pub(super) fn is_asked(head: &Parts) -> bool {
    head.extensions.get::<WebSocket>().is_some()
}

/// Asks the endpoint.
pub(super) fn ask(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
}

/// Sixteen random bytes in base64 (RFC 6455 section 4.1), which HTTP/2 has no use for and endpoints of HTTP/1.1 ask for.
fn key(rng: &mut Rng) -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = rng.u128(..);
    let mut text = [b'='; 24];
    // 128 bits are 21 digits of six and two bits, which are the upper ones of the last digit.
    for (at, digit) in text.iter_mut().enumerate().take(22) {
        let value = match at {
            21 => (bits & 3) << 4,
            at => bits >> (122 - 6 * at),
        };
        *digit = DIGITS[value as usize & 63];
    }
    HeaderValue::from_bytes(&text).unwrap_or(WEBSOCKET)
}

/// A connection whose both sides have agreed to another protocol.
pub(crate) struct Tunnel {
    upstream: Upgraded,
    /// The endpoint's account, until the end.
    _held: Held,
    record: Record,
    idle: Option<Duration>,
}

impl Tunnel {
    /// Forwards bytes both ways until both sides have ended. `ahead` came from the client before.
    pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut self, client: S, ahead: Bytes) {
        self.record.complete();
        if !ahead.is_empty() && self.upstream.write_all(&ahead).await.is_err() {
            return;
        }
        tcp::copy(client, self.upstream, self.idle).await;
    }
}

/// The client's answer where the endpoint has agreed, with the tunnel on its way.
pub(super) fn switched(
    conn: &Conn,
    asked: Asked,
    response: Response<Box<UpstreamBody>>,
    record: Record,
    idle: Option<Duration>,
) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    let tunnel = body.into_upgraded().map(|(upstream, held)| Tunnel {
        upstream,
        _held: held,
        record,
        idle,
    });
    match (asked, tunnel) {
        (Asked::Http1, Some(tunnel)) => {
            ask(&mut head.headers);
            conn.will_switch(tunnel);
        }
        (Asked::Http2(upgrade), Some(tunnel)) => {
            head.status = StatusCode::OK;
            head.headers.remove(SEC_WEBSOCKET_ACCEPT);
            tokio::task::spawn_local(async move {
                if let Ok(client) = upgrade.await {
                    tunnel.run(TokioIo::new(client), Bytes::new()).await;
                }
            });
        }
        // Nothing is passable as 101 that was not asked for.
        (Asked::Not, _) | (_, None) => head.status = StatusCode::BAD_GATEWAY,
    }
    Response::from_parts(head, ResponseBody::none())
}

#[cfg(test)]
mod tests {
    use super::*;

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
