//! The look-up half of Maglev hashing (Eisenbud et al., NSDI 2016); edge-datapath builds the table.

use crate::assert_size;

/// Slots of a table: the prime that the Maglev paper uses for large set-ups. It bounds the imbalance between
/// equal workers to about one percent for several hundred workers.
pub const SLOTS: usize = 65_537;

/// A slot's owner while no worker takes connections.
pub const NO_WORKER: u16 = u16::MAX;

/// A whole table as the value of one map element, so that one system call replaces it.
///
/// The kernel copies the value while packets read it: a reader sees a slot before or after the change, and a
/// slot is one aligned 32-bit word, so it never sees half of one.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Owner of each slot, and the one before it.
    pub slots: [Slot; SLOTS],
    /// To a multiple of eight bytes, as the kernel rounds map values up.
    pub padding: u32,
}

/// Who has a slot, in one word.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Index of the worker that takes the slot's new flows, or [`NO_WORKER`].
    pub owner: u16,
    /// Index of the worker that may still have flows of the slot, because it had it before; or [`NO_WORKER`].
    pub previous: u16,
}

assert_size!(Slot = 4, Table = 262_152);

impl Slot {
    /// Nobody's.
    pub const FREE: Self = Self {
        owner: NO_WORKER,
        previous: NO_WORKER,
    };
}

impl Table {
    /// A table without workers.
    pub const EMPTY: Self = Self {
        slots: [Slot::FREE; SLOTS],
        padding: 0,
    };

    /// The worker for a flow's hash.
    #[inline(always)]
    #[must_use]
    pub fn worker(&self, hash: u64) -> Option<u16> {
        match self.slots.get(slot(hash)) {
            Some(&Slot { owner, .. }) if owner != NO_WORKER => Some(owner),
            _ => None,
        }
    }

    /// The worker that a flow of this hash may have had before.
    #[inline(always)]
    #[must_use]
    pub fn previous(&self, hash: u64) -> Option<u16> {
        match self.slots.get(slot(hash)) {
            Some(&Slot { previous, .. }) if previous != NO_WORKER => Some(previous),
            _ => None,
        }
    }
}

/// The slot of a hash: its upper half scaled to the table, which is a multiplication where the remainder would
/// be a division, and whose bound the verifier can see.
#[inline(always)]
#[must_use]
pub const fn slot(hash: u64) -> usize {
    (((hash >> 32) * SLOTS as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_has_a_slot_within_the_table() {
        assert_eq!(slot(0), 0);
        assert_eq!(slot(u64::MAX), SLOTS - 1);
    }

    #[test]
    fn an_empty_table_has_no_worker() {
        static EMPTY: Table = Table::EMPTY;
        assert_eq!(EMPTY.worker(1 << 40), None);
    }
}
