//! Lines of a byte stream that comes in pieces.

use super::message::Fault;

/// Longest line that is put together from pieces. hyper's bound on a whole head is lower or the same.
const MAX_LINE: usize = 64 * 1024;

/// The beginning of a line whose end has not come yet.
#[derive(Debug, Default)]
pub(super) struct Partial(Vec<u8>);

/// What a piece of the stream holds.
pub(super) enum Next<'a> {
    /// A line without its end, and how many bytes of the piece it took.
    Line(&'a [u8], usize),
    /// The piece ends before the line does.
    More,
}

impl Partial {
    /// The next line of the stream, of which `piece` is the next part. After a line, [`Self::clear`] is owed.
    pub(super) fn next<'a>(&'a mut self, piece: &'a [u8]) -> Result<Next<'a>, Fault> {
        let Some(end) = memchr::memchr(b'\n', piece) else {
            if self.0.len() + piece.len() > MAX_LINE {
                return Err(Fault::new(0, "a line is too long"));
            }
            self.0.extend_from_slice(piece);
            return Ok(Next::More);
        };
        let line = match self.0.is_empty() {
            true => &piece[..end],
            false => {
                self.0.extend_from_slice(&piece[..end]);
                &self.0
            }
        };
        // A line ends with CR LF and nothing else: a lone LF, or a CR elsewhere, is read in two ways (RFC 9112
        // section 2.2).
        match line.split_last() {
            Some((b'\r', line)) if memchr::memchr(b'\r', line).is_none() => Ok(Next::Line(line, end + 1)),
            Some(_) | None => Err(Fault::new(end, "a line does not end with CR LF")),
        }
    }

    /// Forgets the line that was given last.
    pub(super) fn clear(&mut self) {
        if !self.0.is_empty() {
            self.0 = Vec::new();
        }
    }
}
