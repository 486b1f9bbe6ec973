mod tier1;

use std::time::Duration;

use edge_model::{
    EscapedSlashes, ForwardMode, Http2Limits, Measure, MemberState, PathNormalization, PenaltyScope,
    TunnelRole,
};

use serde_yaml::Value;

use super::*;

const REFERENCE: &str = include_str!("../../../../config/reference/edge.yaml");

/// The file, or all that is to be said of one with errors.
fn parse(text: &str) -> Result<Bootstrap, Vec<Problem>> {
    let mut problems = Vec::new();
    Bootstrap::read("edge.yaml", text, &mut problems).ok_or(problems)
}

#[test]
fn the_reference_file_says_what_an_empty_file_means() {
    let reference = parse(REFERENCE).expect("the reference is right");
    assert_eq!(reference, Bootstrap::default());
    assert_eq!(parse(""), Ok(reference));
}

#[test]
fn the_reference_file_has_every_key() {
    // With the examples in the place of the nulls, the file must have every key that its shape has.
    let empty = ["virtualAddresses: []", "pools: []"];
    let is_replaced = |line: &&str| !line.ends_with(": null") && !empty.contains(line);
    let whole: String = REFERENCE
        .lines()
        .filter(is_replaced)
        .map(|line| format!("{}\n", line.strip_prefix("#:").unwrap_or(line)))
        .collect();
    parse(&whole).expect("the examples are right");
    let written: Value = serde_yaml::from_str(&whole).expect("it has just been read");
    let raw: raw::RawBootstrap = serde_yaml::from_value(written.clone()).expect("it has just been read");
    let shape = serde_yaml::to_value(&raw).expect("a shape can be written");
    assert_keys(&shape, &written, "");
}

/// Every key of `shape` is in `written` too, and nothing of it is left without an example.
#[track_caller]
fn assert_keys(shape: &Value, written: &Value, path: &str) {
    assert!(!written.is_null(), "{path} has no example in the reference");
    for (key, inner) in shape.as_mapping().into_iter().flatten() {
        let path = format!("{path}.{}", key.as_str().unwrap_or_default());
        let written = written.get(key).unwrap_or(&Value::Null);
        assert_keys(inner, written, &path);
    }
    for (index, inner) in shape.as_sequence().into_iter().flatten().enumerate() {
        assert_keys(inner, &written[index], &format!("{path}[{index}]"));
    }
}

#[test]
fn all_keys_reach_the_checked_file() {
    let text = "interfaces: [eth0]
xdpMode: native
virtualAddresses: [{address: '2001:db8::1', ports: [{port: 80, listenerPort: 8080}, {port: 443}]}]
localRoutes: false
pinning: {path: /sys/fs/bpf/a, onStop: keep}
tunnels: {endpoints: [192.0.2.1], trusted: [192.0.2.0/24], guePort: 99, role: host}
workers: 4
hashSeed: 0xff
flood: {packetsPerSecond: 1, packetsBurst: 2, newConnectionsPerSecond: 3, newConnectionsBurst: 4}
penalties: {refusals: 5, window: 1m, duration: 2h, perSecond: 3, burst: 4, newConnectionsOnly: true}
sources: {allow: [192.0.2.0/24], allowFiles: [a.txt], deny: ['2001:db8::/32'], denyFiles: [b.txt]}
reflectionPorts: [53]
vipLimit: {newConnectionsPerSecond: 8, newConnectionsBurst: 9}
synCookies: {mode: auto, unansweredPerSecond: 77}
gatewayLabels: {app: edge}
gatewayNamespace: edge
gatewayAddresses: [192.0.2.1]
rootNamespace: root
domain: k8s.example
resources: routes
admin: '[::1]:9000'
drain: {grace: 2s, deadline: 5s}
overload: {maxConnections: 1000, maxMemory: 2Gi}
dns: {nameServers: [192.0.2.53, '192.0.2.54:5353'], minTtl: 1s, maxTtl: 1m, timeout: 3s}
";
    let found = parse(text).expect("all of it is right");
    assert_eq!(
        (found.interfaces, found.xdp_mode),
        (vec!["eth0".to_owned()], XdpMode::Native)
    );
    let ports: Vec<_> = found.virtual_addresses[0]
        .ports
        .iter()
        .map(|p| (p.port, p.listener_port))
        .collect();
    assert_eq!(ports, [(80, Some(8080)), (443, None)]);
    assert_eq!(
        (found.local_routes, found.workers, found.hash_seed),
        (false, Some(4), Some(255))
    );
    let flood = found.flood.expect("flood limits are set");
    assert_eq!((flood.packets.burst, flood.new_connections.per_second), (2, 3));
    let penalties = found.penalties.expect("penalties are set");
    let hours = Duration::from_secs(7200);
    assert_eq!((penalties.refusals, penalties.duration), (5, hours));
    let rate = |per_second, burst| TokenRate { per_second, burst };
    let measure = Measure {
        rate: Some(rate(3, 4)),
        scope: PenaltyScope::NewConnections,
    };
    assert_eq!(penalties.measure, measure);
    let prefix = |text: &str| vec![text.parse::<Prefix>().expect("a prefix")];
    let sources = Sources {
        allow: prefix("192.0.2.0/24"),
        allow_files: vec!["a.txt".to_owned()],
        deny: prefix("2001:db8::/32"),
        deny_files: vec!["b.txt".to_owned()],
    };
    assert_eq!((found.sources, found.reflection_ports), (sources, vec![53]));
    assert_eq!(
        (found.vip_limit, found.syn_cookies),
        (Some(rate(8, 9)), Some(SynCookies::Above(rate(77, 77))))
    );
    let tunnels = Tunnels {
        endpoints: vec!["192.0.2.1".parse().expect("an address")],
        relays: vec![],
        trusted: prefix("192.0.2.0/24"),
        gue_port: 99,
        role: TunnelRole::PlainHost {
            addresses: vec!["2001:db8::1".parse().expect("an address")],
        },
    };
    assert_eq!(found.tunnels, Some(tunnels));
    assert_eq!(found.gateway_labels.get("app").map(String::as_str), Some("edge"));
    assert_eq!(
        (found.gateway_namespace.as_str(), found.root_namespace.as_str()),
        ("edge", "root")
    );
    assert_eq!(
        found.gateway_addresses,
        ["192.0.2.1".parse::<IpAddr>().expect("an address")]
    );
    assert_eq!(
        (found.domain.as_str(), found.resources),
        ("k8s.example", PathBuf::from("routes"))
    );
    let seconds = Duration::from_secs;
    let drain = Drain {
        grace: seconds(2),
        deadline: seconds(5),
    };
    assert_eq!((found.admin.port(), found.drain), (9000, drain));
    let overload = Overload {
        max_connections: Some(1000),
        max_memory: Some(2 << 30),
    };
    assert_eq!(found.overload, overload);
    let dns = Dns {
        name_servers: ["192.0.2.53:53", "192.0.2.54:5353"]
            .map(|text| text.parse().expect("an address"))
            .into(),
        min_ttl: seconds(1),
        max_ttl: seconds(60),
        timeout: seconds(3),
    };
    assert_eq!(found.dns, dns);
}

#[test]
fn bounds_on_clients_reach_the_checked_file() {
    let text = "pathNormalization: MERGE_SLASHES
pathWithEscapedSlashes: REJECT_REQUEST
timeouts: {requestHeaders: 1s, tlsHandshake: 2s, requestBody: 3s, stalled: 4s, window: 5s, idle: 6s, drainIdle: 7s}
limits:
  requestHeadersBytes: 9000
  requestHeaders: 1
  requestTargetBytes: 2
  requestBodyBytesPerSecond: 0
  responseBytesPerSecond: 10
  http2: {maxConcurrentStreams: 4, controlFrames: 5, windowUpdates: 6, resets: 7, streamErrors: 8, refusedStreams: 9}
";
    let found = parse(text).expect("all of it is right");
    assert_eq!(
        found.paths,
        PathPolicy {
            normalization: PathNormalization::MergeSlashes,
            escaped_slashes: EscapedSlashes::Reject,
        }
    );
    let seconds = Duration::from_secs;
    assert_eq!(
        found.timeouts,
        ClientTimeouts {
            header: seconds(1),
            handshake: seconds(2),
            body: seconds(3),
            stalled: seconds(4),
            window: seconds(5),
            idle: seconds(6),
            drain_idle: seconds(7),
        }
    );
    assert_eq!(
        found.limits,
        ClientLimits {
            head: 9000,
            fields: 1,
            target: 2,
            body_rate: 0,
            response_rate: 10,
            streams: 4,
            http2: Http2Limits {
                control_frames: 5,
                window_updates: 6,
                resets: 7,
                errors: 8,
                refusals: 9,
            },
        }
    );
    let text = "proxyProtocol: {from: [192.0.2.0/24, '2001:db8::1'], ports: [8443]}";
    let found = parse(text).expect("all of it is right");
    let applies = |port, peer: &str| {
        found
            .proxy_protocol
            .applies(port, peer.parse().expect("an address"))
    };
    assert!(applies(8443, "192.0.2.9") && applies(8443, "::ffff:192.0.2.9") && applies(8443, "2001:db8::1"));
    assert!(!applies(8080, "192.0.2.9") && !applies(8443, "192.0.3.9") && !applies(8443, "2001:db8::2"));
    for (text, field) in [
        ("proxyProtocol: {}", "proxyProtocol.from"),
        ("proxyProtocol: {from: [a]}", "proxyProtocol.from[0]"),
        ("timeouts: {idle: 0s}", "timeouts.idle"),
        (
            "limits: {requestHeadersBytes: 8191}",
            "limits.requestHeadersBytes",
        ),
        (
            "limits: {http2: {maxConcurrentStreams: 0}}",
            "limits.http2.maxConcurrentStreams",
        ),
    ] {
        let problems = parse(text).expect_err(text);
        assert_eq!(problems[0].field, field, "{text}");
    }
}

/// The problems of a file, as lines.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let problems = parse(text).expect_err("something is wrong");
    let lines: Vec<_> = problems
        .iter()
        .map(|p| format!("{} {}: {}", p.line, p.field, p.message))
        .collect();
    assert_eq!(lines, expected, "{text}");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_that_exists() {
    check(
        "interface: [eth0]\nadmin: 127.0.0.1:1\n",
        &["1 interface: unknown field"],
    );
    let problems = parse("interface: [eth0]\n").expect_err("the key is unknown");
    assert_eq!(
        problems[0].with_location(),
        "edge.yaml:1: error edge.yaml interface: unknown field (did you mean interfaces?)"
    );
}

#[test]
fn values_that_cannot_be_are_refused_all_at_once() {
    check(
        "interfaces: [eth0, eth0, 'much too long a name']
workers: 0
virtualAddresses:
- address: 10.0.0.0/8
- {address: 10.0.0.1, ports: [{port: 0}, {port: 53, protocol: UDP}]}
flood: {packetsPerSecond: 1, packetsBurst: 1, newConnectionsPerSecond: 1}
penalties: {refusals: 1, window: 1s}
admin: localhost
",
        &[
            "1 interfaces[1]: stands twice",
            "1 interfaces[2]: is not the name of an interface",
            "4 virtualAddresses[0].ports: need a pool on a prefix",
            "5 virtualAddresses[1].ports[0].port: is not a port",
            "5 virtualAddresses[1].ports[1].protocol: unsupported protocol",
            "2 workers: must be auto or a number from 1 to 1024",
            "6 flood.newConnectionsBurst: is missing or 0, which would drop every packet",
            "7 penalties.duration: must be at least 1ms",
            "8 admin: is not an address with a port",
        ],
    );
}

#[test]
fn a_deadline_shorter_than_the_usual_grace_time_bounds_it() {
    for (text, grace, deadline) in [
        ("drain: {}", 5, 30),
        ("drain: {deadline: 2s}", 2, 2),
        ("drain: {grace: 0s, deadline: 2s}", 0, 2),
    ] {
        let found = parse(text).expect(text).drain;
        assert_eq!(
            (found.grace, found.deadline),
            (Duration::from_secs(grace), Duration::from_secs(deadline)),
            "{text}"
        );
    }
}

#[test]
fn keys_about_the_process_are_checked() {
    check(
        "drain: {grace: 10s, deadline: 5s}
overload: {maxConnections: 0}
dns: {nameServers: [dns.example.com], minTtl: 1ms, maxTtl: 1us}
",
        &[
            "1 drain.grace: is longer than drain.deadline",
            "2 overload.maxConnections: is 0, which would refuse everything",
            "3 dns.nameServers[0]: is no address",
            "3 dns.minTtl: must be at least 100ms",
            "3 dns.maxTtl: is shorter than dns.minTtl",
        ],
    );
}

#[test]
fn a_file_that_is_no_map_is_refused() {
    check("- eth0\n", &["1 : a map of fields is needed, not a list"]);
    check(
        "a: [\n",
        &["1 a: while parsing a node, did not find expected node content"],
    );
}
