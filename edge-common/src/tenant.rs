//! Who has an index: what a next process needs to know so that it takes nobody's flows for another's.
//!
//! The connection table outlives the process that filled it, and names workers and VIPs by index and generation. Names
//! are userspace's affair and of any length, so their digests are written down.

use crate::assert_size;
use crate::maps::{MAX_VIPS, MAX_WORKERS};

/// Element of `TENANTS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tenant {
    /// [`digest`] of the name; 0: nobody has the index.
    pub name: u64,
    /// How many names have had the index, its present one among them.
    pub uses: u16,
    /// To a multiple of eight bytes.
    pub padding: [u16; 3],
}

assert_size!(Tenant = 16);

/// Elements of the map: those of the workers, then those of the VIPs.
pub const ENTRIES: u32 = MAX_WORKERS + MAX_VIPS;

/// First element of the VIPs.
pub const FIRST_VIP: u32 = MAX_WORKERS;

/// A name as a number: the 64-bit FNV-1a hash, which has no seed, of its parts with a mark between them. Never 0.
#[must_use]
pub fn digest<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> u64 {
    /// Constants of the hash.
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut hash = OFFSET;
    let mut take = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    for part in parts {
        // The length first: two names are never joined to the same bytes.
        (part.len() as u64).to_be_bytes().into_iter().for_each(&mut take);
        part.iter().copied().for_each(&mut take);
    }
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_parts_are_other_numbers() {
        let names: [&[&[u8]]; 6] = [&[], &[b""], &[b"ab"], &[b"a", b"b"], &[b"", b"ab"], &[b"b", b"a"]];
        for (at, name) in names.iter().enumerate() {
            for other in names.iter().skip(at + 1) {
                assert_ne!(
                    digest(name.iter().copied()),
                    digest(other.iter().copied()),
                    "{name:?}, {other:?}"
                );
            }
        }
    }
}
