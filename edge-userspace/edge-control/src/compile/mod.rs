//! From resources to a Snapshot: pure, and the same for the same input in any order of files.
//!
//! Binding, merging and order are Istio's; each module names the function of istio/istio that it follows. Everything
//! that is wrong is reported at once. Between objects Istio goes on with what it can use, and so does this: what a
//! cross-object check finds is a warning. An error means that an object cannot be used as it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_config::{Problem, Resource};
use edge_model::{Listener, ListenerProtocol, Snapshot};

use crate::CompileOptions;

mod action;
mod analyze;
mod clusters;
mod context;
mod destination_rules;
mod endpoints;
mod gateways;
mod headers;
mod input;
mod matcher;
mod names;
mod patch_match;
mod policies;
mod rate_limits;
mod registry;
mod report;
mod routes;
mod tables;
mod tls;
mod vips;

use context::Context;
use destination_rules::DestinationRules;
use endpoints::Workloads;
use gateways::{BoundServer, PortServers};
use input::Input;
use patch_match::Scope;
use rate_limits::RateLimits;
use registry::Registry;
use report::Report;
use tables::Binding;
pub use tls::ReadFile;

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
    let mut report = Report::default();
    let input = Input::new(resources, &mut report);
    let registry = Registry::new(&input, options);
    let rules = DestinationRules::new(&input, options, &mut report);
    let workloads = Workloads::new(&input);
    let context = Context {
        options,
        registry: &registry,
        rules: &rules,
    };
    let binding = Binding::new(&input, &context, &mut report);
    let ports = gateways::bind(&input, &registry, options, &mut report);
    let mut limits = RateLimits::new(&input, options, &mut report);
    let mut listeners = Listeners {
        binding: &binding,
        context,
        limits: &mut limits,
        read,
        report: &mut report,
    };
    let listeners = ports
        .iter()
        .filter_map(|(port, servers)| listeners.listener(*port, servers));
    let listeners = listeners.map(Arc::new).collect();
    limits.report_unmatched(&mut report);
    analyze::analyze(&input, &ports, &workloads, &context, &mut report);
    let snapshot = Snapshot {
        version: 0,
        listeners,
        clusters: clusters::clusters(&registry, &rules, &workloads),
        unenforced: policies::unenforced(&input, options),
        penalties: options.penalties,
        datapath: vips::datapath(options, &vips::declared_ports(&ports)),
    };
    Compiled {
        snapshot,
        problems: report.into_problems(),
    }
}

/// Servers by the port that is listened on.
type Ports<'r> = BTreeMap<u16, PortServers<'r>>;

/// Builds listeners.
struct Listeners<'c, 'r> {
    binding: &'c Binding<'r>,
    context: Context<'c, 'r>,
    limits: &'c mut RateLimits<'r>,
    read: &'c ReadFile<'c>,
    report: &'c mut Report,
}

impl<'r> Listeners<'_, 'r> {
    /// The listener of a port, unless the edge serves none of its servers.
    fn listener(&mut self, port: u16, servers: &PortServers<'r>) -> Option<Listener> {
        let protocol = match servers {
            PortServers::Http(servers) => {
                ListenerProtocol::Http(self.table(port, false, format!("http.{port}"), servers))
            }
            PortServers::Https(servers) => {
                let servers: Vec<_> = servers
                    .iter()
                    .filter_map(|server| self.tls_server(port, server))
                    .collect();
                ListenerProtocol::Tls(Some(servers).filter(|servers| !servers.is_empty())?)
            }
            PortServers::Other => return None,
        };
        Some(Listener::new(port, protocol))
    }

    fn tls_server(&mut self, port: u16, server: &BoundServer<'r>) -> Option<Arc<edge_model::TlsServer>> {
        let name = gateways::https_table_name(port, server);
        let table = self.table(port, true, name, std::slice::from_ref(server));
        tls::tls_server(server, table, self.read, self.report).map(Arc::new)
    }

    fn table(
        &mut self,
        port: u16,
        is_tls: bool,
        name: String,
        servers: &[BoundServer<'r>],
    ) -> Arc<edge_model::RouteTable> {
        let mut table = tables::table(name, servers, self.binding, &self.context, self.report);
        let scope = Scope {
            table: &table.name.clone(),
            port,
            is_tls,
            servers,
        };
        self.limits.apply(&mut table, &scope, self.report);
        Arc::new(table)
    }
}

/// Istio's name of a listener on all addresses.
fn listener_name(port: u16) -> String {
    format!("0.0.0.0_{port}")
}
