//! The guard of one connection: cuts what the client sends into frames, and is asked what became of it.

mod rules;

use std::time::Instant;

use self::rules::Block;
use super::budget::Budget;
use super::frame::{Code, Fault, HEAD, Head, kind};
use super::hpack::Hpack;
use super::outgoing::Outgoing;
use super::streams::{BEYOND, Blocked, Streams};
use crate::options::Http2Limits;

/// How a client begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks over both directions of a client's connection.
#[derive(Debug)]
pub(crate) struct Http2Guard {
    incoming: Incoming,
    outgoing: Outgoing,
    hpack: Hpack,
    streams: Streams,
    budget: Budget,
    /// A header block that goes on in CONTINUATION.
    block: Option<Block>,
    has_settings: bool,
    /// Since when a head, or a frame of the connection's, is on its way and not whole.
    owes_since: Option<Instant>,
    /// What was wrong with what was sent, for the next time that something comes.
    fault: Option<Fault>,
    /// The parser behind has told the client to be calm.
    calmed: bool,
}

/// Where in the stream of frames the client is.
#[derive(Debug)]
enum Incoming {
    Preface(usize),
    /// So many octets of a head are there.
    Head([u8; HEAD], usize),
    /// The rest of a payload that nobody wants to see.
    Skip(u32),
    /// A payload that came in pieces.
    Payload(Head, Vec<u8>),
}

const BETWEEN: Incoming = Incoming::Head([0; HEAD], 0);

impl Http2Guard {
    pub(crate) fn new(limits: Http2Limits, now: Instant) -> Self {
        Self {
            incoming: Incoming::Preface(0),
            outgoing: Outgoing::default(),
            hpack: Hpack::default(),
            streams: Streams::default(),
            budget: Budget::new(limits, now),
            block: None,
            has_settings: false,
            owes_since: None,
            fault: None,
            calmed: false,
        }
    }

    /// Looks over what came from the client. An error comes with how many octets before it may be passed on.
    pub(crate) fn received(&mut self, piece: &[u8], now: Instant) -> Result<(), (usize, Fault)> {
        self.budget.tick(now);
        if let Some(fault) = self.fault {
            return Err((0, fault));
        }
        let mut rest = piece;
        while !rest.is_empty() {
            // A frame with a fault is not passed on, nor is what is behind it.
            let good = piece.len() - rest.len();
            self.step(&mut rest).map_err(|fault| (good, fault))?;
            if !self.is_within_head() {
                // Whole. What begins behind it in the same piece has its own time.
                self.owes_since = None;
            }
        }
        if self.is_within_head() {
            self.owes_since.get_or_insert(now);
        }
        Ok(())
    }

    /// Since when something of the client's is on its way that says what it wants, and not whole.
    pub(crate) fn owes_since(&self) -> Option<Instant> {
        self.owes_since
    }

    fn is_within_head(&self) -> bool {
        let is_within_frame = match self.incoming {
            Incoming::Preface(_) | Incoming::Head(_, 1..) | Incoming::Payload(..) => true,
            // The rest of a body has a pace of its own.
            Incoming::Head(..) | Incoming::Skip(_) => false,
        };
        is_within_frame || self.block.is_some()
    }

    /// Looks over what was sent to the client. A fault is told by the next [`Self::received`]. Answers whether something
    /// of a response was among it.
    pub(crate) fn sent(&mut self, mut piece: &[u8]) -> bool {
        let mut progress = false;
        while !piece.is_empty() {
            let Some(sent) = self.outgoing.take(&mut piece) else {
                continue;
            };
            progress |= matches!(sent.head.kind, kind::HEADERS | kind::DATA);
            if let Err(fault) = self.note(sent) {
                self.fault = Some(fault);
            }
        }
        progress
    }

    /// What was found wrong with what was sent.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether the parser behind has told the client to be calm, since it was asked last.
    pub(crate) fn take_calmed(&mut self) -> bool {
        std::mem::take(&mut self.calmed)
    }

    /// Whether responses wait for the client's windows.
    pub(crate) fn blocked(&self) -> Blocked {
        self.streams.blocked()
    }

    /// Whether the client takes some of a response, and less than so many octets, each time that this is asked.
    pub(crate) fn drips(&mut self, octets: u64) -> bool {
        self.streams.drips(octets)
    }

    /// RST_STREAM for a stream whose response has ended and whose client has then opened its window too far (RFC 9113
    /// section 6.9.1). To be sent at once, and as a whole.
    ///
    /// # Errors
    /// When it cannot be sent now: the connection is to end.
    pub(crate) fn take_reset(&mut self) -> Result<Option<[u8; 13]>, Fault> {
        let Some(stream) = self.streams.take_overflown() else {
            return Ok(None);
        };
        if !self.outgoing.is_between_frames() {
            return Err(BEYOND);
        }
        self.streams.server_reset(stream);
        self.budget.stream_error(Code::FlowControl as u32)?;
        let mut frame = [0, 0, 4, kind::RST_STREAM, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[5..9].copy_from_slice(&stream.to_be_bytes());
        frame[9..].copy_from_slice(&(Code::FlowControl as u32).to_be_bytes());
        Ok(Some(frame))
    }

    /// GOAWAY with a code, if it can be sent now (RFC 9113 section 6.8).
    pub(crate) fn goaway(&self, code: Code) -> Option<[u8; 17]> {
        if !self.outgoing.is_between_frames() {
            return None;
        }
        let mut frame = [0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[9..13].copy_from_slice(&self.streams.last().to_be_bytes());
        frame[13..].copy_from_slice(&(code as u32).to_be_bytes());
        Some(frame)
    }

    /// Takes some octets.
    fn step(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        match &mut self.incoming {
            Incoming::Preface(have) => {
                let wanted = &PREFACE[*have..];
                let length = wanted.len().min(rest.len());
                if rest[..length] != wanted[..length] {
                    return Err(Fault::protocol("an invalid preface"));
                }
                *have += length;
                *rest = &rest[length..];
                if *have == PREFACE.len() {
                    self.incoming = BETWEEN;
                }
                Ok(())
            }
            Incoming::Head(_, 0) if rest.len() >= HEAD => self.frame(rest),
            Incoming::Head(bytes, have) => {
                let taken = rest.len().min(HEAD - *have);
                bytes[*have..*have + taken].copy_from_slice(&rest[..taken]);
                *have += taken;
                *rest = &rest[taken..];
                if *have < HEAD {
                    return Ok(());
                }
                let head = Head::parse(bytes);
                self.head(head)?;
                self.payload(head, rest)
            }
            Incoming::Skip(missing) => {
                let taken = u32::try_from(rest.len()).unwrap_or(u32::MAX).min(*missing);
                *missing -= taken;
                *rest = rest
                    .get(usize::try_from(taken).unwrap_or(usize::MAX)..)
                    .unwrap_or_default();
                if *missing == 0 {
                    self.incoming = BETWEEN;
                }
                Ok(())
            }
            Incoming::Payload(head, bytes) => {
                let head = *head;
                let length = usize::try_from(head.length).unwrap_or(usize::MAX);
                let taken = (length - bytes.len()).min(rest.len());
                bytes.extend_from_slice(&rest[..taken]);
                *rest = &rest[taken..];
                if bytes.len() < length {
                    return Ok(());
                }
                let bytes = std::mem::take(bytes);
                self.incoming = BETWEEN;
                self.content(head, &bytes)
            }
        }
    }

    /// A frame whose head lies in one piece.
    fn frame(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        let Some((bytes, after)) = rest.split_first_chunk::<HEAD>() else {
            return Ok(());
        };
        let head = Head::parse(bytes);
        self.head(head)?;
        *rest = after;
        self.payload(head, rest)
    }

    /// What follows a head.
    fn payload(&mut self, head: Head, rest: &mut &[u8]) -> Result<(), Fault> {
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        if matches!(head.kind, kind::DATA | kind::PING | kind::GOAWAY | kind::PRIORITY)
            || head.kind > kind::CONTINUATION
        {
            self.incoming = if length == 0 {
                BETWEEN
            } else {
                Incoming::Skip(head.length)
            };
            return Ok(());
        }
        match rest.split_at_checked(length) {
            Some((payload, after)) => {
                *rest = after;
                self.incoming = BETWEEN;
                self.content(head, payload)
            }
            None => {
                self.incoming = Incoming::Payload(head, rest.to_vec());
                *rest = &[];
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_frame_has_a_time_of_its_own() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(1);
        let mut guard = Http2Guard::new(Http2Limits::default(), begin);
        let settings = [0, 0, 0, kind::SETTINGS, 0, 0, 0, 0, 0];
        let update = [0, 0, 4, kind::WINDOW_UPDATE, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let (first, rest) = update.split_at(5);
        let opened = [PREFACE, &settings, first].concat();
        assert!(guard.received(&opened, begin).is_ok());
        assert_eq!(guard.owes_since(), Some(begin));
        // One ends, and the next begins with it.
        assert!(guard.received(&[rest, first].concat(), later).is_ok());
        assert_eq!(guard.owes_since(), Some(later));
        assert!(guard.received(rest, later).is_ok());
        assert_eq!(guard.owes_since(), None);
    }
}
