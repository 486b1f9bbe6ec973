//! Compiling one change at a time comes to the same as compiling everything.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_config::{Resource, parse_documents};
use edge_control::{CompileOptions, Compiler, compile};
use edge_model::ObjectRef;
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

fn virtual_service(name: usize, host: &str, path: usize, service: usize) -> Arc<Resource> {
    let subset = if path == 1 { "v1" } else { "" };
    parse(&format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: vs{name}}}
spec:
  hosts: ['{host}']
  gateways: [web]
  http:
    - match: [{{uri: {{prefix: /p{path}}}}}]
      route: [{{destination: {{host: s{service}, subset: '{subset}'}}}}]
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
endpoints: [{{addresses: [10.0.{number}.{address}]}}]
"
    ))
}

/// A rule under one of two names for one of the services, with a subset or without.
fn rule(numbers: &mut Numbers, number: usize) -> Arc<Resource> {
    let (name, service) = (numbers.below(2), numbers.below(3) + number);
    let balancer = [
        "simple: RANDOM",
        "simple: ROUND_ROBIN",
        "consistentHash: {useSourceIp: true}",
    ][numbers.below(3)];
    let subsets = ["[]", "[{name: v1, labels: {version: v1}}]"][numbers.below(2)];
    parse(&format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: rule{number}-{name}}}
spec: {{host: s{service}, subsets: {subsets}, trafficPolicy: {{loadBalancer: {{{balancer}}}}}}}
"
    ))
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

/// A change of one object, small or large, or its end.
fn step(numbers: &mut Numbers) -> (Arc<Resource>, bool) {
    let is_removal = numbers.below(4) == 0;
    let small = numbers.below(5);
    let resource = match numbers.below(9) {
        0 => service(small, 80 + numbers.below(2)),
        1 | 2 => slice(small, 1 + numbers.below(9)),
        3 | 4 => rule(numbers, small),
        _ => {
            let host = ["h1.com", "h2.com", "h3.com", "a.wild.com", "*.wild.com", "*"][numbers.below(6)];
            virtual_service(small, host, numbers.below(3), numbers.below(5))
        }
    };
    (resource, is_removal)
}

#[test]
fn many_changes_one_by_one_come_to_what_compiling_all_comes_to() {
    let options = CompileOptions::default();
    let read = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let mut all: BTreeMap<ObjectRef, Arc<Resource>> = BTreeMap::new();
    let gateway = parse(GATEWAY);
    all.insert(gateway.object_ref(), gateway);
    let mut compiler = Compiler::new(options.clone(), all.values().cloned(), &read);
    let mut numbers = Numbers(42);
    for number in 0..400 {
        let (resource, is_removal) = step(&mut numbers);
        let object = resource.object_ref();
        if is_removal {
            all.remove(&object);
            compiler.change(&object, None, &read);
        } else {
            all.insert(object.clone(), Arc::clone(&resource));
            compiler.change(&object, Some(resource), &read);
        }
        let resources: Vec<_> = all.values().map(|resource| Resource::clone(resource)).collect();
        let whole = compile(&resources, &options, &read);
        assert_eq!(
            *compiler.snapshot(),
            whole.snapshot,
            "after step {number}, {object}"
        );
        let texts = |problems: Vec<String>| {
            let mut problems = problems;
            problems.sort();
            problems
        };
        let own = texts(compiler.problems().map(ToString::to_string).collect());
        let expected = texts(whole.problems.iter().map(ToString::to_string).collect());
        assert_eq!(own, expected, "after step {number}, {object}");
    }
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
        let gateways = [GATEWAY.to_owned(), GATEWAY.replace("name: web", "name: api")];
        all.into_values()
            .chain(gateways.map(|text| parse(&text)))
            .collect()
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
            let mut problems: Vec<_> = compiled.problems.iter().map(ToString::to_string).collect();
            problems.sort();
            (compiled.snapshot, problems)
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
    all.extend((0..2_000).map(|number| virtual_service(number, &format!("host{number}.com"), 0, 0)));
    let mut compiler = Compiler::new(CompileOptions::default(), all, &read);
    let before = compiler.snapshot().listener(80).cloned().unwrap();
    for number in 0..50 {
        let changed = virtual_service(number, &format!("host{number}.com"), 1, 0);
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
    all.extend((0..100).map(|number| virtual_service(number, &format!("host{number}.com"), 0, number % 2)));
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
    let hosts = |snapshot: &edge_model::Snapshot| {
        let table = snapshot.listener(80).unwrap().tables().next().unwrap();
        table.virtual_hosts.clone()
    };
    let (before, after) = (hosts(&before), hosts(after));
    let changed = after.changes_since(&before);
    assert!(changed.len() <= 50, "{} virtual hosts", changed.len());
}
