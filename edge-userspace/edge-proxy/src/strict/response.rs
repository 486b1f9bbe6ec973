//! Responses of an endpoint.

use std::cell::Cell;
use std::rc::Rc;

use super::field::{Framing, is_text};
use super::message::{Follows, Kind, Wrong};

/// What endpoints send.
#[derive(Debug, Clone)]
pub(crate) struct Responses(pub(crate) Rc<Expected>);

/// What the request that is being answered means for its response.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// It was HEAD: there is no body, whatever the fields say.
    pub(crate) no_body: Cell<bool>,
    /// It asked for another protocol.
    pub(crate) upgrade: Cell<bool>,
}

/// What is kept of a status line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatusLine {
    status: u16,
    is_http_1_0: bool,
}

impl Kind for Responses {
    type Start = StatusLine;

    /// `version SP status SP reason`, where the reason may be missing with its space (RFC 9112 section 4, and servers).
    fn start(&self, line: &[u8]) -> Result<StatusLine, Wrong> {
        let (version, rest) = line
            .split_at_checked(9)
            .ok_or(Wrong::Malformed("a short status line"))?;
        let is_http_1_0 = match version {
            b"HTTP/1.1 " => false,
            b"HTTP/1.0 " => true,
            _ => return Err(Wrong::Malformed("an unknown version")),
        };
        let (digits, reason) = rest
            .split_at_checked(3)
            .ok_or(Wrong::Malformed("a short status"))?;
        let status = std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse().ok());
        let status = status.filter(|status| digits.is_ascii() && (100..=999).contains(status));
        match (status, reason.first()) {
            (Some(status), None | Some(b' ')) if is_text(reason) => Ok(StatusLine { status, is_http_1_0 }),
            _ => Err(Wrong::Malformed("an invalid status line")),
        }
    }

    fn body(&self, start: StatusLine, framing: &Framing) -> Result<Follows, &'static str> {
        framing.check(start.is_http_1_0)?;
        Ok(match start.status {
            101 if self.0.upgrade.get() => Follows::Anything,
            101 => return Err("a protocol that nobody asked for"),
            100..=199 => Follows::Message,
            204 | 304 => Follows::Message,
            _ if self.0.no_body.get() => Follows::Message,
            _ => match (framing.chunked, framing.length) {
                (true, _) => Follows::Chunks,
                (false, Some(length)) => Follows::Bytes(length),
                (false, None) => Follows::Anything,
            },
        })
    }
}
