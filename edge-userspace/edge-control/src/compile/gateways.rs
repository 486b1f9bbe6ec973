//! Which servers of which Gateways listen where: selection, port translation and merging (istio
//! `pilot/pkg/model/gateway.go`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use edge_config::Resource;
use edge_config::istio::gateway::{Gateway, Server, TlsMode};
use edge_config::istio::service_entry::ServiceEntry;
use edge_config::k8s::service::Service;
use edge_model::{HostPattern, ObjectRef};

use super::Bindings;
use super::endpoints::has_all;
use super::hosts::{ServerHost, ServerHosts};
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
    pub(crate) hosts: Arc<ServerHosts>,
}

impl BoundServer<'_> {
    /// `namespace/name` of the Gateway.
    pub(crate) fn gateway_key(&self) -> String {
        self.gateway.key()
    }

    /// Whether any of its hosts is open to a host of a VirtualService.
    pub(crate) fn takes(&self, host: &HostPattern, namespace: &str) -> bool {
        let own = std::slice::from_ref(host);
        !self.hosts.intersection(own, namespace).is_empty()
    }

    /// Whether TLS ends here, and does not pass through.
    pub(crate) fn ends_tls(&self) -> bool {
        let mode = self.server.tls.as_ref().map(|tls| tls.mode).unwrap_or_default();
        !matches!(mode, TlsMode::Passthrough | TlsMode::AutoPassthrough)
    }

    pub(crate) fn redirects_to_https(&self) -> bool {
        self.server.tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }

    /// `spec.servers[<index>]`.
    pub(crate) fn field(&self) -> String {
        format!("spec.servers[{}]", self.index)
    }
}

/// What is listened on: a port, on every address or on one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Socket {
    pub(crate) port: u16,
    pub(crate) bind: Option<IpAddr>,
}

/// What is served on a socket. Servers of one socket agree in this.
#[derive(Debug)]
pub(crate) enum PortServers<'r> {
    /// Plain HTTP: all servers share the route table `http.<port>`.
    Http(Vec<BoundServer<'r>>),
    /// TLS: each server has its own names, and if HTTP is inside, its own route table.
    Tls(Vec<BoundServer<'r>>),
    /// A plain protocol that is not HTTP; nothing shares a socket with it.
    Tcp(Box<BoundServer<'r>>),
}

impl<'r> PortServers<'r> {
    pub(crate) fn servers(&self) -> &[BoundServer<'r>] {
        match self {
            Self::Http(servers) | Self::Tls(servers) => servers,
            Self::Tcp(server) => std::slice::from_ref(server),
        }
    }
}

/// What becomes of the servers of all Gateways that apply.
#[derive(Default)]
pub(crate) struct Bound<'r> {
    /// Those that are served, by the port that is listened on.
    pub(crate) ports: BTreeMap<Socket, PortServers<'r>>,
    /// Those that an earlier one keeps from a port.
    pub(crate) left_out: Vec<LeftOut<'r>>,
}

/// A server that an earlier one keeps from a port.
pub(crate) struct LeftOut<'r> {
    pub(crate) server: BoundServer<'r>,
    /// Gateway of the first server that has the port.
    pub(crate) winner: Option<Arc<ObjectRef>>,
}

/// The servers of all Gateways that apply, by the port that is listened on, and those that are left out.
pub(crate) fn bind<'r>(
    input: &Input<'r>,
    registry: &Registry<'r>,
    options: &CompileOptions,
    report: &mut Report,
) -> Bound<'r> {
    let targets = own_targets(registry, options);
    let mut merge = Merge::default();
    for gateway in &input.gateways {
        let Some(translation) = Translation::of(gateway, &targets, options) else {
            report_unselected(gateway, report);
            continue;
        };
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            if server.is_unix() {
                continue;
            }
            let Some(bound) = bound_server(gateway, index, server, report) else {
                continue;
            };
            let Some(bind) = bind_address(&bound, report) else {
                continue;
            };
            for port in translation.ports(bound.declared_port) {
                merge.add(Socket { port, bind }, bound.clone(), report);
            }
        }
    }
    merge.bound
}

/// The servers that are known to be served, of the Gateways that are there.
pub(crate) fn bind_known<'r>(
    input: &Input<'r>,
    known: &Bindings,
    report: &mut Report,
) -> BTreeMap<Socket, PortServers<'r>> {
    let mut ports = BTreeMap::new();
    for gateway in &input.gateways {
        for (index, socket) in known.get(&*gateway.name).into_iter().flatten() {
            let server = gateway.spec.servers.get(*index);
            let bound = server.and_then(|server| bound_server(gateway, *index, server, report));
            if let Some(bound) = bound {
                place(&mut ports, *socket, bound);
            }
        }
    }
    ports
}

/// Which servers are served.
pub(crate) fn bindings(ports: &BTreeMap<Socket, PortServers<'_>>) -> Bindings {
    let mut all = Bindings::new();
    for (socket, servers) in ports {
        for server in servers.servers() {
            let of_gateway = all.entry(ObjectRef::clone(&server.gateway.name)).or_default();
            of_gateway.push((server.index, *socket));
        }
    }
    for of_gateway in all.values_mut() {
        of_gateway.sort_unstable();
    }
    all
}

/// The host names of a server, without namespaces.
pub(crate) fn server_hosts(server: &Server) -> impl Iterator<Item = HostPattern> {
    let hosts = server.hosts.iter();
    hosts.filter_map(|text| server_host(text, "").ok().map(|host| host.name))
}

/// The address of `bind`, if it is one alone. `None` when the server cannot be listened for.
fn bind_address(bound: &BoundServer<'_>, report: &mut Report) -> Option<Option<IpAddr>> {
    match bound.server.bind.as_str() {
        "" => Some(None),
        text => match text.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => Some(None),
            Ok(address) => Some(Some(address)),
            Err(_) => {
                let field = format!("{}.bind", bound.field());
                let message = format!("{text:?} is no IP address, the server is not listened for");
                report.warn(
                    &bound.gateway,
                    field,
                    message,
                    "write an IP address, or nothing for all of them",
                );
                None
            }
        },
    }
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
    if port.protocol.eq_ignore_ascii_case("UDP") {
        return None;
    }
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
        hosts: Arc::new(ServerHosts::new(hosts)),
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
    registry
        .all()
        .filter(|service| match &service.origin {
            Origin::Kubernetes(item) => is_gateway_service(item.namespace(), item.spec, options),
            Origin::Entry(item) => is_gateway_entry(item.spec, options),
        })
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

/// Whether a resource is a Service or ServiceEntry that stands before this edge.
pub(crate) fn stands_before_gateway(resource: &Resource, options: &CompileOptions) -> bool {
    if let Resource::Service(object) = resource {
        return is_gateway_service(&object.meta.namespace, &object.spec, options);
    }
    matches!(resource, Resource::ServiceEntry(object) if is_gateway_entry(&object.spec, options))
}

fn is_gateway_service(namespace: &str, service: &Service, options: &CompileOptions) -> bool {
    let selector = &service.selector;
    namespace == options.gateway_namespace
        && !selector.is_empty()
        && has_all(&options.gateway_labels, selector)
}

fn is_gateway_entry(entry: &ServiceEntry, options: &CompileOptions) -> bool {
    entry.endpoints.iter().any(|endpoint| {
        let address = endpoint.address.parse();
        let is_own_address = address.is_ok_and(|address| options.gateway_addresses.contains(&address));
        let has_own_labels = !options.gateway_labels.is_empty();
        is_own_address || (has_own_labels && has_all(&endpoint.labels, &options.gateway_labels))
    })
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

/// Adds a server to those of its socket, with which it agrees.
fn place<'r>(ports: &mut BTreeMap<Socket, PortServers<'r>>, socket: Socket, bound: BoundServer<'r>) {
    let class = class_of(bound.server);
    let entry = ports.entry(socket);
    match class {
        Class::Http | Class::Https | Class::Tls => {
            let empty = || match class {
                Class::Http => PortServers::Http(vec![]),
                Class::Https | Class::Tls | Class::Plain => PortServers::Tls(vec![]),
            };
            if let PortServers::Http(servers) | PortServers::Tls(servers) = entry.or_insert_with(empty) {
                servers.push(bound);
            }
        }
        Class::Plain => {
            entry.or_insert_with(|| PortServers::Tcp(Box::new(bound)));
        }
    }
}

/// Servers as they come, with what an earlier one has taken.
#[derive(Default)]
struct Merge<'r> {
    bound: Bound<'r>,
    /// Hosts of the servers with TLS settings, with the Gateway that has them.
    tls_hosts: HashMap<Socket, HashMap<HostPattern, String>>,
    /// Names of the route tables of TLS servers.
    table_names: HashSet<String>,
}

impl<'r> Merge<'r> {
    /// Adds a server to a socket, unless it conflicts with an earlier one: the later server is then left out as a whole.
    fn add(&mut self, socket: Socket, bound: BoundServer<'r>, report: &mut Report) {
        let class = class_of(bound.server);
        let conflict = self
            .host_conflict(socket, &bound)
            .or_else(|| self.protocol_conflict(socket, class))
            .or_else(|| self.name_conflict(socket.port, class, &bound));
        if let Some(message) = conflict {
            let hint = "the older Gateway wins; change the port or the hosts of one of them";
            report.warn(&bound.gateway, bound.field(), message, hint);
            let first = self
                .bound
                .ports
                .get(&socket)
                .and_then(|taken| taken.servers().first());
            let winner = first.map(|server| Arc::clone(&server.gateway.name));
            self.bound.left_out.push(LeftOut {
                server: bound,
                winner,
            });
            return;
        }
        if bound.server.tls.is_some() {
            let owner = bound.gateway.name.to_string();
            let hosts = self.tls_hosts.entry(socket).or_default();
            hosts.extend(bound.hosts.iter().map(|host| (host.name.clone(), owner.clone())));
        }
        place(&mut self.bound.ports, socket, bound);
    }

    fn protocol_conflict(&self, socket: Socket, class: Class) -> Option<String> {
        let (taken_by, agrees) = match self.bound.ports.get(&socket)? {
            PortServers::Http(_) => ("plain HTTP", class == Class::Http),
            PortServers::Tls(_) => ("TLS", matches!(class, Class::Https | Class::Tls)),
            PortServers::Tcp(_) => ("a protocol that is not HTTP", false),
        };
        let port = socket.port;
        (!agrees).then(|| format!("port {port} serves {taken_by} for another server, this one is left out"))
    }

    /// Two servers with TLS settings must not share a host: Envoy could not tell their filter chains apart.
    fn host_conflict(&self, socket: Socket, bound: &BoundServer<'_>) -> Option<String> {
        bound.server.tls.as_ref()?;
        let hosts = self.tls_hosts.get(&socket)?;
        let taken = |host: &ServerHost| {
            let owner = hosts.get(&host.name)?;
            Some(format!(
                "{owner} has TLS settings for {} on port {} already, this server is left out",
                host.name, socket.port
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
pub(crate) enum Class {
    Http,
    /// HTTPS that ends here.
    Https,
    /// TLS that passes through, or ends in something other than HTTP.
    Tls,
    /// Anything else in plain text.
    Plain,
}

pub(crate) fn class_of(server: &Server) -> Class {
    let protocol = server.port.as_ref().map_or("", |port| port.protocol.as_str());
    let mode = server.tls.as_ref().map(|tls| tls.mode).unwrap_or_default();
    match protocol.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "HTTP_PROXY" | "GRPC" | "GRPC-WEB" => Class::Http,
        "HTTPS" if !matches!(mode, TlsMode::Passthrough | TlsMode::AutoPassthrough) => Class::Https,
        "HTTPS" | "TLS" => Class::Tls,
        _ => Class::Plain,
    }
}
