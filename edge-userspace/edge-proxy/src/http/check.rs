//! What a request must be before anything is decided about it.
//!
//! The parsers (`h1`, and hyper for HTTP/2) frame, and refuse what they cannot frame; the rules here are those that a gateway
//! owes on top, because the server behind it may read the same bytes in another way.

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::trailers::has_blank_ends;
use super::{Present, Reply};
use crate::options::Limits;

/// Brings the head of an HTTP/2 request into the form that the rules here, routes and endpoints expect: Cookie is one
/// line (RFC 9113 section 8.2.3).
pub(crate) fn prepare(head: &mut Parts) {
    if head.version != Version::HTTP_2 {
        return;
    }
    let crumbs = head.headers.get_all(COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<_> = crumbs.iter().map(HeaderValue::as_bytes).collect();
    // Valid values joined by valid characters are a valid value.
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        head.headers.insert(COOKIE, cookie);
    }
}

/// Checks a request's head; returns its authority: that of the target when it has one, else the Host field
/// (RFC 9112 section 3.2).
pub(super) fn check<'a>(head: &'a Parts, present: &Present<'a>, limits: &Limits) -> Result<&'a str, Reply> {
    let target = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    match head.version {
        Version::HTTP_11 => {}
        Version::HTTP_2 => check_http2(&head.headers, target)?,
        _ => return Err(Reply::upgrade_required()),
    }
    check_size(target, &head.headers, limits)?;
    if head.method == Method::CONNECT {
        return Err(Reply::connect_refused());
    }
    if present.transfer_encoding {
        check_framing(&head.headers)?;
    }
    if present.expect {
        check_expectation(&head.headers)?;
    }
    check_target(head)?;
    if head.version == Version::HTTP_2 {
        return http2_authority(head, present);
    }
    let host = only_host(present)?.ok_or_else(|| Reply::malformed("missing Host"))?;
    match head.uri.authority() {
        Some(authority) => checked(authority.as_str()),
        None => Ok(host),
    }
}

/// The authority of a target, if it is one.
fn checked(authority: &str) -> Result<&str, Reply> {
    match is_authority(authority) {
        true => Ok(authority),
        false => Err(Reply::malformed("invalid authority in the request target")),
    }
}

/// What a client may send. The parsers have bounds of their own for the head as a whole.
fn check_size(target: &str, headers: &HeaderMap, limits: &Limits) -> Result<(), Reply> {
    let is_over = |length: usize, limit: u32| u32::try_from(length).is_ok_and(|length| length > limit);
    if is_over(target.len(), limits.target) {
        return Err(Reply::too_large(StatusCode::URI_TOO_LONG));
    }
    match is_over(headers.len(), limits.fields) {
        true => Err(Reply::too_large(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)),
        false => Ok(()),
    }
}

/// What makes a request of HTTP/2 malformed, beyond what its parser refuses: fields of one connection, and white space
/// around a value (RFC 9113 sections 8.2.1 and 8.2.2).
fn check_http2(headers: &HeaderMap, target: &str) -> Result<(), Reply> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Reply::malformed("invalid :path"));
    }
    for (name, value) in headers {
        let of_one_hop = [CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(name)
            || matches!(name.as_str(), "keep-alive" | "proxy-connection")
            || (*name == TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers"));
        if of_one_hop {
            return Err(Reply::malformed("a field of HTTP/1.1 in HTTP/2"));
        }
    }
    if has_blank_ends(headers) {
        return Err(Reply::malformed("white space around a field value"));
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (Some(_), Some(_)) => Err(Reply::malformed("more than one Content-Length")),
        (Some(length), None) if !length.as_bytes().iter().all(u8::is_ascii_digit) => {
            Err(Reply::malformed("invalid Content-Length"))
        }
        (Some(_) | None, _) => Ok(()),
    }
}

/// `:authority`, and Host where it is missing; both only when they say the same (RFC 9113 section 8.3.1).
fn http2_authority<'a>(head: &'a Parts, present: &Present<'a>) -> Result<&'a str, Reply> {
    let host = only_host(present)?;
    match (head.uri.authority(), host) {
        (Some(authority), None) => checked(authority.as_str()),
        (None, Some(host)) => Ok(host),
        (Some(authority), Some(host)) if authority.as_str().eq_ignore_ascii_case(host) => Ok(host),
        (Some(_), Some(_)) => Err(Reply::malformed("Host is not :authority")),
        (None, None) => Err(Reply::malformed("missing :authority")),
    }
}

/// The Host field, which may not stand twice.
fn only_host<'a>(present: &Present<'a>) -> Result<Option<&'a str>, Reply> {
    let host = match (present.host, present.has_more_hosts) {
        (Some(host), false) => host,
        (None, _) => return Ok(None),
        (Some(_), true) => return Err(Reply::malformed("more than one Host")),
    };
    // An authority has no bytes but ASCII; `to_str` would look at each of them once more.
    let host = std::str::from_utf8(host.as_bytes()).ok();
    let host = host.filter(|host| is_authority(host));
    host.map(Some).ok_or_else(|| Reply::malformed("invalid Host"))
}

/// `chunked` is the only transfer coding of a request that is understood here; a server behind might see another
/// end of the body in `gzip, chunked` or in two codings.
fn check_framing(headers: &HeaderMap) -> Result<(), Reply> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(_), _) if headers.contains_key(CONTENT_LENGTH) => {
            Err(Reply::malformed("both Content-Length and Transfer-Encoding"))
        }
        (Some(only), None) if is_plain(only) => Ok(()),
        (Some(_), _) => Err(Reply::malformed("unsupported Transfer-Encoding")),
    }
}

fn check_expectation(headers: &HeaderMap) -> Result<(), Reply> {
    let mut expectations = headers.get_all(EXPECT).iter();
    match expectations.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(()),
        false => Err(Reply::expectation_failed()),
    }
}

/// Origin form, absolute form of http and https, and the asterisk of OPTIONS.
fn check_target(head: &Parts) -> Result<(), Reply> {
    let scheme_is_known = head
        .uri
        .scheme_str()
        .is_none_or(|scheme| matches!(scheme, "http" | "https"));
    let path_is_known = match head.uri.path() {
        "*" => head.method == Method::OPTIONS && head.uri.authority().is_none(),
        path => path.starts_with('/'),
    };
    match scheme_is_known && path_is_known {
        true => Ok(()),
        false => Err(Reply::malformed("invalid request target")),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2), not empty and without user information.
fn is_authority(authority: &str) -> bool {
    let rest = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let Some((address, rest)) = bracketed.split_once(']') else {
                return false;
            };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            rest
        }
        None => {
            let host = authority.bytes().take_while(|byte| HOST_NAME[usize::from(*byte)]);
            match host.count() {
                0 | 256.. => return false,
                length => &authority[length..],
            }
        }
    };
    rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)
}

/// Characters of a registered name (RFC 3986 section 3.2.2) that a DNS name or an IPv4 address can have.
const HOST_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    table
};

/// Digits only; an empty port is allowed by the grammar and means the default.
fn is_port(port: &str) -> bool {
    port.is_empty()
        || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    /// Status of the answer, or the authority.
    #[track_caller]
    fn outcome(method: &str, target: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let authority = check(&head, &Present::of(&head.headers), &Limits::default()).map(str::to_owned);
        authority.unwrap_or_else(|reply| reply.status().as_u16().to_string())
    }

    #[track_caller]
    fn check_host(host: &str, good: bool) {
        let expected = if good { host } else { "400" };
        assert_eq!(outcome("GET", "/", &[("host", host)]), expected, "{host:?}");
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for good in [
            "a.com",
            "A.com:80",
            "a_b.com",
            "10.0.0.1:8080",
            "[::1]",
            "[2001:db8::1]:443",
            "a.com:",
            "a.",
        ] {
            check_host(good, true);
        }
        for bad in [
            "",
            "a b",
            "a.com:80x",
            "a.com:0",
            "a.com:65536",
            "x\"a",
            "a/b",
            "u@a.com",
            "a,b",
            "[::1",
            "[a]",
            "[::1]x",
            "::1",
            ":80",
            "a:80:90",
            "a.com\\",
            "a#b",
            "a?b",
            "a%00b",
        ] {
            check_host(bad, false);
        }
    }

    #[test]
    fn a_request_needs_exactly_one_host() {
        assert_eq!(outcome("GET", "/", &[]), "400");
        assert_eq!(
            outcome("GET", "/", &[("host", "a.com"), ("host", "a.com")]),
            "400"
        );
        assert_eq!(outcome("GET", "http://b.com/", &[]), "400");
    }

    #[test]
    fn the_authority_of_the_target_beats_host() {
        let host = [("host", "a.com")];
        assert_eq!(outcome("GET", "http://b.com:81/x", &host), "b.com:81");
        assert_eq!(outcome("GET", "http://u:p@b.com/", &host), "400");
        assert_eq!(outcome("GET", "ftp://b.com/", &host), "400");
    }

    #[test]
    fn the_asterisk_is_for_options_only() {
        let host = [("host", "a.com")];
        assert_eq!(outcome("OPTIONS", "*", &host), "a.com");
        assert_eq!(outcome("GET", "*", &host), "400");
    }

    #[test]
    fn framing_that_can_be_read_in_two_ways_is_refused() {
        let with = |extra: &[(&'static str, &'static str)]| {
            let headers: Vec<_> = [("host", "a.com")].iter().chain(extra).copied().collect();
            outcome("POST", "/", &headers)
        };
        assert_eq!(with(&[("transfer-encoding", "Chunked")]), "a.com");
        assert_eq!(with(&[("transfer-encoding", "gzip, chunked")]), "400");
        assert_eq!(with(&[("transfer-encoding", "chunked, chunked")]), "400");
        assert_eq!(
            with(&[("transfer-encoding", "x"), ("transfer-encoding", "chunked")]),
            "400"
        );
        assert_eq!(
            with(&[("transfer-encoding", "chunked"), ("content-length", "3")]),
            "400"
        );
        assert_eq!(with(&[("expect", "100-Continue")]), "a.com");
        assert_eq!(with(&[("expect", "200-ok")]), "417");
        assert_eq!(outcome("CONNECT", "a.com:443", &[("host", "a.com:443")]), "405");
    }
}
