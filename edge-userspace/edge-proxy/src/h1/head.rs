//! Heads of responses.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use memchr::memchr_iter;

use super::{buffer::take, spare};
use crate::strict::{Follows, Framing};

/// Largest head, in bytes.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Most fields of a head or of a trailer section.
pub(crate) const MAX_FIELDS: usize = 128;

/// Fields that the gateway adds to most responses.
const ADDED: usize = 3;

/// Why a head beyond [`MAX_HEAD`] is refused.
const TOO_LARGE: &str = "a head is too large";

/// Why a head is refused of which a line ends with a lone LF.
const LONE_LF: &str = "a line does not end with CR LF";

/// Why a head is refused that is none.
const NO_HEAD: &str = "not a head of HTTP/1";

/// A response's head.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    /// HTTP/1.0: the connection ends with the response.
    pub(crate) is_http_1_0: bool,
}

/// Takes a response's head from the front of `buffer`; `None` while its end has not come. `seen` bytes were looked at
/// before, when it had not either.
///
/// # Errors
/// When it is none that an honest server sends: nothing of the rest of the stream can be trusted.
pub(crate) fn parse_response(
    buffer: &mut BytesMut,
    seen: usize,
) -> Result<Option<ResponseHead>, &'static str> {
    let Some(length) = end_of_head(buffer, seen)? else {
        // What begins badly is found at once; after that there is nothing new to find before the end.
        if seen == 0 {
            check_beginning(buffer)?;
        }
        return match buffer.len() > MAX_HEAD {
            true => Err(TOO_LARGE),
            false => Ok(None),
        };
    };
    if length > MAX_HEAD {
        return Err(TOO_LARGE);
    }
    whole_head(&take(buffer, length)).map(Some)
}

/// The length of the head that a text begins with, if its end is there. httparse takes a lone LF for a line end; others may
/// not (RFC 9112 section 2.2).
fn end_of_head(text: &[u8], seen: usize) -> Result<Option<usize>, &'static str> {
    for at in memchr_iter(b'\n', &text[seen..]) {
        let line = &text[..seen + at];
        if !line.ends_with(b"\r") {
            return Err(LONE_LF);
        }
        if line.ends_with(b"\r\n\r") {
            return Ok(Some(line.len() + 1));
        }
    }
    Ok(None)
}

/// The head that `text` is, from its first line to the empty one.
fn whole_head(text: &Bytes) -> Result<ResponseHead, &'static str> {
    // httparse takes empty lines before a head.
    if !text.starts_with(b"HTTP/") {
        return Err(NO_HEAD);
    }
    let mut fields = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, text, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length == text.len() => {}
        Ok(_) => return Err(NO_HEAD),
        Err(error) => return Err(fault(error)),
    }
    let (Some(version), Some(code)) = (parsed.version, parsed.code) else {
        return Err(NO_HEAD);
    };
    let mut head = ResponseHead {
        status: StatusCode::from_u16(code).map_err(|_| "an invalid status")?,
        headers: spare::take(parsed.headers.len() + ADDED).map_err(|_| TOO_LARGE)?,
        framing: Framing::default(),
        is_http_1_0: version == 0,
    };
    for field in parsed.headers.iter() {
        let name = field.name.as_bytes();
        head.framing.note(name, field.value)?;
        let name = HeaderName::from_bytes(name).map_err(|_| "an invalid field name")?;
        // Shares the memory of what was read.
        let value = HeaderValue::from_maybe_shared(text.slice_ref(field.value));
        head.headers
            .append(name, value.map_err(|_| "an invalid field value")?);
    }
    Ok(head)
}

/// Finds what no head begins with.
fn check_beginning(text: &[u8]) -> Result<(), &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let parsed = httparse::Response::new(&mut fields).parse(text);
    parsed.map(drop).map_err(fault)
}

fn fault(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::TooManyHeaders => "too many fields",
        httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token
        | httparse::Error::Version => NO_HEAD,
    }
}

impl ResponseHead {
    /// What follows, where `no_body` says that the request was HEAD, and `upgrade` that it asked for another protocol
    /// (RFC 9112 section 6.3).
    ///
    /// # Errors
    /// When its fields contradict each other, or it answers what nobody asked.
    pub(crate) fn follows(&self, no_body: bool, upgrade: bool) -> Result<Follows, &'static str> {
        self.framing.check(self.is_http_1_0)?;
        Ok(match self.status.as_u16() {
            101 if upgrade => Follows::Anything,
            101 => return Err("a protocol that nobody asked for"),
            100..=199 | 204 | 304 => Follows::Message,
            _ if no_body => Follows::Message,
            _ => self.framing.follows(),
        })
    }

    /// Whether the server keeps the connection for another request (RFC 9112 section 9.3).
    pub(crate) fn keeps_alive(&self) -> bool {
        !self.is_http_1_0 && !self.framing.closes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows the head, with the stream cut in pieces of every size.
    #[track_caller]
    fn outcome(stream: &str, no_body: bool, upgrade: bool) -> Option<Follows> {
        let outcomes = [1, 2, 3, 7, 1000].map(|size| {
            let mut buffer = BytesMut::new();
            for piece in stream.as_bytes().chunks(size) {
                let seen = buffer.len();
                buffer.extend_from_slice(piece);
                match parse_response(&mut buffer, seen) {
                    Ok(None) => {}
                    Ok(Some(head)) => return head.follows(no_body, upgrade).ok(),
                    Err(_) => return None,
                }
            }
            None
        });
        assert!(
            outcomes.iter().all(|other| *other == outcomes[0]),
            "{stream:?}: {outcomes:?}"
        );
        outcomes[0]
    }

    #[test]
    fn responses_are_framed_by_their_fields_and_their_request() {
        for (stream, expected) in [
            ("content-length: 1\r\n", Some(Follows::Bytes(1))),
            ("transfer-encoding: Chunked\r\n", Some(Follows::Chunks)),
            ("", Some(Follows::Anything)),
            ("x:\r\n", Some(Follows::Anything)),
            ("content-length: 1\r\ntransfer-encoding: chunked\r\n", None),
            ("content-length: 1\r\ncontent-length: 1\r\n", None),
            ("content-length: 1, 1\r\n", None),
            ("content-length: +1\r\n", None),
            ("transfer-encoding: gzip, chunked\r\n", None),
            (
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                None,
            ),
            ("content-length : 1\r\n", None),
            (" content-length: 1\r\n", None),
            ("x: y\r\n z\r\n", None),
            ("x: y\n", None),
            ("x: y\rz\r\n", None),
            ("x: \u{0}\r\n", None),
            ("x\r\n", None),
            (": x\r\n", None),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{stream}\r\n");
            assert_eq!(outcome(&head, false, false), expected, "{stream:?}");
            let expected = expected.map(|_| Follows::Message);
            assert_eq!(outcome(&head, true, false), expected, "{stream:?} to HEAD");
        }
    }

    #[test]
    fn a_status_line_is_one_of_http_1() {
        for (line, expected) in [
            ("HTTP/1.1 200", Some(Follows::Anything)),
            ("HTTP/1.0 200 OK", Some(Follows::Anything)),
            ("HTTP/1.1 204 No Content", Some(Follows::Message)),
            ("HTTP/1.1 304 ", Some(Follows::Message)),
            ("HTTP/1.1 100 Continue", Some(Follows::Message)),
            ("HTTP/1.1 101 Switching Protocols", None),
            ("HTTP/1.1 2x0 OK", None),
            ("HTTP/1.1 20 OK", None),
            ("HTTP/1.1 099 OK", None),
            ("HTTP/1.1  200 OK", None),
            ("HTTP/2.0 200 OK", None),
            ("\r\nHTTP/1.1 200 OK", None),
            ("SSH-2.0-OpenSSH", None),
        ] {
            assert_eq!(
                outcome(&format!("{line}\r\n\r\n"), false, false),
                expected,
                "{line:?}"
            );
        }
        assert_eq!(
            outcome("HTTP/1.1 101 Switching Protocols\r\n\r\n", false, true),
            Some(Follows::Anything)
        );
        assert_eq!(outcome("HTTP/1.1 200 OK\n\r\n\n", false, false), None);
        assert_eq!(
            outcome(
                "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                false,
                false
            ),
            None
        );
    }

    #[test]
    fn a_head_has_its_bounds() {
        for head in [
            format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1)),
            format!("HTTP/1.1 200 OK\r\na: {}\r\n", "b".repeat(MAX_HEAD)),
        ] {
            // Bit by bit, all but the end at once, and in a single read.
            let whole = format!("{head}\r\n");
            for (head, step) in [(&head, 1000), (&head, head.len()), (&whole, whole.len())] {
                let mut buffer = BytesMut::new();
                let mut seen = 0;
                let refused = head.as_bytes().chunks(step).any(|piece| {
                    seen = buffer.len();
                    buffer.extend_from_slice(piece);
                    parse_response(&mut buffer, seen).is_err()
                });
                assert!(refused, "{} bytes by {step}", head.len());
            }
        }
    }
}
