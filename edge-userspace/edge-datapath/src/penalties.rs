//! Penalties on their way into the data path and out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use edge_common::flood::Rate;
use edge_common::maps::{self as names, MAX_PENALTIES, PENALTY_CELL_BITS};
use edge_common::penalty;
use edge_common::prefix::{Lengths, Prefix as Key};
use edge_model::{Measure, Penalty, PenaltyReason, PenaltyScope, Prefix, TokenRate};

use crate::maps::{Maps, is_absent};
use crate::prefix_filter::{PrefixFilter, keys};
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
    /// Entries in the map. An IPv6 prefix of uneven length has several.
    entries: usize,
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
            entries: 0,
            filter: PrefixFilter::new(PENALTY_CELL_BITS),
        }
    }
}

impl Penalties {
    /// Those that the map holds: a new map none, one that was handed on its predecessor's. The filter before them is
    /// written anew.
    pub(crate) fn found(maps: &mut Maps) -> Result<Self, Error> {
        let mut found = Self::default();
        let failed = || Error::map(names::PENALTIES, "list");
        for entry in maps.penalties.iter() {
            let (key, entry) = entry.map_err(failed())?;
            let Some(source) = prefix(&key) else { continue };
            let given = Given {
                until_ns: entry.until_ns,
                reason: PenaltyReason::RateLimit,
                measure: measure(&entry),
            };
            found.given.insert(source, given);
            found.ends.insert((entry.until_ns, source));
            found.entries += 1;
            found.filter.insert(&key);
        }
        found
            .filter
            .write(&mut maps.penalty_cells, names::PENALTY_CELLS)?;
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
        if old.is_none() && self.entries + keys.len() > MAX_PENALTIES as usize {
            return Err(Error::TooMany {
                what: "penalties",
                wanted: self.entries + keys.len(),
                limit: MAX_PENALTIES as usize,
            });
        }
        let remaining = penalty.until.saturating_duration_since(Instant::now());
        let until_ns = sys::monotonic_ns().saturating_add(remaining.as_nanos() as u64);
        for key in &keys {
            let before = old.and_then(|_| maps.penalties.get(key, 0).ok());
            let entry = entry(penalty, until_ns, &before.unwrap_or_default());
            maps.penalties
                .insert(key, entry, 0)
                .map_err(Error::map(names::PENALTIES, "write an entry"))?;
        }
        if let Some(old) = old {
            self.ends.remove(&(old.until_ns, penalty.source));
        } else {
            self.entries += keys.len();
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
        self.filter.write(&mut maps.penalty_cells, names::PENALTY_CELLS)?;
        Ok(self.lengths() != lengths)
    }

    /// All that are in the map, by source.
    pub(crate) fn list(&self, maps: &Maps) -> Result<Vec<PenaltyStatus>, Error> {
        let now = sys::monotonic_ns();
        self.given
            .iter()
            .map(|(&source, given)| status(maps, source, given, now))
            .collect()
    }

    /// Removes those that have ended, and says what became of them.
    pub(crate) fn expire(&mut self, maps: &mut Maps) -> Result<Vec<PenaltyStatus>, Error> {
        let now = sys::monotonic_ns();
        let mut ended = Vec::new();
        while let Some(&(until_ns, source)) = self.ends.first().filter(|(until_ns, _)| *until_ns <= now) {
            if let Some(given) = self.given.get(&source) {
                ended.push(status(maps, source, given, now)?);
            }
            for key in keys(source) {
                match maps.penalties.remove(&key) {
                    Err(error) if !is_absent(&error) => {
                        return Err(Error::map(names::PENALTIES, "remove an entry")(error));
                    }
                    _ => self.entries = self.entries.saturating_sub(1),
                }
            }
            self.ends.remove(&(until_ns, source));
            self.given.remove(&source);
        }
        if !ended.is_empty() {
            let left: Vec<Key> = self.given.keys().flat_map(|&source| keys(source)).collect();
            self.filter.replace(left.iter());
            self.filter.write(&mut maps.penalty_cells, names::PENALTY_CELLS)?;
        }
        Ok(ended)
    }
}

/// The prefix of a key. An IPv6 prefix of uneven length comes back as those that stood for it.
fn prefix(key: &Key) -> Option<Prefix> {
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
fn entry(penalty: &Penalty, until_ns: u64, before: &penalty::Entry) -> penalty::Entry {
    let mut flags = 0;
    if penalty.measure.rate.is_some() {
        flags |= penalty::Entry::HAS_RATE;
    }
    match penalty.measure.scope {
        PenaltyScope::Everything => {}
        PenaltyScope::NewConnections => flags |= penalty::Entry::NEW_CONNECTIONS_ONLY,
    }
    let rate = penalty.measure.rate;
    penalty::Entry {
        until_ns,
        rate: rate.map_or_else(Rate::default, |rate| Rate::new(rate.per_second, rate.burst)),
        full_at: before.full_at,
        dropped: before.dropped,
        flags,
        reason: penalty.reason as u32,
    }
}

fn status(maps: &Maps, source: Prefix, given: &Given, now: u64) -> Result<PenaltyStatus, Error> {
    let mut dropped = 0;
    for key in keys(source) {
        match maps.penalties.get(&key, 0) {
            Ok(entry) => dropped += entry.dropped,
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(Error::map(names::PENALTIES, "read an entry")(error)),
        }
    }
    Ok(PenaltyStatus {
        source,
        remaining: Duration::from_nanos(given.until_ns.saturating_sub(now)),
        reason: given.reason,
        measure: given.measure,
        dropped,
    })
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
            let entry = entry(&penalty, 0, &penalty::Entry::default());
            assert_eq!(measure(&entry), penalty.measure, "{text}");
        }
    }
}
