//! Huffman-coded strings (RFC 7541 section 5.2 and appendix B), as far as they can be told without decoding them.
//!
//! The code is canonical: the codes of a length are consecutive numbers. So where a code ends, and with it how long the
//! text is, follows from how many codes each length has.

/// How many codes have so many bits, from 0 to 30; the last of them is that of the end of the string.
const COUNTS: [u32; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4,
];

/// A length of codes.
#[derive(Clone, Copy)]
struct Length {
    bits: u8,
    /// First number beyond the codes of this length and of the shorter ones, in 32 bits from the left.
    end: u64,
}

/// The lengths that there are, in ascending order.
const LENGTHS: [Length; 21] = lengths();

const fn lengths() -> [Length; 21] {
    let mut lengths = [Length { bits: 0, end: 0 }; 21];
    let (mut bits, mut found, mut code) = (0, 0, 0u64);
    while bits < COUNTS.len() {
        code = (code << 1) + COUNTS[bits] as u64;
        if COUNTS[bits] > 0 {
            lengths[found] = Length {
                bits: bits as u8,
                end: code << (32 - bits),
            };
            found += 1;
        }
        bits += 1;
    }
    lengths
}

/// The end of the string, in 32 bits from the left; it never stands in one.
const END: u64 = 0x3fff_ffff << 2;

/// `#`, twelve bits.
const HASH: (u8, u64) = (12, 0xffa << 20);

/// What a coded string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text {
    /// Octets of the decoded text.
    pub(super) length: u32,
    /// Whether `#` is in it.
    pub(super) has_hash: bool,
}

/// Walks over the codes; `None` when they are no string.
pub(super) fn text(coded: &[u8]) -> Option<Text> {
    let mut text = Text {
        length: 0,
        has_hash: false,
    };
    let (mut window, mut bits) = (0u64, 0u8);
    let mut rest = coded.iter();
    loop {
        while bits <= 32 {
            let Some(byte) = rest.next() else { break };
            window |= u64::from(*byte) << (56 - bits);
            bits += 8;
        }
        if bits == 0 {
            return Some(text);
        }
        let front = window >> 32;
        let code = LENGTHS.iter().find(|length| front < length.end);
        match code {
            Some(code) if code.bits <= bits => {
                if front >= END {
                    return None;
                }
                text.has_hash |= code.bits == HASH.0 && front >> 20 == HASH.1 >> 20;
                text.length += 1;
                window <<= code.bits;
                bits -= code.bits;
            }
            // What is left are the bits that fill up the last octet: fewer than eight, all of them set.
            _ => {
                let padding = !(u64::MAX >> bits);
                return (bits < 8 && window == padding).then_some(text);
            }
        }
    }
}

/// The digits of a coded number: five bits each from 0 to 2, six from 3 to 9. `None` when there is anything else.
pub(super) fn digits(coded: &[u8]) -> Option<Vec<u64>> {
    let mut bits: Vec<u8> = Vec::with_capacity(coded.len() * 8);
    for byte in coded {
        bits.extend((0..8).rev().map(|place| byte >> place & 1));
    }
    let number = |bits: &[u8]| {
        bits.iter()
            .fold(0u64, |number, bit| number << 1 | u64::from(*bit))
    };
    let (mut rest, mut digits) = (bits.as_slice(), Vec::new());
    loop {
        if rest.len() < 8 && rest.iter().all(|bit| *bit == 1) {
            return Some(digits);
        }
        let (digit, length) = match (rest.get(..5).map(number), rest.get(..6).map(number)) {
            (Some(digit @ 0..=2), _) => (digit, 5),
            (_, Some(code @ 0x19..=0x1f)) => (code - 0x16, 6),
            _ => return None,
        };
        digits.push(digit);
        rest = &rest[length..];
    }
}

/// Whether nine set bits follow each other, as in the code of `#` and in few others: tells most strings without it in
/// a fraction of the time.
pub(super) fn may_have_hash(coded: &[u8]) -> bool {
    // Eight octets at a time, of which two are looked at again: nine bits lie in three octets at most.
    const STEP: usize = 6;
    let mut rest = coded;
    while !rest.is_empty() {
        let mut octets = [0; 8];
        let length = rest.len().min(octets.len());
        octets[..length].copy_from_slice(&rest[..length]);
        let bits = u64::from_be_bytes(octets);
        let pairs = bits & (bits << 1);
        let fours = pairs & (pairs << 2);
        let eights = fours & (fours << 4);
        if eights & (bits << 8) != 0 {
            return true;
        }
        rest = rest.get(STEP..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_are_those_of_the_appendix() {
        // The first code of each length that the table names in its comments.
        let begins: Vec<_> = LENGTHS.iter().map(|length| (length.bits, length.end)).collect();
        assert_eq!(begins[0], (5, 0b01010 << 27));
        assert_eq!(begins[1], (6, 0b101110 << 26));
        assert_eq!(begins.last().copied(), Some((30, 1 << 32)));
    }

    #[test]
    fn texts() {
        let length = |length| {
            Some(Text {
                length,
                has_hash: false,
            })
        };
        // RFC 7541 appendix C.4 and C.6.
        for (coded, expected) in [
            (&[][..], length(0)),
            (
                &[
                    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
                ],
                length(15),
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], length(8)),
            (
                &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf],
                length(12),
            ),
            (&[0x64, 0x02], length(3)),
            (&[0x0f], length(1)),
            // Padding that is not set, that is a whole octet, and the end of the string.
            (&[0x00], None),
            (&[0x0f, 0xff], None),
            (&[0xff, 0xff, 0xff, 0xff], None),
            // `/#`: 011000 111111111010, padded.
            (
                &[0x63, 0xfe, 0xbf],
                Some(Text {
                    length: 2,
                    has_hash: true,
                }),
            ),
        ] {
            assert_eq!(text(coded), expected, "{coded:x?}");
        }
    }

    #[test]
    fn a_hash_is_never_overlooked() {
        // `#` behind so many codes of five bits (`0`), at every offset.
        for before in 0..16 {
            let bits = "00000".repeat(before) + "111111111010";
            let padded = format!("{bits:1<width$}", width = bits.len().div_ceil(8) * 8);
            let coded: Vec<u8> = padded
                .as_bytes()
                .chunks(8)
                .map(|octet| u8::from_str_radix(std::str::from_utf8(octet).unwrap(), 2).unwrap())
                .collect();
            assert!(may_have_hash(&coded), "{before}");
            assert_eq!(text(&coded).map(|text| text.has_hash), Some(true), "{before}");
        }
    }
}
