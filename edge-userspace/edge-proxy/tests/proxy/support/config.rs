//! Snapshots in few words.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_model::{
    Cluster, ClusterName, DirectResponse, Endpoint, Forward, HeaderOps, HostPattern, Kind, Listener,
    ListenerProtocol, LoadBalancer, ObjectRef, PathMatch, PenaltyPolicy, Redirect, RedirectPath,
    RedirectPort, RetryCondition, RetryOn, RetryPolicy, Route, RouteAction, RouteMatch, RouteTable,
    SharedMap, Snapshot, VirtualHost, WeightedDestination, WorkloadMeta,
};
use http::StatusCode;

/// A Snapshot being built.
#[derive(Clone, Default)]
pub(crate) struct Snap {
    pub(crate) listeners: Vec<Arc<Listener>>,
    pub(crate) clusters: SharedMap<ClusterName, Arc<Cluster>>,
    pub(crate) penalties: Option<PenaltyPolicy>,
    pub(crate) unenforced: Vec<ObjectRef>,
}

impl Snap {
    /// One virtual host `*` on one port, with the given routes.
    pub(crate) fn new(port: u16, routes: Vec<Route>) -> Self {
        Self::default().listen(port, vec![virtual_host("*", routes)])
    }

    /// The virtual host `*` sends everything to one cluster.
    pub(crate) fn simple(port: u16, endpoints: &[SocketAddr]) -> Self {
        Self::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))]).with(service("web", endpoints))
    }

    /// One more HTTP listener.
    pub(crate) fn listen(self, port: u16, virtual_hosts: Vec<VirtualHost>) -> Self {
        let table = RouteTable::new(format!("http.{port}"), virtual_hosts.into_iter().map(Arc::new));
        self.listen_with(port, ListenerProtocol::Http(Arc::new(table)))
    }

    /// One more listener.
    pub(crate) fn listen_with(mut self, port: u16, protocol: ListenerProtocol) -> Self {
        self.listeners.push(Arc::new(Listener::new(port, protocol)));
        self
    }

    /// One more cluster.
    pub(crate) fn with(mut self, cluster: Cluster) -> Self {
        self.clusters.insert(cluster.name.clone(), Arc::new(cluster));
        self
    }

    pub(crate) fn build(self) -> Snapshot {
        Snapshot {
            version: 1,
            listeners: self.listeners,
            clusters: self.clusters,
            unenforced: self.unenforced,
            penalties: self.penalties,
            ..Snapshot::default()
        }
    }
}

/// The cluster of all endpoints of port 80 of a service.
pub(crate) fn cluster(name: &str) -> ClusterName {
    ClusterName::outbound(80, "", &format!("{name}.shop.svc.cluster.local"))
}

/// A service with round robin over the given endpoints.
pub(crate) fn service(name: &str, endpoints: &[SocketAddr]) -> Cluster {
    service_with(name, endpoints, LoadBalancer::RoundRobin)
}

pub(crate) fn service_with(name: &str, endpoints: &[SocketAddr], load_balancer: LoadBalancer) -> Cluster {
    let workload = Arc::new(WorkloadMeta {
        workload: format!("{name}-v1"),
        namespace: "shop".into(),
        app: name.into(),
        version: "v1".into(),
        canonical_service: name.into(),
        canonical_revision: "v1".into(),
    });
    let endpoints = endpoints
        .iter()
        .map(|address| Endpoint::new(*address, Arc::clone(&workload)));
    Cluster {
        load_balancer,
        connect_timeout: Duration::from_secs(1),
        endpoints: endpoints.collect(),
        ..Cluster::new(&format!("{name}.shop.svc.cluster.local"), "shop", 80, None)
    }
}

pub(crate) fn virtual_host(domain: &str, routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        routes: routes.into_iter().map(Arc::new).collect(),
        ..VirtualHost::new(HostPattern::parse(domain).unwrap(), 80)
    }
}

pub(crate) fn prefix(value: &str) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix {
            value: value.into(),
            ignore_case: false,
        },
        ..RouteMatch::any()
    }
}

pub(crate) fn route(matcher: RouteMatch, action: RouteAction) -> Route {
    let object = ObjectRef {
        kind: Kind::VirtualService,
        namespace: "shop".into(),
        name: "web".into(),
    };
    Route {
        name: "route".into(),
        match_index: Some(0),
        ..Route::new(Arc::new(object), matcher, action)
    }
}

pub(crate) fn destination(name: &str, weight: u32) -> WeightedDestination {
    WeightedDestination {
        cluster: cluster(name),
        weight,
        headers: HeaderOps::default(),
    }
}

/// Forwarding to services by weight.
pub(crate) fn forward(services: &[(&str, u32)]) -> RouteAction {
    let destinations = services.iter().map(|(name, weight)| destination(name, *weight));
    RouteAction::Forward(Forward::to(destinations.collect()))
}

/// Tries again under these conditions, and soon.
pub(crate) fn retries(attempts: u32, on: &[&str]) -> RetryPolicy {
    let conditions = on.iter().map(|name| RetryCondition::from_name(name).unwrap());
    RetryPolicy {
        attempts,
        retry_on: conditions.fold(RetryOn::NEVER, RetryOn::with),
        base_interval: Duration::from_millis(1),
        ..RetryPolicy::default()
    }
}

pub(crate) fn redirect(code: u16, authority: Option<&str>, path: RedirectPath) -> RouteAction {
    RouteAction::Redirect(Redirect {
        code: StatusCode::from_u16(code).unwrap(),
        scheme: None,
        authority: authority.map(str::to_owned),
        port: RedirectPort::Unchanged,
        path,
    })
}

pub(crate) fn direct(status: u16, body: &'static str) -> RouteAction {
    RouteAction::DirectResponse(DirectResponse {
        status: StatusCode::from_u16(status).unwrap(),
        body: body.into(),
    })
}
