//! Hosts and the patterns that take them: whatever finds a pattern finds the one that the definition names.

use std::collections::BTreeSet;
use std::sync::Arc;

use edge_model::{HostPattern, VirtualHost, VirtualHosts};
use edge_routing::{HostIndex, without_port};

/// The first line is the authority of a request, the others are patterns.
///
/// # Panics
/// If a promise is broken.
pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let host = without_port(lines.next().unwrap_or_default()).to_ascii_lowercase();
    let patterns: BTreeSet<HostPattern> = lines.take(64).filter_map(parse).collect();
    let patterns: Vec<HostPattern> = patterns.into_iter().collect();
    let expected = most_specific(&patterns, &host);

    let index = HostIndex::new(patterns.iter().zip(0..));
    let found = index.lookup(&host).and_then(|number| patterns.get(number));
    assert_eq!(found, expected, "the index of {patterns:?} for {host:?}");
    let found = index.lookup(&host.to_ascii_uppercase());
    assert_eq!(
        found.and_then(|number| patterns.get(number)),
        expected,
        "in upper case"
    );

    let hosts = patterns
        .iter()
        .map(|pattern| VirtualHost::new(pattern.clone(), 80));
    let hosts: VirtualHosts = hosts.map(Arc::new).collect();
    let found = hosts.find(&host).map(|found| &found.domain);
    assert_eq!(found, expected, "the virtual hosts {patterns:?} for {host:?}");

    for (a, b) in patterns.iter().zip(patterns.iter().skip(1)) {
        check_pair(a, b, &host);
    }
}

/// What is written as a pattern is read as the same one.
fn parse(text: &str) -> Option<HostPattern> {
    let pattern = HostPattern::parse(text).ok()?;
    let again = HostPattern::parse(&pattern.to_string());
    assert_eq!(again.as_ref(), Ok(&pattern), "{text:?}");
    Some(pattern)
}

/// The definition: the exact name, else the longest suffix, else the star. No name is longer than DNS allows, so only
/// the star takes a longer host.
fn most_specific<'p>(patterns: &'p [HostPattern], host: &str) -> Option<&'p HostPattern> {
    let is_long = host.len() > HostPattern::MAX_LEN;
    let taking = patterns.iter().filter(|pattern| pattern.matches(host));
    taking
        .filter(|pattern| !is_long || **pattern == HostPattern::Any)
        .max_by_key(|pattern| match pattern {
            HostPattern::Exact(_) => usize::MAX,
            HostPattern::Suffix(suffix) => suffix.len(),
            HostPattern::Any => 0,
        })
}

/// The intersection takes what both take, in either order.
fn check_pair(a: &HostPattern, b: &HostPattern, host: &str) {
    let both = a.intersection(b);
    assert_eq!(both, b.intersection(a), "{a} and {b}");
    let takes = both.as_ref().is_some_and(|pattern| pattern.matches(host));
    // To Istio foo.com is one of *foo.com's hosts, to Envoy it is none.
    let is_bare = |pattern: &HostPattern| pattern.is_partial() && pattern.to_string().get(1..) == Some(host);
    let agrees = takes == (a.matches(host) && b.matches(host)) || is_bare(a) || is_bare(b);
    assert!(agrees, "{a} and {b} for {host:?}");
    if let Some(both) = both {
        assert!(both.is_subset_of(a) && both.is_subset_of(b), "{a} and {b}");
    }
}
