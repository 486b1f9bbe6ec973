//! Bodies: where they end, by Content-Length, the chunked coding or the end of the stream (RFC 9112 sections 6 and 7).

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::buffer::{take, used};
use super::head::{MAX_FIELDS, MAX_HEAD};
use crate::strict::{Follows, Framing, MAX_EXTENSIONS, chunk_size, field};

/// Reads one body out of a buffer that others fill.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// Nothing is left.
    Done,
    /// So many bytes are left.
    Length(u64),
    /// Chunks, whose extensions have taken so many bytes so far.
    Chunked(Chunks, u64),
    /// All that comes.
    UntilEnd,
}

/// Where in the chunked coding the stream is.
#[derive(Debug)]
pub(crate) enum Chunks {
    /// Before a line that tells the size of a chunk.
    Size,
    /// So many bytes of a chunk are left.
    Data(u64),
    /// Before the line end behind a chunk.
    DataEnd,
    /// In the trailer section, which has taken so many bytes so far.
    Trailers(Box<HeaderMap>, usize),
}

/// What came of a look at the buffer.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// The next bytes of the body.
    Data(Bytes),
    /// The trailer section, which ends the body.
    Trailers(HeaderMap),
    /// The body has ended.
    End,
    /// The buffer is used up.
    More,
}

/// Longest line in the chunked coding whose end has not come: a size with its extensions, or a trailer.
const MAX_LINE: usize = MAX_HEAD;

impl Decoder {
    /// What reads the body behind a head.
    pub(crate) fn after(follows: Follows) -> Self {
        match follows {
            Follows::Message | Follows::Undecided | Follows::Bytes(0) => Self::Done,
            Follows::Bytes(length) => Self::Length(length),
            Follows::Chunks => Self::chunked(),
            Follows::Anything => Self::UntilEnd,
        }
    }

    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunks::Size, 0)
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Bytes of the body that are still to come at least, and exactly if that is known.
    pub(crate) fn left(&self) -> (u64, Option<u64>) {
        match self {
            Self::Done => (0, Some(0)),
            Self::Length(left) => (*left, Some(*left)),
            Self::Chunked(Chunks::Data(left), _) => (*left, None),
            Self::Chunked(..) => (0, None),
            Self::UntilEnd => (u64::MAX, None),
        }
    }

    /// Takes the next part of the body out of `buffer`.
    ///
    /// # Errors
    /// When the chunked coding is malformed: nothing of the rest of the stream can be trusted.
    pub(crate) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, &'static str> {
        loop {
            let (taken, next) = match self {
                Self::Done => return Ok(Decoded::End),
                _ if buffer.is_empty() => return Ok(Decoded::More),
                Self::UntilEnd => return Ok(Decoded::Data(take(buffer, usize::MAX))),
                Self::Length(left) => {
                    let data = take(buffer, usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= data.len() as u64;
                    if *left == 0 {
                        *self = Self::Done;
                    }
                    return Ok(Decoded::Data(data));
                }
                Self::Chunked(Chunks::Data(left), extensions) => {
                    let data = take(buffer, usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= data.len() as u64;
                    if *left == 0 {
                        *self = Self::Chunked(Chunks::DataEnd, *extensions);
                    }
                    return Ok(Decoded::Data(data));
                }
                Self::Chunked(chunks, extensions) => match line(buffer)? {
                    None => return Ok(Decoded::More),
                    Some(line) => {
                        if matches!(chunks, Chunks::Size) {
                            *extensions += extension(line);
                        }
                        if *extensions > MAX_EXTENSIONS {
                            return Err("too many chunk extensions");
                        }
                        let next = chunks.next(line)?;
                        (line.len() + 2, next.map(|next| (next, *extensions)))
                    }
                },
            };
            used(buffer, taken);
            match next {
                Some((chunks, extensions)) => *self = Self::Chunked(chunks, extensions),
                None => {
                    let before = std::mem::replace(self, Self::Done);
                    if let Self::Chunked(Chunks::Trailers(fields, _), _) = before
                        && !fields.is_empty()
                    {
                        return Ok(Decoded::Trailers(*fields));
                    }
                }
            }
        }
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// When the body has not.
    pub(crate) fn ended(&mut self) -> Result<(), &'static str> {
        match self {
            Self::Done | Self::UntilEnd => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(..) => Err("the stream ended before the body"),
        }
    }
}

impl Chunks {
    /// What a line leads to; `None` is the end of the body.
    fn next(&mut self, line: &[u8]) -> Result<Option<Self>, &'static str> {
        Ok(Some(match self {
            Self::Size => match chunk_size(line)? {
                0 => Self::Trailers(Box::default(), 0),
                size => Self::Data(size),
            },
            Self::DataEnd if line.is_empty() => Self::Size,
            Self::DataEnd => return Err("a chunk is longer than its size"),
            Self::Trailers(..) if line.is_empty() => return Ok(None),
            Self::Trailers(fields, length) => {
                let mut fields = std::mem::take(fields);
                add_trailer(&mut fields, line)?;
                let length = *length + line.len();
                if length > MAX_HEAD || fields.len() > MAX_FIELDS {
                    return Err("the trailer section is too large");
                }
                Self::Trailers(fields, length)
            }
            Self::Data(left) => Self::Data(*left),
        }))
    }
}

fn add_trailer(fields: &mut HeaderMap, line: &[u8]) -> Result<(), &'static str> {
    let (name, value) = field(line)?;
    let mut framing = Framing::default();
    framing.note(name, value)?;
    if framing.is_told() {
        return Err("framing in trailers");
    }
    let name = HeaderName::from_bytes(name).map_err(|_| "an invalid trailer name")?;
    let value = HeaderValue::from_bytes(value).map_err(|_| "an invalid trailer value")?;
    fields.append(name, value);
    Ok(())
}

/// Bytes of a chunk-size line behind the size.
fn extension(line: &[u8]) -> u64 {
    let size = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    (line.len() - size) as u64
}

/// The line that the buffer begins with, without its end; `None` while that has not come. A line ends with CR LF and has
/// no CR elsewhere (RFC 9112 section 2.2).
fn line(buffer: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        return match buffer.len() > MAX_LINE {
            true => Err("a line is too long"),
            false => Ok(None),
        };
    };
    match buffer[..end].split_last() {
        Some((b'\r', line)) if memchr::memchr(b'\r', line).is_none() => Ok(Some(line)),
        Some(_) | None => Err("a line does not end with CR LF"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and its trailers, with the stream cut in pieces of `size`, and what is left of the stream.
    fn decoded(
        mut decoder: Decoder,
        stream: &[u8],
        size: usize,
    ) -> Result<(Vec<u8>, HeaderMap), &'static str> {
        let (mut buffer, mut body, mut trailers) = (BytesMut::new(), Vec::new(), HeaderMap::new());
        let mut pieces = stream.chunks(size);
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::Trailers(fields) => trailers = fields,
                Decoded::End => {
                    buffer.extend_from_slice(&pieces.collect::<Vec<_>>().concat());
                    body.extend_from_slice(b"|");
                    body.extend_from_slice(&buffer);
                    return Ok((body, trailers));
                }
                Decoded::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => decoder.ended()?,
                },
            }
        }
    }

    #[track_caller]
    fn check(new: impl Fn() -> Decoder, stream: &str, expected: Option<&str>) {
        for size in [1, 2, 3, 7, 1000] {
            let body = decoded(new(), stream.as_bytes(), size);
            let text = body.as_ref().map(|(body, trailers)| {
                let fields = trailers.iter().map(|(name, value)| format!("{name}={value:?} "));
                fields.collect::<String>() + std::str::from_utf8(body).unwrap()
            });
            assert_eq!(text.as_deref().ok(), expected, "{stream:?} by {size}: {body:?}");
        }
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        check(|| Decoder::Length(3), "abcd", Some("abc|d"));
        check(|| Decoder::Length(3), "ab", None);
        check(|| Decoder::UntilEnd, "ab\r\n", Some("ab\r\n|"));
        check(|| Decoder::Done, "x", Some("|x"));
        for (stream, expected) in [
            ("0\r\n\r\nx", Some("|x")),
            ("2\r\n\n\n\r\n0\r\n\r\n", Some("\n\n|")),
            ("2;a=\"b\"\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", Some("abcde|")),
            ("1\r\na\r\n0\r\nx: y\r\nz:\r\n\r\nw", Some("x=\"y\" z=\"\" a|w")),
            ("2\r\nab\r\n0\r\n", None),
            ("2\r\na", None),
            ("2\nab\r\n0\r\n\r\n", None),
            ("2\r\nabc\r\n0\r\n\r\n", None),
            ("2\r\nab\n0\r\n\r\n", None),
            ("2\r\nab\r\r\n0\r\n\r\n", None),
            ("0\n\r\n", None),
            ("0\r\n\n", None),
            ("0\r\ncontent-length: 3\r\n\r\n", None),
            ("0\r\ntransfer-encoding: chunked\r\n\r\n", None),
            ("0\r\nx : 3\r\n\r\n", None),
            ("0\r\n folded\r\n\r\n", None),
            ("2;a\rb\r\nab\r\n0\r\n\r\n", None),
            ("\r\nab\r\n0\r\n\r\n", None),
            ("-1\r\nab\r\n0\r\n\r\n", None),
        ] {
            check(Decoder::chunked, stream, expected);
        }
    }

    #[test]
    fn a_trailer_section_has_its_bounds() {
        let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        let long = format!("0\r\na: {}\r\n\r\n", "b".repeat(MAX_HEAD));
        let endless = format!("0\r\na: {}", "b".repeat(MAX_HEAD + 1));
        for stream in [many, long, endless] {
            assert!(decoded(Decoder::chunked(), stream.as_bytes(), 4096).is_err());
        }
    }

    #[test]
    fn extensions_are_bounded_over_the_whole_body() {
        let chunks = |count: usize| format!("1;{}\r\na\r\n", "e".repeat(1000)).repeat(count);
        let body = |count: usize| decoded(Decoder::chunked(), (chunks(count) + "0\r\n\r\n").as_bytes(), 999);
        assert_eq!(body(16).map(|(body, _)| body.len()), Ok(17));
        assert_eq!(body(17).err(), Some("too many chunk extensions"));
    }
}
