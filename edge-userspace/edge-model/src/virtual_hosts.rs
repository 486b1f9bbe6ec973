//! The virtual hosts of a route table, found by the host of a request.

use std::sync::Arc;

use crate::shared_map::{Change, SharedMap};
use crate::{HostPattern, VirtualHost};

/// Virtual hosts by domain, no two with the same. A host takes the exact one, else that with the longest suffix, else
/// `*`, and never a second one (Envoy `RouteMatcher::findVirtualHost`).
///
/// Clones share what they have in common, see [`SharedMap`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VirtualHosts {
    exact: SharedMap<Arc<str>, Arc<VirtualHost>>,
    suffix: SharedMap<Arc<str>, Arc<VirtualHost>>,
    /// Those whose wildcard stands for a part of a label. There is hardly ever one.
    partial: SharedMap<Arc<str>, Arc<VirtualHost>>,
    any: Option<Arc<VirtualHost>>,
}

impl VirtualHosts {
    /// Number of virtual hosts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exact.len() + self.suffix.len() + self.partial.len() + usize::from(self.any.is_some())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The virtual host that takes a host, which is in lower case and without port.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<&Arc<VirtualHost>> {
        self.exact
            .get(host)
            .or_else(|| {
                if self.partial.is_empty() {
                    self.find_suffix(host)
                } else {
                    self.find_any_suffix(host)
                }
            })
            .or(self.any.as_ref())
    }

    /// As [`find_suffix`](Self::find_suffix), with a look-up for each byte.
    fn find_any_suffix(&self, host: &str) -> Option<&Arc<VirtualHost>> {
        if host.len() > HostPattern::MAX_LEN {
            return None;
        }
        let mut suffixes = (1..host.len()).filter_map(|at| host.get(at..));
        suffixes.find_map(|suffix| self.suffix.get(suffix).or_else(|| self.partial.get(suffix)))
    }

    /// One lookup for each label: a name has 127 at most.
    fn find_suffix(&self, host: &str) -> Option<&Arc<VirtualHost>> {
        if self.suffix.is_empty() || host.len() > HostPattern::MAX_LEN {
            return None;
        }
        // A suffix needs at least one character before it, so the search starts behind the first byte.
        let dots = host.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
        let mut suffixes = dots.filter_map(|(at, _)| host.get(at..));
        suffixes.find_map(|suffix| self.suffix.get(suffix))
    }

    /// The virtual host of exactly this domain.
    #[must_use]
    pub fn get(&self, domain: &HostPattern) -> Option<&Arc<VirtualHost>> {
        match domain {
            HostPattern::Exact(name) => self.exact.get(name.as_str()),
            HostPattern::Suffix(suffix) if domain.is_partial() => self.partial.get(suffix.as_str()),
            HostPattern::Suffix(suffix) => self.suffix.get(suffix.as_str()),
            HostPattern::Any => self.any.as_ref(),
        }
    }

    /// Puts a virtual host in, in place of one with the same domain.
    pub fn insert(&mut self, host: Arc<VirtualHost>) {
        match &host.domain {
            HostPattern::Exact(name) => {
                self.exact.insert(name.as_str().into(), host);
            }
            HostPattern::Suffix(suffix) if host.domain.is_partial() => {
                self.partial.insert(suffix.as_str().into(), host);
            }
            HostPattern::Suffix(suffix) => {
                self.suffix.insert(suffix.as_str().into(), host);
            }
            HostPattern::Any => self.any = Some(host),
        }
    }

    /// Takes the virtual host of a domain out.
    pub fn remove(&mut self, domain: &HostPattern) -> Option<Arc<VirtualHost>> {
        match domain {
            HostPattern::Exact(name) => self.exact.remove(name.as_str()),
            HostPattern::Suffix(suffix) if domain.is_partial() => self.partial.remove(suffix.as_str()),
            HostPattern::Suffix(suffix) => self.suffix.remove(suffix.as_str()),
            HostPattern::Any => self.any.take(),
        }
    }

    /// Whether both are the same values in memory.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let is_any_same = self.any.as_ref().map(Arc::as_ptr) == other.any.as_ref().map(Arc::as_ptr);
        is_any_same
            && self.exact.is_same(&other.exact)
            && self.suffix.is_same(&other.suffix)
            && self.partial.is_same(&other.partial)
    }

    /// All of them; the order has no meaning, but is the same for equal tables.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<VirtualHost>> {
        let suffix = self.suffix.values().chain(self.partial.values());
        self.exact.values().chain(suffix).chain(&self.any)
    }

    /// All of them by name, for people to read.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Arc<VirtualHost>> {
        let mut hosts: Vec<_> = self.iter().collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        hosts
    }

    /// Virtual hosts that are not the same value in memory in `older`, as (before, after). It costs no more than what
    /// changed, as long as one came from the other by changes.
    #[must_use]
    pub fn changes_since<'t>(&'t self, older: &'t Self) -> Vec<HostChange<'t>> {
        let is_same = |a: &Arc<VirtualHost>, b: &Arc<VirtualHost>| Arc::ptr_eq(a, b);
        let exact = self.exact.changes_since(&older.exact, is_same);
        let suffix = self.suffix.changes_since(&older.suffix, is_same);
        let partial = self.partial.changes_since(&older.partial, is_same);
        let listed = exact.into_iter().chain(suffix).chain(partial);
        let mut changes: Vec<_> = listed
            .map(|Change { before, after, .. }| HostChange { before, after })
            .collect();
        let (before, after) = (older.any.as_ref(), self.any.as_ref());
        if before.map(Arc::as_ptr) != after.map(Arc::as_ptr) {
            changes.push(HostChange { before, after });
        }
        changes
    }
}

/// A domain whose virtual host changed, came or went.
#[derive(Debug, Clone, Copy)]
pub struct HostChange<'t> {
    /// As it was.
    pub before: Option<&'t Arc<VirtualHost>>,
    /// As it is.
    pub after: Option<&'t Arc<VirtualHost>>,
}

impl FromIterator<Arc<VirtualHost>> for VirtualHosts {
    /// Of several with one domain the last counts.
    fn from_iter<I: IntoIterator<Item = Arc<VirtualHost>>>(hosts: I) -> Self {
        let (mut exact, mut suffix, mut partial, mut any) = (vec![], vec![], vec![], None);
        for host in hosts {
            match &host.domain {
                HostPattern::Exact(name) => exact.push((name.as_str().into(), host)),
                HostPattern::Suffix(tail) if host.domain.is_partial() => {
                    partial.push((tail.as_str().into(), host));
                }
                HostPattern::Suffix(tail) => suffix.push((tail.as_str().into(), host)),
                HostPattern::Any => any = Some(host),
            }
        }
        Self {
            exact: exact.into_iter().collect(),
            suffix: suffix.into_iter().collect(),
            partial: partial.into_iter().collect(),
            any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(domain: &str) -> Arc<VirtualHost> {
        Arc::new(VirtualHost::new(HostPattern::parse(domain).unwrap(), 80))
    }

    #[test]
    fn the_exact_name_goes_before_the_longest_wildcard_and_that_before_any() {
        let hosts: VirtualHosts = ["a.foo.com", "*.foo.com", "*.b.foo.com", "*"]
            .map(host)
            .into_iter()
            .collect();
        for (name, expected) in [
            ("a.foo.com", "a.foo.com:80"),
            ("c.foo.com", "*.foo.com:80"),
            ("a.b.foo.com", "*.b.foo.com:80"),
            ("b.foo.com", "*.foo.com:80"),
            ("foo.com", "*:80"),
            (".foo.com", "*:80"),
            ("", "*:80"),
        ] {
            assert_eq!(hosts.find(name).unwrap().name, expected, "{name}");
        }
        assert_eq!(hosts.len(), 4);
    }

    #[test]
    fn wildcards_for_a_part_of_a_label_stand_in_line_by_their_length() {
        let hosts: VirtualHosts = ["*foo.com", "*.com", "*.b.foo.com", "*-foo.com"]
            .map(host)
            .into_iter()
            .collect();
        for (name, expected) in [
            ("afoo.com", Some("*foo.com:80")),
            ("a.foo.com", Some("*foo.com:80")),
            ("a-foo.com", Some("*-foo.com:80")),
            ("a.b.foo.com", Some("*.b.foo.com:80")),
            ("foo.com", Some("*.com:80")),
            ("foo.org", None),
        ] {
            assert_eq!(
                hosts.find(name).map(|host| host.name.as_str()),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn hosts_are_the_same_only_if_those_of_every_form_are() {
        let hosts: VirtualHosts = ["a.com", "*.c.com", "*-d.com", "*"]
            .map(host)
            .into_iter()
            .collect();
        assert!(hosts.is_same(&hosts.clone()));
        for name in ["a.com", "*.c.com", "*-d.com", "*"] {
            let mut other = hosts.clone();
            other.insert(host(name));
            assert!(!hosts.is_same(&other), "{name}");
        }
    }

    #[test]
    fn only_what_changed_is_a_change() {
        let before: VirtualHosts = ["a.com", "b.com", "*.c.com", "*"].map(host).into_iter().collect();
        let mut after = before.clone();
        after.remove(&HostPattern::Any);
        after.insert(host("a.com"));
        after.insert(host("*.d.com"));
        let mut names: Vec<_> = after
            .changes_since(&before)
            .into_iter()
            .map(|change| {
                (
                    change.before.map(|h| h.name.as_str()),
                    change.after.map(|h| h.name.as_str()),
                )
            })
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                (None, Some("*.d.com:80")),
                (Some("*:80"), None),
                (Some("a.com:80"), Some("a.com:80")),
            ]
        );
        assert!(before.changes_since(&before).is_empty());
    }
}
