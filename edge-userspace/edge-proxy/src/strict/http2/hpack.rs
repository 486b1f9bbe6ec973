//! Field blocks (RFC 7541), walked to tell what the parser behind does not: pseudo-headers in trailers, schemes, and
//! fragments in paths.
//!
//! Of the dynamic table only the sizes of entries are kept, and whether they are pseudo-headers. Blocks of an honest
//! client are mostly indices of one octet.

use std::collections::VecDeque;

use super::frame::{Code, Fault};
use super::huffman;

/// Octets that an entry takes beyond its texts (RFC 7541 section 4.1).
const OVERHEAD: u32 = 32;

/// Largest dynamic table, the default, which no SETTINGS of ours changes.
const MAX_TABLE: u32 = 4096;

/// Indices of the static table (RFC 7541 appendix A): 1 to 14 are pseudo-headers, 4 and 5 paths, 6 and 7 schemes.
const STATIC: u32 = 61;
const LAST_PSEUDO: u32 = 14;
const PATH: u32 = 4;
const SCHEME: u32 = 6;

/// Octets of the names in the static table.
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13,
    12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3,
    16,
];

/// What is wrong with a block.
const COMPRESSION: Fault = Fault::new(Code::Compression, "invalid field block");

/// What is kept of a client's dynamic table.
#[derive(Debug)]
pub(super) struct Hpack {
    /// The newest one first.
    entries: VecDeque<Entry>,
    size: u32,
    max: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Of its name alone, and in all.
    name: u32,
    size: u32,
    pseudo: Pseudo,
}

/// Which pseudo-header a name is, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pseudo {
    No,
    Path,
    Scheme,
    Other,
}

/// Which section of a message a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Head,
    Trailers,
}

impl Default for Hpack {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max: MAX_TABLE,
        }
    }
}

impl Hpack {
    /// Walks over a whole block.
    pub(super) fn block(&mut self, block: &[u8], section: Section) -> Result<(), Fault> {
        let mut rest = block;
        let mut may_resize = true;
        while let Some(&first) = rest.first() {
            let pseudo = match first {
                0x80.. => {
                    let index = integer(&mut rest, 7)?;
                    self.indexed(index)?.pseudo
                }
                0x20..0x40 => {
                    let size = integer(&mut rest, 5)?;
                    if !may_resize || size > MAX_TABLE {
                        return Err(COMPRESSION);
                    }
                    self.max = size;
                    self.evict(0);
                    continue;
                }
                0x40.. => self.literal(&mut rest, 6, true)?,
                _ => self.literal(&mut rest, 4, false)?,
            };
            may_resize = false;
            if section == Section::Trailers && pseudo != Pseudo::No {
                return Err(Fault::protocol("a pseudo-header in trailers"));
            }
        }
        Ok(())
    }

    /// An entry by its index.
    fn indexed(&self, index: u32) -> Result<Entry, Fault> {
        if (1..=STATIC).contains(&index) {
            let at = usize::try_from(index - 1).map_err(|_| COMPRESSION)?;
            return Ok(Entry {
                name: u32::from(STATIC_NAMES[at]),
                size: 0,
                pseudo: match index {
                    PATH | 5 => Pseudo::Path,
                    SCHEME | 7 => Pseudo::Scheme,
                    ..=LAST_PSEUDO => Pseudo::Other,
                    _ => Pseudo::No,
                },
            });
        }
        let at = index
            .checked_sub(STATIC + 1)
            .and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.entries.get(at).copied()).ok_or(COMPRESSION)
    }

    /// A field whose value, and perhaps name, stand here.
    fn literal(&mut self, rest: &mut &[u8], prefix: u32, kept: bool) -> Result<Pseudo, Fault> {
        let (name, pseudo) = match integer(rest, prefix)? {
            0 => {
                let name = string(rest)?;
                let length = if kept { name.length()? } else { 0 };
                (length, name.pseudo())
            }
            index => {
                let entry = self.indexed(index)?;
                (entry.name, entry.pseudo)
            }
        };
        let value = string(rest)?;
        match pseudo {
            Pseudo::Scheme if !value.is_scheme() => return Err(Fault::protocol("an unknown scheme")),
            Pseudo::Path if value.has_hash()? => return Err(Fault::protocol("a fragment in a path")),
            Pseudo::No | Pseudo::Path | Pseudo::Scheme | Pseudo::Other => {}
        }
        if kept {
            let size = name.saturating_add(value.length()?).saturating_add(OVERHEAD);
            self.evict(size);
            if size <= self.max {
                self.size += size;
                self.entries.push_front(Entry { name, size, pseudo });
            }
        }
        Ok(pseudo)
    }

    /// Makes room (RFC 7541 section 4.4).
    fn evict(&mut self, room: u32) {
        while self.size.saturating_add(room) > self.max {
            let Some(oldest) = self.entries.pop_back() else {
                return;
            };
            self.size -= oldest.size;
        }
    }
}

/// A string as it is sent.
struct Text<'a> {
    bytes: &'a [u8],
    coded: bool,
}

impl Text<'_> {
    fn length(&self) -> Result<u32, Fault> {
        match self.coded {
            true => huffman::text(self.bytes)
                .map(|text| text.length)
                .ok_or(COMPRESSION),
            false => u32::try_from(self.bytes.len()).map_err(|_| COMPRESSION),
        }
    }

    /// Texts have one coded form each, so that it can be compared.
    fn is(&self, plain: &[u8], coded: &[u8]) -> bool {
        self.bytes == if self.coded { coded } else { plain }
    }

    fn is_scheme(&self) -> bool {
        self.is(b"http", &[0x9d, 0x29, 0xaf]) || self.is(b"https", &[0x9d, 0x29, 0xad, 0x1f])
    }

    fn has_hash(&self) -> Result<bool, Fault> {
        match self.coded {
            true if huffman::may_have_hash(self.bytes) => huffman::text(self.bytes)
                .map(|text| text.has_hash)
                .ok_or(COMPRESSION),
            true => Ok(false),
            false => Ok(memchr::memchr(b'#', self.bytes).is_some()),
        }
    }

    /// What a name is. The code of a colon has seven bits.
    fn pseudo(&self) -> Pseudo {
        let begins = match self.bytes.first() {
            Some(first) if self.coded => first >> 1 == 0x5c,
            Some(first) => *first == b':',
            None => false,
        };
        match begins {
            false => Pseudo::No,
            true if self.is(b":path", &[0xb9, 0x58, 0xd3, 0x3f]) => Pseudo::Path,
            true if self.is(b":scheme", &[0xb8, 0x82, 0x4e, 0x5a, 0x4b]) => Pseudo::Scheme,
            true => Pseudo::Other,
        }
    }
}

/// A string (RFC 7541 section 5.2).
fn string<'a>(rest: &mut &'a [u8]) -> Result<Text<'a>, Fault> {
    let coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = usize::try_from(integer(rest, 7)?).map_err(|_| COMPRESSION)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(COMPRESSION)?;
    *rest = after;
    Ok(Text { bytes, coded })
}

/// An integer with a prefix of so many bits (RFC 7541 section 5.1); none needs more than 28 bits beyond its prefix.
fn integer(rest: &mut &[u8], prefix: u32) -> Result<u32, Fault> {
    let mask = (1u32 << prefix) - 1;
    let (first, mut after) = rest.split_first().ok_or(COMPRESSION)?;
    let mut value = u32::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (next, behind) = after.split_first().ok_or(COMPRESSION)?;
            after = behind;
            value += u32::from(next & 0x7f) << shift;
            shift += 7;
            if next & 0x80 == 0 {
                break;
            }
            if shift > 21 {
                return Err(COMPRESSION);
            }
        }
    }
    *rest = after;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(octet).collect()
    }

    #[test]
    fn the_table_grows_and_shrinks_as_in_the_appendix() {
        // Requests of RFC 7541 appendix C.3 and C.4: the same fields, plain and coded.
        for blocks in [
            [
                "828684410f7777772e6578616d706c652e636f6d",
                "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ],
            [
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ],
        ] {
            let mut hpack = Hpack::default();
            for (block, size) in blocks.iter().zip([57, 110, 164]) {
                assert_eq!(hpack.block(&hex(block), Section::Head), Ok(()));
                assert_eq!(hpack.size, size);
            }
            assert_eq!(hpack.block(&hex("3f21"), Section::Head), Ok(()));
            assert_eq!((hpack.size, hpack.entries.len()), (54, 1));
            assert_eq!(hpack.block(&hex("20"), Section::Head), Ok(()));
            assert_eq!((hpack.size, hpack.entries.len()), (0, 0));
        }
    }

    #[test]
    fn blocks() {
        let (compression, protocol) = (Some(Code::Compression), Some(Code::Protocol));
        for (section, block, expected) in [
            (Section::Head, "", None),
            (Section::Head, "80", compression),
            (Section::Head, "be", compression),
            (Section::Head, "82 20", compression),
            (Section::Head, "3fe2ff03", compression),
            (Section::Head, "ffffffffffffff", compression),
            (Section::Head, "00 01 78 7f 31", compression),
            (Section::Head, "40 01 78 81 00", compression),
            (Section::Head, "06 04 68747470", None),
            (Section::Head, "06 03 667470", protocol),
            (Section::Head, "06 00", protocol),
            (Section::Head, "06 83 9d29af", None),
            (Section::Head, "00 07 3a736368656d65 84 9d29ad1f", None),
            (Section::Head, "00 07 3a736368656d65 01 78", protocol),
            (Section::Head, "04 02 2f23", protocol),
            (Section::Head, "04 83 63febf", protocol),
            (Section::Head, "04 82 6002", None),
            (Section::Trailers, "00 01 78 01 31", None),
            (Section::Trailers, "84", protocol),
            (Section::Trailers, "04 01 2f", protocol),
            (Section::Trailers, "00 05 3a70617468 01 2f", protocol),
            (Section::Trailers, "00 84 b958d33f 01 2f", protocol),
            (Section::Trailers, "00 02 3a78 01 31", protocol),
        ] {
            let outcome = Hpack::default().block(&hex(block), section);
            assert_eq!(outcome.err().map(|fault| fault.code), expected, "{block}");
        }
    }

    #[test]
    fn a_pseudo_header_of_the_table_is_known_in_trailers() {
        let mut hpack = Hpack::default();
        assert_eq!(
            hpack.block(&hex("44 02 2f61 40 01 78 01 31"), Section::Head),
            Ok(())
        );
        assert_eq!(hpack.block(&hex("be"), Section::Trailers), Ok(()));
        assert!(hpack.block(&hex("bf"), Section::Trailers).is_err());
    }
}
