//! What the rules of a VirtualService are read against.

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
