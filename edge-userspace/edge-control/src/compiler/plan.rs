//! What a change touches.

use std::collections::{BTreeSet, HashMap, HashSet};

use edge_config::istio::destination_rule::DestinationRule;
use edge_config::istio::destination_rule::policy::TrafficPolicy;
use edge_config::istio::envoy_filter::EnvoyFilter;
use edge_config::istio::gateway::{Gateway, Server};
use edge_config::istio::service_entry::ServiceEntry;
use edge_config::istio::virtual_service::VirtualService;
use edge_config::k8s::meta::Meta;
use edge_config::k8s::secret::CA_SECRET_SUFFIX;
use edge_config::{Object, Resource};
use edge_model::{HostPattern, Kind, ObjectRef};

use super::index::{self, Key};
use super::{Compiler, Touched};
use crate::compile::{Hosts, has_all, server_hosts, service_host, stands_before_gateway, touched_hosts};

/// What is compiled anew.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Hosts of services whose clusters are.
    pub(super) hosts: BTreeSet<String>,
    /// Domains whose virtual hosts are, in every route table.
    pub(super) domains: HashSet<HostPattern>,
    /// Objects whose problems are found again.
    pub(super) owners: BTreeSet<ObjectRef>,
    /// Listeners, TLS settings and routes of connections are.
    pub(super) listeners: bool,
    /// The security policies that cannot be enforced are looked for.
    pub(super) policies: bool,
    /// Changed EnvoyFilters.
    pub(super) filters: BTreeSet<ObjectRef>,
    /// The virtual hosts whose limits these touch.
    pub(super) limited: Hosts,
    /// Changed Gateways. `None` where more is not what it was than servers.
    gateways: HashMap<ObjectRef, Option<Servers>>,
    /// Rules that were looked at.
    seen: HashSet<ObjectRef>,
}

/// The servers of a Gateway, before and after a change.
#[derive(Debug)]
struct Servers {
    before: Vec<Server>,
    after: Vec<Server>,
}

impl Plan {
    /// Whether there is nothing to do but for limits.
    pub(super) fn is_empty(&self) -> bool {
        let is_touched = self.listeners || self.policies || !self.owners.is_empty();
        !is_touched && self.hosts.is_empty() && self.domains.is_empty()
    }

    /// Whether every server of a Gateway is part of the plan.
    pub(super) fn is_whole(&self, gateway: &ObjectRef) -> bool {
        matches!(self.gateways.get(gateway), Some(None))
    }

    /// The servers of a Gateway of which some are part of the plan, before and after the change.
    pub(super) fn servers_of(&self, gateway: &ObjectRef) -> Option<(&[Server], &[Server])> {
        let Servers { before, after } = self.gateways.get(gateway)?.as_ref()?;
        Some((before, after))
    }
}

impl Compiler {
    /// Adds what one change touches. `None` when that may be everything.
    pub(super) fn plan(&self, touched: &Touched, plan: &mut Plan) -> Option<()> {
        let object = &touched.object;
        let (before, after) = (touched.before.as_deref(), touched.after.as_deref());
        match object.kind {
            Kind::VirtualService => self.plan_route(touched, plan),
            Kind::DestinationRule => {
                let is_reshaped = is_reshaped(before, after);
                for resource in [before, after].into_iter().flatten() {
                    if let Resource::DestinationRule(found) = resource {
                        self.plan_rule(object, &found.spec, &found.meta, is_reshaped, plan);
                    }
                }
            }
            Kind::Service | Kind::ServiceEntry => return self.plan_service(touched, plan),
            Kind::EndpointSlice => {
                let metas = [before, after].into_iter().flatten().map(Resource::meta);
                metas
                    .filter_map(index::slice_key)
                    .for_each(|key| self.plan_slices(key, plan));
            }
            Kind::Pod => {
                let slices = self
                    .index
                    .of(&Key::SliceOf(object.namespace.clone(), object.name.clone()));
                let slices = slices.filter_map(|slice| self.resources.get(slice));
                let keys = slices.filter_map(|slice| index::slice_key(slice.meta()));
                keys.for_each(|key| self.plan_slices(key, plan));
                self.plan_workload(touched, plan);
            }
            Kind::WorkloadEntry => self.plan_workload(touched, plan),
            Kind::Secret | Kind::ConfigMap => self.plan_credential(object, plan),
            Kind::Gateway => self.plan_gateway(touched, plan),
            Kind::AuthorizationPolicy | Kind::RequestAuthentication | Kind::PeerAuthentication => {
                plan.policies = true;
            }
            Kind::Namespace => {}
            Kind::EnvoyFilter => {
                plan.filters.insert(object.clone());
                plan.limited
                    .add(touched_hosts(filter_of(before), filter_of(after)));
            }
        }
        Some(())
    }

    fn plan_route(&self, touched: &Touched, plan: &mut Plan) {
        let object = &touched.object;
        plan.owners.insert(object.clone());
        for resource in [&touched.before, &touched.after].into_iter().flatten() {
            if let Resource::VirtualService(found) = &**resource {
                self.add_route(object, &found.spec, plan);
            }
        }
    }

    /// Adds what the routes of a VirtualService stand in; those of a delegate stand in other ones.
    fn add_route(&self, object: &ObjectRef, spec: &VirtualService, plan: &mut Plan) {
        plan.owners.insert(object.clone());
        // One with hosts of its own is no delegate, and nothing is said of it because of this one.
        let is_delegate = |name: &ObjectRef| !matches!(self.resource_of(name), Some(Resource::VirtualService(found)) if !found.spec.hosts.is_empty());
        let delegates = index::delegates_of(spec, &object.namespace);
        plan.owners.extend(delegates.into_iter().filter(is_delegate));
        plan.listeners |= index::has_tcp_rules(spec);
        for host in spec.hosts.iter().filter_map(|text| HostPattern::parse(text).ok()) {
            if !matches!(host, HostPattern::Exact(_)) {
                // It also has routes at the narrower hosts of servers.
                let servers = self.gateways().flat_map(|gateway| &gateway.servers);
                let narrower = servers.flat_map(server_hosts);
                plan.domains
                    .extend(narrower.filter(|own| own.is_subset_of(&host)));
            }
            plan.domains.insert(host);
        }
        if spec.hosts.is_empty() {
            for root in self
                .index
                .of(&Key::Root(object.namespace.clone(), object.name.clone()))
            {
                if let Some(Resource::VirtualService(found)) = self.resource_of(root)
                    && !found.spec.hosts.is_empty()
                {
                    self.add_route(root, &found.spec, plan);
                }
            }
        }
    }

    /// Adds the VirtualServices that lead to a host.
    fn add_users(&self, host: &str, plan: &mut Plan) {
        for user in self.index.of(&Key::User(host.to_owned())) {
            if let Some(Resource::VirtualService(found)) = self.resource_of(user) {
                self.add_route(user, &found.spec, plan);
            }
        }
    }

    /// Adds a rule with the services that it is for. If it is reshaped, the routes to them, too: a rule can make them retry
    /// elsewhere or leave them without their subset.
    fn plan_rule(
        &self,
        object: &ObjectRef,
        rule: &DestinationRule,
        meta: &Meta,
        is_reshaped: bool,
        plan: &mut Plan,
    ) {
        plan.owners.insert(object.clone());
        let host = index::rule_host(rule, meta, &self.options);
        if host.starts_with('*') {
            plan.owners
                .extend(self.index.of(&Key::Rule(host.clone())).cloned());
        }
        for host in self.index.hosts_of_rule(&host) {
            if is_reshaped {
                self.add_users(&host, plan);
            }
            self.add_rules(&host, plan);
            plan.hosts.insert(host);
        }
    }

    /// Adds the rules for a host. What is said of one can depend on whether another is in force.
    fn add_rules(&self, host: &str, plan: &mut Plan) {
        plan.owners
            .extend(self.index.of(&Key::Rule(host.to_owned())).cloned());
        for rule in self.index.of(&Key::WildcardRules) {
            let Some(Resource::DestinationRule(found)) = self.resource_of(rule) else {
                continue;
            };
            let own = index::rule_host(&found.spec, &found.meta, &self.options);
            let is_for = HostPattern::parse(&own).is_ok_and(|own| own.matches(host));
            if !is_for || !plan.seen.insert(rule.clone()) {
                continue;
            }
            if index::tls_of(&found.spec).next().is_some() {
                // What its settings name is only missed where it is in force.
                self.plan_rule(rule, &found.spec, &found.meta, false, plan);
            }
            plan.owners.insert(rule.clone());
        }
    }

    /// Adds a service. `None` when its ports are those of the gateway.
    fn plan_service(&self, touched: &Touched, plan: &mut Plan) -> Option<()> {
        let (before, after) = (touched.before.as_deref(), touched.after.as_deref());
        let is_reshaped = is_reshaped(before, after);
        plan.owners.insert(touched.object.clone());
        for resource in [before, after].into_iter().flatten() {
            if stands_before_gateway(resource, &self.options) {
                return None;
            }
            for host in self.hosts_of_service(resource) {
                if is_reshaped {
                    self.add_users(&host, plan);
                }
                self.add_rules(&host, plan);
                plan.hosts.insert(host);
            }
        }
        Some(())
    }

    fn hosts_of_service(&self, resource: &Resource) -> Vec<String> {
        if let Resource::ServiceEntry(entry) = resource {
            return entry
                .spec
                .hosts
                .iter()
                .map(|host| host.to_ascii_lowercase())
                .collect();
        }
        let meta = resource.meta();
        vec![service_host(
            &meta.name,
            &meta.namespace,
            &self.options.cluster_domain,
        )]
    }

    /// Adds the Service of EndpointSlices: besides its endpoints, whether it has a slice at all is reported.
    fn plan_slices(&self, (namespace, name): (String, String), plan: &mut Plan) {
        plan.hosts
            .insert(service_host(&name, &namespace, &self.options.cluster_domain));
        let kind = Kind::Service;
        plan.owners.insert(ObjectRef {
            kind,
            namespace,
            name,
        });
    }

    /// Adds the ServiceEntries that select a Pod or WorkloadEntry, or did.
    fn plan_workload(&self, touched: &Touched, plan: &mut Plan) {
        let labels = |resource: &Resource| {
            if let Resource::WorkloadEntry(entry) = resource
                && !entry.spec.labels.is_empty()
            {
                return entry.spec.labels.clone();
            }
            resource.meta().labels.clone()
        };
        let resources = [&touched.before, &touched.after].into_iter().flatten();
        let labels: Vec<_> = resources.map(|resource| labels(resource)).collect();
        for object in self.index.of(&Key::Selecting(touched.object.namespace.clone())) {
            if let Some(resource) = self.resource_of(object)
                && let Resource::ServiceEntry(entry) = resource
                && let Some(selector) = &entry.spec.workload_selector
                && labels.iter().any(|labels| has_all(labels, &selector.labels))
            {
                plan.hosts.extend(self.hosts_of_service(resource));
            }
        }
    }

    /// Adds who takes certificates from a Secret or ConfigMap; those outside the gateway's namespace are not looked at.
    fn plan_credential(&self, object: &ObjectRef, plan: &mut Plan) {
        if object.namespace != self.options.gateway_namespace {
            return;
        }
        let of_ca = object.name.strip_suffix(CA_SECRET_SUFFIX);
        for name in std::iter::once(object.name.as_str()).chain(of_ca) {
            for user in self.index.of(&Key::Credential(name.to_owned())) {
                match self.resource_of(user) {
                    Some(Resource::DestinationRule(found)) => {
                        self.plan_rule(user, &found.spec, &found.meta, false, plan);
                    }
                    Some(_) => plan.listeners = true,
                    None => {}
                }
            }
        }
    }

    /// Adds the servers of a Gateway that changed, and the VirtualServices with hosts there.
    fn plan_gateway(&self, touched: &Touched, plan: &mut Plan) {
        plan.listeners = true;
        plan.owners.insert(touched.object.clone());
        let (before, after) = (touched.before.as_deref(), touched.after.as_deref());
        let is_same_but_servers = before.zip(after).is_some_and(|pair| match pair {
            (Resource::Gateway(before), Resource::Gateway(after)) => {
                before.meta == after.meta && before.spec.selector == after.spec.selector
            }
            _ => false,
        });
        let servers = |resource: Option<&Resource>| match resource {
            Some(Resource::Gateway(found)) => found.spec.servers.clone(),
            _ => vec![],
        };
        let (before, after) = (servers(before), servers(after));
        // In another order they add their routes in another order.
        let stay = before.iter().filter(|server| after.contains(server));
        let is_same_but_servers =
            is_same_but_servers && stay.eq(after.iter().filter(|server| before.contains(server)));
        let changed: Vec<&Server> = if is_same_but_servers {
            let gone = before.iter().filter(|server| !after.contains(server));
            gone.chain(after.iter().filter(|server| !before.contains(server)))
                .collect()
        } else {
            before.iter().chain(&after).collect()
        };
        let hosts: HashSet<_> = changed.into_iter().flat_map(server_hosts).collect();
        let key = format!("{}/{}", touched.object.namespace, touched.object.name);
        for object in self.index.of(&Key::BoundTo(key)) {
            if let Some(Resource::VirtualService(found)) = self.resource_of(object) {
                let own = found
                    .spec
                    .hosts
                    .iter()
                    .filter_map(|text| HostPattern::parse(text).ok());
                let meets = |own: HostPattern| {
                    hosts.contains(&own) || hosts.iter().any(|host| host.intersection(&own).is_some())
                };
                if !is_same_but_servers || own.into_iter().any(meets) {
                    self.add_route(object, &found.spec, plan);
                }
            }
        }
        plan.domains.extend(hosts);
        let servers = is_same_but_servers.then_some(Servers { before, after });
        plan.gateways.insert(touched.object.clone(), servers);
    }

    fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        let objects = self.index.of(&Key::Gateways);
        objects.filter_map(|object| match self.resource_of(object) {
            Some(Resource::Gateway(found)) => Some(&found.spec),
            _ => None,
        })
    }

    pub(super) fn resource_of(&self, object: &ObjectRef) -> Option<&Resource> {
        self.resources.get(object).map(AsRef::as_ref)
    }
}

fn filter_of(resource: Option<&Resource>) -> Option<&Object<EnvoyFilter>> {
    match resource {
        Some(Resource::EnvoyFilter(found)) => Some(found),
        _ => None,
    }
}

/// Whether a ServiceEntry is so large that it is left out.
fn is_refused(resource: &Resource) -> bool {
    matches!(resource, Resource::ServiceEntry(entry) if entry.spec.endpoint_count() > ServiceEntry::MAX_ENDPOINTS)
}

/// Whether an object is another one for the routes that lead to it.
fn is_reshaped(before: Option<&Resource>, after: Option<&Resource>) -> bool {
    match before.zip(after) {
        Some((before, after)) => is_refused(before) != is_refused(after) || shape(before) != shape(after),
        None => true,
    }
}

/// What of a service or DestinationRule routes look at: everything but what its clusters alone are made of.
fn shape(resource: &Resource) -> Resource {
    let mut shape = resource.clone();
    let forget = |meta: &mut Meta| {
        meta.labels.clear();
        meta.annotations.clear();
    };
    if let Resource::Service(object) = &mut shape {
        forget(&mut object.meta);
        object.spec.selector.clear();
    } else if let Resource::ServiceEntry(object) = &mut shape {
        forget(&mut object.meta);
        object.spec.endpoints.clear();
        object.spec.workload_selector = None;
    } else if let Resource::DestinationRule(object) = &mut shape {
        forget(&mut object.meta);
        object.spec.traffic_policy.iter_mut().for_each(keep_balancers);
        for subset in &mut object.spec.subsets {
            subset.labels.clear();
            subset.traffic_policy.iter_mut().for_each(keep_balancers);
        }
    }
    shape
}

/// Of a policy only how endpoints are picked shows in routes: with a hash, they retry otherwise.
fn keep_balancers(policy: &mut TrafficPolicy) {
    policy.connection_pool = None;
    policy.outlier_detection = None;
    policy.tls = None;
    for port in &mut policy.port_level_settings {
        port.connection_pool = None;
        port.outlier_detection = None;
        port.tls = None;
    }
}
