//! What the rules of a VirtualService are read against.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Write as _;

use edge_model::ClusterName;

use super::delegates::Delegates;
use super::destination_rules::DestinationRules;
use super::registry::Registry;
use super::route_policy::RetryDefaults;
use crate::CompileOptions;

/// The services and policies that destinations name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'c, 'r> {
    pub(crate) options: &'c CompileOptions,
    pub(crate) registry: &'c Registry<'r>,
    pub(crate) rules: &'c DestinationRules<'r>,
    pub(crate) delegates: &'c Delegates<'r>,
    pub(crate) retries: &'c RetryDefaults,
    pub(crate) clusters: &'c ClusterNames,
}

impl Context<'_, '_> {
    /// Whether the requests to a cluster are spread by a hash.
    pub(crate) fn is_hashed(&self, cluster: &ClusterName, namespace: &str) -> bool {
        let mut parts = cluster.as_str().splitn(4, '|').skip(1);
        let (Some(port), Some(subset), Some(host)) = (parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        let service = self.registry.find(host, namespace);
        let rule = service.and_then(|service| self.rules.find(host, service.namespace));
        let Some((rule, port)) = rule.zip(port.parse().ok()) else {
            return false;
        };
        rule.blocks(port, rule.subsets.get(subset).copied()).is_hashed()
    }
}

/// The names of clusters, each made once however many routes lead to it.
#[derive(Debug, Default)]
pub(crate) struct ClusterNames(RefCell<Known>);

#[derive(Debug, Default)]
struct Known {
    names: HashSet<ClusterName, foldhash::fast::FixedState>,
    /// Where a name is put together before it is looked for.
    text: String,
}

impl ClusterNames {
    /// See [`ClusterName::outbound`].
    pub(crate) fn outbound(&self, port: u16, subset: &str, host: &str) -> ClusterName {
        let known = &mut *self.0.borrow_mut();
        known.text.clear();
        // Nothing refuses text.
        let _ = write!(known.text, "outbound|{port}|{subset}|{host}");
        if let Some(name) = known.names.get(known.text.as_str()) {
            return name.clone();
        }
        let name = ClusterName::outbound(port, subset, host);
        known.names.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once() {
        let names = ClusterNames::default();
        let (one, other) = (names.outbound(80, "v1", "web"), names.outbound(80, "v1", "web"));
        assert_eq!(one, ClusterName::outbound(80, "v1", "web"));
        assert!(std::ptr::eq(one.as_str(), other.as_str()));
        assert_ne!(one, names.outbound(80, "", "web"));
    }
}
