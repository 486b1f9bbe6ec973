//! The internet checksum (RFC 1071), over sums of words that are added up as they come.

/// Checksum of a sum of 32-bit words.
#[inline(always)]
#[must_use]
pub const fn of(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The checksum after one 16-bit word was replaced by another (RFC 1624 equation 3).
#[inline(always)]
#[must_use]
pub const fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    of(!checksum as u64 + !old as u64 + new as u64)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn whole(words: &[u16]) -> u16 {
        of(words.iter().map(|&word| u64::from(word)).sum())
    }

    proptest! {
        /// All words zero is no packet, and the one case in which the two zeros of ones' complement differ.
        #[test]
        fn a_replaced_word_gives_the_checksum_of_the_new_words(
            words in proptest::collection::vec(any::<u16>(), 2..40), at in any::<prop::sample::Index>(), new: u16,
        ) {
            let mut changed: Vec<u16> = words.clone();
            changed[0] |= 1;
            let before = whole(&changed);
            let at = 1 + at.index(changed.len() - 1);
            let old = std::mem::replace(&mut changed[at], new);
            prop_assert_eq!(replace(before, old, new), whole(&changed));
        }
    }
}
