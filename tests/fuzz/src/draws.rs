//! Values out of a fuzzer's bytes.

/// Reads choices from bytes, in order. When they are used up every choice is the first one, so that any input is whole
/// and shorter inputs mean simpler values.
#[derive(Debug, Clone)]
pub struct Draws<'d> {
    rest: &'d [u8],
}

impl<'d> Draws<'d> {
    /// Begins at the first byte.
    #[must_use]
    pub fn new(data: &'d [u8]) -> Self {
        Self { rest: data }
    }

    /// Whether all bytes are used up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte, or 0.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    /// A number below `end`, by one byte; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()).checked_rem(end).unwrap_or(0)
    }

    /// One of several; they are not empty.
    pub fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }

    /// True about once in `of` times, and never when the bytes are used up.
    pub fn once_in(&mut self, of: usize) -> bool {
        of != 0 && self.below(of) == of - 1
    }

    /// Up to `most` values.
    pub fn several<T>(&mut self, most: usize, mut next: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| next(self)).collect()
    }

    /// Up to `most` pieces, one after the other.
    pub fn text(&mut self, pieces: &[&str], most: usize) -> String {
        self.several(most, |draws| draws.pick(pieces)).concat()
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'d [u8] {
        std::mem::take(&mut self.rest)
    }
}
