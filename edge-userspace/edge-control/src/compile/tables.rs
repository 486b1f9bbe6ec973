//! Route tables: the virtual hosts of the servers that share one (istio `buildGatewayHTTPRouteConfig`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use edge_config::istio::virtual_service::VirtualService;
use edge_model::{HostPattern, Route, RouteTable, VirtualHost};

use super::context::Context;
use super::gateways::BoundServer;
use super::input::{Input, Item};
use super::names::{gateway_key, is_visible};
use super::report::Report;
use super::routes;

/// Most routes of one table: each of a Gateway's hosts gets those of every VirtualService that is for it, so that a small
/// text could ask for more than any memory holds. A thousand hosts with a thousand routes each are a million.
pub(crate) const MAX_ROUTES: usize = 2_000_000;

/// The VirtualServices of each Gateway, in Istio's order.
#[derive(Debug)]
pub(crate) struct Binding<'r> {
    by_gateway: HashMap<String, Vec<Bound<'r>>>,
}

/// A VirtualService with its hosts parsed.
#[derive(Debug, Clone)]
struct Bound<'r> {
    object: Item<'r, VirtualService>,
    hosts: Arc<[HostPattern]>,
}

impl<'r> Binding<'r> {
    /// Binds by `spec.gateways`; without it a VirtualService is for sidecars (`mesh`) alone.
    pub(crate) fn new(input: &Input<'r>, context: &Context<'_, 'r>, report: &mut Report) -> Self {
        let mut by_gateway: HashMap<String, Vec<Bound<'r>>> = HashMap::new();
        for object in &input.virtual_services {
            if !is_visible(
                &object.spec.export_to,
                object.namespace(),
                &context.options.gateway_namespace,
            ) {
                continue;
            }
            let bound = Bound {
                object: object.clone(),
                hosts: parse_hosts(object, report).into(),
            };
            let names = object.spec.gateways.iter().filter(|name| *name != "mesh");
            let keys: HashSet<_> = names.map(|name| gateway_key(name, object.namespace())).collect();
            for key in keys {
                by_gateway.entry(key).or_default().push(bound.clone());
            }
        }
        Self { by_gateway }
    }

    fn of(&self, gateway: &str) -> &[Bound<'r>] {
        self.by_gateway.get(gateway).map_or(&[], Vec::as_slice)
    }

    /// VirtualServices that name the Gateway of a server and have a host in common with it, in Istio's order.
    pub(crate) fn of_server<'t>(
        &'t self,
        server: &'t BoundServer<'_>,
    ) -> impl Iterator<Item = &'t Item<'r, VirtualService>> {
        let named = self.of(&server.gateway_key()).iter();
        let taken = named.filter(|bound| {
            let namespace = bound.object.namespace();
            !server.hosts.intersection(&bound.hosts, namespace).is_empty()
        });
        taken.map(|bound| &bound.object)
    }
}

fn parse_hosts(object: &Item<'_, VirtualService>, report: &mut Report) -> Vec<HostPattern> {
    let mut hosts = vec![];
    for (index, text) in object.spec.hosts.iter().enumerate() {
        match HostPattern::parse(text) {
            Ok(host) => hosts.push(host),
            Err(error) => {
                let hint = "write a host name, or *.example.com for all below it";
                report.error(object, format!("spec.hosts[{index}]"), error.to_string(), hint);
            }
        }
    }
    hosts
}

/// Builds the table of servers that share it. A table without any virtual host gets one that answers every host with
/// 404.
pub(crate) fn table(
    name: String,
    servers: &[BoundServer<'_>],
    binding: &Binding<'_>,
    context: &Context<'_, '_>,
    report: &mut Report,
) -> RouteTable {
    let mut hosts = Hosts::default();
    for server in servers {
        let key = server.gateway_key();
        for bound in binding.of(&key) {
            let names = server.hosts.intersection(&bound.hosts, bound.object.namespace());
            if names.is_empty() {
                continue;
            }
            let routes = routes::routes(&bound.object, &key, server.declared_port, context, report);
            for host in names {
                hosts.add(host, server, &bound.object, &routes);
            }
            if hosts.routes > MAX_ROUTES {
                let message = format!("with it, {name} has more than {MAX_ROUTES} routes");
                let hint = "spare hosts that many VirtualServices have in common";
                report.cut(&bound.object, "spec.hosts", message, hint);
                return RouteTable::new(name, hosts.finish(server.declared_port));
            }
        }
        if server.redirects_to_https() {
            for host in server.hosts.iter() {
                hosts.redirect(host.name.clone(), server);
            }
        }
    }
    let port = servers.first().map_or(0, |server| server.declared_port);
    RouteTable::new(name, hosts.finish(port))
}

/// Virtual hosts of a table as they fill up, in the order in which their domains first appear.
#[derive(Default)]
struct Hosts {
    hosts: Vec<VirtualHost>,
    numbers: HashMap<HostPattern, usize>,
    /// Virtual hosts with the VirtualServices that were added to them, these by their place in memory.
    added: HashSet<(usize, usize)>,
    /// Routes of all virtual hosts.
    routes: usize,
}

impl Hosts {
    /// Appends a VirtualService's routes to the virtual host of a domain. A route that another server brought already
    /// is left out: it could never be reached.
    fn add(
        &mut self,
        domain: HostPattern,
        server: &BoundServer<'_>,
        object: &Item<'_, VirtualService>,
        routes: &[Arc<Route>],
    ) {
        let number = self.number(domain, server);
        let is_new = self
            .added
            .insert((number, std::ptr::from_ref(object.spec).addr()));
        let Some(host) = self.hosts.get_mut(number) else {
            return;
        };
        host.require_tls |= server.redirects_to_https();
        let fresh = routes
            .iter()
            .filter(|route| is_new || !host.routes.iter().any(|known| is_same(known, route)));
        let mut fresh: Vec<_> = fresh.cloned().collect();
        self.routes += fresh.len();
        host.routes.append(&mut fresh);
    }

    /// Makes the virtual host of a domain answer with redirects.
    fn redirect(&mut self, domain: HostPattern, server: &BoundServer<'_>) {
        let number = self.number(domain, server);
        if let Some(host) = self.hosts.get_mut(number) {
            host.require_tls = true;
        }
    }

    fn number(&mut self, domain: HostPattern, server: &BoundServer<'_>) -> usize {
        *self.numbers.entry(domain.clone()).or_insert_with(|| {
            self.hosts.push(VirtualHost::new(domain, server.declared_port));
            self.hosts.len() - 1
        })
    }

    /// Moves the routes that take every request behind the others, whose order stays (istio `SortVHostRoutes`).
    fn finish(mut self, port: u16) -> Vec<Arc<VirtualHost>> {
        if self.hosts.is_empty() {
            self.hosts.push(VirtualHost {
                name: format!("blackhole:{port}"),
                ..VirtualHost::new(HostPattern::Any, port)
            });
        }
        for host in &mut self.hosts {
            host.routes.sort_by_key(|route| route.matcher.is_catch_all());
        }
        self.hosts.into_iter().map(Arc::new).collect()
    }
}

/// Whether two routes come from the same match block.
fn is_same(a: &Route, b: &Route) -> bool {
    (a.rule, a.match_index) == (b.rule, b.match_index) && a.object == b.object && a.matcher == b.matcher
}
