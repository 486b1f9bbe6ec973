//! Compiling one change at a time comes to the same as compiling everything.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_config::{Problem, Resource, parse_documents};
use edge_control::{CompileOptions, Compiler, compile};
use edge_model::{ObjectRef, Snapshot};
use proptest::prelude::*;

const GATEWAY: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec:
  selector: {istio: ingressgateway}
  servers:
    - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
    - {port: {number: 81, name: other, protocol: HTTP}, hosts: [h1.com, h2.com, '*.wild.com']}
";

fn parse(text: &str) -> Arc<Resource> {
    let mut parsed = parse_documents("test.yaml", text);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    Arc::new(parsed.resources.remove(0))
}

/// With a rule for one of five services; the sixth is one of two ServiceEntries.
fn virtual_service(name: usize, host: &str, path: usize, service: usize, gateways: &str) -> Arc<Resource> {
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

fn service(number: usize, port: usize) -> Arc<Resource> {
    parse(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: s{number}}}
spec: {{selector: {{app: s{number}}}, ports: [{{name: http, port: {port}}}]}}
"
    ))
}

fn slice(number: usize, address: usize) -> Arc<Resource> {
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
fn rule(numbers: &mut Numbers, number: usize) -> Arc<Resource> {
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

fn pod(numbers: &mut Numbers) -> Arc<Resource> {
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

fn workload_entry(numbers: &mut Numbers) -> Arc<Resource> {
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
fn service_entry(numbers: &mut Numbers) -> Arc<Resource> {
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
fn special_route(numbers: &mut Numbers) -> Arc<Resource> {
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
fn gateway(numbers: &mut Numbers) -> Arc<Resource> {
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
fn certificates() -> &'static [(String, String)] {
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
fn credential(numbers: &mut Numbers) -> Arc<Resource> {
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
fn envoy_filter(numbers: &mut Numbers) -> Arc<Resource> {
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

fn other(numbers: &mut Numbers) -> Arc<Resource> {
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
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// A change of one object, small or large, or its end. Of some kinds there are few, so that the others are seen without
/// them, too.
fn step(numbers: &mut Numbers) -> (Arc<Resource>, bool) {
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

/// What compiling comes to, problems as sorted lines.
fn outcome<'p>(
    snapshot: &Snapshot,
    problems: impl IntoIterator<Item = &'p Problem>,
) -> (Snapshot, Vec<String>) {
    let mut problems: Vec<_> = problems.into_iter().map(ToString::to_string).collect();
    problems.sort();
    (snapshot.clone(), problems)
}

/// Changes one by one, or a few at a time, from a seed; after each the compiler must have what compiling all comes to.
fn follow(seed: u64, steps: usize, at_once: usize) {
    let options = CompileOptions::default();
    let read = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let mut all: BTreeMap<ObjectRef, Arc<Resource>> = BTreeMap::new();
    let gateway = parse(GATEWAY);
    all.insert(gateway.object_ref(), gateway);
    let mut compiler = Compiler::new(options.clone(), all.values().cloned(), &read);
    let mut numbers = Numbers(seed);
    for number in 0..steps {
        let mut changes = BTreeMap::new();
        for _ in 0..=numbers.below(at_once) {
            let (mut resource, is_removal) = step(&mut numbers);
            if numbers.below(3) == 0 {
                set_created(Arc::make_mut(&mut resource), numbers.below(2));
            }
            let object = resource.object_ref();
            if is_removal {
                all.remove(&object);
                changes.insert(object, None);
            } else {
                all.insert(object.clone(), Arc::clone(&resource));
                changes.insert(object, Some(resource));
            }
        }
        let changed: Vec<_> = changes.keys().map(ToString::to_string).collect();
        compiler.apply(changes, &read);
        let resources: Vec<_> = all.values().map(|resource| Resource::clone(resource)).collect();
        let whole = compile(&resources, &options, &read);
        let own = outcome(compiler.snapshot(), compiler.problems());
        let expected = outcome(&whole.snapshot, &whole.problems);
        assert_eq!(own, expected, "seed {seed}, after step {number}, {changed:?}");
    }
}

#[test]
fn many_changes_one_by_one_come_to_what_compiling_all_comes_to() {
    (0..6).for_each(|seed| follow(seed, 300, 1));
}

#[test]
fn changes_of_several_objects_at_once_come_to_what_compiling_all_comes_to() {
    (100..103).for_each(|seed| follow(seed, 200, 4));
}

/// Applies one change to objects; the compiler must have what compiling all comes to.
fn change_one(objects: &[&str], changed: &str) {
    let options = CompileOptions::default();
    let read = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let mut all: BTreeMap<ObjectRef, Arc<Resource>> = BTreeMap::new();
    for text in objects {
        let resource = parse(text);
        all.insert(resource.object_ref(), resource);
    }
    let mut compiler = Compiler::new(options.clone(), all.values().cloned(), &read);
    let changed = parse(changed);
    let object = changed.object_ref();
    compiler.change(&object, Some(Arc::clone(&changed)), &read);
    all.insert(object, changed);
    let resources: Vec<_> = all.values().map(|resource| Resource::clone(resource)).collect();
    let whole = compile(&resources, &options, &read);
    let own = outcome(compiler.snapshot(), compiler.problems());
    assert_eq!(own, outcome(&whole.snapshot, &whole.problems));
}

#[test]
fn servers_of_a_gateway_that_change_places_change_the_order_of_routes() {
    let gateway = |hosts: [&str; 2]| {
        let [first, second] = hosts
            .map(|host| format!("{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['{host}']}}"));
        format!(
            "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: web}}
spec: {{selector: {{istio: ingressgateway}}, servers: [{first}, {second}]}}
"
        )
    };
    let route = |namespace: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: x, namespace: {namespace}}}
spec: {{hosts: [h.com], gateways: [default/web], http: [{{directResponse: {{status: 200, body: {{string: {namespace}}}}}}}]}}
"
        )
    };
    let (before, after) = (gateway(["a/*", "b/*"]), gateway(["b/*", "a/*"]));
    change_one(&[&before, &route("a"), &route("b")], &after);
}

#[test]
fn what_is_named_as_a_delegate_and_has_hosts_keeps_what_is_said_of_it() {
    let passthrough = |name: &str, created: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, creationTimestamp: '{created}'}}
spec: {{hosts: [p.com], gateways: [tls], tls: [{{match: [{{sniHosts: [p.com]}}], route: [{{destination: {{host: s0}}}}]}}]}}
"
        )
    };
    let root = |path: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: root}}
spec: {{hosts: [h1.com], gateways: [web], http: [{{match: [{{uri: {{prefix: {path}}}}}], delegate: {{name: later}}}}]}}
"
        )
    };
    let tls = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: tls}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 443, name: p, protocol: TLS}, hosts: [p.com], tls: {mode: PASSTHROUGH}}]
";
    let first = passthrough("first", "2026-01-01T00:00:00Z");
    let later = passthrough("later", "2026-01-02T00:00:00Z");
    change_one(&[GATEWAY, tls, &first, &later, &root("/a")], &root("/b"));
}

/// Gives a time of creation to the kinds whose age decides a conflict.
fn set_created(resource: &mut Resource, day: usize) {
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
fn objects() -> impl Strategy<Value = Vec<Arc<Resource>>> {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_the_objects_does_not_count(
        (objects, shuffled) in objects().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
    ) {
        let options = CompileOptions::default();
        let compiled = |objects: &[Arc<Resource>]| {
            let resources: Vec<_> = objects.iter().map(|resource| Resource::clone(resource)).collect();
            let compiled = compile(&resources, &options, &|_| Err(std::io::ErrorKind::NotFound.into()));
            outcome(&compiled.snapshot, &compiled.problems)
        };
        let one = compiled(&objects);
        prop_assert_eq!(&one, &compiled(&objects), "twice the same");
        prop_assert_eq!(&one, &compiled(&shuffled));
    }
}

#[test]
fn a_change_of_one_host_among_thousands_leaves_all_others_as_they_are_in_memory() {
    let read = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let mut all = vec![parse(GATEWAY), service(0, 80), slice(0, 1)];
    all.extend((0..2_000).map(|number| virtual_service(number, &format!("host{number}.com"), 0, 0, "[web]")));
    let mut compiler = Compiler::new(CompileOptions::default(), all, &read);
    let before = compiler.snapshot().listener(80).cloned().unwrap();
    for number in 0..50 {
        let changed = virtual_service(number, &format!("host{number}.com"), 1, 0, "[web]");
        compiler.change(&changed.object_ref(), Some(changed), &read);
    }
    let after = compiler.snapshot().listener(80).cloned().unwrap();
    let (before, after) = (before.tables().next().unwrap(), after.tables().next().unwrap());
    assert_eq!(after.virtual_hosts.changes_since(&before.virtual_hosts).len(), 50);
}

#[test]
fn a_rule_for_one_service_leaves_all_others_as_they_are_in_memory() {
    let read = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let mut all = vec![parse(GATEWAY)];
    all.extend((0..2).flat_map(|number| [service(number, 80), slice(number, 1)]));
    all.extend(
        (0..100).map(|number| virtual_service(number, &format!("host{number}.com"), 0, number % 2, "[web]")),
    );
    let mut compiler = Compiler::new(CompileOptions::default(), all, &read);
    let before = compiler.snapshot().clone();
    let rule = parse(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rule}
spec: {host: s1, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}
",
    );
    compiler.change(&rule.object_ref(), Some(rule), &read);
    let after = compiler.snapshot();
    let clusters = after.clusters.changes_since(&before.clusters, Arc::ptr_eq);
    assert_eq!(clusters.len(), 1);
    let hosts = |snapshot: &Snapshot| {
        let table = snapshot.listener(80).unwrap().tables().next().unwrap();
        table.virtual_hosts.clone()
    };
    let (before, after) = (hosts(&before), hosts(after));
    let changed = after.changes_since(&before);
    assert!(changed.len() <= 50, "{} virtual hosts", changed.len());
}

#[test]
fn a_change_of_any_kind_leaves_what_it_does_not_touch_as_it_is_in_memory() {
    let read = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let entry = |label: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: e0, labels: {{round: {label}}}}}
spec:
  hosts: [e0.com]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  workloadSelector: {{labels: {{app: e}}}}
"
        )
    };
    let workload = |address: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: w0}}
spec: {{address: {address}, labels: {{app: e}}}}
"
        )
    };
    let pod = |version: &str| {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p1, labels: {{version: {version}}}}}\n")
    };
    let own = |host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: own}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
    - {{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [{host}], tls: {{mode: MUTUAL, credentialName: c1,
       caCertCredentialName: 'configmap://ca'}}}}
"
        )
    };
    let credential = |kind: &str, name: &str, value: &str| {
        let data = if kind == "Secret" { "stringData" } else { "data" };
        format!(
            "apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: istio-system}}\n{data}: {{ca.crt: {value}}}\n"
        )
    };
    let filter = |host: &str, tokens: usize| {
        format!(
            "apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: limit, namespace: istio-system}}
spec:
  configPatches:
    - applyTo: HTTP_FILTER
      patch:
        operation: INSERT_BEFORE
        value:
          name: envoy.filters.http.local_ratelimit
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
            stat_prefix: all
    - applyTo: VIRTUAL_HOST
      match: {{routeConfiguration: {{vhost: {{name: '{host}'}}}}}}
      patch:
        operation: MERGE
        value:
          typed_per_filter_config:
            envoy.filters.http.local_ratelimit:
              '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: one
              token_bucket: {{max_tokens: {tokens}, fill_interval: 1s}}
"
        )
    };
    let mut all = vec![
        parse(GATEWAY),
        service(0, 80),
        slice(0, 1),
        service(1, 80),
        slice(1, 2),
    ];
    let texts = [
        entry("one"),
        workload("10.8.0.1"),
        pod("v1"),
        own("own.com"),
        credential("Secret", "c1", "one"),
        credential("ConfigMap", "ca", "one"),
        filter("host3.com:80", 1),
    ];
    all.extend(texts.iter().map(|text| parse(text)));
    all.extend((0..40).map(|number| virtual_service(number, &format!("host{number}.com"), 0, 1, "[web]")));
    all.push(virtual_service(98, "e.com", 0, 5, "[web]"));
    all.push(virtual_service(99, "own.com", 0, 0, "[own]"));
    let mut compiler = Compiler::new(CompileOptions::default(), all, &read);
    for changed in [
        service(0, 81),
        slice(0, 7),
        parse(&pod("v2")),
        parse(&entry("other")),
        parse(&workload("10.8.0.2")),
        parse(&own("other.com")),
        parse(&credential("Secret", "c1", "other")),
        parse(&credential("ConfigMap", "ca", "other")),
        parse(&filter("host3.com:80", 2)),
        parse(&filter("host4.com:80", 2)),
        // A virtual host comes while there are filters.
        virtual_service(100, "host100.com", 0, 1, "[web]"),
    ] {
        let before = compiler.snapshot().clone();
        let object = changed.object_ref();
        compiler.change(&object, Some(changed), &read);
        let after = compiler.snapshot();
        let far = |snapshot: &Snapshot| {
            let table = snapshot.listener(80).unwrap().tables().next().unwrap();
            let host = table.virtual_hosts.find("host7.com").cloned().unwrap();
            let mut clusters = snapshot.clusters.values();
            let cluster = clusters.find(|cluster| cluster.host.starts_with("s1."));
            (host, cluster.cloned().unwrap())
        };
        let ((host, cluster), (old_host, old_cluster)) = (far(after), far(&before));
        assert!(Arc::ptr_eq(&host, &old_host), "{object} touches a virtual host");
        assert!(Arc::ptr_eq(&cluster, &old_cluster), "{object} touches a cluster");
    }
}
