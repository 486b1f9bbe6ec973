//! Bodies of HTTP/2 whose request is done with before they have ended.
//!
//! Such a stream is reset as soon as nobody holds its body. A client that is still at sending would learn of the reset
//! before it has read its answer, and some then drop the answer (RFC 9113 section 8.1 forbids it, and they do it all the
//! same). So the gateway reads on for a little while, and throws away what comes: it is what a lingering close is to
//! HTTP/1.1.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;

use crate::timer::Timer;

/// For how long a body is read on: longer than the way to most clients and back.
pub(crate) const LINGER: Duration = Duration::from_millis(500);

/// What is read of one body; whoever has more to send learns at once that nobody wants it.
const MAX_UNWANTED: usize = 64 * 1024;

/// The bodies of a connection that linger.
#[derive(Debug, Default)]
pub(crate) struct Lingering(RefCell<Vec<Unwanted>>);

#[derive(Debug)]
struct Unwanted {
    body: Incoming,
    timer: Timer,
    read: usize,
}

impl Lingering {
    /// `timer` ends it.
    pub(crate) fn add(&self, body: Incoming, timer: Timer) {
        self.0.borrow_mut().push(Unwanted { body, timer, read: 0 });
    }

    /// Reads what has come, and lets go of those that have ended, or have lingered for long enough.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) {
        self.0.borrow_mut().retain_mut(|unwanted| unwanted.goes_on(cx));
    }
}

impl Unwanted {
    fn goes_on(&mut self, cx: &mut Context<'_>) -> bool {
        while self.read < MAX_UNWANTED {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.read += frame.data_ref().map_or(0, |data| data.len().max(1));
                }
                Poll::Ready(None | Some(Err(_))) => return false,
                Poll::Pending => return Pin::new(&mut self.timer).poll(cx).is_pending(),
            }
        }
        false
    }
}
