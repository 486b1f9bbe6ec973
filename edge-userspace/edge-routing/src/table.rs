//! The route table of a listener or TLS server: virtual host, then the first route that matches.

use std::collections::HashMap;
use std::sync::Arc;

use edge_model::{HostChange, Route, RouteTable, VirtualHost, VirtualHosts};

use crate::RequestView;
use crate::host::{with_lower_case, without_port};
use crate::index::RouteIndex;
use crate::predicate::{self, Mismatch};
use crate::request::Head;

/// A [`RouteTable`] made ready for lookups.
#[derive(Debug, Clone)]
pub struct Table {
    routes: Arc<RouteTable>,
    indexes: Arc<Indexes>,
}

/// Indexes of the virtual hosts that have many routes, by their addresses in memory: while the table lives, so do they.
type Indexes = HashMap<usize, Arc<RouteIndex>, foldhash::fast::FixedState>;

/// What the table says about a request.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'t> {
    /// No virtual host takes the request's host: 404, flag NR.
    NoVirtualHost,
    /// The virtual host takes requests by TLS only: 301 to [`tls_redirect_location`](crate::tls_redirect_location).
    RequireTls {
        /// Virtual host with `httpsRedirect`.
        virtual_host: &'t Arc<VirtualHost>,
    },
    /// No route of the virtual host matches: 404, flag NR. Another virtual host is never tried.
    NoRoute {
        /// Virtual host that took the request.
        virtual_host: &'t Arc<VirtualHost>,
    },
    /// The route to take.
    Route {
        /// Virtual host that took the request.
        virtual_host: &'t Arc<VirtualHost>,
        /// First of its routes that matches.
        route: &'t Arc<Route>,
    },
}

impl Table {
    /// Makes a table ready.
    #[must_use]
    pub fn new(routes: Arc<RouteTable>) -> Self {
        Self::after(None, routes)
    }

    /// Makes a table ready that comes in place of another: what stayed the same is taken over, so that it costs no
    /// more than what changed.
    #[must_use]
    pub fn after(previous: Option<&Self>, routes: Arc<RouteTable>) -> Self {
        let none = VirtualHosts::default();
        let before = previous.map_or(&none, |previous| &previous.routes.virtual_hosts);
        let mut indexes = previous
            .map(|previous| Arc::clone(&previous.indexes))
            .unwrap_or_default();
        for HostChange { before, after } in routes.virtual_hosts.changes_since(before) {
            if let Some(before) = before.filter(|before| indexes.contains_key(&address(before))) {
                Arc::make_mut(&mut indexes).remove(&address(before));
            }
            if let Some(after) = after
                && let Some(index) = RouteIndex::new(&after.routes)
            {
                Arc::make_mut(&mut indexes).insert(address(after), Arc::new(index));
            }
        }
        Self { routes, indexes }
    }

    /// The table that was indexed.
    #[must_use]
    pub fn routes(&self) -> &Arc<RouteTable> {
        &self.routes
    }

    /// Decides about a request.
    ///
    /// It costs about the same for ten routes and for thousands: see [`Table::walk`] for what it must agree with.
    #[must_use]
    pub fn decide(&self, request: &RequestView<'_>) -> Decision<'_> {
        self.decide_by(request, |virtual_host, head| {
            match self.indexes.get(&address(virtual_host)) {
                Some(index) => index.find(&virtual_host.routes, head),
                None => first_match(&virtual_host.routes, head, |_, _| {}),
            }
        })
    }

    /// Decides by looking at one route after the other, and tells `passed_over` of each one before the one taken, with
    /// the condition that failed. This is what [`decide`](Self::decide) means.
    pub fn walk<'t>(
        &'t self,
        request: &RequestView<'_>,
        passed_over: impl FnMut(&'t Arc<Route>, Mismatch<'t>),
    ) -> Decision<'t> {
        self.decide_by(request, |virtual_host, head| {
            first_match(&virtual_host.routes, head, passed_over)
        })
    }

    fn decide_by<'t>(
        &'t self,
        request: &RequestView<'_>,
        find: impl FnOnce(&'t Arc<VirtualHost>, &Head<'_>) -> Option<&'t Arc<Route>>,
    ) -> Decision<'t> {
        let Some(virtual_host) = self.virtual_host(request.authority) else {
            return Decision::NoVirtualHost;
        };
        // Envoy checks require_tls before it looks at any route.
        if virtual_host.require_tls && request.scheme != "https" {
            return Decision::RequireTls { virtual_host };
        }
        match find(virtual_host, &Head::new(request)) {
            Some(route) => Decision::Route { virtual_host, route },
            None => Decision::NoRoute { virtual_host },
        }
    }

    /// The virtual host of an authority, whose port does not count.
    fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        with_lower_case(without_port(authority), |host| {
            self.routes.virtual_hosts.find(host)
        })
    }
}

fn address(host: &Arc<VirtualHost>) -> usize {
    Arc::as_ptr(host).addr()
}

/// The definition of a virtual host's decision: the first route whose conditions all hold.
fn first_match<'t>(
    routes: &'t [Arc<Route>],
    head: &Head<'_>,
    mut passed_over: impl FnMut(&'t Arc<Route>, Mismatch<'t>),
) -> Option<&'t Arc<Route>> {
    routes
        .iter()
        .find(|route| match predicate::check(&route.matcher, head) {
            Ok(()) => true,
            Err(mismatch) => {
                passed_over(route, mismatch);
                false
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{forward_to, prefix, route, table};
    use http::HeaderMap;

    #[track_caller]
    fn check(table: &Table, authority: &str, path: &str, expected: &str) {
        let headers = HeaderMap::new();
        let request = RequestView {
            authority,
            path_and_query: path,
            method: "GET",
            scheme: "http",
            headers: &headers,
            claims: None,
        };
        let decided = match table.decide(&request) {
            Decision::NoVirtualHost => "no virtual host".to_owned(),
            Decision::RequireTls { virtual_host } => format!("tls {}", virtual_host.name),
            Decision::NoRoute { virtual_host } => format!("no route in {}", virtual_host.name),
            Decision::Route { virtual_host, route } => format!("{} {}", virtual_host.name, route.name),
        };
        assert_eq!(decided, expected, "{authority}{path}");
    }

    #[test]
    fn the_first_route_that_matches_is_taken() {
        let table = table(&[(
            "a.com",
            vec![
                route("short", prefix("/a"), forward_to(&[("x", 1)])),
                route("long", prefix("/a/b"), forward_to(&[("x", 1)])),
            ],
        )]);
        check(&table, "a.com", "/a/b", "a.com:80 short");
        check(&table, "A.com:99", "/a", "a.com:80 short");
    }

    #[test]
    fn a_virtual_host_without_a_matching_route_does_not_fall_through() {
        let table = table(&[
            (
                "e.sub.com",
                vec![route("only", prefix("/x"), forward_to(&[("x", 1)]))],
            ),
            (
                "*.sub.com",
                vec![route("all", prefix("/"), forward_to(&[("x", 1)]))],
            ),
        ]);
        check(&table, "e.sub.com", "/y", "no route in e.sub.com:80");
        check(&table, "f.sub.com", "/y", "*.sub.com:80 all");
        check(&table, "sub.com", "/y", "no virtual host");
    }
}
