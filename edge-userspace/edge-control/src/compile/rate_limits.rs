//! Where the local rate limits of EnvoyFilters take effect.

use std::sync::Arc;

use edge_config::Object;
use edge_config::istio::envoy_filter::EnvoyFilter;
use edge_config::istio::envoy_filter::rate_limit::{PatchTarget, RateLimitPatch, rate_limits};
use edge_model::{Kind, LocalRateLimit, RateLimitDescriptor, RouteTable, VirtualHost};

use super::endpoints::has_all;
use super::input::{Input, Item};
use super::patch_match::{Scope, matches_listener, matches_route, matches_table, matches_virtual_host};
use super::report::Report;
use crate::CompileOptions;

/// How many virtual hosts a warning names at most.
const NAMED_HOSTS: usize = 8;

/// The patches of all EnvoyFilters that apply, in the order in which Istio applies them.
#[derive(Debug)]
pub(crate) struct RateLimits<'r> {
    patches: Vec<Patch<'r>>,
    /// Names of the virtual hosts seen, for those who misspell one.
    virtual_hosts: Vec<String>,
}

#[derive(Debug)]
struct Patch<'r> {
    filter: Item<'r, EnvoyFilter>,
    index: usize,
    target: PatchTarget,
    limit: Option<Arc<LocalRateLimit>>,
    descriptors: Vec<RateLimitDescriptor>,
    has_matched: bool,
}

/// What the patches of one target come to.
#[derive(Debug, Default)]
struct Effect {
    limit: Option<Arc<LocalRateLimit>>,
    descriptors: Arc<[RateLimitDescriptor]>,
    /// Patches that had a part in it.
    patches: Vec<usize>,
}

impl<'r> RateLimits<'r> {
    /// Reads the EnvoyFilters for this edge: those of the root namespace first, then those of the gateway's own.
    pub(crate) fn new(input: &Input<'r>, options: &CompileOptions, report: &mut Report) -> Self {
        let mut patches = vec![];
        let is_root = |filter: &&'r Object<EnvoyFilter>| filter.meta.namespace == options.root_namespace;
        let (root, others): (Vec<_>, Vec<_>) = input.envoy_filters.iter().copied().partition(is_root);
        for filter in root.into_iter().chain(others) {
            let item = Item::new(Kind::EnvoyFilter, filter);
            if is_selected(&item, options) {
                let found = rate_limits(filter).patches.into_iter();
                patches.extend(found.map(|patch| Patch::new(item.clone(), patch)));
            } else {
                let message = "the EnvoyFilter is not for this edge and has no effect";
                let hint =
                    "put it into the root or the gateway's namespace, and select gatewayLabels of edge.yaml";
                report.warn(&item, "spec.workloadSelector", message, hint);
            }
        }
        Self {
            patches,
            virtual_hosts: vec![],
        }
    }

    /// Puts the limits in force on the routes of a table: on each the most specific one, where the filter is inserted
    /// at all.
    pub(crate) fn apply(&mut self, table: &mut RouteTable, scope: &Scope<'_, '_>, report: &mut Report) {
        if self.patches.is_empty() {
            return;
        }
        let inserted = self.effect(|target| matches_listener(target, scope));
        self.report_second_filter(&inserted, report);
        let of_table = self.effect(|target| matches_table(target, scope));
        let hosts: Vec<_> = table.virtual_hosts.sorted().into_iter().cloned().collect();
        for mut host in hosts {
            self.virtual_hosts.push(host.name.clone());
            let of_host = self.effect(|target| matches_virtual_host(target, scope, &host));
            self.apply_to_routes(&mut host, scope, [&of_host, &of_table, &inserted], report);
            table.virtual_hosts.insert(host);
        }
        self.report_missing_filter(&inserted, &of_table, report);
        table.rate_limit = inserted.limit;
    }

    /// `outer` are the effects on virtual host, table and listener, in this order.
    fn apply_to_routes(
        &mut self,
        host: &mut Arc<VirtualHost>,
        scope: &Scope<'_, '_>,
        outer: [&Effect; 3],
        report: &mut Report,
    ) {
        let [of_host, _, inserted] = outer;
        self.report_missing_filter(inserted, of_host, report);
        let of_routes: Vec<_> = host
            .routes
            .iter()
            .map(|route| self.effect(|target| matches_route(target, scope, host, route)))
            .collect();
        for of_route in &of_routes {
            self.report_missing_filter(inserted, of_route, report);
        }
        if inserted.limit.is_none() {
            return;
        }
        for (route, of_route) in Arc::make_mut(host).routes.iter_mut().zip(of_routes) {
            let limit = outer.iter().find_map(|effect| effect.limit.clone());
            // A route's own descriptors take the place of the virtual host's (Envoy `vh_rate_limits: OVERRIDE`).
            let own = Some(of_route.descriptors).filter(|own| !own.is_empty());
            let route = Arc::make_mut(route);
            route.rate_limit = of_route.limit.or(limit);
            route.rate_limit_descriptors = own.unwrap_or_else(|| of_host.descriptors.clone());
        }
    }

    /// Merges the patches that match: of several limits the last is in force, descriptors add up.
    fn effect(&mut self, matches: impl Fn(&PatchTarget) -> bool) -> Effect {
        let mut limit = None;
        let mut descriptors = vec![];
        let mut patches = vec![];
        for (number, patch) in self.patches.iter_mut().enumerate() {
            if matches(&patch.target) {
                patch.has_matched = true;
                limit = patch.limit.clone().or(limit);
                descriptors.extend(patch.descriptors.iter().cloned());
                patches.push(number);
            }
        }
        Effect {
            limit,
            descriptors: descriptors.into(),
            patches,
        }
    }

    fn report_second_filter(&self, inserted: &Effect, report: &mut Report) {
        for patch in inserted
            .patches
            .iter()
            .skip(1)
            .filter_map(|number| self.patches.get(*number))
        {
            let message = "unsupported: a second local rate limit filter on one listener";
            report.error(
                &patch.filter,
                patch.field(),
                message,
                "put both limits into one filter",
            );
        }
    }

    /// Without the filter in the listener's chain, configuration for it does nothing.
    fn report_missing_filter(&self, inserted: &Effect, effect: &Effect, report: &mut Report) {
        if inserted.limit.is_some() {
            return;
        }
        for patch in effect
            .patches
            .iter()
            .filter_map(|number| self.patches.get(*number))
        {
            let message =
                "has no effect: no patch inserts envoy.filters.http.local_ratelimit into the listener";
            report.warn(
                &patch.filter,
                patch.field(),
                message,
                "add a patch with applyTo: HTTP_FILTER",
            );
        }
    }

    /// Warns of patches that are for nothing that there is; most often a virtual host's name is misspelt.
    pub(crate) fn report_unmatched(&self, report: &mut Report) {
        let mut names = self.virtual_hosts.clone();
        names.sort();
        names.dedup();
        names.truncate(NAMED_HOSTS);
        for patch in self.patches.iter().filter(|patch| !patch.has_matched) {
            let message = "the match fits nothing that there is, the patch has no effect";
            let hint = match patch.target {
                PatchTarget::Listener(_) => "compare portNumber with the ports of the Gateways".to_owned(),
                PatchTarget::RouteConfiguration(_) | PatchTarget::VirtualHost(_) | PatchTarget::Route(_) => {
                    format!(
                        "virtual hosts are called <host>:<port>, here for instance {}",
                        names.join(", ")
                    )
                }
            };
            report.warn(
                &patch.filter,
                format!("spec.configPatches[{}].match", patch.index),
                message,
                hint,
            );
        }
    }
}

impl<'r> Patch<'r> {
    fn new(filter: Item<'r, EnvoyFilter>, patch: RateLimitPatch) -> Self {
        Self {
            filter,
            index: patch.index,
            target: patch.target,
            limit: patch.limit.map(Arc::new),
            descriptors: patch.descriptors,
            has_matched: false,
        }
    }

    fn field(&self) -> String {
        format!("spec.configPatches[{}]", self.index)
    }
}

/// Istio applies an EnvoyFilter of the root namespace to all namespaces, another to the workloads of its own.
fn is_selected(filter: &Item<'_, EnvoyFilter>, options: &CompileOptions) -> bool {
    let namespace = filter.namespace();
    let is_near = namespace == options.root_namespace || namespace == options.gateway_namespace;
    let selector = filter.spec.workload_selector.as_ref();
    is_near
        && filter.spec.target_refs.is_empty()
        && selector.is_none_or(|selector| has_all(&options.gateway_labels, &selector.labels))
}
