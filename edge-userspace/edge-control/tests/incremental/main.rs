//! Compiling one change at a time comes to the same as compiling everything.
#![forbid(unsafe_code)]

mod objects;

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_config::{Problem, Resource};
use edge_control::{CompileOptions, Compiler, compile};
use edge_model::{ObjectRef, Snapshot};
use proptest::prelude::*;

use objects::{GATEWAY, Numbers, objects, parse, service, set_created, slice, step, virtual_service};

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
