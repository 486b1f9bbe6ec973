//! The walk over a stream of messages: heads line by line, bodies by their length.

use super::chunk;
use super::field::{Framing, field};
use super::line::{Next, Partial};

/// A place in the stream that no honest sender makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Offset in the piece that was scanned.
    pub(crate) at: usize,
    /// What is wrong.
    pub(crate) reason: &'static str,
    /// Which part of the message it is in.
    pub(crate) place: Place,
}

/// Part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before the body.
    Head,
    /// In the body or its trailers.
    Body,
    /// It is no message of HTTP/1 at all.
    Nowhere,
}

impl Fault {
    pub(super) fn new(at: usize, reason: &'static str) -> Self {
        Self {
            at,
            reason,
            place: Place::Head,
        }
    }
}

/// What is special about requests, or about responses.
pub(crate) trait Kind {
    /// What is kept of the start line.
    type Start: Copy + std::fmt::Debug;

    /// Reads the start line.
    fn start(&self, line: &[u8]) -> Result<Self::Start, Wrong>;

    /// What follows a head.
    fn body(&self, start: Self::Start, framing: &Framing) -> Result<Follows, &'static str>;
}

/// What is wrong with a start line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is one of HTTP/1, and malformed.
    Malformed(&'static str),
    /// It is none of HTTP/1.
    Foreign,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// The next message.
    Message,
    /// So many bytes.
    Bytes(u64),
    /// Chunks.
    Chunks,
    /// Nothing that is known: bytes until the end of the stream.
    Anything,
    /// Another protocol if the other side agrees, else the next message.
    Undecided,
}

/// A body that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// Its length was told.
    Told,
    Chunked,
}

#[derive(Debug, Clone, Copy)]
enum State<S> {
    /// Before a message; so many empty lines came.
    Start {
        empty_lines: u8,
    },
    /// In a head, after its start line.
    Fields(S, Framing),
    /// So many bytes of a body are missing.
    Bytes(u64),
    ChunkSize,
    /// So many bytes of a chunk are missing.
    Chunk(u64),
    /// Of the CR LF behind a chunk so many bytes came.
    ChunkEnd(u8),
    Trailers,
    /// Waits for [`Scanner::decide`].
    Undecided,
    Anything,
}

/// Looks over one direction of a connection.
#[derive(Debug)]
pub(crate) struct Scanner<K: Kind> {
    kind: K,
    state: State<K::Start>,
    partial: Partial,
    heads: u64,
}

/// Empty lines that may stand before a request: some old clients send one after a body (RFC 9112 section 2.2).
const MAX_EMPTY_LINES: u8 = 1;

impl<K: Kind> Scanner<K> {
    #[cfg(test)]
    pub(crate) fn new(kind: K) -> Self {
        Self::resumed(kind, 0)
    }

    /// A scanner of a stream from where the message after the first `heads` begins.
    pub(crate) fn resumed(kind: K, heads: u64) -> Self {
        Self {
            kind,
            state: State::Start { empty_lines: 0 },
            partial: Partial::default(),
            heads,
        }
    }

    /// Looks over the next piece of the stream, up to the first fault in it. Answers how many bytes are good to be
    /// passed on: all, unless what the others are is still [undecided](Self::is_undecided).
    pub(crate) fn scan(&mut self, piece: &[u8]) -> Result<usize, Fault> {
        let mut at = 0;
        while at < piece.len() && !self.is_undecided() {
            at += self.step(&piece[at..]).map_err(|fault| Fault {
                at: at + fault.at,
                ..fault
            })?;
        }
        Ok(at)
    }

    /// Heads that were complete and without fault so far.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// The body that the stream is in; `None` between messages and in a head.
    pub(crate) fn body(&self) -> Option<Body> {
        match self.state {
            State::Bytes(_) => Some(Body::Told),
            State::ChunkSize | State::Chunk(_) | State::ChunkEnd(_) | State::Trailers => Some(Body::Chunked),
            State::Start { .. } | State::Fields(..) | State::Undecided | State::Anything => None,
        }
    }

    /// Whether the stream is to wait until the other side has agreed to another protocol, or not.
    pub(crate) fn is_undecided(&self) -> bool {
        matches!(self.state, State::Undecided)
    }

    /// The other side has agreed to another protocol, or has not.
    pub(crate) fn decide(&mut self, agreed: bool) {
        if self.is_undecided() {
            self.state = match agreed {
                true => State::Anything,
                false => State::Start { empty_lines: 0 },
            };
        }
    }

    /// Takes some bytes.
    fn step(&mut self, rest: &[u8]) -> Result<usize, Fault> {
        match self.state {
            State::Start { .. } | State::Fields(..) => self.line(rest, Place::Head),
            State::ChunkSize | State::Trailers => self.line(rest, Place::Body),
            State::Bytes(missing) => {
                Ok(self.skip(missing, rest, State::Bytes, State::Start { empty_lines: 0 }))
            }
            State::Chunk(missing) => Ok(self.skip(missing, rest, State::Chunk, State::ChunkEnd(0))),
            State::ChunkEnd(came) => self.chunk_end(came, rest[0]),
            State::Undecided | State::Anything => Ok(rest.len()),
        }
    }

    fn skip(
        &mut self,
        missing: u64,
        rest: &[u8],
        more: impl Fn(u64) -> State<K::Start>,
        then: State<K::Start>,
    ) -> usize {
        let taken = usize::try_from(missing).unwrap_or(usize::MAX).min(rest.len());
        self.state = match missing - taken as u64 {
            0 => then,
            missing => more(missing),
        };
        taken
    }

    fn chunk_end(&mut self, came: u8, byte: u8) -> Result<usize, Fault> {
        self.state = match (came, byte) {
            (0, b'\r') => State::ChunkEnd(1),
            (1, b'\n') => State::ChunkSize,
            _ => {
                return Err(Fault {
                    place: Place::Body,
                    ..Fault::new(0, "a chunk is longer than its size")
                });
            }
        };
        Ok(1)
    }

    fn line(&mut self, rest: &[u8], place: Place) -> Result<usize, Fault> {
        let taken = {
            let next = self
                .partial
                .next(rest)
                .map_err(|fault| Fault { place, ..fault })?;
            let Next::Line(line, taken) = next else {
                return Ok(rest.len());
            };
            let last = taken - 1;
            if line.is_empty() && matches!(self.state, State::Fields(..)) {
                self.heads += 1;
            }
            let state = next_state(&self.kind, self.state, line);
            self.state = state.map_err(|wrong| match wrong {
                Wrong::Malformed(reason) => Fault {
                    place,
                    ..Fault::new(last, reason)
                },
                Wrong::Foreign => Fault {
                    place: Place::Nowhere,
                    ..Fault::new(last, "not HTTP/1")
                },
            })?;
            taken
        };
        self.partial.clear();
        Ok(taken)
    }
}

/// What a line leads to.
fn next_state<K: Kind>(kind: &K, state: State<K::Start>, line: &[u8]) -> Result<State<K::Start>, Wrong> {
    Ok(match state {
        State::Start { empty_lines } if line.is_empty() => match empty_lines < MAX_EMPTY_LINES {
            true => State::Start {
                empty_lines: empty_lines + 1,
            },
            false => return Err(Wrong::Malformed("empty lines before a message")),
        },
        State::Start { .. } => State::Fields(kind.start(line)?, Framing::default()),
        State::Fields(start, framing) if line.is_empty() => {
            match kind.body(start, &framing).map_err(Wrong::Malformed)? {
                Follows::Message | Follows::Bytes(0) => State::Start { empty_lines: 0 },
                Follows::Bytes(length) => State::Bytes(length),
                Follows::Chunks => State::ChunkSize,
                Follows::Anything => State::Anything,
                Follows::Undecided => State::Undecided,
            }
        }
        State::Fields(start, mut framing) => {
            let noted = field(line).and_then(|(name, value)| framing.note(name, value));
            noted.map_err(Wrong::Malformed)?;
            State::Fields(start, framing)
        }
        State::ChunkSize => match chunk::size(line).map_err(Wrong::Malformed)? {
            0 => State::Trailers,
            size => State::Chunk(size),
        },
        State::Trailers if line.is_empty() => State::Start { empty_lines: 0 },
        State::Trailers => {
            let mut framing = Framing::default();
            let noted = field(line).and_then(|(name, value)| framing.note(name, value));
            noted.map_err(Wrong::Malformed)?;
            match framing.length.is_some() || framing.chunked {
                true => return Err(Wrong::Malformed("framing in trailers")),
                false => State::Trailers,
            }
        }
        State::Bytes(_) | State::Chunk(_) | State::ChunkEnd(_) | State::Undecided | State::Anything => state,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Requests;
    use super::*;

    /// The place and reason of the first fault, with the stream cut in pieces of every size.
    #[track_caller]
    fn faults<K: Kind>(new: impl Fn() -> Scanner<K>, stream: &str) -> Option<(Place, &'static str)> {
        let whole = new()
            .scan(stream.as_bytes())
            .err()
            .map(|fault| (fault.place, fault.reason));
        for size in [1, 2, 3, 7] {
            let mut scanner = new();
            let mut pieces = stream.as_bytes().chunks(size);
            let fault = pieces.find_map(|piece| scanner.scan(piece).err());
            assert_eq!(
                fault.map(|fault| (fault.place, fault.reason)),
                whole,
                "{stream:?} by {size}"
            );
        }
        whole
    }

    #[track_caller]
    fn check(rows: &[(&str, Option<Place>)]) {
        for (stream, expected) in rows {
            let fault = faults(|| Scanner::new(Requests), stream);
            assert_eq!(fault.map(|(place, _)| place), *expected, "{stream:?}: {fault:?}");
        }
    }

    #[test]
    fn messages_follow_each_other_by_their_framing() {
        check(&[
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\n\r\n", None),
            (
                "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n\n\nGET / HTTP/1.1\r\n\r\n",
                None,
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n\n\n\r\nGET / HTTP/1.1\r\n\r\n",
                None,
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n\n\nGET / HTTP/1.1\r\n\r\n",
                Some(Place::Head),
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n\n\n\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                None,
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
            check(&[(&format!("{chunked}{body}"), Some(Place::Body))]);
        }
    }

    #[test]
    fn what_is_not_http_is_told_apart() {
        check(&[
            ("INVALID CONNECTION PREFACE\r\n\r\n", Some(Place::Nowhere)),
            ("GET /\r\n", Some(Place::Head)),
            ("GET / HTTP/1.2\r\n", Some(Place::Head)),
        ]);
    }

    #[test]
    fn another_protocol_waits_for_the_answer() {
        let head = "GET / HTTP/1.1\r\nupgrade: websocket\r\nconnection: x, Upgrade\r\n\r\n";
        for agreed in [true, false] {
            let mut scanner = Scanner::new(Requests);
            let stream = format!("{head}\0\n");
            assert_eq!(scanner.scan(stream.as_bytes()), Ok(head.len()));
            assert!(scanner.is_undecided());
            scanner.decide(agreed);
            assert_eq!(scanner.scan(b"\0\n").is_ok(), agreed);
        }
    }
}
