//! Values that the tests of several modules build on.

use std::sync::Arc;

use edge_model::{
    ClusterName, Forward, HeaderOps, HostPattern, Kind, ObjectRef, PathMatch, Route, RouteAction, RouteMatch,
    RouteTable, VirtualHost, WeightedDestination,
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
    let destinations = hosts.iter().map(|(host, weight)| WeightedDestination {
        cluster: ClusterName::outbound(80, "", host),
        weight: *weight,
        headers: HeaderOps::default(),
    });
    RouteAction::Forward(Forward::to(destinations.collect()))
}

/// A named route of a VirtualService.
pub(crate) fn route(name: &str, matcher: RouteMatch, action: RouteAction) -> Route {
    let object = ObjectRef {
        kind: Kind::VirtualService,
        namespace: "default".into(),
        name: "vs".into(),
    };
    Route {
        name: name.into(),
        match_index: Some(0),
        ..Route::new(Arc::new(object), matcher, action)
    }
}

/// The table `http.80` with virtual hosts on port 80.
pub(crate) fn table(hosts: &[(&str, Vec<Route>)]) -> Table {
    let hosts = hosts.iter().map(|(domain, routes)| {
        Arc::new(VirtualHost {
            routes: routes.iter().cloned().map(Arc::new).collect(),
            ..VirtualHost::new(HostPattern::parse(domain).unwrap(), 80)
        })
    });
    Table::new(Arc::new(RouteTable::new("http.80", hosts)))
}
