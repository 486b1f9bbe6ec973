//! The guard of one connection.

use std::time::Instant;

use super::budget::Budget;
use super::frame::{Code, Fault, HEAD, Head, MAX_FRAME, flag, kind, number};
use super::hpack::{Fields, Hpack, Section};
use super::outgoing::{Outgoing, Sent};
use super::streams::{BEYOND, Blocked, Known, Streams};
use crate::options::Http2Limits;

/// How a client begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// DATA with less than this is no progress when it is the client's window that made it so small.
const TRICKLE: u32 = 64;

/// A head that is larger than this, and than so many times of what was sent, repeats entries of the table. Honest clients
/// send no field twice, and the table holds 4 KiB.
const BOMB: u32 = 16 * 1024;
const BOMB_RATIO: u32 = 4;

/// SETTINGS (RFC 9113 section 6.5.2).
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

/// Largest field block as it is sent; decoded, it has a lower bound of its own.
const MAX_BLOCK: u32 = 256 * 1024;

/// Most frames that go on with a field block. Honest clients fill each of them.
const MAX_CONTINUATIONS: u32 = 32;

const FRAME_SIZE: Fault = Fault::new(Code::FrameSize, "a frame of a wrong size");

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

#[derive(Debug)]
struct Block {
    stream: u32,
    section: Section,
    bytes: Vec<u8>,
    frames: u32,
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

    /// What a head says by itself.
    fn head(&mut self, head: Head) -> Result<(), Fault> {
        if head.length > MAX_FRAME {
            return Err(FRAME_SIZE);
        }
        if self.block.is_some() && head.kind != kind::CONTINUATION {
            return Err(Fault::protocol("a frame in the middle of a head"));
        }
        if !self.has_settings {
            if head.kind != kind::SETTINGS || head.has(flag::ACK) {
                return Err(Fault::protocol("no SETTINGS first"));
            }
            self.has_settings = true;
        }
        let of_connection = matches!(head.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        let of_either = head.kind == kind::WINDOW_UPDATE || head.kind > kind::CONTINUATION;
        if !of_either && of_connection != (head.stream == 0) {
            return Err(Fault::protocol("a frame on a stream that is not for it"));
        }
        match head.kind {
            kind::DATA => self.data(head),
            kind::HEADERS => self.headers(head),
            kind::PRIORITY if head.length != 5 => Err(FRAME_SIZE),
            kind::RST_STREAM | kind::WINDOW_UPDATE if head.length != 4 => Err(FRAME_SIZE),
            kind::RST_STREAM if self.streams.look_up(head.stream) == Known::Idle => {
                Err(Fault::protocol("a reset of an idle stream"))
            }
            kind::WINDOW_UPDATE => self.budget.window_update(),
            kind::SETTINGS if !settings_fit(head) => Err(FRAME_SIZE),
            kind::PING if head.length != 8 => Err(FRAME_SIZE),
            kind::GOAWAY if head.length < 8 => Err(FRAME_SIZE),
            kind::PUSH_PROMISE => Err(Fault::protocol("PUSH_PROMISE of a client")),
            kind::CONTINUATION => self.continuation(head),
            // Answers to what the gateway asked.
            kind::PING | kind::SETTINGS if head.has(flag::ACK) => Ok(()),
            kind::RST_STREAM => Ok(()),
            _ => self.budget.control_frame(),
        }
    }

    fn data(&mut self, head: Head) -> Result<(), Fault> {
        match self.streams.look_up(head.stream) {
            Known::Receiving => {}
            Known::Idle => return Err(Fault::protocol("DATA on an idle stream")),
            Known::Ended | Known::Skipped => {
                return Err(Fault::new(Code::StreamClosed, "DATA on a closed stream"));
            }
        }
        let length = (!head.has(flag::PADDED)).then_some(head.length);
        self.streams.came(head.stream, length)?;
        if head.has(flag::END_STREAM) {
            return self.streams.client_ended(head.stream);
        }
        match head.length {
            0 => self.budget.control_frame(),
            _ => Ok(()),
        }
    }

    fn headers(&mut self, head: Head) -> Result<(), Fault> {
        if head.stream.is_multiple_of(2) {
            return Err(Fault::protocol("an even stream of a client"));
        }
        match self.streams.look_up(head.stream) {
            Known::Idle | Known::Receiving => Ok(()),
            Known::Ended => Err(Fault::new(Code::StreamClosed, "HEADERS on a closed stream")),
            Known::Skipped => Err(Fault::protocol("a stream below the last one")),
        }
    }

    fn continuation(&mut self, head: Head) -> Result<(), Fault> {
        match &mut self.block {
            Some(block) if block.stream == head.stream => {
                block.frames += 1;
                let size = u32::try_from(block.bytes.len()).unwrap_or(u32::MAX);
                match block.frames > MAX_CONTINUATIONS || size.saturating_add(head.length) > MAX_BLOCK {
                    true => Err(Fault::new(Code::EnhanceYourCalm, "a field block too large")),
                    false => Ok(()),
                }
            }
            Some(_) | None => Err(Fault::protocol("CONTINUATION of no head")),
        }
    }

    /// A whole frame of those whose payload matters.
    fn content(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        match head.kind {
            kind::HEADERS => self.begin_block(head, payload),
            kind::CONTINUATION => {
                let Some(mut block) = self.block.take() else {
                    return Ok(());
                };
                block.bytes.extend_from_slice(payload);
                if head.has(flag::END_HEADERS) {
                    return self.fields(block.stream, &block.bytes, block.section);
                }
                self.block = Some(block);
                Ok(())
            }
            kind::RST_STREAM => {
                let early = self.streams.client_reset(head.stream);
                self.budget.reset(early)
            }
            kind::SETTINGS => self.settings(payload),
            kind::WINDOW_UPDATE => {
                let increment = number(payload).unwrap_or(0) & 0x7fff_ffff;
                if head.stream == 0 && increment == 0 {
                    return Err(Fault::protocol("a window increment of zero"));
                }
                if head.stream != 0 && self.streams.look_up(head.stream) == Known::Idle {
                    return Err(Fault::protocol("a window of an idle stream"));
                }
                self.streams.widen(head.stream, increment)
            }
            _ => Ok(()),
        }
    }

    /// The field block of HEADERS, between priority and padding.
    fn begin_block(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let section = match self.streams.look_up(head.stream) {
            Known::Idle => Section::Head,
            Known::Receiving | Known::Ended | Known::Skipped => Section::Trailers,
        };
        let mut fields = payload;
        if head.has(flag::PADDED) {
            let (padding, after) = fields.split_first().ok_or(FRAME_SIZE)?;
            let length = after.len().checked_sub(usize::from(*padding));
            fields = length
                .and_then(|length| after.get(..length))
                .ok_or(Fault::protocol("padding beyond its frame"))?;
        }
        if head.has(flag::PRIORITY) {
            fields = fields.get(5..).ok_or(FRAME_SIZE)?;
        }
        let ended = head.has(flag::END_STREAM);
        match section {
            Section::Head => {
                self.streams.opens(head.stream, ended)?;
                self.budget.opened();
            }
            Section::Trailers if ended => self.streams.client_ended(head.stream)?,
            Section::Trailers => return Err(Fault::protocol("trailers that do not end their stream")),
        }
        if head.has(flag::END_HEADERS) {
            return self.fields(head.stream, fields, section);
        }
        self.block = Some(Block {
            stream: head.stream,
            section,
            bytes: fields.to_vec(),
            frames: 0,
        });
        Ok(())
    }

    /// A whole field block.
    fn fields(&mut self, stream: u32, block: &[u8], section: Section) -> Result<(), Fault> {
        let Fields { length, decoded } = self.hpack.block(block, section)?;
        let sent = u32::try_from(block.len()).unwrap_or(u32::MAX);
        if decoded > BOMB && decoded / BOMB_RATIO > sent {
            self.budget.bomb()?;
        }
        if let Some(length) = length.filter(|_| section == Section::Head) {
            self.streams.told(stream, length);
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), Fault> {
        for setting in payload.chunks_exact(6) {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            let value = number(&setting[2..]).unwrap_or(0);
            match name {
                ENABLE_PUSH if value > 1 => return Err(Fault::protocol("ENABLE_PUSH is neither 0 nor 1")),
                INITIAL_WINDOW_SIZE if value > 0x7fff_ffff => {
                    return Err(Fault::new(Code::FlowControl, "an initial window beyond 31 bits"));
                }
                INITIAL_WINDOW_SIZE => self.streams.set_initial_window(value),
                MAX_FRAME_SIZE if !(MAX_FRAME..1 << 24).contains(&value) => {
                    return Err(Fault::protocol("an invalid MAX_FRAME_SIZE"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A frame that was sent.
    fn note(&mut self, sent: Sent) -> Result<(), Fault> {
        let Sent { head, code } = sent;
        match head.kind {
            kind::HEADERS => self.streams.answered(head.stream),
            kind::DATA => {
                let room = self.streams.sent(head.stream, head.length);
                if room || head.length >= TRICKLE {
                    self.budget.data_sent();
                }
            }
            kind::RST_STREAM => {
                self.streams.server_reset(head.stream);
                return self.budget.stream_error(code);
            }
            kind::GOAWAY if code == Code::EnhanceYourCalm as u32 => self.calmed = true,
            _ => return Ok(()),
        }
        if head.has(flag::END_STREAM) && head.kind != kind::GOAWAY {
            self.streams.server_ended(head.stream);
            self.budget.response_ended();
        }
        Ok(())
    }
}

fn settings_fit(head: Head) -> bool {
    match head.has(flag::ACK) {
        true => head.length == 0,
        false => head.length.is_multiple_of(6),
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
