//! The hosts of a Gateway's server, and what they have in common with those of a VirtualService.

use std::collections::HashMap;

use edge_model::HostPattern;

/// A host of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServerHost {
    /// Namespace of the VirtualServices that may bind; `None` for any.
    pub(crate) namespace: Option<String>,
    pub(crate) name: HostPattern,
}

impl ServerHost {
    fn is_open_to(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|only| only == namespace)
    }
}

/// All hosts of a server, indexed: a Gateway may list as many as there are VirtualServices.
#[derive(Debug, Default)]
pub(crate) struct ServerHosts {
    hosts: Vec<ServerHost>,
    by_name: HashMap<HostPattern, Vec<usize>>,
    has_suffixes: bool,
}

impl ServerHosts {
    pub(crate) fn new(hosts: Vec<ServerHost>) -> Self {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::with_capacity(hosts.len());
        for (number, host) in hosts.iter().enumerate() {
            by_name.entry(host.name.clone()).or_default().push(number);
        }
        let is_suffix = |host: &ServerHost| matches!(host.name, HostPattern::Suffix(_));
        Self {
            has_suffixes: hosts.iter().any(is_suffix),
            by_name,
            hosts,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ServerHost> {
        self.hosts.iter()
    }

    /// Host names without their namespaces, no name twice.
    pub(crate) fn names(&self) -> Vec<HostPattern> {
        let mut names: Vec<_> = self.by_name.keys().cloned().collect();
        names.sort();
        names
    }

    /// Hosts that the server and a VirtualService of `namespace` have in common: of each pair the narrower one (istio
    /// `Intersection`).
    pub(crate) fn intersection(&self, own: &[HostPattern], namespace: &str) -> Vec<HostPattern> {
        let mut names = vec![];
        for own in own {
            if self.covers(own, namespace) {
                names.push(own.clone());
            }
            if !matches!(own, HostPattern::Exact(_)) {
                let narrower = self.hosts.iter().filter(|host| host.is_open_to(namespace));
                names.extend(
                    narrower
                        .filter(|host| host.name.is_subset_of(own))
                        .map(|host| host.name.clone()),
                );
            }
        }
        if names.len() > 1 {
            names.sort();
            names.dedup();
        }
        names
    }

    /// Whether one host of the server takes everything that `own` does.
    fn covers(&self, own: &HostPattern, namespace: &str) -> bool {
        self.is_open(own, namespace)
            || self.is_open(&HostPattern::Any, namespace)
            || self.covers_by_suffix(own, namespace)
    }

    fn covers_by_suffix(&self, own: &HostPattern, namespace: &str) -> bool {
        let text = match own {
            _ if !self.has_suffixes => return false,
            HostPattern::Exact(name) => name.as_str(),
            HostPattern::Suffix(suffix) => suffix.as_str(),
            HostPattern::Any => return false,
        };
        let dots = text.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
        let mut suffixes = dots.filter_map(|(at, _)| text.get(at..));
        suffixes.any(|suffix| self.is_open(&HostPattern::Suffix(suffix.to_owned()), namespace))
    }

    fn is_open(&self, name: &HostPattern, namespace: &str) -> bool {
        let numbers = self.by_name.get(name);
        let mut hosts = numbers
            .into_iter()
            .flatten()
            .filter_map(|number| self.hosts.get(*number));
        hosts.any(|host| host.is_open_to(namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(server: &[(&str, &str)], own: &[&str], expected: &[&str]) {
        let parse = |text: &str| HostPattern::parse(text).unwrap();
        let hosts = server.iter().map(|(namespace, name)| ServerHost {
            namespace: Some((*namespace).to_owned()).filter(|namespace| !namespace.is_empty()),
            name: parse(name),
        });
        let hosts = ServerHosts::new(hosts.collect());
        let own: Vec<_> = own.iter().map(|text| parse(text)).collect();
        let found: Vec<_> = hosts
            .intersection(&own, "shop")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn of_each_pair_the_narrower_host_is_taken() {
        check(
            &[("", "*.foo.com")],
            &["a.foo.com", "foo.com", "*.b.foo.com"],
            &["a.foo.com", "*.b.foo.com"],
        );
        check(
            &[("", "a.foo.com"), ("", "b.foo.com"), ("", "c.com")],
            &["*.foo.com"],
            &["a.foo.com", "b.foo.com"],
        );
        check(&[("", "*")], &["*", "a.com"], &["a.com", "*"]);
        check(&[("", "a.com"), ("", "*")], &["a.com"], &["a.com"]);
        check(&[("", "a.com")], &["b.com"], &[]);
    }

    #[test]
    fn a_host_of_another_namespace_takes_nothing() {
        check(
            &[("web", "a.com"), ("shop", "b.com")],
            &["a.com", "b.com", "*"],
            &["b.com"],
        );
    }
}
