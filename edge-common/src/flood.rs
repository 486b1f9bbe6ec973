//! The flood stage's token buckets, as pure functions of state, limits and time.
//!
//! A bucket is kept as one time stamp (the generic cell rate algorithm, ITU-T I.371, equal to a token bucket):
//! the time at which the bucket will be full again. That is half the state of the usual pair of level and time,
//! and one store updates it, so two CPUs that race on one source lose at most the token of one packet.

use crate::prefix_table::hash;
use crate::{Address, DropReason, assert_size};

/// Nanoseconds per second.
const SECOND_NS: u64 = 1_000_000_000;

/// Rate and depth of a bucket, in the time that its tokens take to refill.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// Time for one token to refill, in nanoseconds.
    pub token_ns: u64,
    /// Time for the whole bucket to refill, in nanoseconds.
    pub bucket_ns: u64,
}

/// Limits of one source.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Packets of any kind.
    pub packets: Rate,
    /// New connections: TCP segments with SYN and without ACK.
    pub new_connections: Rate,
}

/// A source's buckets: for each, the time on CLOCK_MONOTONIC (nanoseconds) at which it is full again. Zero is a
/// full bucket.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Buckets {
    /// Bucket of [`Limits::packets`].
    pub packets_full_at: u64,
    /// Bucket of [`Limits::new_connections`].
    pub new_connections_full_at: u64,
}

/// Sources that a [`Set`] holds.
pub const SLOTS: usize = 2;

/// A source with its buckets.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    /// Its [prefix](Address::source_prefix).
    pub source: Address,
    /// Its buckets.
    pub buckets: Buckets,
}

/// Sources whose hash is the same: an element of the map `FLOOD`, one cache line.
///
/// A source that comes new takes the place of the one whose bucket of packets is full, or will be first: that one has
/// nothing to remember, or least. CPUs that write one place at the same moment may give a source the other's buckets,
/// which costs or lends it a burst.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Set {
    /// The places.
    pub slots: [Slot; SLOTS],
}

assert_size!(Rate = 16, Limits = 32, Buckets = 16, Slot = 32, Set = 64);

/// Index of a source's set, among 2^`bits`. `salt` keeps it from those who choose their addresses.
#[inline(always)]
#[must_use]
pub const fn set_of(source: Address, salt: u32, bits: u32) -> u32 {
    hash(source, salt) >> (32 - bits)
}

impl Set {
    /// Admits a packet of a source at the time `now`, or says why it is to drop.
    ///
    /// # Errors
    /// As [`Buckets::admit`].
    #[inline(always)]
    pub fn admit(
        &mut self,
        source: Address,
        limits: &Limits,
        now: u64,
        new_connection: bool,
    ) -> Result<(), DropReason> {
        let [first, second] = &mut self.slots;
        let is_older = first.buckets.packets_full_at <= second.buckets.packets_full_at;
        let (slot, is_known) = if same(first.source, source) {
            (first, true)
        } else if same(second.source, source) {
            (second, true)
        } else if is_older {
            (first, false)
        } else {
            (second, false)
        };
        let before = if is_known {
            slot.buckets
        } else {
            Buckets::default()
        };
        slot.buckets = before.admit(limits, now, new_connection)?;
        if !is_known {
            slot.source = source;
        }
        Ok(())
    }
}

/// Whether two addresses are one. (A comparison of arrays would be a call.)
#[inline(always)]
const fn same(left: Address, right: Address) -> bool {
    let ([a, b, c, d], [e, f, g, h]) = (left.0, right.0);
    (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
}

impl Rate {
    /// A rate of `per_second` tokens with room for `burst`. A rate of zero admits nothing; so does a burst of
    /// zero. Rates are rounded to whole nanoseconds per token: 0.1 % off at a million per second.
    ///
    /// The data path reads a clock that steps with the timer tick (1 to 10 ms), so a burst smaller than the
    /// tokens of one tick keeps a source below its rate.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        if per_second == 0 {
            return Self {
                token_ns: u64::MAX,
                bucket_ns: 0,
            };
        }
        let token_ns = SECOND_NS.div_ceil(per_second as u64);
        Self {
            token_ns,
            bucket_ns: token_ns * burst as u64,
        }
    }

    /// Half of the rate, with a bucket of the same number of tokens.
    #[inline(always)]
    #[must_use]
    pub const fn halved(&self) -> Self {
        Self {
            token_ns: self.token_ns.saturating_mul(2),
            bucket_ns: self.bucket_ns.saturating_mul(2),
        }
    }

    /// The numbers that the rate was made of, as well as rounding lets them be known.
    #[must_use]
    pub const fn per_second_and_burst(&self) -> (u32, u32) {
        if self.token_ns == 0 || self.token_ns == u64::MAX {
            return (0, 0);
        }
        let per_second = (SECOND_NS + self.token_ns / 2) / self.token_ns;
        (per_second as u32, (self.bucket_ns / self.token_ns) as u32)
    }

    /// Takes a token at the time `now` from a bucket that is full at `full_at`: the new `full_at`, or `None`
    /// if the bucket is empty, and then it stays as it was.
    #[inline(always)]
    #[must_use]
    pub const fn take(&self, full_at: u64, now: u64) -> Option<u64> {
        let base = if full_at > now { full_at } else { now };
        let next = base.saturating_add(self.token_ns);
        if next - now <= self.bucket_ns {
            Some(next)
        } else {
            None
        }
    }
}

impl Buckets {
    /// The buckets after a packet of their source at the time `now`, or why it is to drop. A packet that drops
    /// takes no token.
    ///
    /// # Errors
    /// [`DropReason::FloodPackets`] or [`DropReason::FloodNewConnections`].
    #[inline(always)]
    pub fn admit(self, limits: &Limits, now: u64, new_connection: bool) -> Result<Self, DropReason> {
        let Some(packets_full_at) = limits.packets.take(self.packets_full_at, now) else {
            return Err(DropReason::FloodPackets);
        };
        if !new_connection {
            return Ok(Self {
                packets_full_at,
                ..self
            });
        }
        match limits.new_connections.take(self.new_connections_full_at, now) {
            Some(new_connections_full_at) => Ok(Self {
                packets_full_at,
                new_connections_full_at,
            }),
            None => Err(DropReason::FloodNewConnections),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    /// How many of the packets at these times pass a bucket.
    fn admitted(rate: Rate, times: &[u64]) -> u64 {
        let mut full_at = 0;
        let mut count = 0;
        for &now in times {
            if let Some(next) = rate.take(full_at, now) {
                full_at = next;
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_bucket_admits_its_burst_and_then_its_rate() {
        let rate = Rate::new(100, 5);
        let at_once = [SECOND_NS; 50];
        let a_second_of_packets: Vec<u64> = (0..1000).map(|ms| SECOND_NS + ms * 1_000_000).collect();
        let rows: [(Rate, &[u64], u64); 5] = [
            (rate, &at_once, 5),
            (rate, &a_second_of_packets, 104),
            (Rate::new(0, 5), &at_once, 0),
            (Rate::new(100, 0), &at_once, 0),
            (Rate::new(u32::MAX, u32::MAX), &at_once, 50),
        ];
        for (rate, times, expected) in rows {
            assert_eq!(admitted(rate, times), expected, "{rate:?}");
        }
    }

    #[test]
    fn a_refused_new_connection_takes_no_token_of_the_packets() {
        let limits = Limits {
            packets: Rate::new(1000, 10),
            new_connections: Rate::new(1, 1),
        };
        let first = Buckets::default()
            .admit(&limits, SECOND_NS, true)
            .expect("a full bucket");
        assert_eq!(
            first.admit(&limits, SECOND_NS, true),
            Err(DropReason::FloodNewConnections)
        );
        let second = first.admit(&limits, SECOND_NS, false).expect("packets are left");
        assert_eq!(second.new_connections_full_at, first.new_connections_full_at);
    }

    #[test]
    fn a_set_keeps_its_sources_apart_and_gives_up_the_one_with_the_least_to_remember() {
        let source = |last| Address::v4([192, 0, 2, last]);
        let limits = Limits {
            packets: Rate::new(1, 3),
            new_connections: Rate::new(1, 3),
        };
        let mut set = Set::default();
        let mut passed = |last, packets: u32| {
            let admitted = |_: &u32| set.admit(source(last), &limits, SECOND_NS, false).is_ok();
            (0..packets).filter(admitted).count()
        };
        assert_eq!((passed(1, 5), passed(2, 1), passed(1, 5)), (3, 1, 0));
        // Source 2 has used one token, source 1 all: 2 makes room, and begins anew when it comes back.
        assert_eq!((passed(3, 2), passed(1, 5), passed(3, 5)), (2, 0, 1));
        assert_eq!(passed(2, 9), 3);
    }

    proptest! {
        /// What a set admits of a source that stays in it is what the source's own bucket admits.
        #[test]
        fn a_set_of_as_many_sources_as_it_holds_is_exact(
            packets in prop::collection::vec((0..2_u8, 0..50_u64, any::<bool>()), 1..300),
            salt: u32,
        ) {
            let limits = Limits { packets: Rate::new(100, 5), new_connections: Rate::new(50, 3) };
            let (mut set, mut own) = (Set::default(), [Buckets::default(); 2]);
            let mut now = SECOND_NS;
            for (source, pause_ms, opens) in packets {
                now += pause_ms * 1_000_000;
                let address = Address::v4([192, 0, 2, source]);
                let expected = own[source as usize].admit(&limits, now, opens);
                if let Ok(after) = expected {
                    own[source as usize] = after;
                }
                prop_assert_eq!(set.admit(address, &limits, now, opens), expected.map(|_| ()));
                prop_assert!(set_of(address, salt, 16) < 1 << 16);
            }
        }

        /// The definition of a token bucket: over every stretch of time at most burst plus rate times length.
        #[test]
        fn no_stretch_of_time_admits_more_than_burst_plus_rate(
            per_second in 1..5_000_000_u32,
            burst in 1..1000_u32,
            gaps in prop::collection::vec(0..3_000_000_u64, 1..400),
        ) {
            let rate = Rate::new(per_second, burst);
            let mut now = SECOND_NS;
            let times: Vec<u64> = gaps.iter().map(|gap| { now += gap; now }).collect();
            let length = times[times.len() - 1] - times[0];
            prop_assert!(admitted(rate, &times) <= u64::from(burst) + length / rate.token_ns);
        }

        #[test]
        fn a_source_that_keeps_to_its_rate_is_never_refused(
            per_second in 1..1_000_000_u32,
            burst in 1..100_u32,
            waits in prop::collection::vec(0..1_000_000_u64, 1..200),
        ) {
            let rate = Rate::new(per_second, burst);
            let mut now = SECOND_NS;
            let times: Vec<u64> = waits.iter().map(|wait| { now += rate.token_ns + wait; now }).collect();
            prop_assert_eq!(admitted(rate, &times), times.len() as u64);
        }
    }
}
