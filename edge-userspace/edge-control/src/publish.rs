//! From one Snapshot to the next.

use std::sync::Arc;

use edge_model::{
    Change, Cluster, ClusterName, HostChange, Listener, ListenerProtocol, RouteTable, SharedMap, Snapshot,
    TlsServer, TlsService,
};

/// Makes the successor of `running` that says what `next` says: its version is one higher, and listeners, tables, virtual
/// hosts and clusters that did not change are the same values in memory, so that whoever holds them sees at once that
/// nothing happened to them. `None` when nothing changed at all.
///
/// Where `next` shares parts with `running` already, these are not looked at.
#[must_use]
pub fn succeed(next: &Snapshot, running: &Snapshot) -> Option<Snapshot> {
    let listeners = next.listeners.iter().map(|listener| {
        let same_socket = |old: &&Arc<Listener>| (old.port, old.bind) == (listener.port, listener.bind);
        match running.listeners.iter().find(same_socket) {
            Some(old) => succeed_listener(listener, old),
            None => Arc::clone(listener),
        }
    });
    let successor = Snapshot {
        version: running.version + 1,
        listeners: listeners.collect(),
        clusters: succeed_clusters(&next.clusters, &running.clusters),
        unenforced: next.unenforced.clone(),
        penalties: next.penalties,
        datapath: next.datapath.clone(),
    };
    let is_same = are_same(&successor.listeners, &running.listeners)
        && successor.clusters.is_same(&running.clusters)
        && successor.unenforced == running.unenforced
        && successor.penalties == running.penalties
        && successor.datapath == running.datapath;
    (!is_same).then_some(successor)
}

fn are_same<T>(one: &[Arc<T>], other: &[Arc<T>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}

fn succeed_listener(next: &Arc<Listener>, old: &Arc<Listener>) -> Arc<Listener> {
    if Arc::ptr_eq(next, old) {
        return Arc::clone(old);
    }
    let (protocol, is_same) = match (&next.protocol, &old.protocol) {
        (ListenerProtocol::Http(next), ListenerProtocol::Http(old)) => {
            let table = succeed_table(next, old);
            let is_same = Arc::ptr_eq(&table, old);
            (ListenerProtocol::Http(table), is_same)
        }
        (ListenerProtocol::Tls(next), ListenerProtocol::Tls(old)) => {
            let servers = next.iter().enumerate().map(|(number, server)| {
                // Most often it is where it was.
                let same = old.get(number).filter(|old| Arc::ptr_eq(old, server));
                same.cloned().unwrap_or_else(|| succeed_server(server, old))
            });
            let servers: Vec<_> = servers.collect();
            let is_same = are_same(&servers, old);
            (ListenerProtocol::Tls(servers), is_same)
        }
        (next, old) => (next.clone(), next == old),
    };
    let is_same = is_same
        && next.name == old.name
        && (next.port, next.bind, next.proxy_protocol) == (old.port, old.bind, old.proxy_protocol);
    if is_same {
        return Arc::clone(old);
    }
    Arc::new(Listener {
        protocol,
        ..Listener::clone(next)
    })
}

fn succeed_server(next: &Arc<TlsServer>, running: &[Arc<TlsServer>]) -> Arc<TlsServer> {
    let same_names = |old: &&Arc<TlsServer>| old.gateway == next.gateway && old.hosts == next.hosts;
    let Some(old) = running.iter().find(same_names) else {
        return Arc::clone(next);
    };
    match (&next.service, &old.service) {
        _ if Arc::ptr_eq(next, old) => Arc::clone(old),
        (
            TlsService::Http { tls, routes },
            TlsService::Http {
                tls: old_tls,
                routes: old_routes,
            },
        ) => {
            let routes = succeed_table(routes, old_routes);
            if tls == old_tls && Arc::ptr_eq(&routes, old_routes) {
                return Arc::clone(old);
            }
            Arc::new(TlsServer {
                service: TlsService::Http {
                    tls: tls.clone(),
                    routes,
                },
                ..TlsServer::clone(next)
            })
        }
        (service, old_service) if service == old_service => Arc::clone(old),
        _ => Arc::clone(next),
    }
}

fn succeed_table(next: &Arc<RouteTable>, old: &Arc<RouteTable>) -> Arc<RouteTable> {
    if Arc::ptr_eq(next, old) {
        return Arc::clone(old);
    }
    let mut hosts = old.virtual_hosts.clone();
    for HostChange { before, after } in next.virtual_hosts.changes_since(&old.virtual_hosts) {
        match (before, after) {
            (Some(before), Some(after)) if before == after => {}
            (_, Some(after)) => hosts.insert(Arc::clone(after)),
            (Some(before), None) => {
                hosts.remove(&before.domain);
            }
            (None, None) => {}
        }
    }
    let RouteTable {
        name,
        virtual_hosts: _,
        rate_limit,
    } = &**next;
    if hosts.is_same(&old.virtual_hosts) && *name == old.name && *rate_limit == old.rate_limit {
        return Arc::clone(old);
    }
    Arc::new(RouteTable {
        virtual_hosts: hosts,
        name: name.clone(),
        rate_limit: rate_limit.clone(),
    })
}

type Clusters = SharedMap<ClusterName, Arc<Cluster>>;

fn succeed_clusters(next: &Clusters, old: &Clusters) -> Clusters {
    let mut clusters = old.clone();
    for Change { key, before, after } in next.changes_since(old, Arc::ptr_eq) {
        match after {
            Some(after) if before == Some(after) => {}
            Some(after) => {
                clusters.insert(key.clone(), Arc::clone(after));
            }
            None => {
                clusters.remove(key);
            }
        }
    }
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::{HostPattern, Listener, ListenerProtocol, VirtualHost};

    fn snapshot(version: u64, ports: &[(u16, &str)]) -> Snapshot {
        let listener = |(port, name): &(u16, &str)| {
            Arc::new(Listener {
                name: (*name).to_owned(),
                ..Listener::new(*port, ListenerProtocol::Tls(vec![]))
            })
        };
        Snapshot {
            version,
            listeners: ports.iter().map(listener).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn what_did_not_change_is_shared() {
        let running = snapshot(7, &[(80, "a"), (81, "b")]);
        let next = succeed(&snapshot(0, &[(80, "a"), (81, "c")]), &running).unwrap();
        assert_eq!(next.version, 8);
        let shared: Vec<_> = next
            .listeners
            .iter()
            .zip(&running.listeners)
            .map(|(new, old)| Arc::ptr_eq(new, old))
            .collect();
        assert_eq!(shared, [true, false]);
    }

    #[test]
    fn hosts_that_did_not_change_are_shared_in_a_table_that_did() {
        let serving = |names: &[&str], redirected: &str| {
            let hosts = names.iter().map(|name| {
                Arc::new(VirtualHost {
                    require_tls: *name == redirected,
                    ..VirtualHost::new(HostPattern::parse(name).unwrap(), 80)
                })
            });
            let table = Arc::new(RouteTable::new("http.80", hosts));
            Snapshot {
                listeners: vec![Arc::new(Listener::new(80, ListenerProtocol::Http(table)))],
                ..Snapshot::default()
            }
        };
        let running = serving(&["a.com", "b.com", "*.c.com", "*"], "");
        let hosts = |snapshot: &Snapshot| {
            let table = snapshot.listeners[0].tables().next().unwrap();
            table.virtual_hosts.clone()
        };
        for (names, redirected, changed) in [
            (&["a.com", "b.com", "*.c.com", "*"][..], "", 0),
            (&["a.com", "b.com", "*.c.com", "*"], "a.com", 1),
            (&["a.com", "*.c.com", "*"], "*", 2),
            (&["d.com", "a.com", "b.com", "*.c.com"], "*.c.com", 3),
        ] {
            let next = serving(names, redirected);
            let made = succeed(&next, &running);
            assert_eq!(made.is_none(), changed == 0, "{names:?}");
            let made = made.unwrap_or_else(|| running.clone());
            assert_eq!(made.listeners, next.listeners);
            assert_eq!(
                hosts(&made).changes_since(&hosts(&running)).len(),
                changed,
                "{names:?}"
            );
        }
    }

    #[test]
    fn the_same_configuration_is_no_successor() {
        assert_eq!(
            succeed(&snapshot(0, &[(80, "a")]), &snapshot(7, &[(80, "a")])),
            None
        );
    }
}
