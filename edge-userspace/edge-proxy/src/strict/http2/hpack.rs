//! Field blocks (RFC 7541), walked to tell what the parser behind does not: pseudo-headers in trailers, schemes, fragments
//! in paths, and the length of a body.
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
const CONTENT_LENGTH: u32 = 28;

/// Octets of the names in the static table.
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13,
    12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3,
    16,
];

/// `content-length` in Huffman coding.
const CODED_LENGTH: &[u8] = &[0x21, 0xea, 0x49, 0x6a, 0x4a, 0xd4, 0x16, 0xa9, 0x93, 0x3f];

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
    name_is: Name,
    /// Its value, where that is the length of a body.
    length: Option<u64>,
}

/// What a name is, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Field,
    ContentLength,
    Path,
    Scheme,
    OtherPseudo,
}

impl Name {
    fn is_pseudo(self) -> bool {
        matches!(self, Self::Path | Self::Scheme | Self::OtherPseudo)
    }
}

/// What a block comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields {
    /// The length of the body, if it is told.
    pub(super) length: Option<u64>,
    /// About how many octets its fields are, decoded.
    pub(super) decoded: u32,
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
    pub(super) fn block(&mut self, block: &[u8], section: Section) -> Result<Fields, Fault> {
        let mut rest = block;
        let mut may_resize = true;
        let mut told = None;
        // What stands in the block itself, and what entries of the table add.
        let mut decoded = u32::try_from(block.len()).map_err(|_| COMPRESSION)?;
        while let Some(&first) = rest.first() {
            let (name, length) = match first {
                0x80.. => {
                    let index = integer(&mut rest, 7)?;
                    let entry = self.indexed(index)?;
                    decoded = decoded.saturating_add(entry.size);
                    (entry.name_is, entry.length)
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
            told = told.or(length);
            if section == Section::Trailers && name.is_pseudo() {
                return Err(Fault::protocol("a pseudo-header in trailers"));
            }
        }
        Ok(Fields {
            length: told,
            decoded,
        })
    }

    /// An entry by its index.
    fn indexed(&self, index: u32) -> Result<Entry, Fault> {
        if (1..=STATIC).contains(&index) {
            let at = usize::try_from(index - 1).map_err(|_| COMPRESSION)?;
            return Ok(Entry {
                name: u32::from(STATIC_NAMES[at]),
                size: 0,
                name_is: match index {
                    PATH | 5 => Name::Path,
                    SCHEME | 7 => Name::Scheme,
                    ..=LAST_PSEUDO => Name::OtherPseudo,
                    CONTENT_LENGTH => Name::ContentLength,
                    _ => Name::Field,
                },
                length: None,
            });
        }
        let at = index
            .checked_sub(STATIC + 1)
            .and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.entries.get(at).copied()).ok_or(COMPRESSION)
    }

    /// A field whose value, and perhaps name, stand here: what it is called, and the length of a body that it tells.
    fn literal(&mut self, rest: &mut &[u8], prefix: u32, kept: bool) -> Result<(Name, Option<u64>), Fault> {
        let (name, name_is) = match integer(rest, prefix)? {
            0 => {
                let name = string(rest)?;
                let length = if kept { name.length()? } else { 0 };
                (length, name.name())
            }
            index => {
                let entry = self.indexed(index)?;
                (entry.name, entry.name_is)
            }
        };
        let value = string(rest)?;
        let length = match name_is {
            Name::Scheme if !value.is_scheme() => return Err(Fault::protocol("an unknown scheme")),
            Name::Path if value.has_hash()? => return Err(Fault::protocol("a fragment in a path")),
            Name::ContentLength => value.number(),
            Name::Field | Name::Path | Name::Scheme | Name::OtherPseudo => None,
        };
        if kept {
            let size = name.saturating_add(value.length()?).saturating_add(OVERHEAD);
            self.evict(size);
            if size <= self.max {
                self.size += size;
                self.entries.push_front(Entry {
                    name,
                    size,
                    name_is,
                    length,
                });
            }
        }
        Ok((name_is, length))
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

    /// A number of digits; `None` for what the parser behind refuses.
    fn number(&self) -> Option<u64> {
        let add = |number: u64, digit: u64| number.checked_mul(10)?.checked_add(digit);
        if !self.coded {
            let digits = self.bytes.iter().map(|byte| char::from(*byte).to_digit(10));
            return digits
                .into_iter()
                .try_fold(0, |number, digit| add(number, u64::from(digit?)));
        }
        huffman::digits(self.bytes)?.into_iter().try_fold(0, add)
    }

    /// What a name is. The code of a colon has seven bits.
    fn name(&self) -> Name {
        let begins = match self.bytes.first() {
            Some(first) if self.coded => first >> 1 == 0x5c,
            Some(first) => *first == b':',
            None => false,
        };
        match begins {
            false if self.is(b"content-length", CODED_LENGTH) => Name::ContentLength,
            false => Name::Field,
            true if self.is(b":path", &[0xb9, 0x58, 0xd3, 0x3f]) => Name::Path,
            true if self.is(b":scheme", &[0xb8, 0x82, 0x4e, 0x5a, 0x4b]) => Name::Scheme,
            true => Name::OtherPseudo,
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
                assert!(hpack.block(&hex(block), Section::Head).is_ok());
                assert_eq!(hpack.size, size);
            }
            assert!(hpack.block(&hex("3f21"), Section::Head).is_ok());
            assert_eq!((hpack.size, hpack.entries.len()), (54, 1));
            assert!(hpack.block(&hex("20"), Section::Head).is_ok());
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
    fn the_length_of_a_body_is_told_in_every_form() {
        for (block, expected) in [
            ("0f0d 03 313233", Some(123)),
            ("0f0d 82 0857", None),
            ("00 0e 636f6e74656e742d6c656e677468 02 3433", Some(43)),
            ("5c 01 37 be", Some(7)),
            ("5c 01 37", Some(7)),
            ("5c 81 7b", Some(8)),
            ("5c 81 1f", None),
            ("5c 81 7f", Some(9)),
            ("0f0d 02 3461", None),
            ("00 01 78 01 31", None),
        ] {
            let told = Hpack::default().block(&hex(block), Section::Head);
            assert_eq!(told.map(|fields| fields.length), Ok(expected), "{block}");
        }
        // `content-length: 30`, both in Huffman coding.
        let coded = [&[0x00, 0x80 | 10], CODED_LENGTH, &[0x82, 0x64, 0x1f]].concat();
        assert_eq!(coded.len(), 2 + 10 + 3);
        let told = Hpack::default().block(&coded, Section::Head);
        assert_eq!(told.map(|fields| fields.length), Ok(Some(30)));
    }

    #[test]
    fn a_pseudo_header_of_the_table_is_known_in_trailers() {
        let mut hpack = Hpack::default();
        assert!(
            hpack
                .block(&hex("44 02 2f61 40 01 78 01 31"), Section::Head)
                .is_ok()
        );
        // One octet stands for an entry of two and 32 for its keeping.
        let decoded = hpack
            .block(&hex("be"), Section::Trailers)
            .map(|fields| fields.decoded);
        assert_eq!(decoded, Ok(1 + 2 + 32));
        assert!(hpack.block(&hex("bf"), Section::Trailers).is_err());
    }
}
