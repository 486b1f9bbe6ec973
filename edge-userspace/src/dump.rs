//! `/config_dump`: the Snapshot in force as JSON, in the terms of its YAML. Private keys are left out.

use edge_model::{
    ClientAuth, Cluster, Endpoint, Listener, ListenerProtocol, LoadBalancer, LocalRateLimit, PathMatch,
    Protocol, Route, RouteAction, RouteMatch, RouteTable, ServerTls, Snapshot, SynCookies, TcpRoute,
    TlsServer, TokenRate, VirtualHost, WeightedCluster,
};
use serde_json::{Value, json};

/// The whole Snapshot.
pub(crate) fn snapshot(snapshot: &Snapshot) -> Value {
    let mut clusters: Vec<&Cluster> = snapshot.clusters.values().map(AsRef::as_ref).collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    json!({
        "version": snapshot.version,
        "listeners": snapshot.listeners.iter().map(|listener| self::listener(listener)).collect::<Vec<_>>(),
        "clusters": clusters.into_iter().map(cluster).collect::<Vec<_>>(),
        "penalties": snapshot.penalties.map(|policy| json!({
            "refusals": policy.refusals,
            "window_seconds": policy.window.as_secs_f64(),
            "duration_seconds": policy.duration.as_secs_f64(),
        })),
        "datapath": datapath(snapshot),
    })
}

fn datapath(snapshot: &Snapshot) -> Value {
    let datapath = &snapshot.datapath;
    let vips: Vec<Value> = datapath
        .vips
        .iter()
        .map(|vip| {
            json!({
                "address": vip.address,
                "port": vip.port,
                "protocol": protocol_name(vip.protocol),
                "listener_port": vip.listener_port,
            })
        })
        .collect();
    let workers: Vec<Value> = datapath
        .workers
        .iter()
        .map(|worker| json!({"id": worker.id.0, "weight": worker.weight}))
        .collect();
    let flood = datapath.flood.map(|flood| {
        json!({
            "packets_per_second": flood.packets.per_second,
            "packets_burst": flood.packets.burst,
            "new_connections_per_second": flood.new_connections.per_second,
            "new_connections_burst": flood.new_connections.burst,
        })
    });
    let rate = |rate: TokenRate| json!({"per_second": rate.per_second, "burst": rate.burst});
    let syn_cookies = match datapath.syn_cookies {
        None => json!("never"),
        Some(SynCookies::Always) => json!("always"),
        Some(SynCookies::Above(unanswered)) => json!({"unanswered_above": rate(unanswered)}),
    };
    json!({
        "vips": vips,
        "workers": workers,
        "flood": flood,
        "allowed_prefixes": datapath.sources.allow.len(),
        "denied_prefixes": datapath.sources.deny.len(),
        "reflection_ports": datapath.reflection_ports,
        "vip_limit": datapath.vip_limit.map(rate),
        "syn_cookies": syn_cookies,
    })
}

/// Name of a transport protocol in status and metrics.
pub(crate) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Name of a load balancer as a DestinationRule has it.
pub(crate) fn load_balancer_name(load_balancer: &LoadBalancer) -> &'static str {
    match load_balancer {
        LoadBalancer::ConsistentHash(_) => "CONSISTENT_HASH",
        LoadBalancer::LeastRequest => "LEAST_REQUEST",
        LoadBalancer::RoundRobin => "ROUND_ROBIN",
        LoadBalancer::Random => "RANDOM",
    }
}

/// One listener with its tables.
pub(crate) fn listener(listener: &Listener) -> Value {
    let (protocol, servers) = match &listener.protocol {
        ListenerProtocol::Http(routes) => ("http", json!([{"routes": table(routes)}])),
        ListenerProtocol::Tcp(route) => ("tcp", json!([{"route": tcp_route(route)}])),
        ListenerProtocol::Tls(servers) => (
            "tls",
            servers
                .iter()
                .map(|server| tls_server(server))
                .collect::<Vec<_>>()
                .into(),
        ),
    };
    json!({"name": listener.name, "port": listener.port, "protocol": protocol, "servers": servers})
}

fn tls_server(server: &TlsServer) -> Value {
    json!({
        "gateway": server.gateway.to_string(),
        "hosts": server.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "tls": server.tls().map(server_tls),
        "routes": server.routes().map(|routes| table(routes)),
        "route": server.tcp_route().map(|route| tcp_route(route)),
    })
}

fn server_tls(tls: &ServerTls) -> Value {
    json!({
        "certificates": tls.certificates.len(),
        "min_version": format!("{:?}", tls.min_version),
        "max_version": format!("{:?}", tls.max_version),
        "client_certificate": match tls.client_auth {
            ClientAuth::None => "none",
            ClientAuth::Optional(_) => "optional",
            ClientAuth::Required(_) => "required",
        },
    })
}

fn tcp_route(route: &TcpRoute) -> Value {
    let cluster = |destination: &WeightedCluster| json!({"name": destination.cluster.as_str(), "weight": destination.weight});
    json!({
        "object": route.object.to_string(),
        "rule": route.rule,
        "clusters": route.destinations.iter().map(cluster).collect::<Vec<_>>(),
    })
}

fn table(table: &RouteTable) -> Value {
    json!({
        "name": table.name,
        "rate_limit": table.rate_limit.as_deref().map(rate_limit),
        "virtual_hosts": table.virtual_hosts.sorted().into_iter().map(|host| virtual_host(host)).collect::<Vec<_>>(),
    })
}

fn virtual_host(host: &VirtualHost) -> Value {
    json!({
        "name": host.name,
        "domain": host.domain.to_string(),
        "require_tls": host.require_tls,
        "routes": host.routes.iter().map(|route| self::route(route)).collect::<Vec<_>>(),
    })
}

fn route(route: &Route) -> Value {
    json!({
        "name": route.name,
        "object": route.object.to_string(),
        "rule": route.rule,
        "match_index": route.match_index,
        "match": conditions(&route.matcher),
        "action": action(&route.action),
        "rate_limit": route.rate_limit.as_deref().map(rate_limit),
    })
}

/// One line per condition.
pub(crate) fn conditions(matcher: &RouteMatch) -> Vec<String> {
    let mut lines = Vec::new();
    match &matcher.path {
        PathMatch::Any => {}
        PathMatch::Exact { value, ignore_case } => {
            lines.push(format!("path exact {value:?}{}", case(*ignore_case)))
        }
        PathMatch::Prefix { value, ignore_case } => {
            lines.push(format!("path prefix {value:?}{}", case(*ignore_case)))
        }
        PathMatch::Regex(pattern) => lines.push(format!("path regex {:?}", pattern.source())),
    }
    let fields = [
        ("method", &matcher.method),
        ("scheme", &matcher.scheme),
        ("authority", &matcher.authority),
    ];
    for (name, condition) in fields {
        lines.extend(condition.as_ref().map(|condition| format!("{name} {condition}")));
    }
    for header in &matcher.headers {
        let not = if header.invert { "not " } else { "" };
        lines.push(format!("header {} {not}{}", header.name, header.value));
    }
    lines.extend(
        matcher
            .query
            .iter()
            .map(|query| format!("query {} {}", query.name, query.value)),
    );
    for claim in &matcher.claims {
        let not = if claim.invert { "not " } else { "" };
        lines.push(format!("claim {} {not}{}", claim.path.join("."), claim.value));
    }
    lines
}

fn case(ignore: bool) -> &'static str {
    if ignore { ", case ignored" } else { "" }
}

fn action(action: &RouteAction) -> Value {
    match action {
        RouteAction::Forward(forward) => json!({
            "clusters": forward
                .destinations
                .iter()
                .map(|destination| json!({"name": destination.cluster.as_str(), "weight": destination.weight}))
                .collect::<Vec<_>>(),
            "timeout_seconds": forward.timeout.map(|timeout| timeout.as_secs_f64()),
            "rewrite": format!("{:?}", forward.rewrite),
        }),
        RouteAction::Redirect(redirect) => json!({
            "redirect": {
                "code": redirect.code.as_u16(),
                "scheme": redirect.scheme,
                "authority": redirect.authority,
                "path": format!("{:?}", redirect.path),
            }
        }),
        RouteAction::DirectResponse(response) => {
            json!({"direct_response": {"status": response.status.as_u16(), "body_bytes": response.body.len()}})
        }
    }
}

fn rate_limit(limit: &LocalRateLimit) -> Value {
    let bucket = |bucket: &edge_model::TokenBucket| {
        json!({
            "max_tokens": bucket.max_tokens,
            "tokens_per_fill": bucket.tokens_per_fill,
            "fill_interval_seconds": bucket.fill_interval.as_secs_f64(),
        })
    };
    json!({
        "object": limit.object.to_string(),
        "stat_prefix": limit.stat_prefix,
        "bucket": limit.bucket.as_ref().map(bucket),
        "descriptors": limit
            .descriptors
            .iter()
            .map(|descriptor| {
                let entries: Vec<Value> =
                    descriptor.entries.iter().map(|entry| json!({"key": entry.key, "value": entry.value})).collect();
                json!({"entries": entries, "bucket": bucket(&descriptor.bucket)})
            })
            .collect::<Vec<_>>(),
        "enabled_per_million": limit.enabled.parts_per_million(),
        "enforced_per_million": limit.enforced.parts_per_million(),
    })
}

fn cluster(cluster: &Cluster) -> Value {
    json!({
        "name": cluster.name.as_str(),
        "load_balancer": load_balancer_name(&cluster.load_balancer),
        "connect_timeout_seconds": cluster.connect_timeout.as_secs_f64(),
        "endpoints": cluster.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.address,
        "weight": endpoint.weight,
        "workload": endpoint.workload.workload,
        "version": endpoint.workload.version,
    })
}
