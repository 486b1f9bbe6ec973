//! Requests of a client.

use super::field::{Framing, is_token};
use super::message::{Follows, Kind, Wrong};

/// What clients send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requests;

/// What is kept of a request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestLine {
    is_connect: bool,
    is_get: bool,
    is_http_1_0: bool,
}

impl Kind for Requests {
    type Start = RequestLine;

    /// `method SP target SP version`, with one space each (RFC 9112 section 3).
    fn start(&self, line: &[u8]) -> Result<RequestLine, Wrong> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Wrong::Malformed("a request line is not three words"));
        };
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
        Ok(RequestLine {
            is_connect: method == b"CONNECT",
            is_get: method == b"GET",
            is_http_1_0,
        })
    }

    fn body(&self, start: RequestLine, framing: &Framing) -> Result<Follows, &'static str> {
        framing.check(start.is_http_1_0)?;
        Ok(match (framing.chunked, framing.length) {
            // It is answered with an error, and the connection closed.
            _ if start.is_connect => Follows::Anything,
            (true, _) => Follows::Chunks,
            (false, Some(length)) if length > 0 => Follows::Bytes(length),
            (false, _) if start.is_get && framing.websocket && framing.upgrade => Follows::Undecided,
            (false, _) => Follows::Message,
        })
    }
}

/// Printable ASCII without a fragment, which is never sent (RFC 9112 section 3.2) and which servers cut off or not.
fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#')
}
