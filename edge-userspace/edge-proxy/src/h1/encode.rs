//! Messages on their way out: a head, and a body by pieces, with as few calls as there are pieces.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use tokio::io::AsyncWrite;

/// The last chunk, without the trailer section's end.
const LAST_CHUNK: &[u8] = b"0\r\n";

/// Pieces of a body up to this length, in bytes, are copied behind the head.
const COPIED: usize = 2048;

/// What ends the last chunk of data, and the body.
const FINAL_TAIL: &[u8] = b"\r\n0\r\n\r\n";

/// What is still to be written of a message.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// A head, or the size of a chunk; it comes first.
    text: Vec<u8>,
    /// So much of it is written.
    at: usize,
    /// A piece of the body.
    data: Bytes,
    /// What ends a chunk.
    tail: &'static [u8],
    /// Bytes that were written of the message so far.
    written: u64,
}

impl Outbox {
    /// Begins a message; its head is to be appended to the buffer that is returned.
    pub(crate) fn begin(&mut self) -> &mut Vec<u8> {
        self.text.clear();
        self.at = 0;
        self.data = Bytes::new();
        self.tail = b"";
        self.written = 0;
        &mut self.text
    }

    /// Where the head of a further message is to be appended, behind what is still to be written of the last one.
    pub(crate) fn next(&mut self) -> &mut Vec<u8> {
        self.forget_written();
        &mut self.text
    }

    /// Bytes that were written since the [beginning](Self::begin).
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.text.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Whether a further piece can be taken, with what is there.
    pub(crate) fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty()
    }

    /// A piece of a body whose length was told. To be given only [while there is room](Self::has_room).
    pub(crate) fn push(&mut self, data: Bytes) {
        // To copy a small piece costs less than to have the kernel walk a list of two.
        match data.len() <= COPIED {
            true => self.next().extend_from_slice(&data),
            false => self.data = data,
        }
    }

    /// A piece of a chunked body. To be given only [while there is room](Self::has_room).
    pub(crate) fn push_chunk(&mut self, data: Bytes) {
        if !data.is_empty() {
            // An empty chunk would end the body.
            self.push_chunk_before(data, b"\r\n");
        }
    }

    /// The last piece of a chunked body, with its end. To be given only [while there is room](Self::has_room).
    pub(crate) fn push_final_chunk(&mut self, data: Bytes) {
        match data.is_empty() {
            true => self.push_last_chunk(None),
            false => self.push_chunk_before(data, FINAL_TAIL),
        }
    }

    fn push_chunk_before(&mut self, data: Bytes, tail: &'static [u8]) {
        self.forget_written();
        push_hex(&mut self.text, data.len());
        self.text.extend_from_slice(b"\r\n");
        if data.len() <= COPIED {
            self.text.extend_from_slice(&data);
            self.text.extend_from_slice(tail);
            return;
        }
        self.data = data;
        self.tail = tail;
    }

    /// The end of a chunked body. To be given only [while there is room](Self::has_room).
    pub(crate) fn push_last_chunk(&mut self, trailers: Option<&HeaderMap>) {
        self.forget_written();
        self.text.extend_from_slice(LAST_CHUNK);
        for (name, value) in trailers.into_iter().flatten() {
            push_field(&mut self.text, name.as_str(), value.as_bytes());
        }
        self.text.extend_from_slice(b"\r\n");
    }

    fn forget_written(&mut self) {
        if self.at == self.text.len() {
            self.text.clear();
            self.at = 0;
        }
    }

    /// Writes all that is there.
    pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let text = &self.text[self.at..];
            let length = ready!(match self.has_room() {
                true => Pin::new(&mut *stream).poll_write(cx, text),
                false => {
                    let slices = [text, &self.data, self.tail].map(IoSlice::new);
                    Pin::new(&mut *stream).poll_write_vectored(cx, &slices)
                }
            })?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(length);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, length: usize) {
        self.written += length as u64;
        let text = length.min(self.text.len() - self.at);
        self.at += text;
        let data = (length - text).min(self.data.len());
        self.data.advance(data);
        if self.data.is_empty() {
            // An empty Bytes would keep its memory.
            self.data = Bytes::new();
        }
        self.tail = &self.tail[length - text - data..];
    }
}

/// Appends a field line.
pub(crate) fn push_field(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    text.reserve(name.len() + value.len() + 4);
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

/// Appends a field line of a name that is known beforehand: `begin` is the name with the colon and the space behind it.
// Inlined, as its text is then written by a move or two and not by a call.
#[inline]
pub(crate) fn push_known(text: &mut Vec<u8>, begin: &'static str, value: &[u8]) {
    text.reserve(begin.len() + value.len() + 2);
    text.extend_from_slice(begin.as_bytes());
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

/// The same of a value that is a number.
pub(crate) fn push_known_number(text: &mut Vec<u8>, begin: &'static str, number: u64) {
    push_known(text, begin, Digits::new(number).as_bytes());
}

/// A number in decimal.
pub(crate) struct Digits {
    text: [u8; 20],
    begin: usize,
}

impl Digits {
    pub(crate) fn new(mut number: u64) -> Self {
        let mut text = [b'0'; 20];
        let mut begin = text.len();
        loop {
            begin -= 1;
            // A remainder of 10 is a digit.
            text[begin] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { text, begin };
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[self.begin..]
    }

    pub(crate) fn as_str(&self) -> &str {
        // Digits are text.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

fn push_hex(text: &mut Vec<u8>, number: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    let places = (0..digits).rev();
    text.extend(places.map(|place| DIGITS[number >> (4 * place) & 0xf]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::task::Waker;

    /// Takes so many bytes in each call.
    struct Narrow(Vec<u8>, usize);

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let length = buf.len().min(self.1);
            self.0.extend_from_slice(&buf[..length]);
            Poll::Ready(Ok(length))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut all: Vec<u8> = bufs.iter().flat_map(|slice| slice.iter().copied()).collect();
            all.truncate(self.1);
            self.0.extend_from_slice(&all);
            Poll::Ready(Ok(all.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 999, u64::MAX] {
            let mut text = Vec::new();
            push_known_number(&mut text, "x: ", number);
            assert_eq!(String::from_utf8(text).unwrap(), format!("x: {number}\r\n"));
        }
    }

    #[test]
    fn a_message_arrives_whole_however_little_the_stream_takes_at_once() {
        let trailers =
            HeaderMap::from_iter([(http::HeaderName::from_static("x"), HeaderValue::from_static("y"))]);
        for narrow in [1, 2, 3, 5, 1000] {
            let mut stream = Narrow(Vec::new(), narrow);
            let mut cx = Context::from_waker(Waker::noop());
            let mut outbox = Outbox::default();
            outbox.begin().extend_from_slice(b"head\r\n\r\n");
            let large = "y".repeat(COPIED + 1);
            for data in ["", "0123456789abcdef0", &large, "z"] {
                outbox.push_chunk(Bytes::copy_from_slice(data.as_bytes()));
                assert!(matches!(
                    outbox.poll_write(&mut stream, &mut cx),
                    Poll::Ready(Ok(()))
                ));
            }
            outbox.push_last_chunk(Some(&trailers));
            assert!(matches!(
                outbox.poll_write(&mut stream, &mut cx),
                Poll::Ready(Ok(()))
            ));
            outbox.next().extend_from_slice(b"next\r\n\r\n");
            outbox.push_final_chunk(Bytes::from(large.clone()));
            assert!(matches!(
                outbox.poll_write(&mut stream, &mut cx),
                Poll::Ready(Ok(()))
            ));
            let expected = format!(
                "head\r\n\r\n11\r\n0123456789abcdef0\r\n801\r\n{large}\r\n1\r\nz\r\n0\r\nx: y\r\n\r\nnext\r\n\r\n\
                 801\r\n{large}\r\n0\r\n\r\n"
            );
            assert_eq!(std::str::from_utf8(&stream.0).unwrap(), expected);
        }
    }
}
