//! Which servers of which Gateways listen where: selection, port translation and merging (istio
//! `pilot/pkg/model/gateway.go`).

use std::collections::{BTreeMap, HashMap, HashSet};

use edge_config::istio::gateway::{Gateway, Server, TlsMode};
use edge_model::HostPattern;

use super::endpoints::has_all;
use super::input::{Input, Item};
use super::registry::{Origin, Registry};
use super::report::Report;
use crate::CompileOptions;

/// Label of a Service whose ports are not translated.
const NO_TRANSLATION_LABEL: &str = "experimental.istio.io/disable-gateway-port-translation";
/// Annotation of a Gateway that names the Services it stands behind, in place of a selector.
const SERVICE_ANNOTATION: &str = "internal.istio.io/gateway-service";

/// A Gateway's server on one port that the edge listens on.
#[derive(Debug, Clone)]
pub(crate) struct BoundServer<'r> {
    pub(crate) gateway: Item<'r, Gateway>,
    pub(crate) index: usize,
    pub(crate) server: &'r Server,
    /// Port as the Gateway has it: clients connect to it, names and `match.port` go by it.
    pub(crate) declared_port: u16,
    /// Hosts in lower case.
    pub(crate) hosts: Vec<ServerHost>,
}

/// A host of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServerHost {
    /// Namespace of the VirtualServices that may bind; `None` for any.
    pub(crate) namespace: Option<String>,
    pub(crate) name: HostPattern,
}

impl BoundServer<'_> {
    /// `namespace/name` of the Gateway.
    pub(crate) fn gateway_key(&self) -> String {
        self.gateway.key()
    }

    pub(crate) fn redirects_to_https(&self) -> bool {
        self.server.tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }

    fn field(&self) -> String {
        format!("spec.servers[{}]", self.index)
    }
}

/// What is served on a port. Servers of one port agree in this.
#[derive(Debug)]
pub(crate) enum PortServers<'r> {
    /// Plain HTTP: all servers share the route table `http.<port>`.
    Http(Vec<BoundServer<'r>>),
    /// HTTPS that ends here: each server has its own route table. Servers whose TLS passes through share the port but
    /// are not listed.
    Https(Vec<BoundServer<'r>>),
    /// A plain protocol that is not HTTP: the port is taken, but not served by the edge.
    Other,
}

/// The servers of all Gateways that apply, by the port that is listened on.
pub(crate) fn bind<'r>(
    input: &Input<'r>,
    registry: &Registry<'r>,
    options: &CompileOptions,
    report: &mut Report,
) -> BTreeMap<u16, PortServers<'r>> {
    let targets = own_targets(registry, options);
    let mut merge = Merge::default();
    for gateway in &input.gateways {
        let Some(translation) = Translation::of(gateway, &targets, options) else {
            report_unselected(gateway, report);
            continue;
        };
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            // To listen on more addresses than was asked for could let somebody in.
            if server.is_bound() {
                continue;
            }
            let Some(bound) = bound_server(gateway, index, server, report) else {
                continue;
            };
            for port in translation.ports(bound.declared_port) {
                merge.add(port, bound.clone(), report);
            }
        }
    }
    merge.ports
}

fn report_unselected(gateway: &Item<'_, Gateway>, report: &mut Report) {
    report.warn(
        gateway,
        "spec.selector",
        "the selector is not among the labels of this edge, the Gateway is left to other workloads",
        "compare it with gatewayLabels in edge.yaml",
    );
}

fn bound_server<'r>(
    gateway: &Item<'r, Gateway>,
    index: usize,
    server: &'r Server,
    report: &mut Report,
) -> Option<BoundServer<'r>> {
    let port = server.port.as_ref()?;
    let declared_port = u16::try_from(port.number).ok().filter(|port| *port != 0)?;
    let mut hosts = vec![];
    for (number, text) in server.hosts.iter().enumerate() {
        match server_host(text, gateway.namespace()) {
            Ok(host) => hosts.push(host),
            Err(error) => {
                let field = format!("spec.servers[{index}].hosts[{number}]");
                report.error(
                    gateway,
                    field,
                    error,
                    "write [namespace/]name, such as shop.example.com",
                );
            }
        }
    }
    Some(BoundServer {
        gateway: gateway.clone(),
        index,
        server,
        declared_port,
        hosts,
    })
}

fn server_host(text: &str, own_namespace: &str) -> Result<ServerHost, String> {
    let (namespace, name) = text.split_once('/').unwrap_or(("*", text));
    Ok(ServerHost {
        namespace: match namespace {
            "*" => None,
            "." => Some(own_namespace.to_owned()),
            other => Some(other.to_owned()),
        },
        name: HostPattern::parse(name).map_err(|error| error.to_string())?,
    })
}

/// A port of a Service that stands before this edge.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target<'r> {
    host: String,
    namespace: &'r str,
    opted_out: bool,
    port: u16,
    target: u16,
}

/// The ports of the Services that select the gateway workload, in the order of the Services.
fn own_targets<'r>(registry: &Registry<'r>, options: &CompileOptions) -> Vec<Target<'r>> {
    let selects_gateway = |origin: &Origin<'_>| match origin {
        Origin::Kubernetes(item) => {
            let selector = &item.spec.selector;
            item.namespace() == options.gateway_namespace
                && !selector.is_empty()
                && has_all(&options.gateway_labels, selector)
        }
        Origin::Entry(item) => item.spec.endpoints.iter().any(|endpoint| {
            let is_own_address = endpoint
                .address
                .parse()
                .is_ok_and(|a| options.gateway_addresses.contains(&a));
            let has_own_labels = !options.gateway_labels.is_empty();
            is_own_address || (has_own_labels && has_all(&endpoint.labels, &options.gateway_labels))
        }),
    };
    registry
        .all()
        .filter(|service| selects_gateway(&service.origin))
        .flat_map(|service| {
            service.ports.iter().filter_map(|port| {
                Some(Target {
                    host: service.host.clone(),
                    namespace: service.namespace,
                    opted_out: service.labels.contains_key(NO_TRANSLATION_LABEL),
                    port: port.number,
                    target: port.target?,
                })
            })
        })
        .collect()
}

/// How the ports of one Gateway become ports that are listened on.
enum Translation<'t, 'r> {
    /// By selector: the target port of the first Service that has the port, else the port itself.
    Selector(&'t [Target<'r>]),
    /// By annotation: the target ports of the named Services; a port that they lack is not listened on.
    Services(Vec<&'t Target<'r>>),
}

impl<'t, 'r> Translation<'t, 'r> {
    /// `None` when the Gateway is not for this edge.
    fn of(gateway: &Item<'r, Gateway>, targets: &'t [Target<'r>], options: &CompileOptions) -> Option<Self> {
        let Some(hosts) = gateway.meta.annotations.get(SERVICE_ANNOTATION) else {
            let is_selected = has_all(&options.gateway_labels, &gateway.spec.selector);
            return is_selected.then_some(Self::Selector(targets));
        };
        let is_named = |target: &&Target<'_>| {
            target.namespace == gateway.namespace() && hosts.split(',').any(|host| host.trim() == target.host)
        };
        let named: Vec<_> = targets.iter().filter(is_named).collect();
        (!named.is_empty()).then_some(Self::Services(named))
    }

    fn ports(&self, declared: u16) -> Vec<u16> {
        match self {
            Self::Selector(targets) => {
                let mut candidates = targets.iter().filter(|target| !target.opted_out);
                let found = candidates.find(|target| target.port == declared);
                vec![found.map_or(declared, |target| target.target)]
            }
            Self::Services(targets) => {
                let mut ports: Vec<_> = targets
                    .iter()
                    .filter(|target| target.port == declared)
                    .map(|target| target.target)
                    .collect();
                ports.sort_unstable();
                ports.dedup();
                ports
            }
        }
    }
}

/// Servers as they come, with what an earlier one has taken.
#[derive(Default)]
struct Merge<'r> {
    ports: BTreeMap<u16, PortServers<'r>>,
    /// Hosts of the servers with TLS settings, with the Gateway that has them.
    tls_hosts: HashMap<(u16, HostPattern), String>,
    /// Names of the route tables of TLS servers.
    table_names: HashSet<String>,
}

impl<'r> Merge<'r> {
    /// Adds a server to a port, unless it conflicts with an earlier one: the later server is then left out as a whole.
    fn add(&mut self, port: u16, bound: BoundServer<'r>, report: &mut Report) {
        let class = class_of(bound.server);
        let conflict = self
            .host_conflict(port, &bound)
            .or_else(|| self.protocol_conflict(port, class))
            .or_else(|| self.name_conflict(port, class, &bound));
        if let Some(message) = conflict {
            let hint = "the older Gateway wins; change the port or the hosts of one of them";
            report.warn(&bound.gateway, bound.field(), message, hint);
            return;
        }
        if bound.server.tls.is_some() {
            for host in &bound.hosts {
                self.tls_hosts
                    .insert((port, host.name.clone()), bound.gateway.name.to_string());
            }
        }
        let entry = self.ports.entry(port).or_insert_with(|| match class {
            Class::Http => PortServers::Http(vec![]),
            Class::Https | Class::Tls => PortServers::Https(vec![]),
            Class::Plain => PortServers::Other,
        });
        match (entry, class) {
            (PortServers::Http(servers), _) | (PortServers::Https(servers), Class::Https) => {
                servers.push(bound)
            }
            (PortServers::Https(_) | PortServers::Other, _) => {}
        }
    }

    fn protocol_conflict(&self, port: u16, class: Class) -> Option<String> {
        let (taken_by, agrees) = match self.ports.get(&port)? {
            PortServers::Http(_) => ("plain HTTP", class == Class::Http),
            PortServers::Https(_) => ("TLS", matches!(class, Class::Https | Class::Tls)),
            PortServers::Other => ("a protocol that is not HTTP", false),
        };
        (!agrees).then(|| format!("port {port} serves {taken_by} for another server, this one is left out"))
    }

    /// Two servers with TLS settings must not share a host: Envoy could not tell their filter chains apart.
    fn host_conflict(&self, port: u16, bound: &BoundServer<'_>) -> Option<String> {
        bound.server.tls.as_ref()?;
        let taken = |host: &ServerHost| {
            let owner = self.tls_hosts.get(&(port, host.name.clone()))?;
            Some(format!(
                "{owner} has TLS settings for {} on port {port} already, this server is left out",
                host.name
            ))
        };
        bound.hosts.iter().find_map(taken)
    }

    fn name_conflict(&mut self, port: u16, class: Class, bound: &BoundServer<'_>) -> Option<String> {
        if class != Class::Https || self.table_names.insert(https_table_name(port, bound)) {
            return None;
        }
        let name = bound.server.port.as_ref().map_or("", |port| port.name.as_str());
        Some(format!(
            "port name {name:?} is used by another HTTPS server of the Gateway, this one is left out"
        ))
    }
}

/// `https.<port>.<port name>.<gateway>.<namespace>`, Istio's name of a TLS server's route table.
pub(crate) fn https_table_name(port: u16, bound: &BoundServer<'_>) -> String {
    let port_name = bound.server.port.as_ref().map_or("", |port| port.name.as_str());
    let meta = bound.gateway.meta;
    format!("https.{port}.{port_name}.{}.{}", meta.name, meta.namespace)
}

/// Protocols of servers, as far as they decide what can share a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Http,
    /// HTTPS that ends here.
    Https,
    /// TLS that passes through, or ends in something other than HTTP.
    Tls,
    /// Anything else in plain text.
    Plain,
}

fn class_of(server: &Server) -> Class {
    let protocol = server.port.as_ref().map_or("", |port| port.protocol.as_str());
    let mode = server.tls.as_ref().map(|tls| tls.mode).unwrap_or_default();
    match protocol.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => Class::Http,
        "HTTPS" if !matches!(mode, TlsMode::Passthrough | TlsMode::AutoPassthrough) => Class::Https,
        "HTTPS" | "TLS" => Class::Tls,
        _ => Class::Plain,
    }
}
