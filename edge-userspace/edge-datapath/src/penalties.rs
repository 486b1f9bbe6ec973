//! Penalties on their way into the data path and out of it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use edge_common::maps::{self as names, MAX_PENALTIES};
use edge_common::{Address, penalty};
use edge_model::{Penalty, PenaltyReason};

use crate::maps::{Maps, is_absent};
use crate::{Error, sys};

/// A penalty as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PenaltyStatus {
    /// Address whose packets to the VIPs are dropped.
    pub source: IpAddr,
    /// Time until the penalty ends; zero once it has.
    pub remaining: Duration,
    /// Why it was given.
    pub reason: PenaltyReason,
    /// Packets dropped so far.
    pub dropped: u64,
}

/// The sources that have an entry in the map.
#[derive(Debug, Default)]
pub(crate) struct Penalties {
    sources: BTreeSet<Address>,
}

impl Penalties {
    /// Those that the map holds: a new map none, one that was handed on its predecessor's.
    pub(crate) fn found(maps: &Maps) -> Result<Self, Error> {
        let sources: Result<_, _> = maps.penalties.keys().collect();
        let sources = sources.map_err(Error::map(names::PENALTIES, "list"))?;
        Ok(Self { sources })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Writes a penalty. A source that has one gets the new end and reason, and keeps its count.
    pub(crate) fn insert(&mut self, maps: &mut Maps, penalty: &Penalty) -> Result<(), Error> {
        let source = Address::from(penalty.source);
        let limit = MAX_PENALTIES as usize;
        if !self.sources.contains(&source) && self.sources.len() >= limit {
            return Err(Error::TooMany {
                what: "penalties",
                wanted: limit + 1,
                limit,
            });
        }
        let remaining = penalty.until.saturating_duration_since(Instant::now());
        let until_ns = sys::monotonic_ns().saturating_add(remaining.as_nanos() as u64);
        let dropped = maps
            .penalties
            .get(&source, 0)
            .map(|entry| entry.dropped)
            .unwrap_or_default();
        let entry = penalty::Entry {
            until_ns,
            dropped,
            reason: encode(penalty.reason),
            padding: 0,
        };
        maps.penalties
            .insert(source, entry, 0)
            .map_err(Error::map(names::PENALTIES, "write an entry"))?;
        self.sources.insert(source);
        Ok(())
    }

    /// All that are in the map, by source.
    pub(crate) fn list(&self, maps: &Maps) -> Result<Vec<PenaltyStatus>, Error> {
        let now = sys::monotonic_ns();
        let read = |&source: &Address| match maps.penalties.get(&source, 0) {
            Ok(entry) => Ok(Some(status(source, &entry, now))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::map(names::PENALTIES, "read an entry")(error)),
        };
        self.sources
            .iter()
            .map(read)
            .filter_map(Result::transpose)
            .collect()
    }

    /// Removes those that have ended, and says what became of them.
    pub(crate) fn expire(&mut self, maps: &mut Maps) -> Result<Vec<PenaltyStatus>, Error> {
        let mut ended = self.list(maps)?;
        ended.retain(|penalty| penalty.remaining.is_zero());
        for penalty in &ended {
            let source = Address::from(penalty.source);
            match maps.penalties.remove(&source) {
                Err(error) if !is_absent(&error) => {
                    return Err(Error::map(names::PENALTIES, "remove an entry")(error));
                }
                _ => self.sources.remove(&source),
            };
        }
        Ok(ended)
    }
}

fn status(source: Address, entry: &penalty::Entry, now: u64) -> PenaltyStatus {
    PenaltyStatus {
        source: source.into(),
        remaining: Duration::from_nanos(entry.until_ns.saturating_sub(now)),
        reason: decode(entry.reason),
        dropped: entry.dropped,
    }
}

/// The number of a reason in the map.
const fn encode(reason: PenaltyReason) -> u32 {
    match reason {
        PenaltyReason::RateLimit => 1,
    }
}

/// The reason of a number. Only [`encode`] writes them.
const fn decode(_: u32) -> PenaltyReason {
    PenaltyReason::RateLimit
}
