//! Where the local rate limits of EnvoyFilters take effect.

use std::collections::BTreeSet;
use std::sync::Arc;

use edge_config::Object;
use edge_config::istio::envoy_filter::EnvoyFilter;
use edge_config::istio::envoy_filter::rate_limit::{PatchTarget, RateLimitPatch, rate_limits};
use edge_model::{Kind, LocalRateLimit, RateLimitDescriptor, RouteTable, VirtualHost, VirtualHosts};

use super::endpoints::has_all;
use super::input::{Input, Item};
use super::patch_match::{
    Scope, matches_listener, matches_route, matches_table, matches_virtual_host, matches_within,
};
use super::report::Report;
use crate::CompileOptions;

/// How many virtual hosts a warning names at most.
const NAMED_HOSTS: usize = 8;

/// The patches of all EnvoyFilters that apply, in the order in which Istio applies them.
#[derive(Debug)]
pub(crate) struct RateLimits<'r> {
    patches: Vec<Patch<'r>>,
    /// The virtual hosts seen, for those who misspell one.
    tables: Vec<VirtualHosts>,
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
            tables: vec![],
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// Puts the limits in force on a table that has none so far, and on all its routes.
    pub(crate) fn apply_to_all(&self, table: &mut RouteTable, scope: &Scope<'_, '_>) {
        if self.is_empty() {
            return;
        }
        let hosts: Vec<_> = table.virtual_hosts.iter().cloned().collect();
        self.apply(table, scope, hosts);
    }

    /// Puts the limits in force on a table and the routes of some of its virtual hosts: on each route the most specific
    /// one, where the filter is inserted at all. What has the limit that it should have stays as it is in memory.
    pub(crate) fn apply(
        &self,
        table: &mut RouteTable,
        scope: &Scope<'_, '_>,
        hosts: impl IntoIterator<Item = Arc<VirtualHost>>,
    ) {
        let inserted = self.effect(|target| matches_listener(target, scope));
        let of_table = self.effect(|target| matches_table(target, scope));
        for mut host in hosts {
            let of_host = self.effect(|target| matches_virtual_host(target, scope, &host));
            if self.apply_to_routes(&mut host, scope, [&of_host, &of_table, &inserted]) {
                table.virtual_hosts.insert(host);
            }
        }
        if table.rate_limit != inserted.limit {
            table.rate_limit = inserted.limit;
        }
    }

    /// `outer` are the effects on virtual host, table and listener, in this order. Whether anything changed.
    fn apply_to_routes(
        &self,
        host: &mut Arc<VirtualHost>,
        scope: &Scope<'_, '_>,
        outer: [&Effect; 3],
    ) -> bool {
        let [of_host, _, inserted] = outer;
        let is_inserted = inserted.limit.is_some();
        let limit = outer.iter().find_map(|effect| effect.limit.as_ref());
        let mut changed = vec![];
        for (number, route) in host.routes.iter().enumerate() {
            let of_route = match is_inserted {
                true => self.effect(|target| matches_route(target, scope, host, route)),
                false => Effect::default(),
            };
            // A route's own descriptors take the place of the virtual host's (Envoy `vh_rate_limits: OVERRIDE`).
            let descriptors = match (is_inserted, of_route.descriptors.is_empty()) {
                (false, _) => Arc::default(),
                (true, true) => Arc::clone(&of_host.descriptors),
                (true, false) => of_route.descriptors,
            };
            let limit = of_route.limit.or_else(|| limit.filter(|_| is_inserted).cloned());
            if route.rate_limit != limit || route.rate_limit_descriptors != descriptors {
                changed.push((number, limit, descriptors));
            }
        }
        let has_changed = !changed.is_empty();
        for (number, limit, descriptors) in changed {
            if let Some(route) = Arc::make_mut(host).routes.get_mut(number) {
                let route = Arc::make_mut(route);
                (route.rate_limit, route.rate_limit_descriptors) = (limit, descriptors);
            }
        }
        has_changed
    }

    /// Merges the patches that match: of several limits the last is in force, descriptors add up.
    fn effect(&self, matches: impl Fn(&PatchTarget) -> bool) -> Effect {
        let (mut limit, mut descriptors) = (None, vec![]);
        for patch in self.patches.iter().filter(|patch| matches(&patch.target)) {
            limit = patch.limit.as_ref().or(limit);
            descriptors.extend(patch.descriptors.iter().cloned());
        }
        Effect {
            limit: limit.cloned(),
            descriptors: descriptors.into(),
        }
    }

    /// Finds out which patches are for a table, and says which of these do nothing there.
    pub(crate) fn judge(&mut self, table: &RouteTable, scope: &Scope<'_, '_>, report: &mut Report) {
        if self.is_empty() {
            return;
        }
        self.tables.push(table.virtual_hosts.clone());
        let (mut is_inserted, mut has_filter) = (false, false);
        for patch in &mut self.patches {
            if !matches_listener(&patch.target, scope) {
                continue;
            }
            patch.has_matched = true;
            is_inserted |= patch.limit.is_some();
            if has_filter {
                let message = "unsupported: a second local rate limit filter on one listener";
                let hint = "put both limits into one filter";
                report.error(&patch.filter, patch.field(), message, hint);
            }
            has_filter = true;
        }
        for patch in &mut self.patches {
            if !matches_within(&patch.target, scope, &table.virtual_hosts) {
                continue;
            }
            patch.has_matched = true;
            if !is_inserted {
                // Without the filter in the listener's chain, configuration for it does nothing.
                let message =
                    "has no effect: no patch inserts envoy.filters.http.local_ratelimit into the listener";
                let hint = "add a patch with applyTo: HTTP_FILTER";
                report.warn(&patch.filter, patch.field(), message, hint);
            }
        }
    }

    /// Warns of patches that are for nothing that there is; most often a virtual host's name is misspelt.
    pub(crate) fn report_unmatched(&self, report: &mut Report) {
        let mut unmatched = self.patches.iter().filter(|patch| !patch.has_matched).peekable();
        if unmatched.peek().is_none() {
            return;
        }
        let names: BTreeSet<_> = self
            .tables
            .iter()
            .flat_map(VirtualHosts::iter)
            .map(|host| host.name.as_str())
            .collect();
        let names: Vec<_> = names.into_iter().take(NAMED_HOSTS).collect();
        for patch in unmatched {
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
