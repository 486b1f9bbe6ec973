//! The allow and the deny list on their way into the data path.

use std::collections::BTreeMap;

use edge_common::maps::{MAX_SOURCES, SOURCE_ALLOWED, SOURCE_BUCKET_BITS, SOURCE_DENIED};
use edge_common::prefix::{Lengths, Prefix, half};
use edge_model::SourceLists;

use crate::Error;
use crate::maps::Maps;
use crate::prefix_filter::{PrefixFilter, keys};
use crate::table::PrefixTable;

/// Both lists as the map holds them.
pub(crate) type Entries = BTreeMap<Prefix, u32>;

/// The map's contents for lists. A prefix on both is allowed.
///
/// # Errors
/// There are more than the map has room for.
pub(crate) fn entries(lists: &SourceLists) -> Result<Entries, Error> {
    let mut entries = Entries::new();
    for (list, kind) in [(&lists.deny, SOURCE_DENIED), (&lists.allow, SOURCE_ALLOWED)] {
        entries.extend(
            list.iter()
                .flat_map(|&prefix| keys(prefix))
                .map(|key| (key, kind)),
        );
    }
    if entries.len() > MAX_SOURCES as usize {
        return Err(Error::TooMany {
            what: "prefixes in the allow and deny lists",
            wanted: entries.len(),
            limit: MAX_SOURCES as usize,
        });
    }
    Ok(entries)
}

/// Lengths of both lists' prefixes, and of the allow list's alone, for the settings.
pub(crate) fn lengths(entries: &Entries) -> [Lengths; 2] {
    let mut lengths = [Lengths::default(); 2];
    let [all, allowed] = &mut lengths;
    for (prefix, kind) in entries {
        all.insert(prefix);
        if *kind == SOURCE_ALLOWED {
            allowed.insert(prefix);
        }
    }
    lengths
}

/// What the maps hold.
#[derive(Debug)]
pub(crate) struct Sources {
    table: PrefixTable,
    filter: PrefixFilter,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            table: PrefixTable::new(SOURCE_BUCKET_BITS),
            filter: PrefixFilter::new(half::SOURCES),
        }
    }
}

impl Sources {
    /// Writes what `next` has more or otherwise, and the filter. What is gone stays in the map until
    /// [`Sources::remove`], and is out of the filter.
    ///
    /// # Errors
    /// The kernel refuses an entry; those before it are written.
    pub(crate) fn add(&mut self, maps: &mut Maps, next: &Entries) -> Result<(), Error> {
        for (prefix, kind) in next {
            self.table.insert(*prefix, *kind);
        }
        self.table.write(&mut maps.sources)?;
        self.filter.replace(next.keys());
        self.filter.write(&mut maps.cells)
    }

    /// Removes what `next` does not have.
    ///
    /// # Errors
    /// The kernel refuses; entries before are removed.
    pub(crate) fn remove(&mut self, maps: &mut Maps, next: &Entries) -> Result<(), Error> {
        self.table.retain(|prefix| next.contains_key(prefix));
        self.table.write(&mut maps.sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(allow: &[&str], deny: &[&str]) -> SourceLists {
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("literal")).collect();
        SourceLists {
            allow: list(allow),
            deny: list(deny),
        }
    }

    #[test]
    fn a_prefix_on_both_lists_is_allowed_and_ipv6_lengths_are_rounded_up() {
        /// Allowed and denied prefixes, and what is then found for addresses.
        type Row<'r> = (&'r [&'r str], &'r [&'r str], &'r [(u32, u32)]);
        let rows: [Row<'_>; 3] = [
            (&["192.0.2.0/24"], &["192.0.2.0/24"], &[(120, SOURCE_ALLOWED)]),
            (
                &["192.0.2.7"],
                &["192.0.2.0/24"],
                &[(120, SOURCE_DENIED), (128, SOURCE_ALLOWED)],
            ),
            (
                &[],
                &["2001:db8::/31"],
                &[(32, SOURCE_DENIED), (32, SOURCE_DENIED)],
            ),
        ];
        for (allow, deny, expected) in rows {
            let entries = entries(&lists(allow, deny)).expect("fits");
            let found: Vec<_> = entries.iter().map(|(prefix, &kind)| (prefix.len, kind)).collect();
            assert_eq!(found, expected, "{allow:?} {deny:?}");
        }
    }

    #[test]
    fn more_prefixes_than_the_map_holds_are_refused() {
        let deny = (0..=MAX_SOURCES).map(|n| std::net::IpAddr::from(n.to_be_bytes()).into());
        let lists = SourceLists {
            deny: deny.collect(),
            ..SourceLists::default()
        };
        let error = entries(&lists).expect_err("too many").to_string();
        assert!(
            error.starts_with("131073 prefixes in the allow and deny lists are too many"),
            "{error}"
        );
    }
}
