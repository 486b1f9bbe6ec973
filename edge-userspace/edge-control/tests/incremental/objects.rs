//! Objects and changes to generate configurations of.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_config::{Resource, parse_documents};
use edge_model::ObjectRef;
use proptest::prelude::*;

pub(crate) const GATEWAY: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec:
  selector: {istio: ingressgateway}
  servers:
    - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
    - {port: {number: 81, name: other, protocol: HTTP}, hosts: [h1.com, h2.com, '*.wild.com']}
";

pub(crate) fn parse(text: &str) -> Arc<Resource> {
    let mut parsed = parse_documents("test.yaml", text);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    Arc::new(parsed.resources.remove(0))
}

/// With a rule for one of five services; the sixth is one of two ServiceEntries.
pub(crate) fn virtual_service(
    name: usize,
    host: &str,
    path: usize,
    service: usize,
    gateways: &str,
) -> Arc<Resource> {
    let subset = if path == 1 { "v1" } else { "" };
    let to = match service {
        5 => format!("e{}.com", name % 2),
        _ => format!("s{service}"),
    };
    parse(&format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: vs{name}}}
spec:
  hosts: ['{host}']
  gateways: {gateways}
  http:
    - match: [{{uri: {{prefix: /p{path}}}}}]
      route: [{{destination: {{host: {to}, subset: '{subset}'}}}}]
"
    ))
}

pub(crate) fn service(number: usize, port: usize) -> Arc<Resource> {
    parse(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: s{number}}}
spec: {{selector: {{app: s{number}}}, ports: [{{name: http, port: {port}}}]}}
"
    ))
}

pub(crate) fn slice(number: usize, address: usize) -> Arc<Resource> {
    parse(&format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s{number}-a, labels: {{kubernetes.io/service-name: s{number}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [10.0.{number}.{address}], targetRef: {{kind: Pod, name: p{}}}}}]
",
        address % 3
    ))
}

/// A rule under one of two names for one of the services, or for all of them; with a subset, with TLS, or without.
pub(crate) fn rule(numbers: &mut Numbers, number: usize) -> Arc<Resource> {
    let (name, service) = (numbers.below(2), numbers.below(3) + number);
    let host = match numbers.below(6) {
        0 => "'*.default.svc.cluster.local'".to_owned(),
        1 => format!("e{}.com", numbers.below(2)),
        2 => "'*.com'".to_owned(),
        _ => format!("s{service}"),
    };
    let balancer = [
        "simple: RANDOM",
        "simple: ROUND_ROBIN",
        "consistentHash: {useSourceIp: true}",
    ][numbers.below(3)];
    let subsets = ["[]", "[{name: v1, labels: {version: v1}}]"][numbers.below(2)];
    let tls = [
        "",
        ", tls: {mode: SIMPLE, credentialName: c1}",
        ", tls: {mode: DISABLE}",
    ][numbers.below(8) / 3];
    parse(&format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: rule{number}-{name}}}
spec: {{host: {host}, subsets: {subsets}, trafficPolicy: {{loadBalancer: {{{balancer}}}{tls}}}}}
"
    ))
}

pub(crate) fn pod(numbers: &mut Numbers) -> Arc<Resource> {
    parse(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: p{}, labels: {{version: v{}, app: e}}}}
status: {{phase: Running, podIP: 10.9.0.{}}}
",
        numbers.below(3),
        numbers.below(2),
        numbers.below(3)
    ))
}

pub(crate) fn workload_entry(numbers: &mut Numbers) -> Arc<Resource> {
    let labels = ["app: e", "app: other", "version: v1"][numbers.below(3)];
    let (number, address) = (numbers.below(3), numbers.below(4));
    parse(&format!(
        "apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: w{number}, labels: {{app: e}}}}
spec: {{address: 10.8.0.{address}, labels: {{{labels}}}}}
"
    ))
}

/// An entry for one host or two, with endpoints of its own, selected ones or none.
pub(crate) fn service_entry(numbers: &mut Numbers) -> Arc<Resource> {
    let name = numbers.below(3);
    let hosts = ["[e0.com]", "[e1.com]", "[e0.com, e1.com]"][numbers.below(3)];
    let endpoints = [
        "resolution: DNS",
        "resolution: STATIC, workloadSelector: {labels: {app: e}}",
        "resolution: STATIC, endpoints: [{address: 10.7.0.1}]",
    ][numbers.below(3)];
    let export = ["['*']", "[.]", "[istio-system]"][numbers.below(3)];
    let port = 80 + numbers.below(2);
    parse(&format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: e{name}}}
spec: {{hosts: {hosts}, exportTo: {export}, ports: [{{number: {port}, name: http, protocol: HTTP}}], {endpoints}}}
"
    ))
}

/// A VirtualService that names a delegate, is one, or forwards connections.
pub(crate) fn special_route(numbers: &mut Numbers) -> Arc<Resource> {
    let (number, service) = (numbers.below(2), numbers.below(5));
    let spec = match numbers.below(4) {
        0 => format!(
            "{{hosts: [h{number}.com], gateways: [web, more], http: [{{match: [{{uri: {{prefix: /d}}}}], \
             delegate: {{name: d{number}}}}}]}}"
        ),
        1 => format!(
            "{{hosts: [{}], gateways: [more], tcp: [{{route: [{{destination: {{host: s{service}, port: {{number: 80}}}}}}]}}]}}",
            ["t.com", "'*'"][number]
        ),
        2 => format!(
            "{{hosts: [p{number}.com], gateways: [more, tls], tls: [{{match: [{{sniHosts: [p{number}.com]}}], \
             route: [{{destination: {{host: s{service}}}}}]}}]}}"
        ),
        _ => format!(
            "{{http: [{{match: [{{uri: {{prefix: /d/{number}}}}}], route: [{{destination: {{host: s{service}}}}}]}}]}}"
        ),
    };
    let name = match spec.starts_with("{http") {
        true => format!("d{number}"),
        false => format!("special{}", numbers.below(3)),
    };
    parse(&format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec: {spec}
"
    ))
}

/// A Gateway with some of a few servers, which may conflict with those of the others.
pub(crate) fn gateway(numbers: &mut Numbers) -> Arc<Resource> {
    let servers = [
        "{port: {number: 80, name: http, protocol: HTTP}, hosts: [h0.com, '*.wild.com', t.com]}",
        "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['default/*']}",
        "{port: {number: 80, name: http, protocol: HTTP}, hosts: [r.com], tls: {httpsRedirect: true}}",
        "{port: {number: 81, name: other, protocol: HTTP}, hosts: [h1.com, h3.com]}",
        "{port: {number: 82, name: tcp, protocol: TCP}, hosts: ['*']}",
        "{port: {number: 443, name: a, protocol: HTTPS}, hosts: [h1.com], tls: {mode: SIMPLE, credentialName: c1}}",
        "{port: {number: 443, name: b, protocol: HTTPS}, hosts: [h2.com, a.wild.com], \
         tls: {mode: MUTUAL, credentialName: c2}}",
        "{port: {number: 443, name: c, protocol: HTTPS}, hosts: [h3.com], \
         tls: {mode: MUTUAL, credentialName: c1, caCertCredentialName: 'configmap://ca'}}",
        "{port: {number: 443, name: p, protocol: TLS}, hosts: [p0.com, p1.com], tls: {mode: PASSTHROUGH}}",
        "{port: {number: 444, name: t, protocol: TLS}, hosts: [t.com], tls: {mode: SIMPLE, credentialName: c2}}",
    ];
    let chosen: Vec<_> = servers.into_iter().filter(|_| numbers.below(3) == 0).collect();
    let chosen = if chosen.is_empty() {
        vec![servers[0]]
    } else {
        chosen
    };
    let name = ["more", "tls", "api"][numbers.below(3)];
    let selector = ["istio: ingressgateway", "istio: ingressgateway", "istio: other"][numbers.below(3)];
    parse(&format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec: {{selector: {{{selector}}}, servers: [{}]}}
",
        chosen.join(", ")
    ))
}

/// Certificates with their keys, in PEM.
pub(crate) fn certificates() -> &'static [(String, String)] {
    static PAIRS: std::sync::OnceLock<Vec<(String, String)>> = std::sync::OnceLock::new();
    PAIRS.get_or_init(|| {
        let pair = |_| {
            let pair = rcgen::generate_simple_self_signed(["a.com".to_owned()]).expect("a certificate");
            (pair.cert.pem(), pair.signing_key.serialize_pem())
        };
        (0..2).map(pair).collect()
    })
}

/// A Secret or ConfigMap with a certificate, whose key may be another's.
pub(crate) fn credential(numbers: &mut Numbers) -> Arc<Resource> {
    let pairs = certificates();
    let (chain, key) = (&pairs[numbers.below(2)].0, &pairs[numbers.below(2)].1);
    let block = |text: &str| text.replace('\n', "\n    ");
    let (kind, data) = match numbers.below(4) {
        0 => ("ConfigMap", "data"),
        _ => ("Secret", "stringData"),
    };
    let name = match kind {
        "ConfigMap" => "ca",
        _ => ["c1", "c2", "c2-cacert"][numbers.below(3)],
    };
    let namespace = ["istio-system", "istio-system", "default"][numbers.below(3)];
    parse(&format!(
        "apiVersion: v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
{data}:
  tls.crt: |
    {}
  tls.key: |
    {}
  ca.crt: |
    {}
",
        block(chain),
        block(key),
        block(chain)
    ))
}

/// A filter with or without a place in the listeners, and limits for virtual hosts, routes and tables that may be there.
pub(crate) fn envoy_filter(numbers: &mut Numbers) -> Arc<Resource> {
    let limit = |name: &str, tokens: usize| {
        format!(
            "{{'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, \
             stat_prefix: {name}, token_bucket: {{max_tokens: {tokens}, fill_interval: 1s}}}}"
        )
    };
    let merged = |apply_to: &str, wanted: &str, limit: String| {
        format!(
            "{{applyTo: {apply_to}, match: {{context: GATEWAY, routeConfiguration: {wanted}}}, patch: {{operation: MERGE, \
             value: {{typed_per_filter_config: {{envoy.filters.http.local_ratelimit: {limit}}}}}}}}}"
        )
    };
    let host = [
        "h1.com:80",
        "h2.com:80",
        "nobody:80",
        "blackhole:80",
        "*.wild.com:81",
    ][numbers.below(5)];
    let port = [0, 80, 81, 443, 8080][numbers.below(5)];
    let action = ["ANY", "ROUTE", "REDIRECT"][numbers.below(3)];
    let descriptors = format!(
        "{{applyTo: VIRTUAL_HOST, match: {{context: GATEWAY, routeConfiguration: {{vhost: {{name: '{host}'}}}}}}, patch: \
         {{operation: MERGE, value: {{rate_limits: [{{actions: [{{remote_address: {{}}}}]}}]}}}}}}"
    );
    let patches = [
        format!(
            "{{applyTo: HTTP_FILTER, match: {{context: GATEWAY, listener: {{portNumber: {port}}}}}, patch: {{operation: \
             INSERT_BEFORE, value: {{name: envoy.filters.http.local_ratelimit, typed_config: {}}}}}}}",
            limit("a", 1 + numbers.below(2))
        ),
        merged(
            "VIRTUAL_HOST",
            &format!("{{vhost: {{name: '{host}'}}}}"),
            limit("b", 3 + numbers.below(2)),
        ),
        merged("VIRTUAL_HOST", "{vhost: {domainName: h1.com}}", limit("c", 5)),
        merged(
            "HTTP_ROUTE",
            &format!("{{vhost: {{route: {{action: {action}}}}}}}"),
            limit("d", 6),
        ),
        merged(
            "HTTP_ROUTE",
            &format!("{{vhost: {{name: '{host}', route: {{action: ANY}}}}}}"),
            limit("e", 7 + numbers.below(2)),
        ),
        merged(
            "ROUTE_CONFIGURATION",
            ["{}", "{gateway: default/more}", "{portName: other}"][numbers.below(3)],
            limit("f", 9),
        ),
        descriptors,
    ];
    // Most filters are small, so that they meet each other seldom; without the first patch most say that they do nothing.
    let chosen: Vec<_> = patches
        .into_iter()
        .enumerate()
        .filter(|(number, _)| numbers.below(3) == 0 || (*number == 0 && numbers.below(2) == 0))
        .map(|(_, patch)| patch)
        .collect();
    let namespace = ["istio-system", "istio-system", "default"][numbers.below(3)];
    parse(&format!(
        "apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: limit{}, namespace: {namespace}}}
spec: {{priority: {}, configPatches: [{}]}}
",
        numbers.below(2),
        numbers.below(8) / 7,
        chosen.join(", ")
    ))
}

pub(crate) fn other(numbers: &mut Numbers) -> Arc<Resource> {
    match numbers.below(3) {
        0 => parse(
            "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: istio-system}
spec: {}
",
        ),
        1 => parse("apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n"),
        _ => parse(&format!(
            "apiVersion: v1
kind: Service
metadata: {{name: ingress, namespace: istio-system}}
spec: {{selector: {{istio: ingressgateway}}, ports: [{{name: http, port: 80, targetPort: {}}}]}}
",
            8080 + numbers.below(2)
        )),
    }
}

/// Steps of a small fixed generator, so that the test is the same every time.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// A change of one object, small or large, or its end. Of some kinds there are few, so that the others are seen without
/// them, too.
pub(crate) fn step(numbers: &mut Numbers) -> (Arc<Resource>, bool) {
    let is_removal = numbers.below(4) == 0;
    let small = numbers.below(5);
    let resource = match numbers.below(25) {
        0 | 1 => service(small, 80 + numbers.below(2)),
        2..=4 => slice(small, 1 + numbers.below(9)),
        5..=7 => rule(numbers, small),
        8 => pod(numbers),
        9 => workload_entry(numbers),
        10 | 11 => service_entry(numbers),
        12 | 13 => special_route(numbers),
        14..=16 => gateway(numbers),
        17 => credential(numbers),
        18 => {
            return (other(numbers), numbers.below(2) == 0);
        }
        19 => return (envoy_filter(numbers), numbers.below(2) == 0),
        _ => {
            let host = [
                "h1.com",
                "h2.com",
                "h3.com",
                "a.wild.com",
                "*.wild.com",
                "*",
                "e0.com",
            ][numbers.below(7)];
            let gateways = ["[web]", "[web, more]", "[tls, api]", "[mesh]"][numbers.below(4)];
            virtual_service(small, host, numbers.below(3), numbers.below(6), gateways)
        }
    };
    (resource, is_removal)
}
/// Gives a time of creation to the kinds whose age decides a conflict.
pub(crate) fn set_created(resource: &mut Resource, day: usize) {
    let dated = parse(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: dated, creationTimestamp: '2026-01-0{}T00:00:00Z'}}
",
        day + 1
    ));
    let created = dated.meta().creation_timestamp;
    if let Resource::VirtualService(object) = resource {
        object.meta.creation_timestamp = created;
    } else if let Resource::DestinationRule(object) = resource {
        object.meta.creation_timestamp = created;
    } else if let Resource::Gateway(object) = resource {
        object.meta.creation_timestamp = created;
    } else if let Resource::ServiceEntry(object) = resource {
        object.meta.creation_timestamp = created;
    }
}

/// Objects that meet each other: hosts that several have, rules for one service, some with a time of creation.
pub(crate) fn objects() -> impl Strategy<Value = Vec<Arc<Resource>>> {
    any::<u64>().prop_map(|seed| {
        let mut numbers = Numbers(seed);
        let mut all: BTreeMap<ObjectRef, Arc<Resource>> = BTreeMap::new();
        for _ in 0..40 {
            let mut resource = step(&mut numbers).0;
            if numbers.below(3) == 0 {
                set_created(Arc::make_mut(&mut resource), numbers.below(2));
            }
            all.insert(resource.object_ref(), resource);
        }
        for text in [GATEWAY.to_owned(), GATEWAY.replace("name: web", "name: api")] {
            let gateway = parse(&text);
            all.insert(gateway.object_ref(), gateway);
        }
        all.into_values().collect()
    })
}
