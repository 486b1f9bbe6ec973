//! Envoy, as Istio would configure it.

use std::path::Path;

use anyhow::Result;
use edge_lab::cert::CertFiles;
use serde_json::{Value, json};

use super::{Ports, Prepared, prefixes, write};
use crate::site::Site;

pub(super) fn prepare(site: &Site, folder: &Path, program: Option<&Path>) -> Result<Option<Prepared>> {
    let Some(program) = program else {
        return Ok(None);
    };
    let mut ports = Ports::new(site)?;
    // One port speaks both versions.
    ports.http2 = ports.http1;
    let config = json!({
        "admin": {"address": address("127.0.0.1", ports.admin)},
        "static_resources": {
            "listeners": [
                listener(ports.http1, http("http", None)),
                listener(ports.ecdsa, http("ecdsa", Some(&site.ecdsa))),
                listener(ports.rsa, http("rsa", Some(&site.rsa))),
                listener(ports.tcp, bytes("bytes")),
                with_inspector(listener(ports.passthrough, bytes("tls"))),
            ],
            "clusters": [
                cluster("web", site.backend.port()),
                cluster("bytes", site.backend.port()),
                cluster("tls", site.backend_tls.port()),
            ],
        },
    });
    let file = write(folder, "envoy.json", &config.to_string())?;
    let options = [
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "error",
    ];
    let mut command = vec![program.into(), "-c".into(), file];
    command.extend(options.map(Into::into));
    Ok(Some(Prepared { command, ports }))
}

fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}

fn listener(port: u16, chain: Value) -> Value {
    json!({
        "address": {"socket_address": {"address": "::", "port_value": port, "ipv4_compat": true}},
        "filter_chains": [chain],
    })
}

fn with_inspector(mut listener: Value) -> Value {
    listener["listener_filters"] = json!([{
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
        },
    }]);
    listener["filter_chains"][0]["filter_chain_match"] = json!({"server_names": ["localhost"]});
    listener
}

fn bytes(cluster: &str) -> Value {
    json!({"filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster,
            "cluster": cluster,
        },
    }]})
}

fn http(name: &str, certificate: Option<&CertFiles>) -> Value {
    let route = |prefix: String| {
        json!({
            "match": {"prefix": prefix},
            "route": {
                "cluster": "web",
                "timeout": "15s",
                "retry_policy": {
                    "retry_on": "connect-failure,refused-stream,retriable-status-codes",
                    "num_retries": 2,
                    "per_try_timeout": "5s",
                    "retriable_status_codes": [503],
                },
            },
        })
    };
    let routes: Vec<_> = prefixes().chain(["/".to_owned()]).map(route).collect();
    let mut chain = json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type":
                "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "use_remote_address": true,
            "normalize_path": true,
            "merge_slashes": true,
            "generate_request_id": true,
            "route_config": {
                "virtual_hosts": [{"name": "localhost", "domains": ["localhost", "localhost:*"], "routes": routes}],
            },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        },
    }]});
    if let Some(files) = certificate {
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                    "tls_certificates": [{
                        "certificate_chain": {"filename": files.cert},
                        "private_key": {"filename": files.key},
                    }],
                },
            },
        });
    }
    chain
}

fn cluster(name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{
            "max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000, "max_retries": 10_000,
        }]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address("127.0.0.1", port)}}]}],
        },
    })
}
