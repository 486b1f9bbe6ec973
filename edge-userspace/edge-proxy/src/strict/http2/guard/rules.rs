//! What each frame may say, of the client's and of those that are sent to it.

use super::Http2Guard;
use crate::strict::http2::frame::{Code, Fault, Head, MAX_FRAME, flag, kind, number};
use crate::strict::http2::hpack::{Fields, Section};
use crate::strict::http2::outgoing::Sent;
use crate::strict::http2::streams::Known;

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

/// A header block that is not whole.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    section: Section,
    bytes: Vec<u8>,
    frames: u32,
}

impl Http2Guard {
    /// What a head says by itself.
    pub(super) fn head(&mut self, head: Head) -> Result<(), Fault> {
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
    pub(super) fn content(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
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
    pub(super) fn note(&mut self, sent: Sent) -> Result<(), Fault> {
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
