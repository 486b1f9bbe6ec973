//! Reading a frame from front to back without leaving it.

/// A position in a frame. The XDP program moves it over packet memory, the host over a slice; the parser in
/// between is one.
pub trait Cursor {
    /// `N` bytes of the frame.
    type Window<const N: usize>: Window;

    /// Looks at the next `N` bytes and steps over them; `None` if the frame ends before.
    fn take<const N: usize>(&mut self) -> Option<Self::Window<N>>;

    /// Steps over `len` bytes, at most [`MAX_SKIP`]. Whether the frame is that long is seen by the next
    /// [`Cursor::take`] and by [`Cursor::remaining`].
    fn skip(&mut self, len: usize);

    /// The next byte, without stepping over it.
    fn peek(&self) -> Option<u8>;

    /// Bytes from here to the end of the frame; 0 also if the position is beyond it.
    fn remaining(&self) -> usize;
}

/// Bytes that are known to lie in the frame. Offsets are constants, and one beyond the window does not compile.
pub trait Window: Copy {
    /// The byte at an offset.
    fn byte<const AT: usize>(self) -> u8;

    /// The number of two bytes at an offset, high byte first.
    fn be16<const AT: usize>(self) -> u16;

    /// Four bytes at an offset as they stand in memory.
    fn word<const AT: usize>(self) -> u32;
}

/// Most bytes that one step may skip: all of the longest IPv6 extension header but its first eight bytes
/// (RFC 8200 4.3: 8 bytes, and at most 255 times 8) fit. It is a mask, which the verifier can follow.
pub const MAX_SKIP: usize = 0x7ff;

/// A cursor over bytes in memory.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'p> {
    rest: &'p [u8],
}

impl<'p> Slice<'p> {
    /// At the start of a frame.
    #[must_use]
    pub const fn new(frame: &'p [u8]) -> Self {
        Self { rest: frame }
    }
}

impl<'p> Cursor for Slice<'p> {
    type Window<const N: usize> = &'p [u8; N];

    fn take<const N: usize>(&mut self) -> Option<&'p [u8; N]> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(head)
    }

    fn skip(&mut self, len: usize) {
        self.rest = self.rest.get(len & MAX_SKIP..).unwrap_or_default();
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn remaining(&self) -> usize {
        self.rest.len()
    }
}

impl<const N: usize> Window for &[u8; N] {
    fn byte<const AT: usize>(self) -> u8 {
        const { assert!(AT < N) };
        self[AT]
    }

    fn be16<const AT: usize>(self) -> u16 {
        const { assert!(AT + 2 <= N) };
        u16::from_be_bytes([self[AT], self[AT + 1]])
    }

    fn word<const AT: usize>(self) -> u32 {
        const { assert!(AT + 4 <= N) };
        u32::from_ne_bytes([self[AT], self[AT + 1], self[AT + 2], self[AT + 3]])
    }
}
