//! What a client may send that makes work and asks for nothing.

use std::time::{Duration, Instant};

use super::frame::{Code, Fault};
use crate::options::Http2Limits;

/// Counts begin anew after this time, so that a connection may live long.
const WINDOW: Duration = Duration::from_secs(10);

/// What was counted.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Http2Limits,
    since: Instant,
    control: u32,
    updates: u32,
    early_resets: u32,
    late_resets: u32,
    errors: u32,
    refusals: u32,
    opened: u32,
    ended: u32,
    data: u32,
}

const fn calm(reason: &'static str) -> Fault {
    Fault::new(Code::EnhanceYourCalm, reason)
}

impl Budget {
    pub(super) fn new(limits: Http2Limits, now: Instant) -> Self {
        Self {
            limits,
            since: now,
            control: 0,
            updates: 0,
            early_resets: 0,
            late_resets: 0,
            errors: 0,
            refusals: 0,
            opened: 0,
            ended: 0,
            data: 0,
        }
    }

    /// Begins anew when it is time.
    pub(super) fn tick(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(self.limits, now);
        }
    }

    pub(super) fn opened(&mut self) {
        self.opened += 1;
    }

    pub(super) fn response_ended(&mut self) {
        self.ended += 1;
    }

    /// DATA went to the client, in more than a trickle.
    pub(super) fn data_sent(&mut self) {
        self.data += 1;
    }

    pub(super) fn control_frame(&mut self) -> Result<(), Fault> {
        self.control += 1;
        match self.control > self.limits.control_frames + 2 * self.opened + self.data {
            true => Err(calm("too many control frames")),
            false => Ok(()),
        }
    }

    pub(super) fn window_update(&mut self) -> Result<(), Fault> {
        self.updates += 1;
        match self.updates > self.limits.window_updates + 4 * self.opened + 4 * self.data {
            true => Err(calm("too many window updates")),
            false => Ok(()),
        }
    }

    /// The client has reset a stream; `early` when its response had not begun.
    pub(super) fn reset(&mut self, early: bool) -> Result<(), Fault> {
        let (count, limit) = match early {
            true => (&mut self.early_resets, self.limits.resets + self.ended / 2),
            false => (&mut self.late_resets, 4 * self.limits.resets + self.ended),
        };
        *count += 1;
        match *count > limit {
            true => Err(calm("too many resets")),
            false => Ok(()),
        }
    }

    /// A head repeats entries of the table.
    pub(super) fn bomb(&mut self) -> Result<(), Fault> {
        self.errors += 1;
        match self.errors > self.limits.errors {
            true => Err(calm("field blocks that grow")),
            false => Ok(()),
        }
    }

    /// The gateway had to reset a stream.
    pub(super) fn stream_error(&mut self, code: u32) -> Result<(), Fault> {
        let is = |other: Code| code == other as u32;
        if is(Code::RefusedStream) {
            self.refusals += 1;
        } else if is(Code::Protocol) || is(Code::FlowControl) || is(Code::StreamClosed) || is(Code::FrameSize)
        {
            self.errors += 1;
        }
        match self.errors > self.limits.errors || self.refusals > self.limits.refusals {
            true => Err(calm("too many malformed streams")),
            false => Ok(()),
        }
    }
}
