//! How fast a request's body comes over HTTP/2, where a connection's own pace says nothing of a single stream's.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::connection::Conn;
use crate::options::Limits;
use crate::timer::Timer;

/// The pace of one body. Only the time counts in which it was waited for: what an endpoint does not take, the client
/// cannot send.
pub(crate) struct Pace {
    conn: Rc<Conn>,
    /// Longest silence.
    silence: Duration,
    /// Least octets a second, over so long a time; `None` where the rate does not matter.
    rate: Option<(u32, Duration)>,
    /// Since when more is waited for.
    waits: Option<Instant>,
    /// Since when the present wait counts for the rate.
    counts: Option<Instant>,
    /// For how long it was waited for before, and the octets that came in that time.
    waited: Duration,
    octets: u64,
    timer: Option<Timer>,
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace")
            .field("silence", &self.silence)
            .field("rate", &self.rate)
            .field("waited", &self.waited)
            .field("octets", &self.octets)
            .finish_non_exhaustive()
    }
}

impl Pace {
    /// Of a body whose length is `told` or not, of gRPC or not.
    pub(super) fn new(conn: &Rc<Conn>, told: bool, is_grpc: bool) -> Self {
        let (timeouts, rate) = (conn.worker().timeouts(), conn.worker().limits().body_rate);
        let window = match (told, is_grpc) {
            (true, _) => Some(Limits::BODY_WINDOW),
            (false, false) => Some(timeouts.body.max(Limits::BODY_WINDOW)),
            (false, true) => None,
        };
        Self {
            conn: Rc::clone(conn),
            silence: match is_grpc {
                true => timeouts.stalled,
                false => timeouts.body,
            },
            rate: window.filter(|_| rate > 0).map(|window| (rate, window)),
            waits: None,
            counts: None,
            waited: Duration::ZERO,
            octets: 0,
            timer: None,
        }
    }

    /// So many octets came.
    pub(super) fn came(&mut self, octets: usize) {
        self.waits = None;
        if let Some(since) = self.counts.take() {
            self.waited += since.elapsed();
        }
        self.octets += octets as u64;
    }

    /// Nothing is there. Ready once the client has been too slow; woken when it is time to look again.
    pub(super) fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let since = *self.waits.get_or_insert(now);
            let silent = now.saturating_duration_since(since);
            let mut left = self.silence.saturating_sub(silent);
            if let Some((rate, window)) = self.rate {
                let counts = *self.counts.get_or_insert(now);
                let mut waited = self.waited + now.saturating_duration_since(counts);
                if waited >= window {
                    if self.octets < u64::from(rate) * waited.as_secs() {
                        return self.is_slow();
                    }
                    (self.waited, self.octets, self.counts) = (Duration::ZERO, 0, Some(now));
                    waited = Duration::ZERO;
                }
                left = left.min(window.saturating_sub(waited));
            }
            if silent >= self.silence {
                return self.is_slow();
            }
            let timer = self
                .timer
                .get_or_insert_with(|| self.conn.worker().timers().since(now, left));
            if Pin::new(timer).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
        }
    }

    fn is_slow(&self) -> Poll<()> {
        self.conn.body_was_slow();
        Poll::Ready(())
    }
}
