//! Host names of requests, and the lookup of the pattern that takes one.

use std::collections::{BTreeSet, HashMap};

use edge_model::HostPattern;

/// Finds the pattern that a host belongs to: the exact name, else the longest suffix wildcard, else `*`.
///
/// A lookup costs one hash of the host, and one for each length that wildcards have; a host that is longer than any
/// name costs nothing extra, so that a request cannot make it slow.
#[derive(Debug, Clone, Default)]
pub struct HostIndex {
    exact: Numbers,
    suffix: Numbers,
    any: Option<usize>,
    /// Lengths of the suffixes, the longest first.
    suffix_lengths: Vec<usize>,
}

type Numbers = HashMap<Box<str>, usize, foldhash::fast::RandomState>;

impl HostIndex {
    /// Builds the index from patterns and the numbers to return for them; the first of two equal patterns wins.
    pub fn new<'p>(patterns: impl IntoIterator<Item = (&'p HostPattern, usize)>) -> Self {
        let mut index = Self::default();
        for (pattern, number) in patterns {
            match pattern {
                HostPattern::Exact(name) => {
                    index.exact.entry(name.as_str().into()).or_insert(number);
                }
                HostPattern::Suffix(suffix) => {
                    index.suffix.entry(suffix.as_str().into()).or_insert(number);
                }
                HostPattern::Any => {
                    index.any.get_or_insert(number);
                }
            }
        }
        let lengths: BTreeSet<usize> = index.suffix.keys().map(|suffix| suffix.len()).collect();
        index.suffix_lengths = lengths.into_iter().rev().collect();
        index
    }

    /// The number of the pattern that takes `host` (any case, without port). Takes no memory.
    #[must_use]
    pub fn lookup(&self, host: &str) -> Option<usize> {
        with_lower_case(host, |host| {
            let exact = self.exact.get(host).copied();
            exact.or_else(|| self.lookup_suffix(host)).or(self.any)
        })
    }

    fn lookup_suffix(&self, host: &str) -> Option<usize> {
        if host.len() > HostPattern::MAX_LEN {
            return None;
        }
        // A suffix needs at least one character before it.
        let shorter = self.suffix_lengths.iter().filter(|length| **length < host.len());
        let mut suffixes = shorter.filter_map(|length| host.get(host.len() - length..));
        suffixes.find_map(|suffix| self.suffix.get(suffix).copied())
    }
}

/// The host of an authority without its port and, for an IPv6 address, without the brackets.
///
/// Virtual hosts are looked up this way (Envoy `ignore_port_in_host_matching`, which Istio sets at gateways).
#[must_use]
pub fn without_port(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[')
        && let Some((address, _)) = rest.split_once(']')
    {
        return address;
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// Hands a host over in lower case. One that is longer than names can be goes as it is: no pattern but `*` takes it.
#[inline]
pub(crate) fn with_lower_case<T>(host: &str, then: impl FnOnce(&str) -> T) -> T {
    if host.len() > HostPattern::MAX_LEN || !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return then(host);
    }
    let mut folded = [0; HostPattern::MAX_LEN];
    let folded = folded.get_mut(..host.len()).unwrap_or_default();
    folded.copy_from_slice(host.as_bytes());
    folded.make_ascii_lowercase();
    then(std::str::from_utf8(folded).unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(patterns: &[&str], host: &str, expected: Option<&str>) {
        let parsed: Vec<_> = patterns.iter().map(|p| HostPattern::parse(p).unwrap()).collect();
        let index = HostIndex::new(parsed.iter().zip(0..));
        assert_eq!(index.lookup(host).map(|i| patterns[i]), expected, "{host}");
    }

    #[test]
    fn the_exact_name_wins_over_the_longest_suffix_over_the_star() {
        let patterns = ["*", "*.com", "*.foo.com", "a.foo.com", "*.b.foo.com"];
        check(&patterns, "a.foo.com", Some("a.foo.com"));
        check(&patterns, "A.Foo.COM", Some("a.foo.com"));
        check(&patterns, "c.foo.com", Some("*.foo.com"));
        check(&patterns, "x.b.foo.com", Some("*.b.foo.com"));
        check(&patterns, "x.y.b.foo.com", Some("*.b.foo.com"));
        check(&patterns, "b.foo.com", Some("*.foo.com"));
        check(&patterns, "foo.com", Some("*.com"));
        check(&patterns, "com", Some("*"));
        let long = "a".repeat(300);
        check(&patterns, &format!("{long}.COM"), Some("*"));
    }

    #[test]
    fn a_host_that_no_pattern_takes_finds_nothing() {
        check(&["*.foo.com", "bar.com"], "foo.com", None);
        check(&["*.foo.com", "bar.com"], ".foo.com", None);
        check(&["*.foo.com", "bar.com"], "", None);
        check(&["*.foo.com", "bar.com"], "xbar.com", None);
    }

    #[test]
    fn the_port_and_the_brackets_of_an_address_do_not_count() {
        for (authority, expected) in [
            ("a.com", "a.com"),
            ("a.com:80", "a.com"),
            ("a.com:", "a.com"),
            ("[::1]", "::1"),
            ("[::1]:80", "::1"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1", "[:"),
            ("", ""),
        ] {
            assert_eq!(without_port(authority), expected, "{authority}");
        }
    }

    /// What the index must find, by the definition: of the patterns that match, the most specific.
    fn naive<'p>(patterns: &'p [HostPattern], host: &str) -> Option<&'p HostPattern> {
        patterns
            .iter()
            .filter(|pattern| pattern.matches(&host.to_ascii_lowercase()))
            .max_by_key(|pattern| match pattern {
                HostPattern::Exact(_) => usize::MAX,
                HostPattern::Suffix(suffix) => suffix.len(),
                HostPattern::Any => 0,
            })
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_the_definition(
            names in prop::collection::btree_set(r"(\*\.|\*-?)?[abA]{1,2}(\.[ab]{1,2}){0,3}|\*", 0..12),
            host in r"[abB]{1,2}(\.[abB]{1,2}){0,4}",
        ) {
            let mut patterns: Vec<_> = names.iter().filter_map(|n| HostPattern::parse(n).ok()).collect();
            patterns.sort();
            patterns.dedup();
            let index = HostIndex::new(patterns.iter().zip(0..));
            prop_assert_eq!(index.lookup(&host).map(|i| &patterns[i]), naive(&patterns, &host));
        }

        #[test]
        fn no_authority_makes_the_lookup_panic(authority in ".{0,60}") {
            let patterns = [HostPattern::parse("*.foo.com").unwrap()];
            let index = HostIndex::new(patterns.iter().zip(0..));
            let _ = index.lookup(without_port(&authority));
        }
    }
}
