//! What became of every object: where it is in force, what keeps it from being so.

use std::collections::{BTreeMap, HashMap, HashSet};

use edge_config::{ObjectName, Problem, Resource};
use edge_model::{HostPattern, Listener, ListenerProtocol, ObjectRef, RouteAction, Snapshot};

use super::destination_rules::DestinationRules;
use super::endpoints::Workloads;
use super::gateways::{self, PortServers};
use super::input::{Input, Item};
use super::listener_name;
use super::names::service_host;
use super::registry::{Origin, Registry};
use super::report::Report;
use crate::CompileOptions;

/// What became of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Fate {
    /// The object.
    pub object: ObjectRef,
    /// File that it stands in.
    pub file: String,
    /// Line of its first field.
    pub line: usize,
    /// In one word.
    pub state: State,
    /// Where it is in force or, when it is not, because of what; one line each.
    pub places: Vec<String>,
    /// What there is to say about it.
    pub problems: Vec<Problem>,
}

/// What became of an object, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// It is in force.
    Bound,
    /// Others go before it.
    Shadowed,
    /// Nothing refers to it, or what it refers to is not there.
    Unused,
    /// It has errors, because of which the configuration is refused.
    Rejected,
}

impl State {
    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Shadowed => "shadowed",
            Self::Unused => "unused",
            Self::Rejected => "rejected",
        }
    }
}

/// Says of every object what became of it in a Snapshot that was compiled of these resources, by kind, namespace and
/// name. `problems` are those of checking and compiling.
#[must_use]
pub fn fates(
    resources: &[Resource],
    options: &CompileOptions,
    snapshot: &Snapshot,
    problems: &[Problem],
) -> Vec<Fate> {
    let mut report = Report::default();
    let input = Input::new(resources, &mut report);
    let registry = Registry::new(&input, options);
    let mut places = Places::default();
    places.of_routes(snapshot);
    places.of_gateways(&input, &registry, options, snapshot, &mut report);
    places.of_services(&input, &registry, snapshot);
    places.of_rules(&input, &registry, options, &mut report);
    places.of_credentials(&input, options);
    places.of_policies(snapshot);
    let mut of_object: HashMap<&ObjectName, Vec<&Problem>> = HashMap::new();
    for problem in problems {
        if let Some(object) = &problem.object {
            of_object.entry(object).or_default().push(problem);
        }
    }
    let mut fates: Vec<_> = resources
        .iter()
        .map(|resource| {
            let found = of_object.get(&ObjectName::from(&resource.object_ref()));
            places.fate(resource, found.map_or(&[], Vec::as_slice))
        })
        .collect();
    fates.sort_by(|a, b| (&a.object, &a.file, a.line).cmp(&(&b.object, &b.file, b.line)));
    fates
}

/// Lines about objects.
#[derive(Debug, Default)]
struct Places {
    bound: HashMap<ObjectRef, Vec<String>>,
    shadowed: HashMap<ObjectRef, Vec<String>>,
}

impl Places {
    fn bind(&mut self, object: &ObjectRef, place: String) {
        self.bound.entry(object.clone()).or_default().push(place);
    }

    fn shadow(&mut self, object: &ObjectRef, reason: String) {
        self.shadowed.entry(object.clone()).or_default().push(reason);
    }

    fn fate(&self, resource: &Resource, problems: &[&Problem]) -> Fate {
        let object = resource.object_ref();
        let (bound, shadowed) = (self.bound.get(&object), self.shadowed.get(&object));
        let state = match (bound, shadowed) {
            _ if problems.iter().any(|problem| problem.is_error()) => State::Rejected,
            (Some(_), _) => State::Bound,
            (None, Some(_)) => State::Shadowed,
            (None, None) => State::Unused,
        };
        let mut places: Vec<_> = bound.into_iter().chain(shadowed).flatten().cloned().collect();
        places.sort();
        places.dedup();
        let source = resource.source();
        Fate {
            object,
            file: source.file.to_string(),
            line: source.line,
            state,
            places,
            problems: problems.iter().copied().cloned().collect(),
        }
    }

    /// VirtualServices by the routes that are theirs, and EnvoyFilters by their limits.
    fn of_routes(&mut self, snapshot: &Snapshot) {
        for listener in &snapshot.listeners {
            for table in listener.tables() {
                for host in table.virtual_hosts.iter() {
                    let mut routes: BTreeMap<&ObjectRef, usize> = BTreeMap::new();
                    for route in &host.routes {
                        *routes.entry(&route.object).or_default() += 1;
                        if let Some(limit) = &route.rate_limit {
                            let place = format!(
                                "limits requests of virtual host {} at listener {}",
                                host.name, listener.name
                            );
                            self.bind(&limit.object, place);
                        }
                    }
                    for (object, count) in routes {
                        let routes = if count == 1 { "route" } else { "routes" };
                        let place = format!(
                            "{count} {routes} of virtual host {} at listener {}",
                            host.name, listener.name
                        );
                        self.bind(object, place);
                    }
                }
            }
            self.of_tcp_routes(listener);
        }
    }

    fn of_tcp_routes(&mut self, listener: &Listener) {
        match &listener.protocol {
            ListenerProtocol::Http(_) => {}
            ListenerProtocol::Tcp(route) => {
                let place = format!(
                    "tcp[{}] takes every connection at listener {}",
                    route.rule, listener.name
                );
                self.bind(&route.object, place);
            }
            ListenerProtocol::Tls(servers) => {
                for server in servers {
                    if let Some(route) = server.tcp_route() {
                        let hosts: Vec<_> = server.hosts.iter().map(ToString::to_string).collect();
                        let rule = if server.tls().is_some() { "tcp" } else { "tls" };
                        let (hosts, listener) = (hosts.join(", "), &listener.name);
                        let place = format!(
                            "{rule}[{}] takes server names {hosts} at listener {listener}",
                            route.rule
                        );
                        self.bind(&route.object, place);
                    }
                }
            }
        }
    }

    /// Gateways by the listeners of their servers, or by the Gateway that keeps them from a port; of these a problem says
    /// why.
    fn of_gateways(
        &mut self,
        input: &Input<'_>,
        registry: &Registry<'_>,
        options: &CompileOptions,
        snapshot: &Snapshot,
        report: &mut Report,
    ) {
        let listening: HashSet<_> = snapshot
            .listeners
            .iter()
            .map(|listener| listener.name.as_str())
            .collect();
        let servers = gateways::bind(input, registry, options, report);
        for gateways::LeftOut { server, winner } in &servers.left_out {
            let winner = winner
                .as_ref()
                .map_or_else(String::new, |winner| format!(" for {winner}"));
            self.shadow(
                &server.gateway.name,
                format!("servers[{}] is left out{winner}", server.index),
            );
        }
        for (socket, servers) in &servers.ports {
            let name = listener_name(*socket);
            let what = match servers {
                PortServers::Http(_) => "HTTP",
                PortServers::Tls(_) => "TLS",
                PortServers::Tcp(_) => "TCP",
            };
            for server in servers.servers() {
                let gateway = &server.gateway.name;
                if listening.contains(name.as_str()) {
                    let place = format!("servers[{}] serves {what} at listener {name}", server.index);
                    self.bind(gateway, place);
                } else {
                    let reason = format!(
                        "servers[{}] is not listened for: no route is for it",
                        server.index
                    );
                    self.shadow(gateway, reason);
                }
            }
        }
    }

    /// Services by the clusters that routes name; and what their endpoints are made of.
    fn of_services(&mut self, input: &Input<'_>, registry: &Registry<'_>, snapshot: &Snapshot) {
        let named = named_clusters(snapshot);
        let workloads = Workloads::new(input);
        for service in registry.hosts() {
            let object = match &service.origin {
                Origin::Kubernetes(item) => &item.name,
                Origin::Entry(item) => &item.name,
            };
            for port in &service.ports {
                let clusters = named.get(&(service.host.as_str(), port.number));
                for name in clusters.into_iter().flatten() {
                    let cluster = snapshot.clusters.get(*name);
                    let endpoints = match cluster.map_or(0, |cluster| cluster.endpoints.len()) {
                        1 => "1 ready endpoint".to_owned(),
                        count => format!("{count} ready endpoints"),
                    };
                    self.bind(object, format!("cluster {name}, {endpoints}"));
                }
            }
            if !self.bound.contains_key(object) {
                continue;
            }
            let workloads_of = match &service.origin {
                Origin::Kubernetes(item) => {
                    let slices = workloads.slices_of(item, &input.endpoint_slices);
                    slices.for_each(|slice| self.bind(&slice.name, format!("endpoints of {object}")));
                    workloads.pods_of(item)
                }
                Origin::Entry(item) => workloads.selected_by(item),
            };
            for workload in workloads_of {
                self.bind(&workload, format!("endpoint of {object}"));
            }
        }
        self.of_hidden_services(registry);
    }

    /// Services whose host belongs to an older one.
    fn of_hidden_services(&mut self, registry: &Registry<'_>) {
        let name = |origin: &Origin<'_>| match origin {
            Origin::Kubernetes(item) => ObjectRef::clone(&item.name),
            Origin::Entry(item) => ObjectRef::clone(&item.name),
        };
        let first: HashMap<_, _> = registry
            .hosts()
            .map(|service| (service.host.as_str(), name(&service.origin)))
            .collect();
        for service in registry.all() {
            let own = name(&service.origin);
            if let Some(other) = first.get(service.host.as_str()).filter(|other| **other != own) {
                self.shadow(&own, format!("{other} is the service {}", service.host));
            }
        }
    }

    /// DestinationRules by the services that they are for.
    fn of_rules(
        &mut self,
        input: &Input<'_>,
        registry: &Registry<'_>,
        options: &CompileOptions,
        report: &mut Report,
    ) {
        let rules = DestinationRules::new(input, options, report);
        let mut in_force: HashMap<&str, &ObjectRef> = HashMap::new();
        for service in registry.hosts() {
            if let Some(rule) = rules.find(&service.host, service.namespace) {
                for object in &rule.objects {
                    self.bind(object, format!("policy of {}", service.host));
                }
                in_force.insert(&service.host, &rule.first.name);
            }
        }
        for item in &input.destination_rules {
            let host = service_host(&item.spec.host, item.namespace(), &options.cluster_domain);
            let Ok(pattern) = HostPattern::parse(&host) else {
                continue;
            };
            let stronger = in_force.iter().find(|(host, _)| pattern.matches(host));
            if let Some((host, other)) = stronger
                && !self.bound.contains_key(&item.name)
            {
                self.shadow(&item.name, format!("{other} is in force for {host}"));
            }
        }
    }

    /// Secrets and ConfigMaps by the Gateways and DestinationRules that name them.
    fn of_credentials(&mut self, input: &Input<'_>, options: &CompileOptions) {
        let secrets: Vec<_> = input.secrets.iter().map(|item| &item.name).collect();
        let maps: Vec<_> = input.config_maps.iter().map(|item| &item.name).collect();
        let all: Vec<_> = secrets
            .into_iter()
            .chain(maps)
            .filter(|name| name.namespace == options.gateway_namespace)
            .cloned()
            .collect();
        let mut named: Vec<(&ObjectRef, &str)> = vec![];
        for item in &input.gateways {
            for tls in item.spec.servers.iter().filter_map(|server| server.tls.as_ref()) {
                let one = [tls.credential_name.as_str(), tls.ca_cert_credential_name.as_str()];
                let several = tls.credential_names.iter().map(String::as_str);
                named.extend(one.into_iter().chain(several).map(|name| (&*item.name, name)));
            }
        }
        for item in &input.destination_rules {
            named.extend(credentials_of(item).map(|name| (&*item.name, name)));
        }
        for object in &all {
            for (user, name) in &named {
                let name = name.rsplit("//").next().unwrap_or(name);
                if !name.is_empty() && (object.name == name || object.name == format!("{name}-cacert")) {
                    self.bind(object, format!("credential of {user}"));
                }
            }
        }
    }

    fn of_policies(&mut self, snapshot: &Snapshot) {
        for object in &snapshot.unenforced {
            self.bind(
                object,
                "cannot be enforced, so that no request is let through".to_owned(),
            );
        }
    }
}

fn credentials_of<'t>(
    item: &'t Item<'_, edge_config::istio::destination_rule::DestinationRule>,
) -> impl Iterator<Item = &'t str> {
    let subsets = item.spec.subsets.iter();
    let policies = subsets.filter_map(|subset| subset.traffic_policy.as_ref());
    let policies = item.spec.traffic_policy.iter().chain(policies);
    policies.flat_map(|policy| {
        let ports = policy
            .port_level_settings
            .iter()
            .filter_map(|port| port.tls.as_ref());
        let all = policy.tls.iter().chain(ports);
        all.map(|tls| tls.credential_name.as_str())
    })
}

/// Clusters that any route names, by host and port.
fn named_clusters(snapshot: &Snapshot) -> HashMap<(&str, u16), HashSet<&str>> {
    let mut named: HashMap<_, HashSet<_>> = HashMap::new();
    let mut add = |name: &edge_model::ClusterName| {
        if let Some(cluster) = snapshot.clusters.get(name) {
            let names = named.entry((cluster.host.as_str(), cluster.port)).or_default();
            names.insert(cluster.name.as_str());
        }
    };
    for listener in &snapshot.listeners {
        let hosts = listener.tables().flat_map(|table| table.virtual_hosts.iter());
        for route in hosts.flat_map(|host| &host.routes) {
            if let RouteAction::Forward(forward) = &route.action {
                forward.destinations.iter().for_each(|to| add(&to.cluster));
                forward.mirrors.iter().for_each(|to| add(&to.cluster));
            }
        }
        let servers: &[_] = match &listener.protocol {
            ListenerProtocol::Tls(servers) => servers,
            ListenerProtocol::Http(_) | ListenerProtocol::Tcp(_) => &[],
        };
        let own = match &listener.protocol {
            ListenerProtocol::Tcp(route) => Some(route),
            ListenerProtocol::Http(_) | ListenerProtocol::Tls(_) => None,
        };
        for route in servers.iter().filter_map(|server| server.tcp_route()).chain(own) {
            route.destinations.iter().for_each(|to| add(&to.cluster));
        }
    }
    named
}
