//! What the edge does with a request, as far as it is decided without a network.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_model::{
    Cluster, Discovery, DnsEndpoint, ListenerProtocol, Route, RouteAction, RouteTable, Snapshot, TcpRoute,
};
use edge_routing::{
    Decision, Explanation, Probe, RequestView, SniIndex, Table, apply_request_ops, apply_response_ops,
    choose_destination, explain, normalize_path, redirect_location, rewrite, tls_redirect_location,
};
use http::HeaderMap;
use serde::Serialize;

use crate::Request;
use crate::request::Parts;

/// The decision about a request, with what comes of it.
#[derive(Debug, Default, Serialize)]
pub struct Answer {
    /// Outcome, as `edge explain request` names it.
    pub outcome: String,
    /// Name of the listener.
    pub listener: Option<String>,
    /// Name of the route table.
    pub route_config: Option<String>,
    /// Name of the virtual host.
    pub virtual_host: Option<String>,
    /// Name of the route.
    pub route: Option<String>,
    /// Object of the route.
    pub object: Option<String>,
    /// Clusters with their weights.
    pub clusters: BTreeMap<String, u32>,
    /// Endpoints of the clusters that exist.
    pub endpoints: BTreeMap<String, Vec<String>>,
    /// Load balancer and connect timeout of the clusters that exist.
    pub policies: BTreeMap<String, String>,
    /// Fields for which routes were passed over, in order.
    pub passed_over: Vec<String>,
    /// Status of an answer that the edge gives by itself.
    pub status: Option<u16>,
    /// Location of a redirect.
    pub location: Option<String>,
    /// Body of a direct response.
    pub body: Option<String>,
    /// Path and query that the upstream gets.
    pub upstream_path: Option<String>,
    /// Cluster that the draw picks.
    pub upstream_cluster: Option<String>,
    /// Headers that the upstream gets.
    pub upstream_headers: BTreeMap<String, Vec<String>>,
    /// Headers that the client gets, for a response with `x-a: old` and `x-b: old`.
    pub response_headers: BTreeMap<String, Vec<String>>,
    /// Retries, fault, CORS and mirrors of the route, in words.
    pub rule: BTreeMap<String, String>,
    /// Settings of the clusters that exist, in words.
    pub settings: BTreeMap<String, BTreeMap<String, String>>,
    /// Timeout of the route in milliseconds.
    pub timeout_ms: Option<u128>,
    /// Local rate limit of the route, by its `stat_prefix`.
    pub rate_limit: Option<String>,
}

/// Puts a request to a Snapshot.
///
/// # Errors
/// Says what of the request is malformed.
pub fn ask(snapshot: &Snapshot, request: &Request) -> Result<Answer, String> {
    let parts = request.parts()?;
    let explanation = explain(
        snapshot,
        &Probe {
            port: parts.port,
            tls: parts.is_tls,
            sni: parts.sni.as_deref(),
            authority: &parts.authority,
            path_and_query: &parts.path_and_query,
            method: &parts.method,
            headers: &parts.headers,
            claims: None,
        },
    );
    let mut answer = Answer::of(snapshot, &explanation);
    if let Some(route) = find_tcp_route(snapshot, &parts) {
        answer.forward(&route);
        return Ok(answer);
    }
    if let (Some(table), Ok(path)) = (
        find_table(snapshot, &parts),
        normalize_path(&parts.path_and_query),
    ) {
        let table = Table::new(table);
        let view = RequestView {
            authority: &parts.authority,
            path_and_query: &path,
            method: &parts.method,
            scheme: if parts.is_tls { "https" } else { "http" },
            headers: &parts.headers,
            claims: None,
        };
        answer.act(table.decide(&view), &view, request.draw);
    }
    Ok(answer)
}

/// Where the proxy would forward the bytes of the connection.
fn find_tcp_route(snapshot: &Snapshot, parts: &Parts) -> Option<Arc<TcpRoute>> {
    match &snapshot.listener(parts.port)?.protocol {
        ListenerProtocol::Tcp(route) => Some(Arc::clone(route)),
        ListenerProtocol::Tls(servers) if parts.is_tls => {
            let index = SniIndex::new(servers);
            let (_, server) = index.select(parts.sni.as_deref())?;
            server.tcp_route().map(Arc::clone)
        }
        ListenerProtocol::Tls(_) | ListenerProtocol::Http(_) => None,
    }
}

/// The table that the proxy would use for the connection.
fn find_table(snapshot: &Snapshot, parts: &Parts) -> Option<Arc<RouteTable>> {
    match (&snapshot.listener(parts.port)?.protocol, parts.is_tls) {
        (ListenerProtocol::Http(table), false) => Some(Arc::clone(table)),
        (ListenerProtocol::Tls(servers), true) => {
            let index = SniIndex::new(servers);
            let (_, server) = index.select(parts.sni.as_deref())?;
            server.routes().map(Arc::clone)
        }
        (ListenerProtocol::Http(_) | ListenerProtocol::Tls(_) | ListenerProtocol::Tcp(_), _) => None,
    }
}

impl Answer {
    fn of(snapshot: &Snapshot, explanation: &Explanation) -> Self {
        let explanation = explanation.clone();
        let outcome = serde_json::to_value(explanation.outcome).unwrap_or_default();
        let known: Vec<_> = explanation
            .clusters
            .iter()
            .filter_map(|share| snapshot.clusters.get(share.name.as_str()))
            .collect();
        let shares = explanation.clusters.into_iter();
        let trace = explanation.trace.into_iter();
        Self {
            outcome: outcome.as_str().unwrap_or_default().to_owned(),
            listener: explanation.listener,
            route_config: explanation.route_config,
            virtual_host: explanation.virtual_host,
            route: explanation.route,
            object: explanation.object,
            clusters: shares.map(|share| (share.name, share.weight)).collect(),
            endpoints: known
                .iter()
                .map(|cluster| {
                    let addresses = cluster
                        .endpoints
                        .iter()
                        .map(|endpoint| endpoint.address.to_string());
                    (cluster.name.to_string(), addresses.collect())
                })
                .collect(),
            policies: known
                .iter()
                .map(|cluster| {
                    let policy = format!("{:?} {:?}", cluster.load_balancer, cluster.connect_timeout);
                    (cluster.name.to_string(), policy)
                })
                .collect(),
            settings: known
                .iter()
                .map(|cluster| (cluster.name.to_string(), settings(cluster)))
                .collect(),
            passed_over: trace
                .filter(|step| step.expected.is_some())
                .filter_map(|step| step.field)
                .collect(),
            ..Self::default()
        }
    }

    fn forward(&mut self, route: &TcpRoute) {
        "forward".clone_into(&mut self.outcome);
        self.object = Some(route.object.to_string());
        let shares = route.destinations.iter();
        self.clusters = shares
            .map(|share| (share.cluster.to_string(), share.weight))
            .collect();
    }

    fn act(&mut self, decision: Decision<'_>, request: &RequestView<'_>, draw: u64) {
        match decision {
            Decision::NoVirtualHost | Decision::NoRoute { .. } => self.status = Some(404),
            Decision::RequireTls { .. } => {
                self.status = Some(301);
                self.location = Some(tls_redirect_location(request));
            }
            Decision::Route { route, .. } => self.take(route, request, draw),
        }
    }

    fn take(&mut self, route: &Route, request: &RequestView<'_>, draw: u64) {
        self.rule = rule(route);
        self.rate_limit = route.rate_limit.as_ref().map(|limit| limit.stat_prefix.clone());
        let mut response = HeaderMap::new();
        for name in ["x-a", "x-b"] {
            response.insert(name, http::HeaderValue::from_static("old"));
        }
        match &route.action {
            RouteAction::Redirect(redirect) => {
                self.status = Some(redirect.code.as_u16());
                self.location = Some(redirect_location(redirect, &route.matcher, request));
                apply_response_ops(&mut response, route, None, &|_| None);
            }
            RouteAction::DirectResponse(direct) => {
                self.status = Some(direct.status.as_u16());
                self.body = Some(String::from_utf8_lossy(&direct.body).into_owned());
                apply_response_ops(&mut response, route, None, &|_| None);
            }
            RouteAction::Forward(forward) => {
                self.timeout_ms = forward.timeout.map(|timeout| timeout.as_millis());
                let Some(destination) = choose_destination(forward, draw) else {
                    return;
                };
                let mut headers = request.headers.clone();
                if let Ok(host) = request.authority.parse() {
                    headers.insert(http::header::HOST, host);
                }
                apply_request_ops(&mut headers, route, destination, &|_| None);
                let rewritten = rewrite(route, forward, destination, request.path_and_query);
                rewritten.write_headers(&mut headers, request.authority, request.path_and_query);
                apply_response_ops(&mut response, route, Some(destination), &|_| None);
                self.upstream_headers = lines(&headers);
                self.upstream_path = Some(
                    rewritten
                        .path_and_query
                        .unwrap_or_else(|| request.path_and_query.to_owned()),
                );
                self.upstream_cluster = Some(destination.cluster.to_string());
            }
        }
        self.response_headers = lines(&response);
    }
}

/// All lines of each header.
fn lines(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        lines.entry(name.to_string()).or_default().push(text);
    }
    lines
}

/// What a route asks for besides its action.
fn rule(route: &Route) -> BTreeMap<String, String> {
    let mut words = BTreeMap::new();
    if let RouteAction::Forward(forward) = &route.action {
        let retries = &forward.retries;
        let names: Vec<_> = retries.retry_on.names().collect();
        let text = format!(
            "{} on {} {:?} per try {:?} avoiding {}",
            retries.attempts,
            names.join(","),
            retries.retriable_status_codes,
            retries.per_try_timeout,
            retries.avoid_previous_hosts
        );
        words.insert("retries".to_owned(), text);
        let mirrors = forward.mirrors.iter();
        let mirrors =
            mirrors.map(|mirror| format!("{} {}", mirror.cluster, mirror.share.parts_per_million()));
        words.insert("mirrors".to_owned(), mirrors.collect::<Vec<_>>().join(", "));
    }
    if let Some(fault) = &route.fault {
        let delay = fault
            .delay
            .map(|delay| (delay.duration, delay.share.parts_per_million()));
        let abort = fault
            .abort
            .map(|abort| (abort.status, abort.share.parts_per_million()));
        words.insert("fault".to_owned(), format!("{delay:?} {abort:?}"));
    }
    if let Some(cors) = &route.cors {
        let text = format!(
            "{:?} {:?} forward {}",
            cors.allow_origins, cors.max_age, cors.forward_unmatched_preflights
        );
        words.insert("cors".to_owned(), text);
    }
    words
}

fn settings(cluster: &Cluster) -> BTreeMap<String, String> {
    let limits = &cluster.circuit_breakers;
    let outliers = cluster.outlier_detection.as_ref();
    let outliers = outliers.map(|outliers| {
        (
            outliers.consecutive_5xx,
            outliers.consecutive_gateway_errors,
            outliers.base_ejection_time,
            outliers.max_ejection_percent,
        )
    });
    let places = cluster.endpoints.iter();
    let places = places.map(|endpoint| format!("{} {}", endpoint.address, endpoint.priority));
    let words = [
        ("protocol", format!("{:?}", cluster.protocol)),
        ("connections", limits.max_connections.to_string()),
        (
            "per_connection",
            format!("{:?}", cluster.pool.max_requests_per_connection),
        ),
        ("outliers", format!("{outliers:?}")),
        ("priorities", places.collect::<Vec<_>>().join(", ")),
        ("tls", format!("{:?}", cluster.tls)),
        ("names", names(cluster)),
    ];
    words
        .into_iter()
        .map(|(key, text)| (key.to_owned(), text))
        .collect()
}

/// How a cluster's names are resolved, and each with its port, priority and weight.
fn names(cluster: &Cluster) -> String {
    let (kind, names): (_, &[DnsEndpoint]) = match &cluster.discovery {
        Discovery::Static => ("static", &[]),
        Discovery::OriginalDst => ("original", &[]),
        Discovery::StrictDns(names) => ("all of", names),
        Discovery::LogicalDns(names) => ("one of", names),
    };
    let texts = names
        .iter()
        .map(|name| format!("{}:{} {} {}", name.name, name.port, name.priority, name.weight));
    [kind.to_owned(), texts.collect::<Vec<_>>().join(", ")]
        .join(" ")
        .trim_end()
        .to_owned()
}
