//! A request in the form that HTTP/2 gives it.

use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use hyper::ext::Protocol;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Turns Host into `:authority` and leaves out what belongs to HTTP/1.1 alone (RFC 9113 sections 8.2.2 and 8.3.1).
///
/// A Host that is no authority stays as it is: the field is what every version understands.
pub(super) fn http2_request<B>(mut request: Request<B>) -> Request<B> {
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    if headers
        .get(TE)
        .is_some_and(|te| *te != HeaderValue::from_static("trailers"))
    {
        headers.remove(TE);
    }
    let authority = headers
        .get(HOST)
        .and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if let Some(authority) = authority {
        request.headers_mut().remove(HOST);
        let path = request.uri().path_and_query().cloned();
        // The scheme that the client used (RFC 9113 section 8.3.1), whatever is spoken with the endpoint (as Envoy has it).
        let scheme = match request.headers().get(&FORWARDED_PROTO) {
            Some(scheme) if scheme.as_bytes().eq_ignore_ascii_case(b"https") => Scheme::HTTPS,
            Some(_) | None => Scheme::HTTP,
        };
        let target = Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build();
        if let Ok(target) = target {
            *request.uri_mut() = target;
        }
    }
    request
}

/// Makes a request in the form of HTTP/2 one for a WebSocket. The key of HTTP/1.1 has no use there (RFC 8441 section 5).
pub(super) fn http2_websocket<B>(mut request: Request<B>) -> Request<B> {
    *request.method_mut() = Method::CONNECT;
    request.headers_mut().remove(SEC_WEBSOCKET_KEY);
    request
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_becomes_the_authority_and_framing_of_one_hop_goes() {
        let request = Request::builder()
            .uri("/a?b")
            .header("host", "a.com:81")
            .header("transfer-encoding", "chunked")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let request = http2_request(request);
        assert_eq!(request.uri(), "http://a.com:81/a?b");
        let names: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["te"]);
        let request = Request::builder()
            .uri("/")
            .header("host", "a.com")
            .header("x-forwarded-proto", "https")
            .body(())
            .unwrap();
        assert_eq!(http2_request(request).uri(), "https://a.com/");
    }
}
