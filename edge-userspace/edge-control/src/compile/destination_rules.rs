//! Which DestinationRule is for a service, and what its policies come to.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use edge_config::istio::destination_rule::policy::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, PortTrafficPolicy,
    SimpleLb, TrafficPolicy,
};
use edge_config::istio::destination_rule::{DestinationRule, Subset};
use edge_model::{HostPattern, LoadBalancer};
use edge_routing::HostIndex;

use super::input::{Input, Item};
use super::names::{is_visible, service_host};
use super::report::Report;
use crate::CompileOptions;

/// Istio's mesh-wide `connectTimeout`.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The rules of one host in one namespace, as one: the subsets of all, everything else of the first.
#[derive(Debug)]
pub(crate) struct Merged<'r> {
    pub(crate) host: HostPattern,
    pub(crate) first: Item<'r, DestinationRule>,
    /// Subsets by name; the first of a name wins.
    pub(crate) subsets: BTreeMap<&'r str, &'r Subset>,
}

/// All DestinationRules that the gateway sees.
#[derive(Debug)]
pub(crate) struct DestinationRules<'r> {
    rules: Vec<Merged<'r>>,
    by_namespace: HashMap<&'r str, HostIndex>,
    gateway_namespace: String,
    root_namespace: String,
}

/// What the policies of a rule come to for one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) load_balancer: LoadBalancer,
    pub(crate) connect_timeout: Duration,
    /// Whether endpoints are to be spoken to by TLS.
    pub(crate) is_encrypted: bool,
}

impl<'r> DestinationRules<'r> {
    pub(crate) fn new(input: &Input<'r>, options: &CompileOptions, report: &mut Report) -> Self {
        let mut rules: Vec<Merged<'r>> = vec![];
        let mut numbers = HashMap::new();
        let is_seen = |item: &&Item<'r, DestinationRule>| {
            is_visible(&item.spec.export_to, item.namespace(), &options.gateway_namespace)
        };
        for item in input.destination_rules.iter().filter(is_seen) {
            let host = service_host(&item.spec.host, item.namespace(), &options.cluster_domain);
            match HostPattern::parse(&host) {
                Ok(host) => {
                    let number = *numbers
                        .entry((item.namespace(), host.clone()))
                        .or_insert(rules.len());
                    match rules.get_mut(number) {
                        Some(rule) => report_second_policy(rule, item, report),
                        None => rules.push(Merged::new(host, item)),
                    }
                    if let Some(rule) = rules.get_mut(number) {
                        rule.add_subsets(item, report);
                    }
                }
                Err(error) => report.error(item, "spec.host", error.to_string(), "name a service"),
            }
        }
        Self {
            by_namespace: index(&rules),
            rules,
            gateway_namespace: options.gateway_namespace.clone(),
            root_namespace: options.root_namespace.clone(),
        }
    }

    /// The rule for a service: that of the gateway's namespace, else of the service's, else of the root namespace;
    /// within a namespace that of the most specific host (istio `pilot/pkg/model/destination_rule.go`).
    pub(crate) fn find(&self, host: &str, service_namespace: &str) -> Option<&Merged<'r>> {
        [
            self.gateway_namespace.as_str(),
            service_namespace,
            &self.root_namespace,
        ]
        .into_iter()
        .find_map(|namespace| self.by_namespace.get(namespace)?.lookup(host))
        .and_then(|number| self.rules.get(number))
    }

    /// Every rule.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Merged<'r>> {
        self.rules.iter()
    }
}

fn index<'r>(rules: &[Merged<'r>]) -> HashMap<&'r str, HostIndex> {
    let mut hosts: HashMap<&'r str, Vec<_>> = HashMap::new();
    for (number, rule) in rules.iter().enumerate() {
        hosts
            .entry(rule.first.namespace())
            .or_default()
            .push((&rule.host, number));
    }
    hosts
        .into_iter()
        .map(|(namespace, hosts)| (namespace, HostIndex::new(hosts)))
        .collect()
}

fn report_second_policy(rule: &Merged<'_>, item: &Item<'_, DestinationRule>, report: &mut Report) {
    if item.spec.traffic_policy.is_some() {
        report.warn(
            item,
            "spec.trafficPolicy",
            format!(
                "{} is for the same host and came first; only its policy counts",
                rule.first.name
            ),
            "put both into one DestinationRule",
        );
    }
}

impl<'r> Merged<'r> {
    fn new(host: HostPattern, first: &Item<'r, DestinationRule>) -> Self {
        Self {
            host,
            first: first.clone(),
            subsets: BTreeMap::new(),
        }
    }

    fn add_subsets(&mut self, item: &Item<'r, DestinationRule>, report: &mut Report) {
        for (index, subset) in item.spec.subsets.iter().enumerate() {
            if self.subsets.contains_key(subset.name.as_str()) {
                let field = format!("spec.subsets[{index}].name");
                let message = format!(
                    "the host has a subset {:?} already, this one has no effect",
                    subset.name
                );
                report.warn(item, field, message, "give each subset its own name");
            } else {
                self.subsets.insert(&subset.name, subset);
            }
        }
    }

    /// The policy of a port and subset.
    pub(crate) fn policy(&self, port: u16, subset: Option<&Subset>) -> Policy {
        let top = Blocks::default().overridden_by(self.first.spec.traffic_policy.as_ref(), port);
        let own = subset.and_then(|subset| subset.traffic_policy.as_ref());
        top.overridden_by(own, port).policy()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            load_balancer: LoadBalancer::default(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            is_encrypted: false,
        }
    }
}

/// The blocks of a traffic policy that the edge honours.
#[derive(Debug, Clone, Copy, Default)]
struct Blocks<'r> {
    load_balancer: Option<&'r LoadBalancerSettings>,
    connection_pool: Option<&'r ConnectionPoolSettings>,
    tls: Option<&'r ClientTlsSettings>,
}

impl<'r> Blocks<'r> {
    /// Each block that the policy has replaces the inherited one as a whole. Settings for the port replace all of
    /// them: a block that they lack takes its default and not the destination's (istio `MergeTrafficPolicy`).
    fn overridden_by(self, policy: Option<&'r TrafficPolicy>, port: u16) -> Self {
        let Some(policy) = policy else {
            return self;
        };
        let is_for_port = |settings: &&PortTrafficPolicy| {
            settings
                .port
                .is_some_and(|selector| selector.number == u32::from(port))
        };
        match policy.port_level_settings.iter().find(is_for_port) {
            Some(settings) => Self {
                load_balancer: settings.load_balancer.as_ref(),
                connection_pool: settings.connection_pool.as_ref(),
                tls: settings.tls.as_ref(),
            },
            None => Self {
                load_balancer: policy.load_balancer.as_ref().or(self.load_balancer),
                connection_pool: policy.connection_pool.as_ref().or(self.connection_pool),
                tls: policy.tls.as_ref().or(self.tls),
            },
        }
    }

    fn policy(self) -> Policy {
        let tcp = self.connection_pool.and_then(|pool| pool.tcp.as_ref());
        let timeout = tcp.and_then(|tcp| tcp.connect_timeout);
        Policy {
            load_balancer: match self.load_balancer.and_then(|settings| settings.simple) {
                Some(SimpleLb::RoundRobin) => LoadBalancer::RoundRobin,
                Some(SimpleLb::Random) => LoadBalancer::Random,
                // LEAST_CONN is the deprecated name; PASSTHROUGH is not enforced (edge_config::unsupported).
                Some(
                    SimpleLb::LeastRequest
                    | SimpleLb::LeastConn
                    | SimpleLb::Unspecified
                    | SimpleLb::Passthrough,
                )
                | None => LoadBalancer::LeastRequest,
            },
            connect_timeout: timeout.map_or(DEFAULT_CONNECT_TIMEOUT, |timeout| timeout.0),
            is_encrypted: self.tls.is_some_and(|tls| tls.mode != ClientTlsMode::Disable),
        }
    }
}
