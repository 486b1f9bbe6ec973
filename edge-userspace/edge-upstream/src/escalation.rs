//! From refusals to a penalty: when tier 1 is asked to take over.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use edge_model::{Penalty, PenaltyPolicy, PenaltyReason, Prefix};

use crate::generations::Generations;

/// Locks over which sources are spread. Only refused requests come here, so that good clients never wait.
const SHARDS: usize = 16;

/// Most sources that are remembered at one time; about 6 MB. With more of them at once, those that have been
/// quiet for longest begin anew.
const MAX_SOURCES: usize = 65_536;

/// Bits of an IPv6 address that count as one source.
const IPV6_SOURCE_BITS: u8 = 64;

/// Counts refused requests of each source, for all workers together.
#[derive(Debug)]
pub struct Escalation {
    policy: PenaltyPolicy,
    hasher: RandomState,
    shards: Box<[Mutex<Generations<Prefix, Record>>]>,
}

/// What is known of one source.
#[derive(Debug, Clone, Copy)]
struct Record {
    window_began: Instant,
    refusals: u32,
    penalised_until: Option<Instant>,
}

impl Escalation {
    /// Counts under `policy`, from nothing.
    #[must_use]
    pub fn new(policy: PenaltyPolicy) -> Self {
        let shard = || Mutex::new(Generations::new(MAX_SOURCES / SHARDS));
        Self {
            policy,
            hasher: RandomState::new(),
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }

    /// The policy that is counted under.
    #[must_use]
    pub fn policy(&self) -> PenaltyPolicy {
        self.policy
    }

    /// Counts a refused request of `source`. The refusal that completes the policy's number returns the penalty;
    /// while it is in force there is no second one, although requests that were already on their way come in.
    ///
    /// An IPv6 address counts, and is penalised, with its whole /64: a host commands all of it (RFC 8981).
    pub fn refused(&self, source: IpAddr, reason: PenaltyReason, now: Instant) -> Option<Penalty> {
        let source = match source {
            IpAddr::V4(_) => Some(Prefix::from(source)),
            IpAddr::V6(_) => Prefix::new(source, IPV6_SOURCE_BITS),
        }?;
        let shard = self.hasher.hash_one(source) as usize % self.shards.len();
        // A panic under the lock leaves at worst a count that is one too low.
        let mut sources = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Record {
            window_began: now,
            refusals: 0,
            penalised_until: None,
        };
        let until = sources.with(&source, fresh, |record| record.refused(&self.policy, now))?;
        Some(Penalty {
            source,
            until,
            reason,
            measure: self.policy.measure,
        })
    }
}

impl Record {
    /// Counts one refusal; the end of the penalty that it brings.
    fn refused(&mut self, policy: &PenaltyPolicy, now: Instant) -> Option<Instant> {
        if self.penalised_until.is_some_and(|until| now < until) {
            return None;
        }
        if now.saturating_duration_since(self.window_began) >= policy.window {
            self.window_began = now;
            self.refusals = 0;
        }
        self.refusals += 1;
        if self.refusals < policy.refusals {
            return None;
        }
        let until = now + policy.duration;
        self.penalised_until = Some(until);
        self.refusals = 0;
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::{Measure, PenaltyScope};
    use std::time::Duration;

    const POLICY: PenaltyPolicy = PenaltyPolicy {
        refusals: 3,
        window: Duration::from_secs(10),
        duration: Duration::from_secs(60),
        measure: Measure {
            rate: None,
            scope: PenaltyScope::Everything,
        },
    };

    #[expect(
        clippy::disallowed_methods,
        reason = "there is no other way to make an Instant"
    )]
    fn base() -> Instant {
        Instant::now()
    }

    /// The indexes of the refusals, given in milliseconds after the start, that brought a penalty.
    #[track_caller]
    fn check(refusals_at_ms: &[u64], expected: &[usize]) {
        let (escalation, start) = (Escalation::new(POLICY), base());
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let mut penalised = vec![];
        for (index, at) in refusals_at_ms.iter().enumerate() {
            let now = start + Duration::from_millis(*at);
            if let Some(penalty) = escalation.refused(source, PenaltyReason::RateLimit, now) {
                assert_eq!(
                    (penalty.source, penalty.until),
                    (source.into(), now + POLICY.duration)
                );
                penalised.push(index);
            }
        }
        assert_eq!(penalised, expected);
    }

    #[test]
    fn the_refusal_that_completes_the_number_brings_the_penalty() {
        check(&[0, 1, 2], &[2]);
        check(&[0, 1], &[]);
    }

    #[test]
    fn refusals_further_apart_than_the_window_do_not_add_up() {
        check(&[0, 9_000, 18_000, 27_000, 36_000], &[]);
        check(&[0, 9_000, 9_999], &[2]);
    }

    #[test]
    fn a_penalty_in_force_is_not_given_again() {
        check(&[0, 1, 2, 3, 4, 5, 6, 59_000], &[2]);
    }

    #[test]
    fn after_its_end_the_source_is_counted_from_nothing() {
        check(&[0, 1, 2, 60_002, 60_003, 60_004], &[2, 5]);
        check(&[0, 1, 2, 60_002, 60_003], &[2]);
    }

    #[test]
    fn sources_are_counted_apart() {
        let (escalation, now) = (Escalation::new(POLICY), base());
        let mut refuse = |source: &str| {
            escalation
                .refused(source.parse().unwrap(), PenaltyReason::RateLimit, now)
                .is_some()
        };
        let answers = [
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.2",
            "192.0.2.1",
        ]
        .map(&mut refuse);
        assert_eq!(answers, [false, false, false, false, true, true]);
    }

    #[test]
    fn an_ipv6_host_is_its_slash_64() {
        let (escalation, now) = (Escalation::new(POLICY), base());
        let sources = [
            "2001:db8::1",
            "2001:db8:0:1::1",
            "2001:db8::2",
            "2001:db8::ffff:3",
        ];
        let penalties = sources.map(|source| {
            let penalty = escalation.refused(source.parse().unwrap(), PenaltyReason::RateLimit, now);
            penalty.map(|penalty| penalty.source.to_string())
        });
        assert_eq!(penalties, [None, None, None, Some("2001:db8::/64".to_owned())]);
    }

    #[test]
    fn an_abuser_is_caught_among_a_flood_of_other_sources() {
        let (escalation, now) = (Escalation::new(POLICY), base());
        let mut penalties = 0;
        for other in 0..200_000u32 {
            let other = IpAddr::from(other.to_be_bytes());
            escalation.refused(other, PenaltyReason::RateLimit, now);
            if other == IpAddr::from([0, 0, 0, 0]) {
                continue;
            }
            let abuser = "198.51.100.1".parse().unwrap();
            penalties += usize::from(
                escalation
                    .refused(abuser, PenaltyReason::RateLimit, now)
                    .is_some(),
            );
        }
        assert_eq!(penalties, 1);
    }
}
