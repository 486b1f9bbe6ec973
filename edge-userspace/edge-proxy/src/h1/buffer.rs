//! The room that a worker reads into.

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What is read at least, as far as it is there: a head with a small body.
const LEAST: usize = 8 * 1024;

/// Room that is made at a time for heads and small bodies. A message takes little of it most often, so that the next ones
/// fit in behind it and few reads have to ask for memory. It is not more, as one message that stays holds all of it.
const ROOM: usize = 2 * LEAST;

/// What is read at most, and the room that is made for a large body: by then a call costs little beside the bytes that it
/// moves.
const MOST: usize = 64 * 1024;

thread_local! {
    /// One room for all connections of a worker. What was read is split off without a copy, and the room is used again from
    /// its beginning once all of that is gone.
    static FREE: RefCell<BytesMut> = RefCell::default();

    /// The same for large bodies, so that no small message holds room of this size.
    static BULK: RefCell<BytesMut> = RefCell::default();
}

/// Reads into `buffer`, behind what it holds; `expected` bytes are still to come as far as is known. Ready with 0 at the
/// end of the stream.
pub(crate) fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    expected: u64,
) -> Poll<io::Result<usize>> {
    let wanted = usize::try_from(expected).unwrap_or(MOST).clamp(LEAST, MOST);
    if !buffer.is_empty() {
        buffer.reserve(wanted);
        return pin!(stream.read_buf(buffer)).poll(cx);
    }
    let (room, size) = match wanted > ROOM {
        true => (&BULK, MOST),
        false => (&FREE, ROOM),
    };
    room.with_borrow_mut(|room| {
        if room.capacity() < wanted {
            room.reserve(size);
        }
        let length = ready!(pin!(stream.read_buf(room)).poll(cx))?;
        if length > 0 {
            *buffer = room.split();
        }
        Poll::Ready(Ok(length))
    })
}

/// Takes from the front of a buffer what was used; one that is used up gives its room back.
pub(super) fn used(buffer: &mut BytesMut, length: usize) {
    buffer.advance(length);
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

/// Takes as much as there is of so many bytes from the front of a buffer.
pub(super) fn take(buffer: &mut BytesMut, most: usize) -> Bytes {
    match most >= buffer.len() {
        true => std::mem::take(buffer).freeze(),
        false => buffer.split_to(most).freeze(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn read(mut bytes: &[u8], expected: u64) -> BytesMut {
        let mut buffer = BytesMut::new();
        let mut cx = Context::from_waker(Waker::noop());
        let read = poll_read(&mut bytes, &mut cx, &mut buffer, expected);
        assert!(matches!(read, Poll::Ready(Ok(length)) if length == buffer.len()));
        buffer
    }

    #[test]
    fn small_messages_share_a_room_that_large_bodies_do_not_grow() {
        let head = read(b"head", 0);
        let body = read(&[b'x'; 2 * MOST], u64::MAX);
        assert_eq!(body.len(), MOST);
        let next = read(b"next", 0);
        // Behind the other one, in what is left of the same room.
        assert_eq!(next.as_ptr(), head.as_ptr().wrapping_add(head.len()));
        assert_eq!((&head[..], &next[..]), (&b"head"[..], &b"next"[..]));
    }
}
