//! A scanner between a stream and hyper: what it finds fault with never arrives as a whole message.

use std::io;

use bytes::Bytes;
use tokio::io::ReadBuf;

use super::message::{Body, Kind, Place, Scanner};

/// What ends a head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Guards one direction of a connection.
#[derive(Debug)]
pub(crate) struct Guard<K: Kind> {
    scanner: Scanner<K>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    /// No fault so far.
    Good,
    /// The reader was given a head that it refuses, and is still to be given its end.
    Refused,
    /// Nothing else comes.
    Ended,
    /// The next read fails.
    Broken(&'static str),
}

impl<K: Kind> Guard<K> {
    /// A guard of a stream from where the message after the first `heads` begins.
    pub(crate) fn new(kind: K, heads: u64) -> Self {
        Self {
            scanner: Scanner::resumed(kind, heads),
            verdict: Verdict::Good,
        }
    }

    /// The scanner.
    pub(crate) fn scanner(&mut self) -> &mut Scanner<K> {
        &mut self.scanner
    }

    /// The body that the stream is in.
    pub(crate) fn body(&self) -> Option<Body> {
        self.scanner.body()
    }

    /// What a read gives without asking the stream, after a fault.
    pub(crate) fn ended(&mut self, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        match self.verdict {
            Verdict::Good => None,
            Verdict::Refused if buf.remaining() >= HEAD_END.len() => {
                // hyper does not parse a head that came in pieces before it sees an end.
                buf.put_slice(HEAD_END);
                self.verdict = Verdict::Ended;
                Some(Ok(()))
            }
            Verdict::Refused | Verdict::Ended => Some(Ok(())),
            Verdict::Broken(reason) => Some(Err(invalid(reason))),
        }
    }

    /// Looks over what was read into `buf` from `before` on. Bytes that are not to be passed on yet are returned and
    /// taken out.
    ///
    /// # Errors
    /// When the stream is no HTTP/1 at all: it is closed without an answer.
    pub(crate) fn check(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<Bytes> {
        let piece = &mut buf.filled_mut()[before..];
        match self.scanner.scan(piece) {
            Ok(good) if good == piece.len() => Ok(Bytes::new()),
            Ok(good) => {
                let later = Bytes::copy_from_slice(&piece[good..]);
                buf.set_filled(before + good);
                Ok(later)
            }
            Err(fault) => {
                tracing::debug!(reason = fault.reason, "malformed HTTP/1.1");
                match fault.place {
                    Place::Head => {
                        // NUL stands nowhere in a head, so that the parser refuses it here and now, with its answer.
                        piece[fault.at] = 0;
                        buf.set_filled(before + fault.at + 1);
                        self.verdict = Verdict::Refused;
                    }
                    Place::Body => {
                        buf.set_filled(before + fault.at);
                        self.verdict = Verdict::Broken(fault.reason);
                        if fault.at == 0 {
                            return Err(invalid(fault.reason));
                        }
                    }
                    Place::Nowhere => return Err(invalid(fault.reason)),
                }
                Ok(Bytes::new())
            }
        }
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
