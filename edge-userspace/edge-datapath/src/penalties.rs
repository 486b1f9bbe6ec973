//! Penalties on their way into the data path and out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use edge_common::flood::Rate;
use edge_common::maps::{self as names, MAX_PENALTIES, PENALTY_BUCKET_BITS};
use edge_common::penalty;
use edge_common::prefix::{Lengths, Prefix as Key, half};
use edge_model::{Measure, Penalty, PenaltyReason, PenaltyScope, Prefix, TokenRate};

use crate::maps::Maps;
use crate::prefix_filter::{PrefixFilter, keys};
use crate::table::PrefixTable;
use crate::{Error, sys};

/// A penalty as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PenaltyStatus {
    /// Addresses whose packets to the VIPs are dropped or slowed down.
    pub source: Prefix,
    /// Time until the penalty ends; zero once it has.
    pub remaining: Duration,
    /// Why it was given.
    pub reason: PenaltyReason,
    /// What it does.
    pub measure: Measure,
    /// Packets dropped so far.
    pub dropped: u64,
}

/// The sources that have entries in the map.
///
/// Ends are kept in order, so that neither a new penalty nor the removal of those that have ended looks at all of
/// them.
#[derive(Debug)]
pub(crate) struct Penalties {
    given: BTreeMap<Prefix, Given>,
    ends: BTreeSet<(u64, Prefix)>,
    /// Which element of the map each has. An IPv6 prefix of uneven length has several.
    table: PrefixTable,
    places: Places,
    filter: PrefixFilter,
}

/// What userspace remembers of a penalty.
#[derive(Debug, Clone, Copy)]
struct Given {
    until_ns: u64,
    reason: PenaltyReason,
    measure: Measure,
}

impl Default for Penalties {
    fn default() -> Self {
        Self {
            given: BTreeMap::new(),
            ends: BTreeSet::new(),
            table: PrefixTable::new(PENALTY_BUCKET_BITS),
            places: Places::default(),
            filter: PrefixFilter::new(half::PENALTIES),
        }
    }
}

impl Penalties {
    /// Those that a predecessor's map holds. The table of them, and the filter before it, are written anew.
    pub(crate) fn found(maps: &mut Maps) -> Result<Self, Error> {
        let mut found = Self::default();
        for place in 0..MAX_PENALTIES {
            let entry = maps.penalties.get(&place, 0).map_err(failed("list"))?;
            let key = entry.prefix;
            let Some(source) = prefix(&key) else {
                found.places.free.push(place);
                continue;
            };
            found.places.unused = place + 1;
            let given = Given {
                until_ns: entry.until_ns,
                reason: PenaltyReason::RateLimit,
                measure: measure(&entry),
            };
            found.given.insert(source, given);
            found.ends.insert((entry.until_ns, source));
            found.table.insert(key, place);
            found.filter.insert(&key);
        }
        found.places.settle();
        found.table.write(&mut maps.penalised)?;
        found.filter.write(&mut maps.cells)?;
        Ok(found)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// Lengths of the prefixes, for the settings.
    pub(crate) fn lengths(&self) -> Lengths {
        self.filter.lengths()
    }

    /// Writes a penalty: the entry before the filter that lets the data path see it. A source that has one gets the
    /// new end, reason and measure, and keeps its count. Returns whether the settings must be written.
    pub(crate) fn insert(&mut self, maps: &mut Maps, penalty: &Penalty) -> Result<bool, Error> {
        let keys = keys(penalty.source);
        let old = self.given.get(&penalty.source).copied();
        if old.is_none() && self.table.len() + keys.len() > MAX_PENALTIES as usize {
            return Err(Error::TooMany {
                what: "penalties",
                wanted: self.table.len() + keys.len(),
                limit: MAX_PENALTIES as usize,
            });
        }
        let remaining = penalty.until.saturating_duration_since(Instant::now());
        let until_ns = sys::monotonic_ns().saturating_add(remaining.as_nanos() as u64);
        for &key in &keys {
            let old = self.table.get(&key);
            let before = old.map(|place| maps.penalties.get(&place, 0));
            let before = before.transpose().map_err(failed("read"))?.unwrap_or_default();
            let place = old.unwrap_or_else(|| self.places.take());
            let entry = entry(penalty, key, until_ns, &before);
            maps.penalties.set(place, entry, 0).map_err(failed("write"))?;
            self.table.insert(key, place);
        }
        self.table.write(&mut maps.penalised)?;
        if let Some(old) = old {
            self.ends.remove(&(old.until_ns, penalty.source));
        }
        let given = Given {
            until_ns,
            reason: penalty.reason,
            measure: penalty.measure,
        };
        self.given.insert(penalty.source, given);
        self.ends.insert((until_ns, penalty.source));
        let lengths = self.lengths();
        keys.iter().for_each(|key| self.filter.insert(key));
        self.filter.write(&mut maps.cells)?;
        Ok(self.lengths() != lengths)
    }

    /// All that are in the map, by source.
    pub(crate) fn list(&self, maps: &Maps) -> Result<Vec<PenaltyStatus>, Error> {
        let now = sys::monotonic_ns();
        self.given
            .iter()
            .map(|(&source, given)| self.status(maps, source, given, now))
            .collect()
    }

    /// Removes those that have ended, and says what became of them.
    pub(crate) fn expire(&mut self, maps: &mut Maps) -> Result<Vec<PenaltyStatus>, Error> {
        let now = sys::monotonic_ns();
        let mut ended = Vec::new();
        while let Some(&(until_ns, source)) = self.ends.first().filter(|(until_ns, _)| *until_ns <= now) {
            if let Some(given) = self.given.get(&source) {
                ended.push(self.status(maps, source, given, now)?);
            }
            let keys = keys(source);
            let places: Vec<_> = keys.iter().filter_map(|key| self.table.remove(key)).collect();
            self.table.write(&mut maps.penalised)?;
            for place in places {
                let free = penalty::Entry::default();
                maps.penalties.set(place, free, 0).map_err(failed("free"))?;
                self.places.free.push(place);
            }
            self.ends.remove(&(until_ns, source));
            self.given.remove(&source);
        }
        if !ended.is_empty() {
            let left: Vec<Key> = self.given.keys().flat_map(|&source| keys(source)).collect();
            self.filter.replace(left.iter());
            self.filter.write(&mut maps.cells)?;
        }
        Ok(ended)
    }

    fn status(&self, maps: &Maps, source: Prefix, given: &Given, now: u64) -> Result<PenaltyStatus, Error> {
        let mut dropped = 0;
        for place in keys(source).iter().filter_map(|key| self.table.get(key)) {
            dropped += maps.penalties.get(&place, 0).map_err(failed("read"))?.dropped;
        }
        Ok(PenaltyStatus {
            source,
            remaining: Duration::from_nanos(given.until_ns.saturating_sub(now)),
            reason: given.reason,
            measure: given.measure,
            dropped,
        })
    }
}

/// Elements of the map that nobody has.
#[derive(Debug, Default)]
struct Places {
    /// Those that somebody had.
    free: Vec<u32>,
    /// The first of those that nobody ever had.
    unused: u32,
}

impl Places {
    /// A free element. The caller counts them.
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.unused += 1;
            self.unused - 1
        })
    }

    /// Counts free elements behind the last that somebody has as unused.
    fn settle(&mut self) {
        self.free.retain(|&place| place < self.unused);
    }
}

fn failed(action: &'static str) -> impl FnOnce(aya::maps::MapError) -> Error {
    Error::map(names::PENALTIES, action)
}

/// The prefix of a key; a free element has none. An IPv6 prefix of uneven length comes back as those that stood for it.
fn prefix(key: &Key) -> Option<Prefix> {
    if key.len == 0 {
        return None;
    }
    let len = if key.address.is_v4() {
        key.len.checked_sub(96)?
    } else {
        key.len
    };
    Prefix::new(key.address.into(), u8::try_from(len).ok()?)
}

/// What an entry does, in the terms in which it was asked for.
fn measure(entry: &penalty::Entry) -> Measure {
    let rate = (entry.flags & penalty::Entry::HAS_RATE != 0).then(|| entry.rate.per_second_and_burst());
    Measure {
        rate: rate.map(|(per_second, burst)| TokenRate { per_second, burst }),
        scope: if entry.flags & penalty::Entry::NEW_CONNECTIONS_ONLY != 0 {
            PenaltyScope::NewConnections
        } else {
            PenaltyScope::Everything
        },
    }
}

/// The map's entry of a penalty, which goes on from the one before it.
fn entry(penalty: &Penalty, key: Key, until_ns: u64, before: &penalty::Entry) -> penalty::Entry {
    let mut flags = 0;
    if penalty.measure.rate.is_some() {
        flags |= penalty::Entry::HAS_RATE;
    }
    match penalty.measure.scope {
        PenaltyScope::Everything => {}
        PenaltyScope::NewConnections => flags |= penalty::Entry::NEW_CONNECTIONS_ONLY,
    }
    let rate = penalty.measure.rate;
    let rate = rate.map_or_else(Rate::default, |rate| Rate::new(rate.per_second, rate.burst));
    penalty::Entry {
        until_ns,
        rate,
        // Tokens that were used under another rate say nothing about this one.
        full_at: if before.rate == rate { before.full_at } else { 0 },
        dropped: before.dropped,
        flags,
        reason: penalty.reason as u32,
        prefix: key,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_penalty_comes_back_from_its_entry_as_it_was_asked_for() {
        let rate = |per_second, burst| Some(TokenRate { per_second, burst });
        let rows = [
            ("192.0.2.7", None, PenaltyScope::Everything),
            ("192.0.2.0/24", rate(1000, 50), PenaltyScope::NewConnections),
            ("2001:db8::/64", rate(3, 7), PenaltyScope::Everything),
        ];
        for (text, rate, scope) in rows {
            let source: Prefix = text.parse().expect("literal");
            let penalty = Penalty {
                source,
                until: Instant::now(),
                reason: PenaltyReason::RateLimit,
                measure: Measure { rate, scope },
            };
            let keys = keys(source);
            assert_eq!((keys.len(), prefix(&keys[0])), (1, Some(source)));
            let entry = entry(&penalty, keys[0], 0, &penalty::Entry::default());
            assert_eq!(entry.prefix, keys[0]);
            assert_eq!(measure(&entry), penalty.measure, "{text}");
        }
    }
}
