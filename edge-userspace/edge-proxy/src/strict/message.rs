//! What follows a head.

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// The next message.
    Message,
    /// So many bytes.
    Bytes(u64),
    /// Chunks.
    Chunks,
    /// Nothing that is known: bytes until the end of the stream.
    Anything,
    /// Another protocol if the other side agrees, else the next message.
    Undecided,
}

/// A body that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// Its length was told.
    Told,
    Chunked,
}
