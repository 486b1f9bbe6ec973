//! From resources to a Snapshot: pure, and the same for the same input in any order of files.
//!
//! Binding, merging and order are Istio's; each module names the function of istio/istio that it follows. Everything
//! that is wrong is reported at once. Between objects Istio goes on with what it can use, and so does this: what a
//! cross-object check finds is a warning. An error means that an object cannot be used as it is written.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use edge_config::{Problem, Resource};
use edge_model::{
    Alpn, HostPattern, Listener, ListenerProtocol, ObjectRef, RouteTable, ServerTls, Snapshot, TlsServer,
    TlsService,
};

use crate::CompileOptions;

mod action;
mod analyze;
mod clusters;
mod context;
mod credentials;
mod delegates;
mod destination_rules;
mod endpoints;
mod fate;
mod gateways;
mod headers;
mod hosts;
mod input;
mod locality;
mod matcher;
mod names;
mod patch_match;
mod policies;
mod rate_limits;
mod registry;
mod relimit;
mod report;
mod route_policy;
mod routes;
mod tables;
mod tcp;
mod tls;
mod traffic_policy;
mod upstream_tls;
mod vips;

use clusters::Clusters;
pub(crate) use clusters::MAX_PLACES;
use context::{ClusterNames, Context};
pub(crate) use credentials::Checked;
use credentials::Credentials;
pub use credentials::ReadFile;
use delegates::Delegates;
use destination_rules::DestinationRules;
use endpoints::Workloads;
pub(crate) use endpoints::has_all;
pub use fate::{Fate, State, fates};
use gateways::{BoundServer, Class, PortServers};
pub(crate) use gateways::{Socket, server_hosts, stands_before_gateway};
use input::Input;
pub(crate) use names::{gateway_key, service_host};
use patch_match::Scope;
use rate_limits::RateLimits;
use registry::Registry;
pub(crate) use relimit::{Hosts, relimit, touched_hosts};
use report::Report;
use route_policy::RetryDefaults;
use tables::Binding;
pub(crate) use tables::MAX_ROUTES;

/// What came of compiling.
#[derive(Debug)]
pub struct Compiled {
    /// The configuration, with version 0. It is complete only when no problem is an error.
    pub snapshot: Snapshot,
    /// What is wrong, and warnings.
    pub problems: Vec<Problem>,
}

/// Compiles resources that `edge_config::check` has let through. `read` gives the content of the files that they name.
#[must_use]
pub fn compile(resources: &[Resource], options: &CompileOptions, read: &ReadFile<'_>) -> Compiled {
    let resources: Vec<_> = resources.iter().collect();
    compile_all(&resources, options, read, &Checked::default()).compiled
}

/// What came of compiling, with what a later part is compiled against.
pub(crate) struct Output {
    pub(crate) compiled: Compiled,
    /// The servers that are served.
    pub(crate) bindings: Bindings,
    /// How many [places](clusters::MAX_PLACES) the clusters of each service's host take.
    pub(crate) places: HashMap<String, usize>,
    /// Whether a part is missing because it would take more room than there is.
    pub(crate) is_cut: bool,
}

/// The servers of each Gateway that are served, by their index, with what is listened on for them.
pub(crate) type Bindings = HashMap<ObjectRef, Vec<(usize, Socket)>>;

/// What is wanted of a compilation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'w> {
    /// The services whose clusters are built; `None` for all.
    pub(crate) clusters: Option<&'w BTreeSet<String>>,
    /// Servers that are known to be served. Gateways may then be missing, and neither is looked for conflicts among the
    /// servers nor are their certificates read. `None` to find out.
    pub(crate) bindings: Option<&'w Bindings>,
    /// What is known of certificates.
    pub(crate) checked: &'w Checked,
}

/// Compiles resources that stand in different places.
pub(crate) fn compile_all(
    resources: &[&Resource],
    options: &CompileOptions,
    read: &ReadFile<'_>,
    checked: &Checked,
) -> Output {
    let everything = Wanted {
        clusters: None,
        bindings: None,
        checked,
    };
    compile_wanted(resources, options, read, everything)
}

/// Compiles resources for a part of what they come to.
pub(crate) fn compile_wanted(
    resources: &[&Resource],
    options: &CompileOptions,
    read: &ReadFile<'_>,
    wanted: Wanted<'_>,
) -> Output {
    let mut report = Report::default();
    let input = Input::new(resources.iter().copied(), &mut report);
    let registry = Registry::new(&input, options);
    let rules = DestinationRules::new(&input, options, &mut report);
    let workloads = Workloads::new(&input);
    let delegates = Delegates::new(&input, &options.cluster_domain);
    let retries = RetryDefaults::new();
    let names = ClusterNames::default();
    let credentials = Credentials::new(&input, options, read, wanted.checked);
    let context = Context {
        options,
        registry: &registry,
        rules: &rules,
        delegates: &delegates,
        retries: &retries,
        clusters: &names,
    };
    let binding = Binding::new(&input, &context, &mut report);
    let ports = match wanted.bindings {
        Some(known) => gateways::bind_known(&input, known, &mut report),
        None => gateways::bind(&input, &registry, options, &mut report).ports,
    };
    let mut limits = RateLimits::new(&input, options, &mut report);
    let mut listeners = Listeners {
        binding: &binding,
        context,
        credentials: wanted.bindings.is_none().then_some(&credentials),
        limits: &mut limits,
        report: &mut report,
    };
    let listeners = ports
        .iter()
        .filter_map(|(socket, servers)| listeners.listener(*socket, servers));
    let listeners = listeners.map(Arc::new).collect();
    limits.report_unmatched(&mut report);
    analyze::analyze(&input, &ports, &workloads, &context, &mut report);
    let clusters = Clusters {
        registry: &registry,
        rules: &rules,
        workloads: &workloads,
        credentials: &credentials,
        options,
    };
    let (clusters, places) = clusters.build(wanted.clusters, &mut report);
    let snapshot = Snapshot {
        version: 0,
        listeners,
        clusters,
        unenforced: policies::unenforced(&input, options),
        penalties: options.penalties,
        datapath: vips::datapath(options, &vips::declared_ports(&ports)),
    };
    Output {
        bindings: gateways::bindings(&ports),
        places,
        is_cut: report.is_cut(),
        compiled: Compiled {
            snapshot,
            problems: report.into_problems(),
        },
    }
}

/// Servers by what is listened on.
type Ports<'r> = BTreeMap<Socket, PortServers<'r>>;

/// Builds listeners.
struct Listeners<'c, 'r> {
    binding: &'c Binding<'r>,
    context: Context<'c, 'r>,
    /// `None` when TLS settings are not wanted.
    credentials: Option<&'c Credentials<'c>>,
    limits: &'c mut RateLimits<'r>,
    report: &'c mut Report,
}

impl<'r> Listeners<'_, 'r> {
    /// The listener of a socket, unless nothing would be done with its connections.
    fn listener(&mut self, socket: Socket, servers: &PortServers<'r>) -> Option<Listener> {
        let protocol = match servers {
            PortServers::Http(servers) => {
                ListenerProtocol::Http(self.table(socket, false, http_table_name(socket), servers))
            }
            PortServers::Tls(servers) => {
                let servers = self.tls_servers(socket, servers);
                ListenerProtocol::Tls(Some(servers).filter(|servers| !servers.is_empty())?)
            }
            PortServers::Tcp(server) => {
                ListenerProtocol::Tcp(tcp::tcp_route(server, self.binding, &self.context, self.report)?)
            }
        };
        Some(Listener {
            name: listener_name(socket),
            bind: socket.bind,
            ..Listener::new(socket.port, protocol)
        })
    }

    /// Servers whose TLS ends here have their names first; what passes through gets what is left.
    fn tls_servers(&mut self, socket: Socket, servers: &[BoundServer<'r>]) -> Vec<Arc<TlsServer>> {
        let (ending, passing): (Vec<_>, Vec<_>) = servers.iter().partition(|server| server.ends_tls());
        let mut built = vec![];
        let mut taken: HashSet<HostPattern> = HashSet::new();
        for server in ending {
            if let Some(server) = self.tls_server(socket, server) {
                taken.extend(server.hosts.iter().cloned());
                built.push(Arc::new(server));
            }
        }
        for server in passing {
            let more = tcp::passthrough(server, self.binding, &self.context, &mut taken, self.report);
            built.extend(more);
        }
        built
    }

    fn tls_server(&mut self, socket: Socket, server: &BoundServer<'r>) -> Option<TlsServer> {
        let service = if gateways::class_of(server.server) == Class::Https {
            let name = gateways::https_table_name(socket.port, server);
            let routes = self.table(socket, true, name, std::slice::from_ref(server));
            let alpn = [Alpn::Http2, Alpn::Http1];
            let tls = self.server_tls(server, &alpn);
            TlsService::Http { tls, routes }
        } else {
            let route = tcp::tcp_route(server, self.binding, &self.context, self.report)?;
            let tls = self.server_tls(server, &[]);
            TlsService::Tcp { tls, route }
        };
        Some(TlsServer {
            gateway: ObjectRef::clone(&server.gateway.name),
            hosts: server.hosts.names(),
            service,
        })
    }

    fn server_tls(&mut self, server: &BoundServer<'r>, alpn: &[Alpn]) -> ServerTls {
        match self.credentials {
            Some(credentials) => tls::server_tls(server, alpn, credentials, self.report),
            None => ServerTls::simple(None),
        }
    }

    fn table(
        &mut self,
        socket: Socket,
        is_tls: bool,
        name: String,
        servers: &[BoundServer<'r>],
    ) -> Arc<RouteTable> {
        let mut table = tables::table(name, servers, self.binding, &self.context, self.report);
        let scope = Scope {
            table: &table.name.clone(),
            socket,
            is_tls,
            servers,
        };
        self.limits.apply_to_all(&mut table, &scope);
        self.limits.judge(&table, &scope, self.report);
        Arc::new(table)
    }
}

/// Istio's name of a listener.
fn listener_name(Socket { port, bind }: Socket) -> String {
    match bind {
        Some(address) => format!("{address}_{port}"),
        None => format!("0.0.0.0_{port}"),
    }
}

/// Istio's name of the route table of plain HTTP (istio `gatewayRDSRouteName`).
fn http_table_name(Socket { port, bind }: Socket) -> String {
    match bind {
        Some(address) => format!("http.{port}.{address}"),
        None => format!("http.{port}"),
    }
}
