//! Penalties: sources that tier 2 asked tier 1 to drop or to slow down, until a point in time.

use crate::flood::Rate;
use crate::prefix::Prefix;
use crate::{DropReason, assert_size};

/// Element of the map `PENALTIES`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// When the penalty ends: CLOCK_MONOTONIC, nanoseconds. The data path checks it, so a penalty ends in time
    /// even if userspace does not come to remove the entry.
    pub until_ns: u64,
    /// What the prefix as a whole may still send, if [`Entry::HAS_RATE`] is set.
    pub rate: Rate,
    /// State of the rate's bucket. The data path writes it.
    pub full_at: u64,
    /// Packets dropped, about: CPUs that add at the same moment may lose one of each other, which costs a flood less than
    /// an atomic addition. The counters by reason and VIP are exact.
    pub dropped: u64,
    /// `HAS_RATE`, `NEW_CONNECTIONS_ONLY`.
    pub flags: u32,
    /// Why it was given; only userspace reads it.
    pub reason: u32,
    /// Whose it is; only userspace reads it. Length 0: nobody's, the element is free.
    pub prefix: Prefix,
    /// To a multiple of eight bytes.
    pub padding: u32,
}

assert_size!(Entry = 72);

/// What a penalty makes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It is over, or is not about such packets.
    None,
    /// The packet takes a token: the bucket's new state.
    Token(u64),
    /// The packet drops.
    Drop(DropReason),
}

impl Entry {
    /// Packets within the rate pass.
    pub const HAS_RATE: u32 = 1 << 0;
    /// Only packets that open a connection are meant.
    pub const NEW_CONNECTIONS_ONLY: u32 = 1 << 1;

    /// What becomes of a packet from the prefix at the time `now`.
    #[inline(always)]
    #[must_use]
    pub const fn judge(&self, now: u64, opens_connection: bool) -> Judgement {
        let is_meant = opens_connection || self.flags & Self::NEW_CONNECTIONS_ONLY == 0;
        if now >= self.until_ns || !is_meant {
            return Judgement::None;
        }
        if self.flags & Self::HAS_RATE == 0 {
            return Judgement::Drop(DropReason::Penalty);
        }
        match self.rate.take(self.full_at, now) {
            Some(full_at) => Judgement::Token(full_at),
            None => Judgement::Drop(DropReason::PenaltyRate),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn entry(flags: u32) -> Entry {
        Entry {
            until_ns: 10 * SECOND_NS,
            rate: Rate::new(10, 2),
            flags,
            ..Entry::default()
        }
    }

    #[test]
    fn a_penalty_is_about_its_packets_and_its_time() {
        use Judgement::{Drop, None, Token};
        let only_new = Entry::NEW_CONNECTIONS_ONLY;
        let drop = Drop(DropReason::Penalty);
        let token = Token(SECOND_NS + SECOND_NS / 10);
        let rows = [
            ("everything drops", 0, SECOND_NS, false, drop),
            ("new connections too", 0, SECOND_NS, true, drop),
            ("until the end", 0, 10 * SECOND_NS - 1, false, drop),
            ("and not at it", 0, 10 * SECOND_NS, false, None),
            ("a connection goes on", only_new, SECOND_NS, false, None),
            ("a new one does not", only_new, SECOND_NS, true, drop),
            ("within the rate", Entry::HAS_RATE, SECOND_NS, false, token),
            (
                "a rate of new connections",
                Entry::HAS_RATE | only_new,
                SECOND_NS,
                false,
                None,
            ),
        ];
        for (name, flags, now, opens, expected) in rows {
            assert_eq!(entry(flags).judge(now, opens), expected, "{name}");
        }
    }

    #[test]
    fn beyond_the_rate_packets_drop_and_take_no_token() {
        let mut entry = entry(Entry::HAS_RATE);
        for _ in 0..2 {
            let Judgement::Token(full_at) = entry.judge(SECOND_NS, false) else {
                panic!("within the burst");
            };
            entry.full_at = full_at;
        }
        assert_eq!(
            entry.judge(SECOND_NS, false),
            Judgement::Drop(DropReason::PenaltyRate)
        );
    }

    proptest! {
        #[test]
        fn no_packet_drops_once_the_penalty_is_over(
            until_ns in any::<u64>(), full_at in any::<u64>(), flags in 0..4_u32, now in any::<u64>(), opens: bool,
        ) {
            let entry = Entry { until_ns, full_at, flags, rate: Rate::new(5, 5), ..Entry::default() };
            if now >= until_ns {
                prop_assert_eq!(entry.judge(now, opens), Judgement::None);
            }
        }
    }
}
