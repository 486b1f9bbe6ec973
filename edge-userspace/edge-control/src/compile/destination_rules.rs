//! Which DestinationRule is for a service, and what its policies come to.

use std::collections::{BTreeMap, HashMap};

use edge_config::istio::destination_rule::{DestinationRule, Subset};
use edge_model::{HostPattern, ObjectRef};
use edge_routing::HostIndex;

use super::endpoints::has_all;
use super::input::{Input, Item};
use super::names::{is_visible, service_host};
use super::report::Report;
use super::traffic_policy::Blocks;
use crate::CompileOptions;

/// The rules of one host in one namespace, as one: the subsets of all, everything else of the first.
#[derive(Debug)]
pub(crate) struct Merged<'r> {
    pub(crate) host: HostPattern,
    pub(crate) first: Item<'r, DestinationRule>,
    /// All of them.
    pub(crate) objects: Vec<ObjectRef>,
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

impl<'r> DestinationRules<'r> {
    pub(crate) fn new(input: &Input<'r>, options: &CompileOptions, report: &mut Report) -> Self {
        let mut rules: Vec<Merged<'r>> = vec![];
        let mut numbers = HashMap::new();
        let is_seen = |item: &&Item<'r, DestinationRule>| {
            is_visible(&item.spec.export_to, item.namespace(), &options.gateway_namespace)
                && is_selected(item, options)
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

/// A rule with a `workloadSelector` is for workloads of its own namespace with these labels.
fn is_selected(item: &Item<'_, DestinationRule>, options: &CompileOptions) -> bool {
    item.spec.workload_selector.as_ref().is_none_or(|selector| {
        item.namespace() == options.gateway_namespace
            && has_all(&options.gateway_labels, &selector.match_labels)
    })
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
            objects: vec![],
            subsets: BTreeMap::new(),
        }
    }

    fn add_subsets(&mut self, item: &Item<'r, DestinationRule>, report: &mut Report) {
        self.objects.push(ObjectRef::clone(&item.name));
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

    /// The policy blocks of a port and subset.
    pub(crate) fn blocks(&self, port: u16, subset: Option<&'r Subset>) -> Blocks<'r> {
        let top = Blocks::default().overridden_by(self.first.spec.traffic_policy.as_ref(), port);
        let own = subset.and_then(|subset| subset.traffic_policy.as_ref());
        top.overridden_by(own, port)
    }
}
