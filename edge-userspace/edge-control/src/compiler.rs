//! Compiling one change at a time: what a change touches is compiled anew, everything else is shared with before.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use edge_config::istio::virtual_service::VirtualService;
use edge_config::k8s::endpoint_slice::SERVICE_NAME_LABEL;
use edge_config::{ObjectName, Problem, Resource};
use edge_model::{
    ClusterName, HostPattern, Kind, Listener, ListenerProtocol, ObjectRef, RouteTable, Snapshot, TlsServer,
    TlsService,
};

use crate::compile::{compile_all, service_host, stands_before_gateway};
use crate::{CompileOptions, Compiled, ReadFile};

/// Keeps the resources and what they came to.
///
/// A VirtualService with plain host names, a DestinationRule for one host and an EndpointSlice cost what they touch: the
/// virtual hosts of its names, the clusters of its service and the routes to them, or the clusters alone. Any other change compiles everything. Either way the result is the same as that of
/// [`compile`](crate::compile()) on all resources.
#[derive(Debug)]
pub struct Compiler {
    options: CompileOptions,
    resources: HashMap<ObjectRef, Arc<Resource>>,
    index: Index,
    snapshot: Snapshot,
    problems: HashMap<Option<ObjectName>, Vec<Problem>>,
    /// How often the problems became others.
    problems_count: u64,
    /// The clusters of each service's host.
    clusters_of: HashMap<String, Vec<ClusterName>>,
}

/// An object as it was and as it is.
struct Touched {
    object: ObjectRef,
    before: Option<Arc<Resource>>,
    after: Option<Arc<Resource>>,
}

/// Of more changes at once than every so many objects, compiling everything is the quicker way.
const FEW: usize = 4;

/// Which objects a change has to be seen together with.
#[derive(Debug, Default)]
struct Index {
    gateways: BTreeSet<ObjectRef>,
    filters: BTreeSet<ObjectRef>,
    /// Services and ServiceEntries before the gateway, whose ports are translated.
    before_gateway: BTreeSet<ObjectRef>,
    services: HashMap<String, BTreeSet<ObjectRef>>,
    rules: HashMap<String, BTreeSet<ObjectRef>>,
    wildcard_rules: BTreeSet<ObjectRef>,
    routes: HashMap<HostPattern, BTreeSet<ObjectRef>>,
    /// VirtualServices by the hosts of their destinations.
    users: HashMap<String, BTreeSet<ObjectRef>>,
    wildcard_routes: BTreeSet<ObjectRef>,
    /// EndpointSlices by namespace and name of their Service.
    slices: HashMap<(String, String), BTreeSet<ObjectRef>>,
}

impl Compiler {
    /// Compiles resources, each of them once, and keeps them.
    #[must_use]
    pub fn new(
        options: CompileOptions,
        resources: impl IntoIterator<Item = Arc<Resource>>,
        read: &ReadFile<'_>,
    ) -> Self {
        let mut compiler = Self {
            options,
            resources: HashMap::new(),
            index: Index::default(),
            snapshot: Snapshot::default(),
            problems: HashMap::new(),
            problems_count: 0,
            clusters_of: HashMap::new(),
        };
        for resource in resources {
            let object = resource.object_ref();
            compiler.index.add(&object, &resource, &compiler.options);
            compiler.resources.insert(object, resource);
        }
        compiler.compile_all(read);
        compiler
    }

    /// The configuration, with version 0. It is complete only when no problem is an error.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Takes over a Snapshot that is equal to the compiled one, but shares parts with an earlier one: what is compiled from
    /// now on shares them too.
    pub fn share(&mut self, same: &Snapshot) {
        self.snapshot = Snapshot {
            version: 0,
            ..same.clone()
        };
    }

    /// The object of a name.
    #[must_use]
    pub fn resource(&self, object: &ObjectRef) -> Option<&Arc<Resource>> {
        self.resources.get(object)
    }

    /// Counts up whenever [`problems`](Self::problems) became others.
    #[must_use]
    pub fn problems_count(&self) -> u64 {
        self.problems_count
    }

    /// All problems, by object.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Puts an object in, in place of the one that it had; `None` takes it out.
    pub fn change(&mut self, object: &ObjectRef, to: Option<Arc<Resource>>, read: &ReadFile<'_>) {
        self.apply([(object.clone(), to)], read);
    }

    /// The same for several objects, each of them once.
    pub fn apply(
        &mut self,
        changes: impl IntoIterator<Item = (ObjectRef, Option<Arc<Resource>>)>,
        read: &ReadFile<'_>,
    ) {
        let changes = changes.into_iter();
        let touched: Vec<_> = changes.filter_map(|(object, to)| self.put(object, to)).collect();
        let is_few = touched.len() <= 1 || touched.len() * FEW <= self.resources.len();
        if touched.is_empty() {
            return;
        }
        let done = is_few.then(|| self.compile_touched(&touched)).flatten();
        if done.is_none() {
            self.compile_all(read);
        }
    }

    /// Puts one object in or takes it out. `None` when nothing is to be compiled for it, because it says what it said.
    fn put(&mut self, object: ObjectRef, after: Option<Arc<Resource>>) -> Option<Touched> {
        let before = match &after {
            Some(resource) => self.resources.insert(object.clone(), Arc::clone(resource)),
            None => self.resources.remove(&object),
        };
        // Its problems name lines, which may have moved.
        let has_problems = || self.problems.contains_key(&Some(ObjectName::from(&object)));
        if before == after && !has_problems() {
            return None;
        }
        if let Some(before) = &before {
            self.index.remove(&object, before, &self.options);
        }
        if let Some(after) = &after {
            self.index.add(&object, after, &self.options);
        }
        Some(Touched {
            object,
            before,
            after,
        })
    }

    /// Compiles what the changes touch. `None` when that may be everything.
    fn compile_touched(&mut self, touched: &[Touched]) -> Option<()> {
        let (routes, others): (Vec<_>, Vec<_>) = touched
            .iter()
            .partition(|touched| touched.object.kind == Kind::VirtualService);
        for touched in others {
            if touched.object.kind == Kind::EndpointSlice {
                self.change_endpoints(touched.before.as_deref(), touched.after.as_deref())?;
            } else {
                self.change_rule(touched)?;
            }
        }
        if routes.is_empty() {
            return Some(());
        }
        self.change_routes(&routes)
    }

    /// What is wrong with one object now.
    fn set_problems(&mut self, object: Option<ObjectName>, problems: Vec<Problem>) {
        let before = if problems.is_empty() {
            self.problems.remove(&object).unwrap_or_default()
        } else {
            self.problems.insert(object, problems.clone()).unwrap_or_default()
        };
        self.problems_count += u64::from(before != problems);
    }

    fn compile_all(&mut self, read: &ReadFile<'_>) {
        let all: Vec<_> = self.resources.values().map(AsRef::as_ref).collect();
        let Compiled { snapshot, problems } = compile_all(&all, &self.options, read);
        self.snapshot = snapshot;
        self.clusters_of.clear();
        for cluster in self.snapshot.clusters.values() {
            let of_host = self.clusters_of.entry(cluster.host.clone()).or_default();
            of_host.push(cluster.name.clone());
        }
        self.problems.clear();
        self.problems_count += 1;
        for problem in problems {
            self.problems
                .entry(problem.object.clone())
                .or_default()
                .push(problem);
        }
    }

    /// Compiles the virtual hosts of VirtualServices anew. `None` when more than they may change.
    fn change_routes(&mut self, touched: &[&Touched]) -> Option<()> {
        let mut domains = HashSet::new();
        for Touched { before, after, .. } in touched {
            for resource in [before, after].into_iter().flatten() {
                domains.extend(plain_hosts(resource)?);
            }
        }
        let owners = touched.iter().map(|touched| touched.object.clone());
        self.compile_hosts(&domains, BTreeSet::new(), owners.collect())?;
        Some(())
    }

    /// Compiles some domains' virtual hosts anew, together with more objects, and finds what is wrong with `owners` now:
    /// objects that are seen as a whole by it. `None` when other virtual hosts may change as well.
    fn compile_hosts(
        &mut self,
        domains: &HashSet<HostPattern>,
        more: BTreeSet<ObjectRef>,
        owners: BTreeSet<ObjectRef>,
    ) -> Option<Compiled> {
        if !self.index.filters.is_empty() {
            // Whether a filter's patch fits anything depends on all virtual hosts.
            return None;
        }
        let mut objects = self.index.of_every_route();
        for domain in domains {
            objects.extend(self.index.routes.get(domain).into_iter().flatten().cloned());
        }
        self.add_destinations(&mut objects);
        objects.extend(more);
        let mut part = self.compile_part(&objects);
        let mut listeners = vec![];
        for listener in &self.snapshot.listeners {
            let mut parts = part.snapshot.listeners.iter();
            let own = parts.find(|other| other.name == listener.name);
            listeners.push(replace_hosts(listener, own?, domains)?);
        }
        self.snapshot.listeners = listeners;
        let mut problems: HashMap<_, Vec<_>> = HashMap::new();
        for problem in part.problems.drain(..) {
            problems.entry(problem.object.clone()).or_default().push(problem);
        }
        for object in &owners {
            let own = Some(ObjectName::from(object));
            let found = problems.remove(&own).unwrap_or_default();
            self.set_problems(own, found);
        }
        Some(part)
    }

    /// Compiles what leads to the service of a DestinationRule anew: its clusters, and the routes to them, which a rule can
    /// make retry elsewhere or leave without their subset. `None` when more than they may change.
    fn change_rule(&mut self, touched: &Touched) -> Option<()> {
        let (mut hosts, mut domains) = (BTreeSet::new(), HashSet::new());
        for resource in [&touched.before, &touched.after].into_iter().flatten() {
            let Resource::DestinationRule(rule) = &**resource else {
                return None;
            };
            let domain = &self.options.cluster_domain;
            let host = service_host(&rule.spec.host, &rule.meta.namespace, domain);
            // One for many hosts, or one whose clusters' TLS settings name files.
            if host.starts_with('*') || self.has_tls_to(&host) {
                return None;
            }
            hosts.insert(host);
        }
        let mut owners = BTreeSet::from([touched.object.clone()]);
        let mut more = BTreeSet::new();
        for host in &hosts {
            for object in self.index.users.get(host).into_iter().flatten() {
                // A delegate's routes stand at the hosts of others.
                domains.extend(plain_hosts(self.resources.get(object)?)?);
                owners.insert(object.clone());
            }
            owners.extend(self.index.rules.get(host).into_iter().flatten().cloned());
            self.add_service(host, &mut more)?;
        }
        let part = self.compile_hosts(&domains, more, owners)?;
        for host in &hosts {
            let own = part
                .snapshot
                .clusters
                .iter()
                .filter(|(_, cluster)| cluster.host == *host);
            let own: HashMap<_, _> = own.collect();
            if own.values().any(|cluster| cluster.tls.is_some()) {
                return None;
            }
            for gone in self.clusters_of.get(host).into_iter().flatten() {
                if !own.contains_key(gone) {
                    self.snapshot.clusters.remove(gone);
                }
            }
            for (name, cluster) in &own {
                self.snapshot
                    .clusters
                    .insert((*name).clone(), Arc::clone(cluster));
            }
            let names = own.into_keys().cloned().collect();
            self.clusters_of.insert(host.clone(), names);
        }
        Some(())
    }

    /// Adds the services of a host with what is behind them. `None` when that cannot be told from the names.
    fn add_service(&self, host: &str, objects: &mut BTreeSet<ObjectRef>) -> Option<()> {
        for object in self.index.of_host(host) {
            if let Resource::ServiceEntry(entry) = &**self.resources.get(&object)?
                && entry.spec.workload_selector.is_some()
            {
                return None;
            }
            if object.kind == Kind::Service {
                self.add_slices(&(object.namespace.clone(), object.name.clone()), objects);
            }
            objects.insert(object);
        }
        Some(())
    }

    /// Adds the EndpointSlices of a Service, by its namespace and name, and the Pods that they refer to.
    fn add_slices(&self, key: &(String, String), objects: &mut BTreeSet<ObjectRef>) {
        for slice in self.index.slices.get(key).into_iter().flatten() {
            if let Some(Resource::EndpointSlice(found)) = self.resources.get(slice).map(AsRef::as_ref) {
                let endpoints = found.spec.endpoints.iter();
                let targets = endpoints.filter_map(|endpoint| endpoint.target_ref.as_ref());
                objects.extend(targets.map(|target| ObjectRef {
                    kind: Kind::Pod,
                    namespace: match target.namespace.as_str() {
                        "" => key.0.clone(),
                        other => other.to_owned(),
                    },
                    name: target.name.clone(),
                }));
            }
            objects.insert(slice.clone());
        }
    }

    /// Adds the services that VirtualServices name, and the rules for them.
    fn add_destinations(&self, objects: &mut BTreeSet<ObjectRef>) {
        let mut hosts = HashSet::new();
        let mut delegates = BTreeSet::new();
        for object in objects
            .iter()
            .filter(|object| object.kind == Kind::VirtualService)
        {
            if let Some(Resource::VirtualService(found)) = self.resources.get(object).map(AsRef::as_ref) {
                hosts.extend(destinations(&found.spec, &object.namespace, &self.options));
                for named in found.spec.http.iter().filter_map(|rule| rule.delegate.as_ref()) {
                    let namespace = match named.namespace.as_str() {
                        "" => object.namespace.clone(),
                        other => other.to_owned(),
                    };
                    delegates.insert(ObjectRef {
                        namespace,
                        name: named.name.clone(),
                        ..object.clone()
                    });
                }
            }
        }
        for object in &delegates {
            if let Some(Resource::VirtualService(found)) = self.resources.get(object).map(AsRef::as_ref) {
                hosts.extend(destinations(&found.spec, &object.namespace, &self.options));
            }
        }
        objects.append(&mut delegates);
        for host in &hosts {
            objects.extend(self.index.of_host(host));
        }
    }

    /// Compiles the clusters of an EndpointSlice's Service anew. `None` when more than they may change.
    fn change_endpoints(&mut self, before: Option<&Resource>, after: Option<&Resource>) -> Option<()> {
        let key = slice_key(after?)?;
        // Whether a Service has a slice at all is reported, so the first one changes more than endpoints.
        if slice_key(before?)? != key {
            return None;
        }
        let host = service_host(&key.1, &key.0, &self.options.cluster_domain);
        if self.index.services.get(&host)?.len() != 1 {
            return None;
        }
        let mut objects: BTreeSet<_> = self.index.of_host(&host).collect();
        let is_rule = |object: &ObjectRef| object.kind == Kind::DestinationRule;
        if objects.iter().any(is_rule) && self.has_tls_to(&host) {
            return None;
        }
        self.add_slices(&key, &mut objects);
        let part = self.compile_part(&objects);
        for (name, cluster) in part
            .snapshot
            .clusters
            .iter()
            .filter(|(_, cluster)| cluster.host == host)
        {
            self.snapshot.clusters.insert(name.clone(), Arc::clone(cluster));
        }
        Some(())
    }

    /// Whether any cluster of a host has TLS settings, which name files and Secrets.
    fn has_tls_to(&self, host: &str) -> bool {
        let names = self.clusters_of.get(host).into_iter().flatten();
        let mut clusters = names.filter_map(|name| self.snapshot.clusters.get(name));
        clusters.any(|cluster| cluster.tls.is_some())
    }

    /// Compiles some of the objects by themselves. Their files are not read: certificates stay as they are.
    fn compile_part(&self, objects: &BTreeSet<ObjectRef>) -> Compiled {
        let part: Vec<_> = objects
            .iter()
            .filter_map(|object| self.resources.get(object))
            .map(AsRef::as_ref)
            .collect();
        compile_all(
            &part,
            &self.options,
            &|_| Err(std::io::ErrorKind::NotFound.into()),
        )
    }
}

/// Full names of the services that a VirtualService of a namespace leads to.
fn destinations(spec: &VirtualService, namespace: &str, options: &CompileOptions) -> Vec<String> {
    let http = spec.http.iter().flat_map(|rule| {
        let routes = rule.route.iter().filter_map(|route| route.destination.as_ref());
        let mirrors = rule
            .mirrors
            .iter()
            .filter_map(|mirror| mirror.destination.as_ref());
        routes.chain(mirrors).chain(&rule.mirror)
    });
    let tls = spec.tls.iter().flat_map(|rule| &rule.route);
    let tcp = tls.chain(spec.tcp.iter().flat_map(|rule| &rule.route));
    let all = http.chain(tcp.filter_map(|route| route.destination.as_ref()));
    all.map(|destination| service_host(&destination.host, namespace, &options.cluster_domain))
        .collect()
}

/// The hosts of a VirtualService that only has rules for HTTP and no wildcards; else `None`.
fn plain_hosts(resource: &Resource) -> Option<Vec<HostPattern>> {
    let Resource::VirtualService(object) = resource else {
        return None;
    };
    let spec = &object.spec;
    if spec.hosts.is_empty() || !spec.tls.is_empty() || !spec.tcp.is_empty() {
        return None;
    }
    let hosts = spec.hosts.iter().map(|text| HostPattern::parse(text).ok());
    hosts
        .map(|host| host.filter(|host| matches!(host, HostPattern::Exact(_))))
        .collect()
}

/// Namespace and name of the Service that an EndpointSlice belongs to.
fn slice_key(resource: &Resource) -> Option<(String, String)> {
    let meta = resource.meta();
    let service = meta.labels.get(SERVICE_NAME_LABEL)?;
    Some((meta.namespace.clone(), service.clone()))
}

/// The listener with the virtual hosts of some domains taken from another one. `None` when that does not say it all.
fn replace_hosts(
    listener: &Arc<Listener>,
    from: &Listener,
    domains: &HashSet<HostPattern>,
) -> Option<Arc<Listener>> {
    let protocol = match (&listener.protocol, &from.protocol) {
        (ListenerProtocol::Http(old), ListenerProtocol::Http(new)) => {
            ListenerProtocol::Http(replace_in_table(old, new, domains)?)
        }
        (ListenerProtocol::Tls(old), ListenerProtocol::Tls(new)) => {
            let servers = old.iter().map(|server| {
                let Some(routes) = server.routes() else {
                    return Some(Arc::clone(server));
                };
                let same =
                    |other: &&Arc<TlsServer>| other.routes().is_some_and(|own| own.name == routes.name);
                let replaced = replace_in_table(routes, new.iter().find(same)?.routes()?, domains)?;
                if Arc::ptr_eq(&replaced, routes) {
                    return Some(Arc::clone(server));
                }
                Some(Arc::new(TlsServer {
                    service: TlsService::Http {
                        tls: server.tls()?.clone(),
                        routes: replaced,
                    },
                    ..TlsServer::clone(server)
                }))
            });
            ListenerProtocol::Tls(servers.collect::<Option<_>>()?)
        }
        (ListenerProtocol::Tcp(_), _) => return Some(Arc::clone(listener)),
        (ListenerProtocol::Http(_) | ListenerProtocol::Tls(_), _) => return None,
    };
    Some(Arc::new(Listener {
        protocol,
        ..Listener::clone(listener)
    }))
}

fn replace_in_table(
    old: &Arc<RouteTable>,
    new: &RouteTable,
    domains: &HashSet<HostPattern>,
) -> Option<Arc<RouteTable>> {
    let is_blackhole = |table: &RouteTable| {
        let any = table.virtual_hosts.get(&HostPattern::Any);
        any.is_some_and(|host| host.name.starts_with("blackhole:"))
    };
    let mut hosts = old.virtual_hosts.clone();
    let mut has_changed = false;
    for domain in domains {
        match (new.virtual_hosts.get(domain), old.virtual_hosts.get(domain)) {
            (Some(new), Some(old)) if new == old => {}
            (Some(new), _) => {
                hosts.insert(Arc::clone(new));
                has_changed = true;
            }
            (None, Some(_)) => {
                hosts.remove(domain);
                has_changed = true;
            }
            (None, None) => {}
        }
    }
    if !has_changed {
        return Some(Arc::clone(old));
    }
    // An empty table has a virtual host of its own.
    (!hosts.is_empty() && !is_blackhole(old)).then(|| {
        Arc::new(RouteTable {
            virtual_hosts: hosts,
            ..RouteTable::clone(old)
        })
    })
}

impl Index {
    fn add(&mut self, object: &ObjectRef, resource: &Resource, options: &CompileOptions) {
        self.each_set(resource, options, |set| {
            set.insert(object.clone());
        });
    }

    fn remove(&mut self, object: &ObjectRef, resource: &Resource, options: &CompileOptions) {
        self.each_set(resource, options, |set| {
            set.remove(object);
        });
    }

    /// The sets that an object is in.
    fn each_set(
        &mut self,
        resource: &Resource,
        options: &CompileOptions,
        mut act: impl FnMut(&mut BTreeSet<ObjectRef>),
    ) {
        let meta = resource.meta();
        let domain = &options.cluster_domain;
        if stands_before_gateway(resource, options) {
            act(&mut self.before_gateway);
        }
        match resource {
            Resource::Gateway(_) => act(&mut self.gateways),
            Resource::EnvoyFilter(_) => act(&mut self.filters),
            Resource::Service(_) => {
                let host = service_host(&meta.name, &meta.namespace, domain);
                act(self.services.entry(host).or_default());
            }
            Resource::ServiceEntry(object) => {
                for host in &object.spec.hosts {
                    act(self.services.entry(host.to_ascii_lowercase()).or_default());
                }
            }
            Resource::DestinationRule(object) => {
                let host = service_host(&object.spec.host, &meta.namespace, domain);
                if host.starts_with('*') {
                    act(&mut self.wildcard_rules);
                } else {
                    act(self.rules.entry(host).or_default());
                }
            }
            Resource::VirtualService(object) => {
                for host in destinations(&object.spec, &meta.namespace, options) {
                    act(self.users.entry(host).or_default());
                }
                for host in object
                    .spec
                    .hosts
                    .iter()
                    .filter_map(|text| HostPattern::parse(text).ok())
                {
                    match host {
                        HostPattern::Exact(_) => act(self.routes.entry(host).or_default()),
                        HostPattern::Suffix(_) | HostPattern::Any => act(&mut self.wildcard_routes),
                    }
                }
            }
            Resource::EndpointSlice(_) => {
                if let Some(key) = slice_key(resource) {
                    act(self.slices.entry(key).or_default());
                }
            }
            Resource::WorkloadEntry(_)
            | Resource::Pod(_)
            | Resource::Namespace(_)
            | Resource::AuthorizationPolicy(_)
            | Resource::RequestAuthentication(_)
            | Resource::PeerAuthentication(_)
            | Resource::Secret(_)
            | Resource::ConfigMap(_) => {}
        }
    }

    /// What every route is compiled with.
    fn of_every_route(&self) -> BTreeSet<ObjectRef> {
        let sets = [
            &self.gateways,
            &self.filters,
            &self.before_gateway,
            &self.wildcard_routes,
        ];
        sets.into_iter().flatten().cloned().collect()
    }

    /// The services of a host and the rules for it.
    fn of_host(&self, host: &str) -> impl Iterator<Item = ObjectRef> {
        let services = self.services.get(host).into_iter().flatten();
        let rules = self.rules.get(host).into_iter().flatten();
        services.chain(rules).chain(&self.wildcard_rules).cloned()
    }
}
