//! What the proxy has to know of all routes together: their rate limits, and whether any of them writes headers by
//! format commands. It is counted table by table, so that a change of one virtual host costs that virtual host alone.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;

use edge_model::{
    HeaderOps, HostChange, LocalRateLimit, Route, RouteAction, RouteTable, Snapshot, VirtualHosts,
};

/// The facts of a Snapshot's tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts(Vec<Arc<TableFacts>>);

/// The facts of one table.
#[derive(Debug, Clone)]
struct TableFacts {
    table: Arc<RouteTable>,
    /// How many routes have header operations with format commands.
    formats: usize,
    /// How many routes have each rate limit, by the address of its definition, which they all hold.
    limits: HashMap<usize, (Arc<LocalRateLimit>, usize)>,
}

impl Facts {
    /// Takes the facts of a Snapshot; of a table that was there before, only what changed is looked at.
    pub(crate) fn after(previous: Option<&Self>, snapshot: &Snapshot) -> Self {
        let before = previous.map_or(&[][..], |previous| previous.0.as_slice());
        let tables = snapshot.listeners.iter().flat_map(|listener| listener.tables());
        let by_name = LazyCell::new(|| {
            let named = before.iter().map(|facts| (facts.table.name.as_str(), facts));
            named.collect::<HashMap<_, _>>()
        });
        let facts = tables.enumerate().map(|(number, table)| {
            // Most often it is where it was.
            let is_same = |facts: &&Arc<TableFacts>| Arc::ptr_eq(&facts.table, table);
            if let Some(same) = before.get(number).filter(is_same) {
                return Arc::clone(same);
            }
            match by_name.get(table.name.as_str()) {
                Some(before) if is_same(before) => Arc::clone(before),
                before => Arc::new(TableFacts::after(before.map(|before| &***before), table)),
            }
        });
        Self(facts.collect())
    }

    /// Whether a header operation anywhere has format commands.
    pub(crate) fn has_formats(&self) -> bool {
        self.0.iter().any(|table| table.formats > 0)
    }

    /// Every rate limit, the same one possibly several times.
    pub(crate) fn rate_limits(&self) -> impl Iterator<Item = &Arc<LocalRateLimit>> {
        self.0.iter().flat_map(|facts| {
            let of_routes = facts.limits.values().map(|(limit, _)| limit);
            facts.table.rate_limit.as_ref().into_iter().chain(of_routes)
        })
    }
}

impl TableFacts {
    fn after(previous: Option<&Self>, table: &Arc<RouteTable>) -> Self {
        let none = VirtualHosts::default();
        let before = previous.map_or(&none, |previous| &previous.table.virtual_hosts);
        let mut facts = Self {
            table: Arc::clone(table),
            formats: previous.map_or(0, |previous| previous.formats),
            limits: previous
                .map(|previous| previous.limits.clone())
                .unwrap_or_default(),
        };
        for HostChange { before, after } in table.virtual_hosts.changes_since(before) {
            let added = after.into_iter().flat_map(|host| &host.routes);
            added.for_each(|route| facts.add(route));
            let removed = before.into_iter().flat_map(|host| &host.routes);
            removed.for_each(|route| facts.remove(route));
        }
        facts
    }

    fn add(&mut self, route: &Route) {
        self.formats += usize::from(has_formats(route));
        if let Some(limit) = &route.rate_limit {
            let new = || (Arc::clone(limit), 0);
            self.limits.entry(address(limit)).or_insert_with(new).1 += 1;
        }
    }

    fn remove(&mut self, route: &Route) {
        self.formats -= usize::from(has_formats(route));
        if let Some(limit) = &route.rate_limit
            && let Some((_, count)) = self.limits.get_mut(&address(limit))
        {
            *count -= 1;
            if *count == 0 {
                self.limits.remove(&address(limit));
            }
        }
    }
}

fn address(limit: &Arc<LocalRateLimit>) -> usize {
    Arc::as_ptr(limit).addr()
}

/// Whether header operations of a route or of its destinations have format commands.
fn has_formats(route: &Route) -> bool {
    let formats = |ops: &HeaderOps| {
        let edits = [&ops.request, &ops.response].into_iter();
        let mut values = edits.flat_map(|edit| edit.set.iter().chain(&edit.add));
        values.any(|(_, value)| value.plain().is_none())
    };
    let destinations = match &route.action {
        RouteAction::Forward(forward) => forward.destinations.as_slice(),
        RouteAction::Redirect(_) | RouteAction::DirectResponse(_) => &[],
    };
    formats(&route.headers)
        || destinations
            .iter()
            .any(|destination| formats(&destination.headers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::{
        Fraction, HeaderTemplate, HostPattern, Kind, Listener, ListenerProtocol, ObjectRef, RouteMatch,
        VirtualHost,
    };

    /// A virtual host whose routes have the rate limits, and format commands or not.
    fn host(domain: &str, limits: &[&Arc<LocalRateLimit>], format: Option<&str>) -> Arc<VirtualHost> {
        let object = Arc::new(ObjectRef {
            kind: Kind::VirtualService,
            namespace: "a".into(),
            name: domain.into(),
        });
        let routes = limits.iter().map(|limit| {
            let action = RouteAction::DirectResponse(edge_model::DirectResponse {
                status: http::StatusCode::OK,
                body: bytes::Bytes::new(),
            });
            let mut route = Route::new(Arc::clone(&object), RouteMatch::any(), action);
            route.rate_limit = Some(Arc::clone(limit));
            let set = format.map(|text| (http::header::VIA, HeaderTemplate::parse(text).unwrap()));
            route.headers.request.set.extend(set);
            Arc::new(route)
        });
        Arc::new(VirtualHost {
            routes: routes.collect(),
            ..VirtualHost::new(HostPattern::parse(domain).unwrap(), 80)
        })
    }

    fn snapshot(hosts: VirtualHosts) -> Snapshot {
        let mut table = RouteTable::new("http.80", []);
        table.virtual_hosts = hosts;
        Snapshot {
            listeners: vec![Arc::new(Listener::new(
                80,
                ListenerProtocol::Http(Arc::new(table)),
            ))],
            ..Snapshot::default()
        }
    }

    #[test]
    fn facts_follow_the_virtual_hosts_one_by_one() {
        let limit = |name: &str| {
            Arc::new(LocalRateLimit {
                object: ObjectRef {
                    kind: Kind::EnvoyFilter,
                    namespace: "a".into(),
                    name: name.into(),
                },
                stat_prefix: name.into(),
                bucket: None,
                descriptors: vec![],
                enabled: Fraction::ALWAYS,
                enforced: Fraction::ALWAYS,
                status: http::StatusCode::TOO_MANY_REQUESTS,
                response_headers: vec![],
                x_ratelimit_headers: false,
            })
        };
        let (one, other) = (limit("one"), limit("other"));
        let names = |facts: &Facts| {
            let mut names: Vec<_> = facts
                .rate_limits()
                .map(|limit| limit.stat_prefix.clone())
                .collect();
            names.sort();
            (names.join(" "), facts.has_formats())
        };
        let mut hosts: VirtualHosts = [
            host("a.com", &[&one, &one], None),
            host("b.com", &[&one, &other], Some("%REQ(x)%")),
        ]
        .into_iter()
        .collect();
        let facts = Facts::after(None, &snapshot(hosts.clone()));
        assert_eq!(names(&facts), ("one other".into(), true));
        hosts.insert(host("b.com", &[&one], None));
        let facts = Facts::after(Some(&facts), &snapshot(hosts.clone()));
        assert_eq!(names(&facts), ("one".into(), false));
        hosts.remove(&HostPattern::parse("b.com").unwrap());
        hosts.insert(host("a.com", &[&other], Some("plain")));
        let facts = Facts::after(Some(&facts), &snapshot(hosts));
        assert_eq!(names(&facts), ("other".into(), false));
    }
}
