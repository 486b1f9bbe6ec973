//! Heads of requests: one pass over the bytes, which both checks them and finds what stands where.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use smallvec::SmallVec;

use super::{buffer::take, spare};
use crate::strict::{Follows, Framing, RequestLine, Wrong, is_token, places};

/// Longest target that a [`Uri`] holds.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// Fields whose places fit without an allocation.
const USUAL_FIELDS: usize = 16;

/// What a client may send of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadBounds {
    /// Bytes of the whole head.
    pub(crate) bytes: usize,
    /// Its field lines.
    pub(crate) fields: usize,
}

/// A request's head.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// Boxed, as it is passed on through many hands.
    pub(crate) parts: Box<Parts>,
    /// What follows it.
    pub(crate) follows: Follows,
    /// What its fields say about its body and its connection.
    pub(crate) framing: Framing,
}

impl RequestHead {
    /// Whether the connection may go on after the answer (RFC 9112 section 9.3).
    pub(crate) fn keeps_alive(&self) -> bool {
        self.parts.version == Version::HTTP_11 && !self.framing.closes() && self.follows != Follows::Anything
    }
}

/// Why a head is refused. Nothing of the rest of the stream can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is not well formed.
    Malformed(&'static str),
    /// It is larger than allowed.
    TooLarge,
    /// Its target is longer than any can be.
    TargetTooLong,
    /// It is no head of HTTP/1 at all.
    Foreign,
}

impl From<Wrong> for Refused {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Malformed(reason) => Self::Malformed(reason),
            Wrong::Foreign => Self::Foreign,
        }
    }
}

impl From<&'static str> for Refused {
    fn from(reason: &'static str) -> Self {
        Self::Malformed(reason)
    }
}

/// Takes one head apart, as it comes. Each byte is looked at once, however small the pieces are, and what is wrong is found
/// at the end of its line.
#[derive(Debug, Default)]
pub(crate) struct RequestParser {
    /// Where the line begins that is looked for.
    line: usize,
    /// Up to where there is no end of it.
    searched: usize,
    start: Option<Start>,
    fields: SmallVec<[Field; USUAL_FIELDS]>,
    framing: Framing,
}

#[derive(Debug)]
struct Start {
    line: RequestLine,
    /// Where in the buffer the line is.
    at: usize,
}

/// Where in the buffer a field is.
#[derive(Debug, Clone, Copy)]
struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

impl RequestParser {
    /// Takes a head from the front of `buffer`; `None` while its end has not come.
    ///
    /// # Errors
    /// When it is none that an honest client sends, or larger than allowed.
    pub(crate) fn parse(
        &mut self,
        buffer: &mut BytesMut,
        bounds: HeadBounds,
    ) -> Result<Option<RequestHead>, Refused> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &buffer[self.searched..]) else {
                self.searched = buffer.len();
                if buffer.len() > bounds.bytes {
                    return Err(Refused::TooLarge);
                }
                // What speaks another protocol may never send an end of line.
                return match self.start.is_none() && !may_begin(&buffer[self.line..]) {
                    true => Err(Refused::Malformed("an invalid method")),
                    false => Ok(None),
                };
            };
            let (at, end) = (self.line, self.searched + end);
            if self.start.is_none() && !may_begin(&buffer[at..end]) {
                return Err(Refused::Malformed("an invalid method"));
            }
            if end >= bounds.bytes {
                return Err(Refused::TooLarge);
            }
            (self.line, self.searched) = (end + 1, end + 1);
            // A line ends with CR LF and nothing else: a lone LF, or a CR elsewhere, is read in two ways (RFC 9112
            // section 2.2). No part of a line below takes a CR.
            let Some((b'\r', line)) = buffer[at..end].split_last() else {
                return Err(Refused::Malformed("a line does not end with CR LF"));
            };
            match (&self.start, line) {
                (None, []) if at == 0 => {}
                (None, []) => return Err(Refused::Malformed("empty lines before a message")),
                (None, line) => {
                    let line = RequestLine::parse(line)?;
                    self.start = Some(Start { line, at });
                }
                (Some(_), []) => return self.head(buffer).map(Some),
                (Some(_), line) => {
                    if self.fields.len() == bounds.fields {
                        return Err(Refused::TooLarge);
                    }
                    let (name, value) = places(line)?;
                    self.framing.note(&line[..name], &line[value.clone()])?;
                    self.fields.push(Field {
                        name: place(at, 0..name),
                        value: place(at, value),
                    });
                }
            }
        }
    }

    /// The head, once its end was found; the parser is ready for the next one.
    fn head(&mut self, buffer: &mut BytesMut) -> Result<RequestHead, Refused> {
        let framing = std::mem::take(&mut self.framing);
        let length = std::mem::take(&mut self.line);
        self.searched = 0;
        let Some(Start { line, at }) = self.start.take() else {
            return Err(Refused::Malformed("no request line"));
        };
        let follows = line.follows(&framing)?;
        if line.target.len() > MAX_TARGET {
            return Err(Refused::TargetTooLong);
        }
        let text = take(buffer, length);
        let mut headers = spare::take(self.fields.len()).map_err(|_| Refused::TooLarge)?;
        // Drained, so that the room for their places stays.
        for field in self.fields.drain(..) {
            let name =
                HeaderName::from_bytes(&text[range(field.name)]).map_err(|_| "an invalid field name")?;
            let value = value(&text, range(field.value));
            headers.try_append(name, value).map_err(|_| Refused::TooLarge)?;
        }
        let target = text.slice(at + line.target.start..at + line.target.end);
        let mut request = Request::new(());
        *request.method_mut() =
            Method::from_bytes(&text[at..at + line.method]).map_err(|_| "an invalid method")?;
        *request.uri_mut() = Uri::from_maybe_shared(target).map_err(|_| "an invalid request target")?;
        *request.version_mut() = match line.is_http_1_0 {
            true => Version::HTTP_10,
            false => Version::HTTP_11,
        };
        *request.headers_mut() = headers;
        Ok(RequestHead {
            parts: Box::new(request.into_parts().0),
            follows,
            framing,
        })
    }
}

/// Whether a line may be a request line, or the empty one before it, by its first byte, which is there before the end: that of
/// a TLS record is none.
fn may_begin(line: &[u8]) -> bool {
    line.first()
        .is_none_or(|byte| is_token(&[*byte]) || *byte == b'\r')
}

/// A field's value, which shares the head's memory.
#[expect(
    unsafe_code,
    reason = "a check of what was checked would be a second pass over the head"
)]
fn value(text: &Bytes, place: Range<usize>) -> HeaderValue {
    // SAFETY: `strict::places` has let through only what a value may hold: no control characters but the tab.
    unsafe { HeaderValue::from_maybe_shared_unchecked(text.slice(place)) }
}

/// A range within a line that begins at `at`. Heads are bounded far below 4 GiB.
fn place(at: usize, range: Range<usize>) -> (u32, u32) {
    let bound = |index: usize| u32::try_from(at + index).unwrap_or(u32::MAX);
    (bound(range.start), bound(range.end))
}

fn range((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::{Decoded, Decoder};

    const BOUNDS: HeadBounds = HeadBounds {
        bytes: 64 * 1024,
        fields: 100,
    };

    /// Part of a message that is at fault.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Place {
        Head,
        Body,
        /// It is no message of HTTP/1 at all.
        Nowhere,
    }

    /// The first fault in a stream of requests that comes in pieces of the given size, and the heads before it.
    fn judged(stream: &[u8], size: usize) -> (Option<(Place, &'static str)>, usize) {
        let (mut parser, mut decoder, mut heads) = (RequestParser::default(), Decoder::Done, 0);
        let mut buffer = BytesMut::new();
        for piece in stream.chunks(size) {
            buffer.extend_from_slice(piece);
            loop {
                if !decoder.is_done() {
                    match decoder.decode(&mut buffer) {
                        Err(reason) => return (Some((Place::Body, reason)), heads),
                        Ok(Decoded::More) => break,
                        Ok(Decoded::Data(_) | Decoded::Trailers(_) | Decoded::End) => continue,
                    }
                }
                match parser.parse(&mut buffer, BOUNDS) {
                    Ok(None) => break,
                    Ok(Some(head)) => {
                        heads += 1;
                        decoder = Decoder::after(head.follows);
                    }
                    Err(Refused::Malformed(reason)) => return (Some((Place::Head, reason)), heads),
                    Err(Refused::Foreign) => return (Some((Place::Nowhere, "")), heads),
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
        (None, heads)
    }

    #[track_caller]
    fn check(rows: &[(&str, Option<Place>, usize)]) {
        for (stream, expected, expected_heads) in rows {
            let whole = judged(stream.as_bytes(), stream.len());
            for size in [1, 2, 3, 7] {
                assert_eq!(
                    judged(stream.as_bytes(), size),
                    whole,
                    "{stream:?} in pieces of {size}"
                );
            }
            let (fault, heads) = whole;
            assert_eq!(
                (fault.map(|(place, _)| place), heads),
                (*expected, *expected_heads),
                "{stream:?}: {fault:?}"
            );
        }
    }

    #[test]
    fn messages_follow_each_other_by_their_framing() {
        check(&[
            (
                "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
                None,
                2,
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n\n\nGET / HTTP/1.1\r\n\r\n",
                None,
                2,
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n\n\n\r\nGET / HTTP/1.1\r\n\r\n",
                None,
                2,
            ),
            ("\r\nGET / HTTP/1.1\r\n\r\n", None, 1),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(Place::Head), 0),
            (
                "POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n\n\nGET / HTTP/1.1\r\n\r\n",
                Some(Place::Head),
                1,
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n\n\n\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                None,
                2,
            ),
        ]);
    }

    #[test]
    fn bodies_end_where_they_say() {
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for body in [
            "2\nab\r\n0\r\n\r\n",
            "2\r\nabc\r\n0\r\n\r\n",
            "2\r\nab\n0\r\n\r\n",
            "2\r\nab\r\r\n0\r\n\r\n",
            "0\n\r\n",
            "0\r\n\n",
            "0\r\ncontent-length: 3\r\n\r\n",
            "0\r\nx : 3\r\n\r\n",
            "2;a\rb\r\nab\r\n0\r\n\r\n",
            "\r\nab\r\n0\r\n\r\n",
        ] {
            check(&[(&format!("{chunked}{body}"), Some(Place::Body), 1)]);
        }
    }

    #[test]
    fn lines_that_can_be_read_in_two_ways_are_refused() {
        for line in [
            "x: y\n",
            "x: y\rz\r\n",
            "x: y\r\r\n",
            "x\ry: z\r\n",
            "x : y\r\n",
            "x: y\r\n z\r\n",
            "x\r\n",
            ": y\r\n",
            "x: \u{0}\r\n",
            "content-length: +1\r\n",
            "content-length: 1\r\ncontent-length: 1\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: \u{b}chunked\r\n",
        ] {
            check(&[
                (&format!("GET / HTTP/1.1\r\n{line}\r\n"), Some(Place::Head), 0),
                // It is found before the head has ended.
                (&format!("GET / HTTP/1.1\r\n{line}a: b\r\n"), Some(Place::Head), 0),
            ]);
        }
        for both in [
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            check(&[(both, Some(Place::Head), 0)]);
        }
    }

    #[test]
    fn what_is_not_http_is_told_apart() {
        check(&[
            ("INVALID CONNECTION PREFACE\r\n\r\n", Some(Place::Nowhere), 0),
            ("GET /\r\n", Some(Place::Head), 0),
            ("GET / HTTP/1.2\r\n", Some(Place::Head), 0),
            ("GET / HTTP/1.1\n", Some(Place::Head), 0),
            // The beginning of a TLS record, in which no line ends.
            ("\u{16}\u{3}\u{1}", Some(Place::Head), 0),
            ("\u{16}\n", Some(Place::Head), 0),
            ("\u{16} / HTTP/2.0x\r\n", Some(Place::Head), 0),
        ]);
    }

    fn head(text: &str) -> RequestHead {
        let mut buffer = BytesMut::from(format!("{text}rest").as_bytes());
        let head = RequestParser::default()
            .parse(&mut buffer, BOUNDS)
            .unwrap()
            .unwrap();
        assert_eq!(&buffer[..], b"rest");
        head
    }

    #[test]
    fn a_head_means_what_it_says() {
        let own = head(
            "PUT /a?b HTTP/1.1\r\nHost: c\r\nX: \t d e \r\nx:\r\nExpect: 100-Continue\r\ncontent-length: 3\r\n\
             te: gzip, Trailers\r\n\r\n",
        );
        assert_eq!(
            (own.parts.method.as_str(), own.parts.uri.to_string()),
            ("PUT", "/a?b".to_owned())
        );
        let lines: Vec<_> = own.parts.headers.get_all("x").iter().collect();
        assert_eq!(lines, ["d e", ""]);
        assert_eq!(own.parts.headers["host"], "c");
        assert_eq!(own.follows, Follows::Bytes(3));
        assert!(own.framing.expects_continue() && own.framing.takes_trailers() && own.keeps_alive());
        assert!(!head("GET / HTTP/1.0\r\n\r\n").keeps_alive());
        assert!(!head("GET / HTTP/1.1\r\nconnection: x, Close\r\n\r\n").keeps_alive());
        assert!(!head("CONNECT a:1 HTTP/1.1\r\n\r\n").keeps_alive());
    }

    #[test]
    fn another_protocol_is_asked_for_by_two_fields() {
        let follows = |fields: &str| head(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).follows;
        let both = "upgrade: websocket\r\nconnection: x, Upgrade\r\n";
        assert_eq!(follows(both), Follows::Undecided);
        assert_eq!(follows("upgrade: websocket\r\n"), Follows::Message);
        assert_eq!(
            follows("upgrade: h2c\r\nconnection: upgrade\r\n"),
            Follows::Message
        );
    }

    #[test]
    fn a_head_has_its_bounds() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        let large = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(BOUNDS.bytes));
        for text in [many, large] {
            for size in [1000, text.len()] {
                let (mut parser, mut buffer) = (RequestParser::default(), BytesMut::new());
                let refused = text.as_bytes().chunks(size).find_map(|piece| {
                    buffer.extend_from_slice(piece);
                    parser.parse(&mut buffer, BOUNDS).err()
                });
                assert_eq!(refused, Some(Refused::TooLarge), "{} bytes", text.len());
            }
        }
        let wide = HeadBounds {
            bytes: 1 << 20,
            fields: 1,
        };
        let mut buffer = BytesMut::from(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)).as_bytes());
        let refused = RequestParser::default().parse(&mut buffer, wide).err();
        assert_eq!(refused, Some(Refused::TargetTooLong));
    }
}
