//! The route table of a listener or TLS server: virtual host, then the first route that matches.

use std::sync::Arc;

use edge_model::{Route, RouteTable, VirtualHost};

use crate::RequestView;
use crate::host::{lower_case, without_port};
use crate::predicate::{self, Mismatch};

/// A [`RouteTable`] made ready for lookups.
#[derive(Debug, Clone)]
pub struct Table {
    routes: Arc<RouteTable>,
}

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
        Self { routes }
    }

    /// The table that was indexed.
    #[must_use]
    pub fn routes(&self) -> &Arc<RouteTable> {
        &self.routes
    }

    /// Decides about a request. Allocates only when its host is not in lower case.
    #[must_use]
    pub fn decide(&self, request: &RequestView<'_>) -> Decision<'_> {
        self.decide_with(request, |_, _| {})
    }

    /// Decides, and tells `passed_over` of each route before the one taken, with the condition that failed.
    pub(crate) fn decide_with<'t>(
        &'t self,
        request: &RequestView<'_>,
        mut passed_over: impl FnMut(&'t Arc<Route>, Mismatch<'t>),
    ) -> Decision<'t> {
        let Some(virtual_host) = self.virtual_host(request.authority) else {
            return Decision::NoVirtualHost;
        };
        // Envoy checks require_tls before it looks at any route.
        if virtual_host.require_tls && request.scheme != "https" {
            return Decision::RequireTls { virtual_host };
        }
        for route in &virtual_host.routes {
            match predicate::check(&route.matcher, request) {
                Ok(()) => return Decision::Route { virtual_host, route },
                Err(mismatch) => passed_over(route, mismatch),
            }
        }
        Decision::NoRoute { virtual_host }
    }

    /// The virtual host of an authority, whose port does not count.
    fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        self.routes
            .virtual_hosts
            .find(&lower_case(without_port(authority)))
    }
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
