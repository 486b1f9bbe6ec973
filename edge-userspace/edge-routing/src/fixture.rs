//! Values that the tests of several modules build on.

use std::sync::Arc;

use edge_model::{
    ClusterName, Forward, HeaderOps, HostPattern, Kind, ObjectRef, PathMatch, Rewrite, Route, RouteAction,
    RouteMatch, RouteTable, VirtualHost, WeightedDestination,
};

use crate::Table;

/// A match of a path prefix.
pub(crate) fn prefix(value: &str) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix {
            value: value.into(),
            ignore_case: false,
        },
        ..RouteMatch::any()
    }
}

/// Forwarding to port 80 of hosts, with weights.
pub(crate) fn forward_to(hosts: &[(&str, u32)]) -> RouteAction {
    RouteAction::Forward(Forward {
        destinations: hosts
            .iter()
            .map(|(host, weight)| WeightedDestination {
                cluster: ClusterName::outbound(80, "", host),
                weight: *weight,
                headers: HeaderOps::default(),
            })
            .collect(),
        rewrite: Rewrite::default(),
        timeout: None,
    })
}

/// A named route of a VirtualService.
pub(crate) fn route(name: &str, matcher: RouteMatch, action: RouteAction) -> Route {
    Route {
        name: name.into(),
        object: ObjectRef {
            kind: Kind::VirtualService,
            namespace: "default".into(),
            name: "vs".into(),
        },
        rule: 0,
        match_index: Some(0),
        matcher,
        action,
        headers: HeaderOps::default(),
        rate_limit: None,
        rate_limit_descriptors: Arc::new([]),
    }
}

/// The table `http.80` with virtual hosts on port 80.
pub(crate) fn table(hosts: &[(&str, Vec<Route>)]) -> Table {
    Table::new(Arc::new(RouteTable {
        name: "http.80".into(),
        virtual_hosts: hosts
            .iter()
            .map(|(domain, routes)| {
                Arc::new(VirtualHost {
                    name: format!("{domain}:80"),
                    domain: HostPattern::parse(domain).unwrap(),
                    require_tls: false,
                    routes: routes.iter().cloned().map(Arc::new).collect(),
                })
            })
            .collect(),
        rate_limit: None,
    }))
}
