//! Request lines, and what follows the head of a request.

use std::ops::Range;

use super::field::{Framing, is_token};
use super::message::Follows;

/// What is wrong with a request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is one of HTTP/1, and malformed.
    Malformed(&'static str),
    /// It is none of HTTP/1.
    Foreign,
}

/// A request line, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestLine {
    /// Length of the method, which the line begins with.
    pub(crate) method: usize,
    /// Where in the line the target stands.
    pub(crate) target: Range<usize>,
    pub(crate) is_http_1_0: bool,
    is_connect: bool,
    is_get: bool,
}

impl RequestLine {
    /// `method SP target SP version`, with one space each (RFC 9112 section 3).
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Wrong> {
        const NOT_THREE: Wrong = Wrong::Malformed("a request line is not three words");
        let mut spaces = memchr::memchr_iter(b' ', line);
        let (Some(first), Some(second), None) = (spaces.next(), spaces.next(), spaces.next()) else {
            return Err(NOT_THREE);
        };
        let (method, target, version) = (&line[..first], &line[first + 1..second], &line[second + 1..]);
        if !version
            .get(..5)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"HTTP/"))
        {
            return Err(Wrong::Foreign);
        }
        if !is_token(method) {
            return Err(Wrong::Malformed("an invalid method"));
        }
        if !is_target(target) {
            return Err(Wrong::Malformed("an invalid request target"));
        }
        let is_http_1_0 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Wrong::Malformed("an unknown version")),
        };
        Ok(Self {
            is_connect: method == b"CONNECT",
            is_get: method == b"GET",
            is_http_1_0,
            method: first,
            target: first + 1..second,
        })
    }

    /// What follows the head with this line and these fields (RFC 9112 section 6.3).
    pub(crate) fn follows(&self, framing: &Framing) -> Result<Follows, &'static str> {
        framing.check(self.is_http_1_0)?;
        Ok(match (framing.chunked, framing.length) {
            // Whether the bytes behind it are of another protocol is not known; they are none of HTTP.
            _ if self.is_connect => Follows::Anything,
            (true, _) => Follows::Chunks,
            (false, Some(length)) if length > 0 => Follows::Bytes(length),
            (false, _) if self.is_get && framing.websocket && framing.upgrade => Follows::Undecided,
            (false, _) => Follows::Message,
        })
    }
}

/// Printable ASCII without a fragment, which is never sent (RFC 9112 section 3.2) and which servers cut off or not.
fn is_target(target: &[u8]) -> bool {
    // Without a way out in the middle the compiler compares many bytes at once.
    let is_bad = |byte: u8| !byte.is_ascii_graphic() | (byte == b'#');
    !target.is_empty() && !target.iter().fold(false, |bad, byte| bad | is_bad(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_three_words() {
        for (line, expected) in [
            ("GET / HTTP/1.1", Ok(("GET", "/", false))),
            ("G!T *a HTTP/1.0", Ok(("G!T", "*a", true))),
            (
                "GET  / HTTP/1.1",
                Err(Wrong::Malformed("a request line is not three words")),
            ),
            (
                "GET /",
                Err(Wrong::Malformed("a request line is not three words")),
            ),
            (
                "GET / HTTP/1.1 ",
                Err(Wrong::Malformed("a request line is not three words")),
            ),
            ("GET / HTTP/1.2", Err(Wrong::Malformed("an unknown version"))),
            ("GET / http/1.1", Err(Wrong::Malformed("an unknown version"))),
            ("INVALID CONNECTION PREFACE", Err(Wrong::Foreign)),
            ("G@T / HTTP/1.1", Err(Wrong::Malformed("an invalid method"))),
            (" / HTTP/1.1", Err(Wrong::Malformed("an invalid method"))),
            (
                "GET  HTTP/1.1",
                Err(Wrong::Malformed("an invalid request target")),
            ),
            (
                "GET /\u{e4} HTTP/1.1",
                Err(Wrong::Malformed("an invalid request target")),
            ),
            (
                "GET /#a HTTP/1.1",
                Err(Wrong::Malformed("an invalid request target")),
            ),
            ("GET\t/ / HTTP/1.1", Err(Wrong::Malformed("an invalid method"))),
        ] {
            let parsed = RequestLine::parse(line.as_bytes());
            let words = parsed
                .as_ref()
                .map(|own| (&line[..own.method], &line[own.target.clone()], own.is_http_1_0));
            assert_eq!(words.map_err(|wrong| *wrong), expected, "{line:?}");
        }
    }
}
