//! The client's body on its way to the upstream: as it comes, and once more for another try while it is small.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Incoming;
use super::messages::Messages;
use super::pace::Pace;
use super::trailers::{has_blank_ends, passable};
use crate::pool::BodyFault;

/// Largest body, in bytes, that is kept for another try (Envoy keeps up to its buffer limit; Istio's edge profile: 32 KiB).
const MAX_KEPT: usize = 64 * 1024;

/// What a mirror may lag behind, in bytes; one that lags more gets no more of the request.
const MAX_LAG: usize = 256 * 1024;

/// Why a body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    #[error("the client's body broke off: {0}")]
    Client(#[from] BodyFault),
    #[error("the client's body broke off")]
    Broken,
    #[error("the client's body came too slowly")]
    Slow,
    #[error("the client's trailers are malformed")]
    Malformed,
    #[error("another try has taken over")]
    Superseded,
    #[error("the copy could not keep up")]
    Lagging,
}

/// A client's body, of which every try reads.
#[derive(Debug, Clone)]
pub(crate) struct ClientBody(Option<Rc<Shared>>);

#[derive(Debug)]
pub(crate) struct Shared {
    incoming: RefCell<Incoming>,
    hint: SizeHint,
    /// Frames taken so far; `None` once they are too many to be kept, or when nobody will want them.
    kept: RefCell<Option<Vec<Part>>>,
    kept_bytes: Cell<usize>,
    copies: RefCell<Vec<Weak<MirrorBody>>>,
    taken_bytes: Cell<u64>,
    /// Where they are those of gRPC.
    messages: Cell<Option<Messages>>,
    /// When all of it was there.
    finished: Cell<Option<Instant>>,
    broken: Cell<bool>,
    /// How fast it comes; `None` where that is no matter, or looked at elsewhere.
    pace: RefCell<Option<Pace>>,
    slow: Cell<bool>,
    /// The try that may read.
    turn: Cell<u32>,
}

/// A frame that can be sent more than once.
#[derive(Debug, Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Part {
    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }

    /// The part, to be held: a slice would hold the whole room that it was read into.
    fn to_keep(&self) -> Self {
        match self {
            Self::Data(data) => Self::Data(Bytes::copy_from_slice(data)),
            Self::Trailers(trailers) => Self::Trailers(trailers.clone()),
        }
    }

    /// Bytes of memory that it takes to hold.
    fn cost(&self) -> usize {
        match self {
            // With what it takes to hold it: tiny pieces are not for nothing.
            Self::Data(data) => data.len() + size_of::<Self>(),
            // About what a field takes in a head.
            Self::Trailers(trailers) => trailers.len() * 64,
        }
    }
}

impl ClientBody {
    /// `again` says whether another try may want it from its beginning, `is_grpc` whether its messages are to be counted,
    /// and `pace` whether the client may take its time.
    pub(crate) fn new(
        body: Incoming,
        again: bool,
        is_grpc: bool,
        pace: impl FnOnce(bool) -> Option<Pace>,
    ) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        let is_told = body.size_hint().exact().is_some();
        Self(Some(Rc::new(Shared {
            pace: RefCell::new(pace(is_told)),
            slow: Cell::new(false),
            hint: body.size_hint(),
            incoming: RefCell::new(body),
            kept: RefCell::new(again.then(Vec::new)),
            kept_bytes: Cell::new(0),
            copies: RefCell::default(),
            taken_bytes: Cell::new(0),
            messages: Cell::new(is_grpc.then(Messages::default)),
            finished: Cell::new(None),
            broken: Cell::new(false),
            turn: Cell::new(0),
        })))
    }

    /// Whether a further try can send all of it.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            !shared.broken.get() && shared.kept.borrow().is_some() || shared.is_untouched()
        })
    }

    /// Whether the client itself broke it off.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.broken.get())
    }

    /// Whether it came too slowly, and was given up.
    pub(crate) fn is_slow(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.slow.get())
    }

    /// The request is answered: what of its body is still to come is a stream, whose length was told, or may take its time.
    pub(crate) fn answered(&self) {
        if let Some(shared) = &self.0
            && shared.hint.exact().is_none()
        {
            *shared.pace.borrow_mut() = None;
        }
    }

    /// The body for the next try, from its beginning. Earlier tries read no further.
    pub(crate) fn next_try(&self) -> RequestBody {
        match &self.0 {
            None => RequestBody::Empty,
            Some(shared) => {
                shared.turn.set(shared.turn.get() + 1);
                RequestBody::Client {
                    shared: Rc::clone(shared),
                    at: 0,
                    turn: shared.turn.get(),
                }
            }
        }
    }

    /// A copy that gets what the client's body gets, from the beginning. To be asked for before the first try.
    pub(crate) fn copy(&self) -> RequestBody {
        let Some(shared) = &self.0 else {
            return RequestBody::Empty;
        };
        let copy = Rc::new(MirrorBody {
            hint: shared.hint,
            parts: RefCell::default(),
            lag: Cell::new(0),
            end: Cell::new(End::Open),
            waker: RefCell::default(),
        });
        shared.copies.borrow_mut().push(Rc::downgrade(&copy));
        RequestBody::Copy(copy)
    }

    /// Time from `begin` until all of it was there; `None` while it is not.
    pub(crate) fn ended(&self, begin: Instant) -> Option<Duration> {
        match &self.0 {
            None => Some(Duration::ZERO),
            Some(shared) => Some(shared.finished.get()?.saturating_duration_since(begin)),
        }
    }

    /// Bytes that the client sent so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.taken_bytes.get())
    }

    /// Messages of gRPC that the client sent so far; none of a request that is no call.
    pub(super) fn messages(&self) -> u64 {
        let messages = self.0.as_ref().and_then(|shared| shared.messages.get());
        messages.map_or(0, |messages| messages.count())
    }
}

impl Shared {
    fn is_untouched(&self) -> bool {
        self.taken_bytes.get() == 0 && self.finished.get().is_none() && !self.broken.get()
    }

    /// The next part from the client.
    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, RequestBodyError>>> {
        let polled = Pin::new(&mut *self.incoming.borrow_mut()).poll_frame(cx);
        let Poll::Ready(frame) = polled else {
            let mut pace = self.pace.borrow_mut();
            let Some(pace) = pace.as_mut() else {
                return Poll::Pending;
            };
            ready!(pace.poll_slow(cx));
            self.slow.set(true);
            return Poll::Ready(Some(Err(self.breaks_off(RequestBodyError::Slow))));
        };
        let part = match frame {
            None => None,
            Some(Ok(frame)) if is_malformed(&frame) => {
                return Poll::Ready(Some(Err(self.breaks_off(RequestBodyError::Malformed))));
            }
            Some(Ok(frame)) => part(frame),
            Some(Err(error)) => return Poll::Ready(Some(Err(self.breaks_off(error.into())))),
        };
        if let Some(part) = &part {
            self.took(part);
        }
        if !matches!(part, Some(Part::Data(_))) || self.incoming.borrow().is_end_stream() {
            self.finished.set(Some(Instant::now()));
            self.end_copies(End::Whole);
        }
        Poll::Ready(part.map(Ok))
    }

    fn breaks_off(&self, error: RequestBodyError) -> RequestBodyError {
        self.broken.set(true);
        self.end_copies(End::Cut);
        error
    }

    fn took(&self, part: &Part) {
        if let Part::Data(data) = part {
            if let Some(pace) = self.pace.borrow_mut().as_mut() {
                pace.came(data.len());
            }
            self.taken_bytes.set(self.taken_bytes.get() + data.len() as u64);
            if let Some(mut messages) = self.messages.get() {
                messages.pass(data);
                self.messages.set(Some(messages));
            }
        }
        let mut kept = self.kept.borrow_mut();
        self.kept_bytes.set(self.kept_bytes.get() + part.cost());
        if self.kept_bytes.get() > MAX_KEPT {
            *kept = None;
        }
        let mut copies = self.copies.borrow_mut();
        if kept.is_none() && copies.is_empty() {
            return;
        }
        // One copy, which all that hold the part share.
        let held = part.to_keep();
        copies.retain(|copy| copy.upgrade().is_some_and(|copy| copy.push(held.clone())));
        if let Some(kept) = kept.as_mut() {
            kept.push(held);
        }
    }

    fn end_copies(&self, end: End) {
        for copy in self.copies.take() {
            if let Some(copy) = copy.upgrade() {
                copy.ends(end);
            }
        }
    }
}

/// Whether a frame holds trailers with white space around a value, which only HTTP/2 can carry (RFC 9113 section 8.2.1).
fn is_malformed(frame: &Frame<Bytes>) -> bool {
    frame.trailers_ref().is_some_and(has_blank_ends)
}

/// A frame as it is sent on; `None` for kinds that no HTTP version here has.
fn part(frame: Frame<Bytes>) -> Option<Part> {
    match frame.into_data() {
        Ok(data) => Some(Part::Data(data)),
        Err(frame) => frame.into_trailers().ok().map(passable).map(Part::Trailers),
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end_copies(End::Cut);
    }
}

/// What a mirror gets of a body.
#[derive(Debug)]
pub(crate) struct MirrorBody {
    hint: SizeHint,
    parts: RefCell<VecDeque<Part>>,
    lag: Cell<usize>,
    end: Cell<End>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    Cut,
}

impl MirrorBody {
    /// False when the copy lags too far behind, and is cut.
    fn push(&self, part: Part) -> bool {
        let lag = self.lag.get() + part.cost();
        if lag > MAX_LAG {
            self.ends(End::Cut);
            return false;
        }
        self.lag.set(lag);
        self.parts.borrow_mut().push_back(part);
        self.wake();
        true
    }

    fn ends(&self, end: End) {
        self.end.set(end);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if let Some(part) = self.parts.borrow_mut().pop_front() {
            self.lag.set(self.lag.get().saturating_sub(part.cost()));
            return Poll::Ready(Some(Ok(part.into_frame())));
        }
        match self.end.get() {
            End::Whole => Poll::Ready(None),
            End::Cut => Poll::Ready(Some(Err(RequestBodyError::Lagging))),
            End::Open => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The body of one try, or of a mirror.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None at all.
    Empty,
    /// As it comes from the client, after what earlier tries took of it.
    Client {
        shared: Rc<Shared>,
        /// Parts sent so far.
        at: usize,
        turn: u32,
    },
    /// What was copied for a mirror.
    Copy(Rc<MirrorBody>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let (shared, at, turn) = match &mut *self {
            Self::Empty => return Poll::Ready(None),
            Self::Copy(copy) => return copy.poll(cx),
            Self::Client { shared, at, turn } => (shared, at, turn),
        };
        if *turn != shared.turn.get() {
            return Poll::Ready(Some(Err(RequestBodyError::Superseded)));
        }
        let known = shared
            .kept
            .borrow()
            .as_ref()
            .and_then(|kept| kept.get(*at).cloned());
        *at += 1;
        match known {
            Some(part) => Poll::Ready(Some(Ok(part.into_frame()))),
            None if shared.finished.get().is_some() => Poll::Ready(None),
            None => {
                let next = shared.poll_next(cx);
                if next.is_pending() {
                    *at -= 1;
                }
                next.map(|part| part.map(|part| part.map(Part::into_frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client { shared, at, .. } => {
                shared.finished.get().is_some()
                    && shared.kept.borrow().as_ref().is_none_or(|kept| *at >= kept.len())
            }
            Self::Copy(copy) => copy.end.get() == End::Whole && copy.parts.borrow().is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            // Asked before the first frame, and for the length of the whole.
            Self::Client { shared, at: 0, .. } => shared.hint,
            Self::Client { shared, .. } => {
                let mut rest = SizeHint::new();
                if shared.finished.get().is_some() && self.is_end_stream() {
                    rest.set_exact(0);
                }
                rest
            }
            Self::Copy(copy) => copy.hint,
        }
    }
}
