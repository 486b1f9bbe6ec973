//! Trailer sections on their way through.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName};

use super::head::is_hop_by_hop;

/// Fields that change framing, routing, authentication or the meaning of the content, which was used before they came
/// (RFC 9110 section 6.5.1), as far as they are not those of one hop.
const NOT_LATER: [&str; 17] = [
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expires",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "set-cookie",
    "vary",
    "www-authenticate",
];

/// Whether white space stands at either end of a value, so that a message of HTTP/2 is malformed (RFC 9113 section 8.2.1).
pub(super) fn has_blank_ends(fields: &HeaderMap) -> bool {
    let is_blank = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
    fields
        .values()
        .any(|value| is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last()))
}

/// What of a trailer section is passed on: what a receiver could not take for a field of the head.
pub(super) fn passable(trailers: HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(trailers.len());
    let mut last: Option<HeaderName> = None;
    for (name, value) in trailers {
        // The map names a field once and then gives its further lines without a name.
        last = name.or(last);
        if let Some(name) = last.as_ref().filter(|name| is_passable(name)) {
            passed.append(name.clone(), value);
        }
    }
    passed
}

fn is_passable(name: &HeaderName) -> bool {
    let text = name.as_str();
    ![CONTENT_LENGTH, HOST, TRANSFER_ENCODING].contains(name)
        && !is_hop_by_hop(name)
        && !NOT_LATER.contains(&text)
        && !text.starts_with("x-envoy-")
        && !text.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn fields_that_belong_to_the_head_are_left_out() {
        let mut trailers = HeaderMap::new();
        for (name, value) in [
            ("grpc-status", "0"),
            ("x-sum", "1"),
            ("x-sum", "2"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("host", "b"),
            ("authorization", "me"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-client-cert", "Hash=a"),
            ("connection", "close"),
        ] {
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let passed = passable(trailers);
        let lines: Vec<_> = passed
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or_default()))
            .collect();
        assert_eq!(lines, ["grpc-status: 0", "x-sum: 1", "x-sum: 2"]);
    }
}
