//! Putting what was compiled anew in the place of what it was.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use edge_model::{HostPattern, Listener, ListenerProtocol, RouteTable, TlsServer, TlsService, VirtualHosts};

/// Replaces virtual hosts of some domains.
pub(super) struct Splice<'s> {
    domains: &'s HashSet<HostPattern>,
    /// Tables as they were, by name.
    tables: HashMap<&'s str, &'s Arc<RouteTable>>,
    /// TLS servers with HTTP inside as they were, by the names of their tables.
    servers: HashMap<&'s str, &'s Arc<TlsServer>>,
}

impl<'s> Splice<'s> {
    pub(super) fn new(listeners: &'s [Arc<Listener>], domains: &'s HashSet<HostPattern>) -> Self {
        let tables = listeners.iter().flat_map(|listener| listener.tables());
        let servers = listeners.iter().flat_map(|listener| match &listener.protocol {
            ListenerProtocol::Tls(servers) => servers.as_slice(),
            ListenerProtocol::Http(_) | ListenerProtocol::Tcp(_) => &[],
        });
        Self {
            domains,
            tables: tables.map(|table| (table.name.as_str(), table)).collect(),
            servers: servers
                .filter_map(|server| Some((server.routes()?.name.as_str(), server)))
                .collect(),
        }
    }

    /// The listeners as they were, with the virtual hosts of `new`. `None` when a table becomes empty, which has a virtual
    /// host of its own then.
    pub(super) fn hosts(
        &self,
        listeners: &[Arc<Listener>],
        new: &[Arc<Listener>],
    ) -> Option<Vec<Arc<Listener>>> {
        let new = new.iter().flat_map(|listener| listener.tables());
        let new: HashMap<_, _> = new.map(|table| (table.name.as_str(), table)).collect();
        map_tables(listeners, |old| {
            self.table(old, new.get(old.name.as_str()).copied())
        })
    }

    /// The listeners of `new`, which has all servers, with all virtual hosts of other domains as they were. `None` when
    /// a table would be neither empty nor have a virtual host.
    pub(super) fn listeners(&self, new: &[Arc<Listener>]) -> Option<Vec<Arc<Listener>>> {
        let listeners = new.iter().map(|listener| {
            let protocol = match &listener.protocol {
                ListenerProtocol::Http(new) => ListenerProtocol::Http(self.complete(new)?),
                ListenerProtocol::Tls(new) => {
                    let servers = new.iter().map(|server| {
                        let Some(routes) = server.routes() else {
                            return Some(Arc::clone(server));
                        };
                        let table = self.complete(routes)?;
                        match self.servers.get(routes.name.as_str()) {
                            Some(old) if is_same_server(old, server) => Some(with_routes(old, old, table)),
                            Some(_) | None => Some(with_routes(server, server, table)),
                        }
                    });
                    ListenerProtocol::Tls(servers.collect::<Option<_>>()?)
                }
                ListenerProtocol::Tcp(route) => ListenerProtocol::Tcp(Arc::clone(route)),
            };
            Some(Arc::new(Listener {
                protocol,
                ..Listener::clone(listener)
            }))
        });
        listeners.collect()
    }

    /// A table of which only the wanted domains are complete, with all others as they were.
    fn complete(&self, new: &Arc<RouteTable>) -> Option<Arc<RouteTable>> {
        if let Some(old) = self.tables.get(new.name.as_str()).copied() {
            let empty = || is_blackhole(new).then(|| Arc::clone(new));
            return self.table(old, Some(new)).or_else(empty);
        }
        // All of its domains are wanted, but it may have parts of others.
        let hosts = self
            .domains
            .iter()
            .filter_map(|domain| new.virtual_hosts.get(domain));
        let hosts: VirtualHosts = hosts.cloned().collect();
        if hosts.is_empty() {
            return is_blackhole(new).then(|| Arc::clone(new));
        }
        Some(Arc::new(RouteTable {
            virtual_hosts: hosts,
            ..RouteTable::clone(new)
        }))
    }

    /// A table with the wanted domains of another; `None` there stands for one without any.
    fn table(&self, old: &Arc<RouteTable>, new: Option<&Arc<RouteTable>>) -> Option<Arc<RouteTable>> {
        let was_blackhole = is_blackhole(old);
        let new = new.filter(|new| !is_blackhole(new));
        let mut hosts = match was_blackhole {
            true => VirtualHosts::default(),
            false => old.virtual_hosts.clone(),
        };
        let mut has_changed = false;
        for domain in self.domains {
            let new = new.and_then(|new| new.virtual_hosts.get(domain));
            match (new, hosts.get(domain)) {
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
        (!hosts.is_empty()).then(|| {
            Arc::new(RouteTable {
                virtual_hosts: hosts,
                ..RouteTable::clone(old)
            })
        })
    }
}

/// Listeners with some of their tables, by name, in place of those that they have.
pub(super) fn with_tables(
    listeners: &[Arc<Listener>],
    tables: &HashMap<String, Arc<RouteTable>>,
) -> Vec<Arc<Listener>> {
    let changed = map_tables(listeners, |old| {
        Some(Arc::clone(tables.get(&old.name).unwrap_or(old)))
    });
    changed.unwrap_or_default()
}

/// The listeners with what becomes of each of their tables; those without another table stay as they are in memory.
fn map_tables(
    listeners: &[Arc<Listener>],
    map: impl Fn(&Arc<RouteTable>) -> Option<Arc<RouteTable>>,
) -> Option<Vec<Arc<Listener>>> {
    let listeners = listeners.iter().map(|listener| {
        let protocol = match &listener.protocol {
            ListenerProtocol::Http(old) => {
                let table = map(old)?;
                if Arc::ptr_eq(&table, old) {
                    return Some(Arc::clone(listener));
                }
                ListenerProtocol::Http(table)
            }
            ListenerProtocol::Tls(old) => {
                let servers = old.iter().map(|server| match server.routes() {
                    Some(routes) => Some(with_routes(server, server, map(routes)?)),
                    None => Some(Arc::clone(server)),
                });
                let servers = servers.collect::<Option<Vec<_>>>()?;
                if servers.iter().zip(old).all(|(new, old)| Arc::ptr_eq(new, old)) {
                    return Some(Arc::clone(listener));
                }
                ListenerProtocol::Tls(servers)
            }
            ListenerProtocol::Tcp(_) => return Some(Arc::clone(listener)),
        };
        Some(Arc::new(Listener {
            protocol,
            ..Listener::clone(listener)
        }))
    });
    listeners.collect()
}

/// An empty table has a virtual host of its own.
fn is_blackhole(table: &RouteTable) -> bool {
    let any = table.virtual_hosts.get(&HostPattern::Any);
    any.is_some_and(|host| host.name.starts_with("blackhole:"))
}

/// `server` with the table; `same` where that is what it has.
fn with_routes(server: &TlsServer, same: &Arc<TlsServer>, table: Arc<RouteTable>) -> Arc<TlsServer> {
    let TlsService::Http { tls, routes } = &server.service else {
        return Arc::clone(same);
    };
    if Arc::ptr_eq(routes, &table) {
        return Arc::clone(same);
    }
    Arc::new(TlsServer {
        service: TlsService::Http {
            tls: tls.clone(),
            routes: table,
        },
        gateway: server.gateway.clone(),
        hosts: server.hosts.clone(),
    })
}

/// Whether two servers differ in their tables alone.
fn is_same_server(a: &TlsServer, b: &TlsServer) -> bool {
    a.gateway == b.gateway && a.hosts == b.hosts && a.tls() == b.tls()
}
