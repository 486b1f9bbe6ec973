//! When a connection is to end, and how: what is too slow, what idles, and who makes room for others.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::{Conn, Phase};
use crate::options::Limits;
use crate::protocol::Protocol;
use crate::strict::{Blocked, Body, Code};
use crate::worker::Drain;

/// Why a connection is cut, as metrics tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// A head took too long.
    SlowHead,
    /// A body came too slowly, or not at all.
    SlowBody,
    /// The client took nothing of its response, or nothing went either way.
    Stalled,
    /// The client never opened its window.
    WindowShut,
    /// The client opens its window by a little at a time.
    SlowRead,
    /// It was told to go and stayed.
    Idle,
    /// Others wait for its place, and it has asked for nothing yet.
    CrowdedOut,
}

impl Cut {
    fn reason(self) -> &'static str {
        match self {
            Self::SlowHead => "slow head",
            Self::SlowBody => "slow body",
            Self::Stalled => "stalled",
            Self::WindowShut => "window shut",
            Self::SlowRead => "slow read",
            Self::Idle => "idle",
            Self::CrowdedOut => "crowded out",
        }
    }
}

/// How fast a body comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyPace {
    /// The body of which more is waited for.
    waits: Option<Body>,
    /// Since when `bytes` are counted.
    since: Instant,
    /// When something came last.
    last: Instant,
    bytes: u64,
}

impl BodyPace {
    /// No body is waited for, and nothing of one has come, as of `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waits: None,
            since: now,
            last: now,
            bytes: 0,
        }
    }
}

impl Conn {
    /// Ends the connection if it has done for too long what it is doing.
    pub(crate) fn sweep(&self, now: Instant) {
        let timeouts = self.worker.timeouts();
        let for_long = |since: &Cell<Instant>, limit| now.saturating_duration_since(since.get()) >= limit;
        let blocked = self.blocked();
        let stalled = (self.write_pending.get() || blocked != Blocked::No)
            && for_long(&self.last_write, timeouts.stalled);
        // Where room is scarce, those make it who do nothing, or are slow to say what they want.
        let haste = self.worker.overload().haste().unwrap_or(Duration::MAX);
        let limit_head = timeouts.header.min(haste);
        let (limit_idle, limit_fresh) = match self.worker.drain() {
            Drain::Ending => (timeouts.drain_idle, timeouts.drain_idle),
            Drain::No | Drain::Leaving => (timeouts.idle.min(haste), limit_head),
        };
        if self.protocol.get() == Protocol::Http2 && self.closes_after_response() && !self.leaving.get() {
            self.leave();
        }
        match self.phase.get() {
            Phase::Head if for_long(&self.since, limit_head) => self.abort(Cut::SlowHead),
            _ if self.http2_owes(now, limit_head) => self.abort(Cut::SlowHead),
            Phase::Busy | Phase::Idle if stalled => self.abort(Cut::Stalled),
            Phase::Busy | Phase::Idle
                if blocked == Blocked::All && for_long(&self.last_write, timeouts.window) =>
            {
                self.abort(Cut::WindowShut);
            }
            Phase::Busy if self.body_is_slow(now) => self.abort(Cut::SlowBody),
            Phase::Busy | Phase::Idle if self.drips(now) => self.abort(Cut::SlowRead),
            Phase::Fresh if for_long(&self.since, limit_fresh) => self.close_when_idle(),
            Phase::Idle if !self.write_pending.get() && for_long(&self.since, limit_idle) => {
                self.close_idle();
            }
            Phase::Handshake | Phase::Head | Phase::Busy | Phase::Fresh | Phase::Idle => {}
        }
    }

    /// HTTP/2 is told so first; a client that then stays all the same is cut.
    fn close_idle(&self) {
        match (self.protocol.get(), self.leaving.get()) {
            (Protocol::Http1, _) => self.close_when_idle(),
            (Protocol::Http2, false) => self.leave(),
            (Protocol::Http2, true) => self.abort(Cut::Idle),
        }
    }

    fn leave(&self) {
        self.leaving.set(true);
        self.since.set(self.worker.now());
        self.wake();
    }

    fn close_when_idle(&self) {
        self.close_when_idle.set(true);
        self.wake();
    }

    fn abort(&self, cut: Cut) {
        if self.aborted.get().is_none() {
            self.cut_for(cut.reason());
        }
        self.aborted.set(Some(cut));
        self.wake();
    }

    /// So many bytes came; the stream is now in a body, or in none.
    pub(crate) fn body_read(&self, body: Option<Body>, length: usize) {
        let mut pace = self.body.get();
        if body.is_none() && pace.waits.is_none() {
            return;
        }
        pace.waits = None;
        pace.last = self.worker.now();
        pace.bytes += length as u64;
        self.body.set(pace);
    }

    /// More of a body is waited for, if the stream is in one.
    pub(crate) fn body_waits(&self, body: Option<Body>) {
        let mut pace = self.body.get();
        if body.is_some() && pace.waits.is_none() {
            pace.waits = body;
            self.body.set(pace);
        }
    }

    /// The body of a request over HTTP/2 came too slowly. The stream is answered; the client is told to go, and what else
    /// it asked for is served to its end.
    pub(crate) fn body_was_slow(&self) {
        if !self.leaving.get() {
            self.cut_for(Cut::SlowBody.reason());
            self.leave();
        }
    }

    /// Since when it is connected, or the head of its request is on its way, while no request is there.
    pub(crate) fn owes_request_since(&self) -> Option<Instant> {
        let owes = matches!(self.phase.get(), Phase::Handshake | Phase::Fresh | Phase::Head)
            && self.aborted.get().is_none();
        owes.then(|| self.since.get())
    }

    /// Ends the connection for another one, unless its client has asked for something by now.
    pub(crate) fn crowd_out(&self) -> bool {
        let owes = self.owes_request_since().is_some();
        if owes {
            self.abort(Cut::CrowdedOut);
        }
        owes
    }

    /// Until it is cut.
    pub(crate) async fn cut(&self) {
        poll_fn(|cx| {
            self.waits(cx);
            match self.aborted.get() {
                Some(_) => Poll::Ready(()),
                None => Poll::Pending,
            }
        })
        .await;
    }

    /// Fails once the connection is to be cut.
    pub(crate) fn check_aborted(&self) -> io::Result<()> {
        match self.aborted.get() {
            Some(_) => Err(io::ErrorKind::TimedOut.into()),
            None => Ok(()),
        }
    }

    /// What a client of HTTP/2 is told when its connection is cut.
    pub(crate) fn goodbye(&self) -> Code {
        match self.aborted.get() {
            Some(Cut::Stalled | Cut::WindowShut | Cut::SlowRead) => Code::EnhanceYourCalm,
            Some(Cut::SlowHead | Cut::SlowBody | Cut::Idle | Cut::CrowdedOut) | None => Code::No,
        }
    }

    /// The connection is cut for what the client did.
    pub(crate) fn cut_for(&self, reason: &'static str) {
        tracing::debug!(client = %self.peer.address, reason, "connection cut");
        self.worker.metrics().connection_cut(reason);
    }

    /// Whether a body that is waited for comes too slowly.
    fn body_is_slow(&self, now: Instant) -> bool {
        let mut pace = self.body.get();
        let Some(body) = pace.waits else {
            // Whoever is not waited for is not slow.
            (pace.since, pace.last, pace.bytes) = (now, now, 0);
            self.body.set(pace);
            return false;
        };
        let silent = now.saturating_duration_since(pace.last) >= self.worker.timeouts().body;
        let window = now.saturating_duration_since(pace.since);
        if window < Limits::BODY_WINDOW {
            return silent;
        }
        let wanted = u64::from(self.worker.limits().body_rate) * window.as_secs();
        let slow = body == Body::Told && pace.bytes < wanted;
        (pace.since, pace.bytes) = (now, 0);
        self.body.set(pace);
        silent || slow
    }

    /// Whether a client of HTTP/2 takes nothing of its responses, and since its last sign of life too long.
    fn blocked(&self) -> Blocked {
        self.http2
            .get()
            .map_or(Blocked::No, |streams| streams.guard().borrow().blocked())
    }

    /// Whether a client of HTTP/2 has taken longer than `limit` for a head.
    fn http2_owes(&self, now: Instant, limit: Duration) -> bool {
        let since = self
            .http2
            .get()
            .and_then(|streams| streams.guard().borrow().owes_since());
        since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
    }

    /// Whether a client of HTTP/2 opens its window by so little at a time that it takes its response for ever.
    fn drips(&self, now: Instant) -> bool {
        let (Some(streams), rate) = (self.http2.get(), self.worker.limits().response_rate) else {
            return false;
        };
        let window = now.saturating_duration_since(self.looked.get());
        if window < Limits::BODY_WINDOW {
            return false;
        }
        self.looked.set(now);
        streams
            .guard()
            .borrow_mut()
            .drips(u64::from(rate) * window.as_secs())
    }
}
