//! The services that destinations can name: Kubernetes Services and ServiceEntries.

use std::collections::{BTreeMap, HashMap};

use edge_config::istio::service_entry::ServiceEntry;
use edge_config::k8s::service::{IntOrString, Service as KubernetesService};

use super::input::{Input, Item};
use super::names::{is_visible, service_host};
use crate::CompileOptions;

/// A service under one host name.
#[derive(Debug)]
pub(crate) struct Service<'r> {
    /// Full name, in lower case.
    pub(crate) host: String,
    pub(crate) namespace: &'r str,
    pub(crate) labels: &'r BTreeMap<String, String>,
    pub(crate) ports: Vec<Port>,
    pub(crate) origin: Origin<'r>,
}

/// Where a service comes from, which says where its endpoints are.
#[derive(Debug)]
pub(crate) enum Origin<'r> {
    Kubernetes(Item<'r, KubernetesService>),
    Entry(Item<'r, ServiceEntry>),
}

/// A TCP port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) number: u16,
    pub(crate) name: String,
    /// Port of the workloads; `None` when it is given by a name that only a Pod can resolve.
    pub(crate) target: Option<u16>,
    /// Whether HTTP/2 is spoken: by `appProtocol`, else by the beginning of the name (istio
    /// `pkg/config/kube/conversion.go`).
    pub(crate) is_http2: bool,
}

/// All services by host name.
#[derive(Debug)]
pub(crate) struct Registry<'r> {
    services: Vec<Service<'r>>,
    by_host: HashMap<String, Vec<usize>>,
}

impl<'r> Registry<'r> {
    pub(crate) fn new(input: &Input<'r>, options: &CompileOptions) -> Self {
        let kubernetes = input
            .services
            .iter()
            .map(|item| kubernetes_service(item, options));
        let entries = input
            .service_entries
            .iter()
            .filter(|item| is_visible(&item.spec.export_to, item.namespace(), &options.gateway_namespace))
            // A larger one is refused; what it would take to compile it must not be spent.
            .filter(|item| item.spec.endpoint_count() <= ServiceEntry::MAX_ENDPOINTS)
            .flat_map(entry_services);
        let services: Vec<_> = kubernetes.chain(entries).collect();
        let mut by_host: HashMap<String, Vec<usize>> = HashMap::new();
        for (number, service) in services.iter().enumerate() {
            by_host.entry(service.host.clone()).or_default().push(number);
        }
        Self { services, by_host }
    }

    /// The service of a full name. When several namespaces have it, that of the asking namespace goes first, then
    /// the oldest.
    pub(crate) fn find(&self, host: &str, asking_namespace: &str) -> Option<&Service<'r>> {
        let mut candidates = self
            .by_host
            .get(host)?
            .iter()
            .filter_map(|number| self.services.get(*number));
        let first = candidates.clone().next();
        candidates
            .find(|service| service.namespace == asking_namespace)
            .or(first)
    }

    /// One service for each host name.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Service<'r>> {
        self.services
            .iter()
            .enumerate()
            .filter(|(number, service)| {
                self.by_host.get(&service.host).and_then(|all| all.first()) == Some(number)
            })
            .map(|(_, service)| service)
    }

    /// Every service, those too that share their host name with another.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Service<'r>> {
        self.services.iter()
    }
}

fn kubernetes_service<'r>(item: &Item<'r, KubernetesService>, options: &CompileOptions) -> Service<'r> {
    let ports = item
        .spec
        .ports
        .iter()
        .filter(|port| port.protocol.is_empty() || port.protocol == "TCP");
    Service {
        host: service_host(&item.meta.name, item.namespace(), &options.cluster_domain),
        namespace: item.namespace(),
        labels: &item.meta.labels,
        ports: ports
            .filter_map(|port| {
                let number = u16::try_from(port.port).ok()?;
                Some(Port {
                    number,
                    name: port.name.clone(),
                    is_http2: match &port.app_protocol {
                        Some(app_protocol) => is_http2(app_protocol),
                        None => {
                            is_http2(port.name.split('-').next().unwrap_or(""))
                                && !port.name.starts_with("grpc-web")
                        }
                    },
                    target: match port.target_port {
                        None | Some(IntOrString::Int(0)) => Some(number),
                        Some(IntOrString::Int(target)) => Some(target),
                        Some(IntOrString::String(_)) => None,
                    },
                })
            })
            .collect(),
        origin: Origin::Kubernetes(item.clone()),
    }
}

/// A ServiceEntry is one service for each of its hosts.
fn entry_services<'r>(item: &Item<'r, ServiceEntry>) -> impl Iterator<Item = Service<'r>> {
    let ports: Vec<_> = item
        .spec
        .ports
        .iter()
        .filter(|port| !port.protocol.eq_ignore_ascii_case("udp"))
        .filter_map(|port| {
            let number = u16::try_from(port.number).ok()?;
            let target = port.target_port.filter(|target| *target != 0);
            Some(Port {
                number,
                name: port.name.clone(),
                is_http2: is_http2(&port.protocol),
                target: target.map_or(Some(number), |target| u16::try_from(target).ok()),
            })
        })
        .collect();
    let item = item.clone();
    item.spec.hosts.iter().map(move |host| Service {
        host: host.to_ascii_lowercase(),
        namespace: item.namespace(),
        labels: &item.meta.labels,
        ports: ports.clone(),
        origin: Origin::Entry(item.clone()),
    })
}

/// Whether the name of a protocol is one of HTTP/2's.
fn is_http2(protocol: &str) -> bool {
    ["http2", "grpc", "h2c", "kubernetes.io/h2c"]
        .iter()
        .any(|own| own.eq_ignore_ascii_case(protocol))
}
