//! Which objects refer to which: what a change has to be seen together with is looked up, not searched for.

use std::collections::{BTreeSet, HashMap};

use edge_config::Resource;
use edge_config::istio::destination_rule::DestinationRule;
use edge_config::istio::destination_rule::policy::ClientTlsSettings;
use edge_config::istio::gateway::Gateway;
use edge_config::istio::virtual_service::VirtualService;
use edge_config::k8s::endpoint_slice::{EndpointSlice, SERVICE_NAME_LABEL};
use edge_config::k8s::meta::Meta;
use edge_model::{HostPattern, Kind, ObjectRef};

use crate::CompileOptions;
use crate::compile::{gateway_key, server_hosts, service_host, stands_before_gateway};

/// What objects are found by. Names are those of the objects that refer, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Every Gateway.
    Gateways,
    /// Every EnvoyFilter.
    Filters,
    /// AuthorizationPolicies, RequestAuthentications and PeerAuthentications.
    Policies,
    /// Services and ServiceEntries before the gateway, whose ports are translated.
    BeforeGateway,
    /// DestinationRules for many hosts.
    WildcardRules,
    /// VirtualServices with `tcp` or `tls` rules.
    TcpRoutes,
    /// VirtualServices with a host that stands for a part of a label.
    PartialRoutes,
    /// Services and ServiceEntries by their hosts.
    Service(String),
    /// DestinationRules by their host.
    Rule(String),
    /// VirtualServices by each of their hosts.
    Route(HostPattern),
    /// VirtualServices by the hosts of their destinations.
    User(String),
    /// VirtualServices by the namespace and name of the delegates that they name.
    Root(String, String),
    /// VirtualServices by `namespace/name` of their Gateways.
    BoundTo(String),
    /// Gateways by the hosts of their servers.
    ServerHost(HostPattern),
    /// EndpointSlices by namespace and name of their Service.
    Slice(String, String),
    /// EndpointSlices by namespace and name of their Pods.
    SliceOf(String, String),
    /// ServiceEntries with a `workloadSelector`, by their namespace.
    Selecting(String),
    /// Pods and WorkloadEntries by their own namespace.
    Workload(String),
    /// Gateways and DestinationRules by the names of the Secrets and ConfigMaps that they take certificates from.
    Credential(String),
}

/// All objects by what they are found by.
#[derive(Debug, Default)]
pub(super) struct Index(HashMap<Key, BTreeSet<ObjectRef>>);

impl Index {
    pub(super) fn add(&mut self, object: &ObjectRef, resource: &Resource, options: &CompileOptions) {
        for key in keys(resource, options) {
            self.0.entry(key).or_default().insert(object.clone());
        }
    }

    pub(super) fn remove(&mut self, object: &ObjectRef, resource: &Resource, options: &CompileOptions) {
        for key in keys(resource, options) {
            if let Some(objects) = self.0.get_mut(&key) {
                objects.remove(object);
                if objects.is_empty() {
                    self.0.remove(&key);
                }
            }
        }
    }

    /// The objects of a key, in the order of their names.
    pub(super) fn of(&self, key: &Key) -> impl Iterator<Item = &ObjectRef> + use<'_> {
        self.0.get(key).into_iter().flatten()
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// Hosts of services that a DestinationRule's host stands for: itself, or all those that its wildcard takes.
    pub(super) fn hosts_of_rule(&self, host: &str) -> Vec<String> {
        let Some(pattern) = HostPattern::parse(host).ok().filter(|_| host.starts_with('*')) else {
            return vec![host.to_owned()];
        };
        let hosts = self.0.keys().filter_map(|key| {
            let Key::Service(host) = key else {
                return None;
            };
            pattern.matches(host).then(|| host.clone())
        });
        hosts.collect()
    }

    /// VirtualServices with a host that takes everything a domain does: only these can have routes there.
    pub(super) fn routes_of(&self, domain: &HostPattern) -> BTreeSet<ObjectRef> {
        let mut objects = BTreeSet::new();
        objects.extend(self.of(&Key::Route(domain.clone())).cloned());
        objects.extend(self.of(&Key::Route(HostPattern::Any)).cloned());
        let (HostPattern::Exact(text) | HostPattern::Suffix(text)) = domain else {
            return objects;
        };
        let has_partial = self.has(&Key::PartialRoutes);
        for (at, byte) in text.bytes().enumerate() {
            if (byte == b'.' || has_partial)
                && let Some(suffix) = text.get(at..)
            {
                let key = Key::Route(HostPattern::Suffix(suffix.to_owned()));
                objects.extend(self.of(&key).cloned());
            }
        }
        objects
    }
}

fn keys(resource: &Resource, options: &CompileOptions) -> Vec<Key> {
    let meta = resource.meta();
    let namespace = || meta.namespace.clone();
    let mut keys = vec![];
    if stands_before_gateway(resource, options) {
        keys.push(Key::BeforeGateway);
    }
    match resource {
        Resource::Gateway(object) => {
            keys.push(Key::Gateways);
            let servers = object.spec.servers.iter();
            keys.extend(servers.flat_map(server_hosts).map(Key::ServerHost));
            let credentials = credentials_of_gateway(&object.spec);
            keys.extend(credentials.map(|name| Key::Credential(name.to_owned())));
        }
        Resource::EnvoyFilter(_) => keys.push(Key::Filters),
        Resource::Service(_) => {
            let host = service_host(&meta.name, &meta.namespace, &options.cluster_domain);
            keys.push(Key::Service(host));
        }
        Resource::ServiceEntry(object) => {
            let hosts = object.spec.hosts.iter().map(|host| host.to_ascii_lowercase());
            keys.extend(hosts.map(Key::Service));
            if object.spec.workload_selector.is_some() {
                keys.push(Key::Selecting(namespace()));
            }
        }
        Resource::DestinationRule(object) => {
            let host = rule_host(&object.spec, meta, options);
            if host.starts_with('*') {
                keys.push(Key::WildcardRules);
            }
            keys.push(Key::Rule(host));
            let credentials = credentials_of_rule(&object.spec);
            keys.extend(credentials.map(|name| Key::Credential(name.to_owned())));
        }
        Resource::VirtualService(object) => route_keys(&object.spec, meta, options, &mut keys),
        Resource::EndpointSlice(object) => {
            keys.extend(slice_key(meta).map(|(namespace, name)| Key::Slice(namespace, name)));
            let pods = pods_of(&object.spec, &meta.namespace);
            keys.extend(pods.map(|pod| Key::SliceOf(pod.namespace, pod.name)));
        }
        Resource::WorkloadEntry(_) | Resource::Pod(_) => keys.push(Key::Workload(namespace())),
        Resource::AuthorizationPolicy(_)
        | Resource::RequestAuthentication(_)
        | Resource::PeerAuthentication(_) => keys.push(Key::Policies),
        Resource::Namespace(_) | Resource::Secret(_) | Resource::ConfigMap(_) => {}
    }
    keys
}

fn route_keys(spec: &VirtualService, meta: &Meta, options: &CompileOptions, keys: &mut Vec<Key>) {
    keys.extend(
        destinations(spec, &meta.namespace, options)
            .into_iter()
            .map(Key::User),
    );
    for host in spec.hosts.iter().filter_map(|text| HostPattern::parse(text).ok()) {
        if host.is_partial() {
            keys.push(Key::PartialRoutes);
        }
        keys.push(Key::Route(host));
    }
    let gateways = spec.gateways.iter().filter(|name| *name != "mesh");
    keys.extend(gateways.map(|name| Key::BoundTo(gateway_key(name, &meta.namespace))));
    let delegates = delegates_of(spec, &meta.namespace);
    keys.extend(delegates.map(|delegate| Key::Root(delegate.namespace, delegate.name)));
    if has_tcp_rules(spec) {
        keys.push(Key::TcpRoutes);
    }
}

/// Whether connections are forwarded by the rules of a VirtualService.
pub(super) fn has_tcp_rules(spec: &VirtualService) -> bool {
    !spec.tls.is_empty() || !spec.tcp.is_empty()
}

/// The VirtualServices that the rules of another name.
pub(super) fn delegates_of<'t>(
    spec: &'t VirtualService,
    own: &'t str,
) -> impl Iterator<Item = ObjectRef> + 't {
    let named = spec.http.iter().filter_map(|rule| rule.delegate.as_ref());
    named.map(move |delegate| ObjectRef {
        kind: Kind::VirtualService,
        namespace: or_own(&delegate.namespace, own),
        name: delegate.name.clone(),
    })
}

/// The Pods that the endpoints of a slice refer to.
pub(super) fn pods_of<'t>(slice: &'t EndpointSlice, own: &'t str) -> impl Iterator<Item = ObjectRef> + 't {
    let targets = slice
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.target_ref.as_ref());
    targets.map(move |target| ObjectRef {
        kind: Kind::Pod,
        namespace: or_own(&target.namespace, own),
        name: target.name.clone(),
    })
}

fn or_own(written: &str, own: &str) -> String {
    if written.is_empty() { own } else { written }.to_owned()
}

/// Namespace and name of the Service that an EndpointSlice belongs to.
pub(super) fn slice_key(meta: &Meta) -> Option<(String, String)> {
    let service = meta.labels.get(SERVICE_NAME_LABEL)?;
    Some((meta.namespace.clone(), service.clone()))
}

/// Full name, or wildcard, of the services that a rule is for.
pub(super) fn rule_host(rule: &DestinationRule, meta: &Meta, options: &CompileOptions) -> String {
    service_host(&rule.host, &meta.namespace, &options.cluster_domain)
}

/// Full names of the services that a VirtualService of a namespace leads to.
pub(super) fn destinations(spec: &VirtualService, namespace: &str, options: &CompileOptions) -> Vec<String> {
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

/// The TLS settings of a rule, of all its subsets and ports.
pub(super) fn tls_of(rule: &DestinationRule) -> impl Iterator<Item = &ClientTlsSettings> {
    let subsets = rule
        .subsets
        .iter()
        .filter_map(|subset| subset.traffic_policy.as_ref());
    let policies = rule.traffic_policy.iter().chain(subsets);
    policies.flat_map(|policy| {
        let ports = policy
            .port_level_settings
            .iter()
            .filter_map(|port| port.tls.as_ref());
        policy.tls.iter().chain(ports)
    })
}

/// Names of Secrets and ConfigMaps without what says where they are.
fn bare(name: &str) -> Option<&str> {
    let name = name.rsplit("//").next().unwrap_or(name);
    Some(name).filter(|name| !name.is_empty())
}

pub(super) fn credentials_of_rule(rule: &DestinationRule) -> impl Iterator<Item = &str> {
    tls_of(rule).filter_map(|tls| bare(&tls.credential_name))
}

pub(super) fn credentials_of_gateway(gateway: &Gateway) -> impl Iterator<Item = &str> {
    let tls = gateway.servers.iter().filter_map(|server| server.tls.as_ref());
    tls.flat_map(|tls| {
        let one = [&tls.credential_name, &tls.ca_cert_credential_name];
        one.into_iter()
            .chain(&tls.credential_names)
            .filter_map(|name| bare(name))
    })
}
