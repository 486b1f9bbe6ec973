//! The room that a worker reads into.

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What is read at least, as far as it is there: a head with a small body.
const LEAST: usize = 8 * 1024;

/// What is read at most: by then a call costs little beside the bytes that it moves.
const MOST: usize = 64 * 1024;

thread_local! {
    /// One room for all connections of a worker, which stays in the processor's cache. What was read is split off without
    /// a copy, and the room is used again once that is gone, most often within the same turn of the connection's task.
    static ROOM: RefCell<BytesMut> = RefCell::default();
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
    ROOM.with_borrow_mut(|room| {
        room.reserve(wanted);
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
