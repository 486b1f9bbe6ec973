//! Sets of source prefixes that cost a source outside of them next to nothing.
//!
//! A set is a table of exact prefixes and, before it, a filter of one byte per cell. A source falls into one
//! cell by a hash of its first bits (IPv4: 24, IPv6: 48). A byte of zero, which is what nearly every source finds,
//! says that no prefix of the set covers any source of the cell, and no table is asked. Otherwise the byte tells which
//! prefix lengths may, and only those are looked up. The bytes of two sets stand beside each other, so that a source
//! outside of both pays for one look-up. A trie for the longest match walks a dozen nodes for such an
//! answer; here it is one hash look-up as a rule. Which prefix is the longest does not matter: one that covers the
//! source is enough.

use crate::{Address, assert_size};

/// Key of the maps of prefixes: the address with all bits after the prefix zero.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Prefix {
    /// First address.
    pub address: Address,
    /// Bits that count, of the 128: an IPv4 prefix has 96 more than it is written with.
    pub len: u32,
}

/// Which prefix lengths a set has, as bits of their classes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lengths {
    /// Classes of the IPv4 prefixes.
    pub v4: u32,
    /// Classes of the IPv6 prefixes.
    pub v6: u32,
    /// Other than 0: there are prefixes so short that they stand in the coarse cells.
    pub has_short: u32,
    /// To a multiple of eight bytes.
    pub padding: u32,
}

assert_size!(Prefix = 20, Lengths = 16);

/// Bits that an IPv4 address stands behind in its mapped form.
const V4_OFFSET: u32 = 96;
/// IPv6 prefixes are kept in lengths of a multiple of this, so that both families have 32 classes of lengths.
const V6_STEP: u32 = 4;

/// A prefix that covers more fine cells than this is marked in the coarse cells instead.
const MAX_CELLS: u32 = 256;

/// First bits of an address that choose its fine cell, and its coarse cell.
const V4_FINE: u32 = 24;
const V4_COARSE: u32 = 8;
const V6_FINE: u32 = 48;
const V6_COARSE: u32 = 24;

/// A cell's hash is 32 bits wide; a filter of 2^n cells takes the upper n.
pub const HASH_BITS: u32 = 32;

/// The bytes of a cell: the bits by which each stands above the cell's lowest.
pub mod half {
    /// The set of the allow and the deny list.
    pub const SOURCES: u32 = 0;
    /// The set of the penalties.
    pub const PENALTIES: u32 = 8;
}

/// What the filter says of a source: the byte of each set, or of all of its cells together. `cell` gives a cell by its
/// hash; `has_short`: other than 0 if a set has prefixes in the coarse cells.
#[inline(always)]
pub fn marks(source: Address, has_short: u32, cell: impl Fn(u32) -> u16) -> u16 {
    let fine = cell(fine_cell(source));
    if has_short == 0 {
        fine
    } else {
        fine | cell(coarse_cell(source))
    }
}

impl Prefix {
    /// The prefix of a class of lengths (at most 31) that covers an address.
    #[inline(always)]
    #[must_use]
    pub const fn of_class(address: Address, class: u32) -> Self {
        let [a, b, c, d] = address.0;
        let class = class & 31;
        if address.is_v4() {
            let mask = u32::MAX << (31 - class);
            return Self {
                address: Address([a, b, c, d & mask.to_be()]),
                len: V4_OFFSET + class + 1,
            };
        }
        // A class is four bits: 16 of them are a half of the address.
        let bits = u64::MAX << (60 - class % 16 * V6_STEP);
        let (high, low) = if class < 16 { (bits, 0) } else { (u64::MAX, bits) };
        Self {
            address: Address([
                a & ((high >> 32) as u32).to_be(),
                b & (high as u32).to_be(),
                c & ((low >> 32) as u32).to_be(),
                d & (low as u32).to_be(),
            ]),
            len: (class + 1) * V6_STEP,
        }
    }

    /// Class of the length: 0 to 31, of the prefix's family.
    #[must_use]
    pub const fn class(&self) -> u32 {
        if self.address.is_v4() {
            self.len - V4_OFFSET - 1
        } else {
            self.len / V6_STEP - 1
        }
    }

    /// Calls `each` with the keys that stand for the prefix of `len` bits (as the family writes it) of an address. It
    /// is one, but for a length that has no class (IPv6 lengths that are no multiple of 4, and 0): then those of the
    /// next that has.
    pub fn keys(address: Address, len: u32, mut each: impl FnMut(Self)) {
        let (len, step) = if address.is_v4() {
            ((V4_OFFSET + len).min(128), 1)
        } else {
            (len.min(128), V6_STEP)
        };
        let base = if address.is_v4() { V4_OFFSET } else { 0 };
        let kept = (len - base).next_multiple_of(step).max(step) + base;
        let first = address.masked(len).bits();
        for number in 0..1_u128 << (kept - len) {
            let address = Address::from_bits(first | number << (128 - kept));
            each(Self { address, len: kept });
        }
    }

    /// Calls `each` with the hash of every cell that the prefix's sources fall into, and the bit of its length's
    /// class in the cell's byte. A short prefix has many cells.
    pub fn cells(&self, mut each: impl FnMut(u32, u8)) {
        let bit = 1 << bit_of(self.class());
        let is_v4 = self.address.is_v4();
        let base = if is_v4 { V4_OFFSET } else { 0 };
        let (granule, hash): (_, fn(Address) -> u32) = if self.is_short() {
            (if is_v4 { V4_COARSE } else { V6_COARSE }, coarse_cell)
        } else {
            (if is_v4 { V4_FINE } else { V6_FINE }, fine_cell)
        };
        let granule = granule + base;
        let first = self.address.bits();
        for number in 0..1_u128 << granule.saturating_sub(self.len) {
            each(hash(Address::from_bits(first | number << (128 - granule))), bit);
        }
    }

    /// Whether the prefix is marked in the coarse cells.
    #[must_use]
    pub const fn is_short(&self) -> bool {
        let fine = if self.address.is_v4() {
            V4_FINE + V4_OFFSET
        } else {
            V6_FINE
        };
        self.len < fine - MAX_CELLS.ilog2()
    }
}

impl Lengths {
    /// Adds a prefix's length.
    pub const fn insert(&mut self, prefix: &Prefix) {
        let bit = 1 << prefix.class();
        if prefix.address.is_v4() {
            self.v4 |= bit;
        } else {
            self.v6 |= bit;
        }
        if prefix.is_short() {
            self.has_short = 1;
        }
    }

    /// The classes of lengths that are worth a look-up for a source of which the filter says `byte`, as bits. 0: no
    /// prefix of the set covers the source.
    #[inline(always)]
    #[must_use]
    pub const fn candidates(&self, source: Address, byte: u8) -> u32 {
        if byte == 0 {
            return 0;
        }
        self.classes(source) & classes_of(byte)
    }

    /// The classes of lengths of the prefixes of a source's family, as bits.
    #[inline(always)]
    #[must_use]
    pub const fn classes(&self, source: Address) -> u32 {
        if source.is_v4() { self.v4 } else { self.v6 }
    }
}

/// The bit of a class in a cell's byte. Lengths that stand together in lists (8, 16, 24, 32; 17 to 24) get bits of
/// their own.
#[inline(always)]
const fn bit_of(class: u32) -> u32 {
    (class ^ class >> 3) & 7
}

/// Every class whose bit is set in a byte.
#[inline(always)]
const fn classes_of(byte: u8) -> u32 {
    // Class 8k + i has bit i ^ k: byte k of the answer is the cell's byte with its bits exchanged accordingly.
    let k0 = byte as u32;
    let k1 = (k0 & 0x55) << 1 | (k0 >> 1) & 0x55;
    let k2 = (k0 & 0x33) << 2 | (k0 >> 2) & 0x33;
    let k3 = (k1 & 0x33) << 2 | (k1 >> 2) & 0x33;
    k0 | k1 << 8 | k2 << 16 | k3 << 24
}

#[inline(always)]
fn fine_cell(address: Address) -> u32 {
    let [high, low, _, last] = address.0;
    if address.is_v4() {
        hash(1 << 48 | (u32::from_be(last) >> (32 - V4_FINE)) as u64)
    } else {
        hash((u32::from_be(high) as u64) << 16 | (u32::from_be(low) >> 16) as u64)
    }
}

#[inline(always)]
fn coarse_cell(address: Address) -> u32 {
    let [high, .., last] = address.0;
    if address.is_v4() {
        hash(2 << 48 | (u32::from_be(last) >> (32 - V4_COARSE)) as u64)
    } else {
        hash(3 << 48 | (u32::from_be(high) >> (32 - V6_COARSE)) as u64)
    }
}

/// Multiplication by 2^64 over the golden ratio; the upper bits are the well-mixed ones.
#[inline(always)]
const fn hash(key: u64) -> u32 {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HASH_BITS)) as u32
}

/// Cells in a word of the filter.
pub const CELLS_PER_WORD: u32 = 4;

/// Where a cell stands in a filter of 2^`bits` cells that is kept in words of four: the word, and the cell's shift.
#[inline(always)]
#[must_use]
pub const fn place(hash: u32, bits: u32) -> (u32, u32) {
    let cell = hash >> (HASH_BITS - bits);
    (cell / CELLS_PER_WORD, cell % CELLS_PER_WORD * 16)
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;
    use std::collections::HashSet;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const BITS: u32 = 16;

    /// A set as userspace builds it and the data path asks it.
    struct Set {
        keys: HashSet<Prefix>,
        lengths: Lengths,
        words: Vec<u64>,
    }

    impl Set {
        fn new(prefixes: &[(Address, u32)]) -> Self {
            let mut set = Self {
                keys: HashSet::new(),
                lengths: Lengths::default(),
                words: vec![0; 1 << (BITS - 2)],
            };
            for &(address, len) in prefixes {
                Prefix::keys(address, len, |key| {
                    set.lengths.insert(&key);
                    key.cells(|hash, bit| {
                        let (word, shift) = place(hash, BITS);
                        set.words[word as usize] |= u64::from(bit) << (shift + half::PENALTIES);
                    });
                    set.keys.insert(key);
                });
            }
            set
        }

        fn candidates(&self, source: Address) -> u32 {
            let marks = marks(source, self.lengths.has_short, |hash| {
                let (word, shift) = place(hash, BITS);
                (self.words[word as usize] >> shift) as u16
            });
            self.lengths.candidates(source, (marks >> half::PENALTIES) as u8)
        }

        fn contains(&self, source: Address) -> bool {
            let candidates = self.candidates(source);
            (0..32)
                .filter(|class| candidates >> class & 1 != 0)
                .any(|class| self.keys.contains(&Prefix::of_class(source, class)))
        }
    }

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().expect("literal").into()
    }

    fn covers(prefix: (Address, u32), source: Address) -> bool {
        let (address, len) = prefix;
        let len = if address.is_v4() { len + V4_OFFSET } else { len };
        address.is_v4() == source.is_v4() && address.masked(len) == source.masked(len)
    }

    #[test]
    fn a_set_holds_the_sources_that_its_prefixes_cover_and_no_others() {
        let rows = [
            ("192.0.2.0", 24, "192.0.2.255", true),
            ("192.0.2.0", 24, "192.0.3.0", false),
            ("192.0.2.7", 32, "192.0.2.7", true),
            ("192.0.2.7", 32, "192.0.2.6", false),
            ("10.0.0.0", 8, "10.255.1.2", true),
            ("10.0.0.0", 9, "10.128.1.2", false),
            ("128.0.0.0", 1, "255.1.2.3", true),
            ("0.0.0.0", 0, "8.8.8.8", true),
            ("0.0.0.0", 0, "2001:db8::1", false),
            ("2001:db8::", 32, "2001:db8:ffff::1", true),
            ("2001:db8::", 29, "2001:dbf::1", true),
            ("2001:db8::", 29, "2001:dc0::1", false),
            ("2001:db8:1:2::", 64, "2001:db8:1:2::9", true),
            ("2001:db8:1:2::", 63, "2001:db8:1:3::9", true),
            ("2001:db8::1", 128, "2001:db8::1", true),
            ("2001:db8::1", 127, "2001:db8::2", false),
            ("::", 0, "2001:db8::1", true),
            ("::", 0, "192.0.2.1", false),
        ];
        for (prefix, len, source, expected) in rows {
            let set = Set::new(&[(address(prefix), len)]);
            assert_eq!(
                set.contains(address(source)),
                expected,
                "{source} in {prefix}/{len}"
            );
        }
    }

    #[test]
    fn ten_thousand_prefixes_leave_nearly_every_other_source_without_a_look_up() {
        let mut state = 7_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 32) as u32
        };
        let prefixes: Vec<_> = (0..1000)
            .map(|n| (Address::v4(random().to_be_bytes()), 20 + n % 13))
            .collect();
        let set = Set::new(&prefixes);
        let sources: Vec<_> = (0..20_000).map(|_| Address::v4(random().to_be_bytes())).collect();
        let looked_up = sources
            .iter()
            .filter(|&&source| set.candidates(source) != 0)
            .count();
        // About 4,000 of 65,536 cells are marked, four for each /22 and 16 for each /20: 6 %.
        assert!(looked_up < 2000, "{looked_up}");
    }

    #[test]
    fn a_byte_stands_for_the_classes_that_have_its_bits() {
        for byte in 0..=u8::MAX {
            let expected = (0..32)
                .filter(|&class| byte >> bit_of(class) & 1 != 0)
                .fold(0, |classes, class| classes | 1 << class);
            assert_eq!(classes_of(byte), expected, "{byte:#x}");
        }
    }

    /// An address near others, so that prefixes and sources meet.
    fn near() -> impl Strategy<Value = Address> {
        let v4 = (0..4_u32, 0..=u16::MAX).prop_map(|(high, low)| {
            Address::v4((0x0a00_0000 | high << 22 | u32::from(low) << 4).to_be_bytes())
        });
        let v6 = (0..8_u128, 0..=u32::MAX).prop_map(|(high, low)| {
            Address::from_bits(0x2001_0db8 << 96 | high << 76 | u128::from(low) << 40)
        });
        prop_oneof![v4, v6, any::<u128>().prop_map(Address::from_bits)]
    }

    proptest! {
        /// The filter may send a clean source to the map; it never keeps a covered one from it.
        #[test]
        fn the_filter_misses_no_source_that_a_prefix_covers(
            prefixes in prop::collection::vec((near(), 12..=128_u32), 1..20),
            sources in prop::collection::vec(near(), 1..50),
            low in any::<u128>(),
        ) {
            let prefixes: Vec<_> = prefixes
                .into_iter()
                .map(|(address, len)| (address, if address.is_v4() { len.min(32) } else { len }))
                .collect();
            let set = Set::new(&prefixes);
            let inside = prefixes.iter().map(|&(address, len)| {
                let len = if address.is_v4() { len + V4_OFFSET } else { len };
                let host = low.checked_shr(len).unwrap_or(0);
                Address::from_bits(address.masked(len).bits() | host)
            });
            for source in sources.into_iter().chain(inside) {
                let expected = prefixes.iter().any(|&prefix| covers(prefix, source));
                prop_assert_eq!(set.contains(source), expected, "{:?}", source);
            }
        }
    }
}
