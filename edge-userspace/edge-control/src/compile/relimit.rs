//! The limits of EnvoyFilters on tables that were compiled before: nothing else of a table depends on them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use edge_config::istio::envoy_filter::EnvoyFilter;
use edge_config::istio::envoy_filter::rate_limit::{PatchTarget, RateLimitPatch, rate_limits};
use edge_config::{Object, Problem, Resource};
use edge_model::{HostPattern, RouteTable};

use super::gateways::{self, BoundServer, Class, PortServers, Socket};
use super::input::Input;
use super::patch_match::{Scope, domains};
use super::rate_limits::RateLimits;
use super::report::Report;
use super::{Bindings, http_table_name};
use crate::CompileOptions;

/// Virtual hosts of which the limits may be other ones than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// Those of some domains, in each table.
    Of(HashSet<HostPattern>),
    /// All.
    All,
}

impl Default for Hosts {
    /// None.
    fn default() -> Self {
        Self::Of(HashSet::new())
    }
}

impl Hosts {
    /// Adds others.
    pub(crate) fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Of(domains), Self::Of(more)) => domains.extend(more),
            (Self::All, _) | (_, Self::All) => *self = Self::All,
        }
    }
}

/// What limits come to on tables that were compiled before.
#[derive(Debug)]
pub(crate) struct Relimited {
    /// The tables that are other ones now, by name.
    pub(crate) tables: HashMap<String, Arc<RouteTable>>,
    /// What there is to say about the EnvoyFilters.
    pub(crate) problems: Vec<Problem>,
}

/// Puts limits on tables, and looks at what the EnvoyFilters do there. `resources` are all Gateways and EnvoyFilters.
pub(crate) fn relimit(
    resources: &[&Resource],
    options: &CompileOptions,
    bindings: &Bindings,
    tables: &HashMap<&str, &Arc<RouteTable>>,
    hosts: &Hosts,
) -> Relimited {
    let mut report = Report::default();
    let input = Input::new(resources.iter().copied(), &mut report);
    let ports = gateways::bind_known(&input, bindings, &mut Report::default());
    let mut limits = RateLimits::new(&input, options, &mut report);
    let mut changed = HashMap::new();
    for (socket, servers) in &ports {
        for (name, is_tls, servers) in tables_of(*socket, servers) {
            let Some(table) = tables.get(name.as_str()) else {
                continue;
            };
            let scope = Scope {
                table: &name,
                socket: *socket,
                is_tls,
                servers,
            };
            let mut table = Arc::clone(table);
            if let Some(new) = limited(&table, &limits, &scope, hosts) {
                table = Arc::new(new);
                changed.insert(name.clone(), Arc::clone(&table));
            }
            limits.judge(&table, &scope, &mut report);
        }
    }
    limits.report_unmatched(&mut report);
    Relimited {
        tables: changed,
        problems: report.into_problems(),
    }
}

/// The table with its limits, if it has others now.
fn limited(
    table: &RouteTable,
    limits: &RateLimits<'_>,
    scope: &Scope<'_, '_>,
    hosts: &Hosts,
) -> Option<RouteTable> {
    let mut new = RouteTable::clone(table);
    match hosts {
        Hosts::Of(domains) if domains.is_empty() => return None,
        Hosts::Of(domains) => {
            let hosts = domains
                .iter()
                .filter_map(|domain| table.virtual_hosts.get(domain));
            limits.apply(&mut new, scope, hosts.cloned());
        }
        Hosts::All => limits.apply(&mut new, scope, table.virtual_hosts.iter().cloned()),
    }
    let is_same = new.virtual_hosts.is_same(&table.virtual_hosts) && new.rate_limit == table.rate_limit;
    (!is_same).then_some(new)
}

/// The tables of a socket by their names, with the servers that each is for.
fn tables_of<'t, 'r>(
    socket: Socket,
    servers: &'t PortServers<'r>,
) -> Vec<(String, bool, &'t [BoundServer<'r>])> {
    match servers {
        PortServers::Http(servers) => vec![(http_table_name(socket), false, servers.as_slice())],
        PortServers::Tls(servers) => {
            let with_http = servers
                .iter()
                .filter(|server| gateways::class_of(server.server) == Class::Https);
            let table = |server: &'t BoundServer<'r>| {
                let name = gateways::https_table_name(socket.port, server);
                (name, true, std::slice::from_ref(server))
            };
            with_http.map(table).collect()
        }
        PortServers::Tcp(_) => vec![],
    }
}

/// The virtual hosts that a change of an EnvoyFilter can touch.
pub(crate) fn touched_hosts(
    before: Option<&Object<EnvoyFilter>>,
    after: Option<&Object<EnvoyFilter>>,
) -> Hosts {
    let is_as_near = |(before, after): (&Object<EnvoyFilter>, &Object<EnvoyFilter>)| {
        let (of_before, of_after) = (&before.spec, &after.spec);
        before.meta == after.meta
            && of_before.priority == of_after.priority
            && of_before.workload_selector == of_after.workload_selector
            && of_before.target_refs == of_after.target_refs
    };
    if !before.zip(after).is_none_or(is_as_near) {
        return Hosts::All;
    }
    let patches = |filter: Option<&Object<EnvoyFilter>>| {
        filter
            .map(|filter| rate_limits(filter).patches)
            .unwrap_or_default()
    };
    let (before, after) = (patches(before), patches(after));
    let for_any = |patches: &[RateLimitPatch]| {
        let for_any = patches.iter().filter(|patch| named(patch).is_none());
        let for_any = for_any.map(|patch| RateLimitPatch {
            index: 0,
            ..patch.clone()
        });
        for_any.collect::<Vec<_>>()
    };
    if for_any(&before) != for_any(&after) {
        return Hosts::All;
    }
    Hosts::Of(before.iter().chain(&after).filter_map(named).flatten().collect())
}

/// The domains of the virtual hosts that a patch names; `None` when it may be for any.
fn named(patch: &RateLimitPatch) -> Option<Vec<HostPattern>> {
    match &patch.target {
        PatchTarget::VirtualHost(wanted) | PatchTarget::Route(wanted) => domains(wanted),
        PatchTarget::Listener(_) | PatchTarget::RouteConfiguration(_) => None,
    }
}
