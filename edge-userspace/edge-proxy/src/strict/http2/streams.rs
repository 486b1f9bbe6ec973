//! The streams of a connection, as far as rules and limits ask for them.

use std::collections::VecDeque;

use super::frame::{Code, Fault};

/// The flow-control window before any SETTINGS (RFC 9113 section 6.9.2), and the largest one.
const DEFAULT_WINDOW: i64 = 65_535;
const MAX_WINDOW: i64 = 0x7fff_ffff;

/// A window larger than that (RFC 9113 section 6.9.1).
pub(super) const BEYOND: Fault = Fault::new(Code::FlowControl, "a window beyond 31 bits");

/// Streams that were closed of late: what still comes for them is told from what comes for streams that never were.
const REMEMBERED: usize = 32;

/// Most streams that are kept account of: far more than a client may have open, because it may not have heard yet of
/// those that were refused or of the end of the connection.
const MAX_OPEN: usize = 1024;

/// How often in a row a response must get too little room for its client to be cut.
const DRIPS: u8 = 3;

/// Streams that the gateway has reset while their client may not know of it yet. More are forgotten.
const MAX_DISOWNED: usize = 256;

/// A stream that somebody still sends on.
#[derive(Debug, Clone, Copy)]
struct Stream {
    id: u32,
    /// The client has more to send.
    receiving: bool,
    /// The gateway has more to send.
    sending: bool,
    /// Its response has begun.
    answered: bool,
    /// The gateway has reset it; the client may send on until it knows.
    disowned: bool,
    /// What the client takes of its response.
    window: i64,
    /// Octets of its response that were sent, and how many they were when it was last asked whether they drip.
    sent: u64,
    sent_before: u64,
    /// How often in a row they did.
    drips: u8,
    /// Octets of its request's body that are still to come, where their number was told.
    left: Option<i64>,
}

/// Whether responses wait for the client's windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    No,
    /// Some do.
    Some,
    /// All do, and of none the client has taken a single octet.
    All,
}

#[derive(Debug)]
pub(super) struct Streams {
    /// By number, ascending. Most often the first ones end first.
    open: VecDeque<Stream>,
    last: u32,
    closed: [u32; REMEMBERED],
    next_closed: usize,
    disowned: usize,
    initial_window: i64,
    window: i64,
    /// Their clients have opened their windows too far, and nobody else has seen it.
    overflown: Vec<u32>,
}

/// What a frame's stream is to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Idle,
    Receiving,
    /// The client has said that it sends nothing more.
    Ended,
    /// It was passed over: closed by a later one (RFC 9113 section 5.1.1).
    Skipped,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            open: VecDeque::new(),
            last: 0,
            closed: [0; REMEMBERED],
            next_closed: 0,
            disowned: 0,
            initial_window: DEFAULT_WINDOW,
            window: DEFAULT_WINDOW,
            overflown: vec![],
        }
    }
}

impl Streams {
    /// The latest one that the client has opened.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    pub(super) fn look_up(&self, id: u32) -> Known {
        if id > self.last {
            return Known::Idle;
        }
        match self.position(id) {
            Some(at) if self.open[at].receiving => Known::Receiving,
            Some(_) => Known::Ended,
            None if self.closed.contains(&id) => Known::Ended,
            None => Known::Skipped,
        }
    }

    /// A request has begun.
    pub(super) fn opens(&mut self, id: u32, ended: bool) -> Result<(), Fault> {
        if self.open.len() >= MAX_OPEN {
            return Err(Fault::new(Code::EnhanceYourCalm, "too many streams"));
        }
        self.last = id;
        self.open.push_back(Stream {
            id,
            receiving: !ended,
            sending: true,
            answered: false,
            disowned: false,
            window: self.initial_window,
            sent: 0,
            sent_before: 0,
            drips: 0,
            left: None,
        });
        Ok(())
    }

    /// So long a body is to come.
    pub(super) fn told(&mut self, id: u32, length: u64) {
        if let Some(at) = self.position(id) {
            self.open[at].left = i64::try_from(length).ok();
        }
    }

    /// So much of a body has come; `None` when padding hides how much. The parser behind judges the length, too, but not
    /// always once the response has ended.
    pub(super) fn came(&mut self, id: u32, length: Option<u32>) -> Result<(), Fault> {
        let Some(at) = self.position(id) else {
            return Ok(());
        };
        let left = &mut self.open[at].left;
        *left = left.zip(length).map(|(left, length)| left - i64::from(length));
        match *left {
            Some(..0) => Err(Fault::protocol("a body longer than was told")),
            Some(_) | None => Ok(()),
        }
    }

    /// The client has sent END_STREAM.
    pub(super) fn client_ended(&mut self, id: u32) -> Result<(), Fault> {
        let Some(at) = self.position(id) else {
            return Ok(());
        };
        self.open[at].receiving = false;
        let is_short = self.open[at].left.is_some_and(|left| left > 0);
        self.settle(at);
        match is_short {
            true => Err(Fault::protocol("a body shorter than was told")),
            false => Ok(()),
        }
    }

    /// The client has reset a stream. Answers whether its response had not begun.
    pub(super) fn client_reset(&mut self, id: u32) -> bool {
        let Some(at) = self.position(id) else {
            return false;
        };
        let early = self.open[at].sending && !self.open[at].answered && !self.open[at].disowned;
        self.remove(at);
        early
    }

    /// A response has begun.
    pub(super) fn answered(&mut self, id: u32) {
        if let Some(at) = self.position(id) {
            self.open[at].answered = true;
        }
    }

    /// A response has ended.
    pub(super) fn server_ended(&mut self, id: u32) {
        if let Some(at) = self.position(id) {
            self.open[at].sending = false;
            self.settle(at);
        }
    }

    /// The gateway has reset a stream.
    pub(super) fn server_reset(&mut self, id: u32) {
        let Some(at) = self.position(id) else { return };
        if !self.open[at].receiving {
            self.remove(at);
            return;
        }
        self.open[at].sending = false;
        if !std::mem::replace(&mut self.open[at].disowned, true) {
            self.disowned += 1;
        }
        if self.disowned > MAX_DISOWNED
            && let Some(oldest) = self.open.iter().position(|stream| stream.disowned)
        {
            self.remove(oldest);
        }
    }

    /// Octets of a response were sent. Answers whether the client's window leaves room for more.
    pub(super) fn sent(&mut self, id: u32, length: u32) -> bool {
        let length = i64::from(length);
        self.window -= length;
        let Some(at) = self.position(id) else {
            return self.window > 0;
        };
        let stream = &mut self.open[at];
        stream.window -= length;
        stream.sent += length.unsigned_abs();
        stream.window > 0 && self.window > 0
    }

    /// The client takes more of one response, or (stream 0) of all.
    pub(super) fn widen(&mut self, id: u32, increment: u32) -> Result<(), Fault> {
        if id == 0 {
            self.window += i64::from(increment);
            return if self.window > MAX_WINDOW {
                Err(BEYOND)
            } else {
                Ok(())
            };
        }
        if let Some(at) = self.position(id) {
            let stream = &mut self.open[at];
            stream.window += i64::from(increment);
            // The parser behind judges the window of a stream for as long as it sends on it, and resets that stream alone.
            if stream.window > MAX_WINDOW
                && !stream.sending
                && !stream.disowned
                && !self.overflown.contains(&id)
            {
                self.overflown.push(id);
            }
        }
        Ok(())
    }

    /// A stream whose window has gone beyond the largest one, for the gateway to reset.
    pub(super) fn take_overflown(&mut self) -> Option<u32> {
        self.overflown.pop()
    }

    /// SETTINGS_INITIAL_WINDOW_SIZE changes the windows of all streams (RFC 9113 section 6.9.2).
    pub(super) fn set_initial_window(&mut self, size: u32) {
        let change = i64::from(size) - self.initial_window;
        self.initial_window += change;
        for stream in &mut self.open {
            stream.window += change;
        }
    }

    /// Whether responses wait for the client's windows.
    pub(super) fn blocked(&self) -> Blocked {
        let mut waiting = self
            .open
            .iter()
            .filter(|stream| stream.sending && stream.answered);
        let shut = |stream: &&Stream| self.window <= 0 || stream.window <= 0;
        let Some(first) = waiting.clone().find(shut) else {
            return Blocked::No;
        };
        match first.sent == 0 && waiting.all(|stream| shut(&stream) && stream.sent == 0) {
            true => Blocked::All,
            false => Blocked::Some,
        }
    }

    /// Whether some response has three times in a row got some octets of room from the client, and less than `octets`,
    /// since this was asked before. One that gets none is one whose client pauses.
    pub(super) fn drips(&mut self, octets: u64) -> bool {
        let mut any = false;
        for stream in &mut self.open {
            let took = stream.sent - stream.sent_before;
            let is_shut = stream.sending && stream.answered && (self.window <= 0 || stream.window <= 0);
            stream.sent_before = stream.sent;
            stream.drips = match is_shut && (1..octets).contains(&took) {
                true => stream.drips.saturating_add(1),
                false => 0,
            };
            any |= stream.drips >= DRIPS;
        }
        any
    }

    fn position(&self, id: u32) -> Option<usize> {
        // Most often it is the latest one.
        match self.open.back() {
            Some(last) if last.id == id => Some(self.open.len() - 1),
            _ => self.open.binary_search_by_key(&id, |stream| stream.id).ok(),
        }
    }

    /// Forgets a stream on which nobody sends any more.
    fn settle(&mut self, at: usize) {
        let stream = self.open[at];
        if !stream.receiving && !stream.sending {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: usize) {
        let Some(stream) = self.open.remove(at) else {
            return;
        };
        self.disowned -= usize::from(stream.disowned);
        self.closed[self.next_closed] = stream.id;
        self.next_closed = (self.next_closed + 1) % REMEMBERED;
    }
}
