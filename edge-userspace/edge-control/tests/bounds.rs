//! Small texts that ask for much: what multiplies is bounded, and told.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use edge_config::{Problem, Resource, check, parse_documents};
use edge_control::{CompileOptions, Compiled, Compiler, compile};

fn resources(text: &str) -> Vec<Resource> {
    let parsed = parse_documents("bounds.yaml", text);
    assert_eq!(parsed.problems, []);
    parsed.resources
}

fn compiled(resources: &[Resource]) -> Compiled {
    let no_files = |_: &str| Err(io::ErrorKind::NotFound.into());
    compile(resources, &CompileOptions::default(), &no_files)
}

/// A list in flow style.
fn list(count: usize, element: impl Fn(usize) -> String) -> String {
    let elements: Vec<_> = (0..count).map(element).collect();
    format!("[{}]", elements.join(", "))
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}"
    )
}

fn service_entry(hosts: usize, ports: usize, endpoints: usize) -> String {
    let spec = format!(
        "  resolution: STATIC\n  hosts: {}\n  ports: {}\n  endpoints: {}\n",
        list(hosts, |n| format!("h{n}.com")),
        list(ports, |n| format!(
            "{{number: {}, name: p{n}, protocol: HTTP}}",
            n + 1
        )),
        list(endpoints, |n| format!(
            "{{address: 10.0.{}.{}}}",
            n / 256,
            n % 256
        )),
    );
    object("ServiceEntry", "entry", &spec)
}

#[test]
fn hosts_ports_and_endpoints_of_a_service_entry_do_not_multiply_without_bound() {
    let all = resources(&service_entry(2_000, 1_000, 10));
    let problems: Vec<_> = all
        .iter()
        .flat_map(check)
        .filter(|problem| problem.is_error())
        .collect();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0].message.contains("20000000 endpoints together"),
        "{}",
        problems[0]
    );
    assert!(compiled(&all).snapshot.clusters.is_empty());
}

#[test]
fn subsets_and_ports_do_not_multiply_without_bound() {
    let subsets = list(2_000, |n| format!("{{name: s{n}}}"));
    let rule = object(
        "DestinationRule",
        "rule",
        &format!("  host: h0.com\n  subsets: {subsets}\n"),
    );
    let compiled = compiled(&resources(&(service_entry(1, 1_000, 1) + &rule)));
    let told = compiled
        .problems
        .iter()
        .any(|problem| problem.is_error() && problem.message.contains("clusters"));
    assert!(told, "{:#?}", compiled.problems);
    assert!(compiled.snapshot.clusters.len() < 500_000);
}

#[test]
fn hosts_of_gateways_and_virtual_services_do_not_multiply_without_bound() {
    let hosts = list(3_000, |n| format!("h{n}.com"));
    let server = format!("{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: {hosts}}}");
    let mut text = object(
        "Gateway",
        "web",
        &format!("  selector: {{istio: ingressgateway}}\n  servers: [{server}]\n"),
    );
    for number in 0..1_000 {
        let spec = "  gateways: [web]\n  hosts: ['*.com']\n  http: [{directResponse: {status: 200}}]\n";
        let _ = write!(text, "{}", object("VirtualService", &format!("v{number}"), spec));
    }
    let compiled = compiled(&resources(&text));
    let told = compiled
        .problems
        .iter()
        .any(|problem| problem.is_error() && problem.message.contains("routes"));
    assert!(told, "{:#?}", compiled.problems.first());
}

/// Applies changes of one object, and looks after each at what a compiler keeps and at what compiling all comes to.
/// Whether something was one too many.
#[track_caller]
fn follow(first: &str, changes: &[(&str, bool)]) {
    let no_files = |_: &str| Err(io::ErrorKind::NotFound.into());
    let mut all: BTreeMap<_, _> = resources(first)
        .into_iter()
        .map(|resource| (resource.object_ref(), Arc::new(resource)))
        .collect();
    let mut compiler = Compiler::new(CompileOptions::default(), all.values().cloned(), &no_files);
    for (number, (text, is_too_much)) in changes.iter().enumerate() {
        let changed = Arc::new(resources(text).remove(0));
        let object = changed.object_ref();
        all.insert(object.clone(), Arc::clone(&changed));
        compiler.change(&object, Some(changed), &no_files);
        let whole: Vec<_> = all.values().map(|resource| Resource::clone(resource)).collect();
        let whole = compiled(&whole);
        let is_told = whole.problems.iter().any(Problem::is_error);
        assert_eq!(
            is_told,
            *is_too_much,
            "change {number}: {:#?}",
            whole.problems.first()
        );
        let sorted = |problems: Vec<String>| {
            let mut problems = problems;
            problems.sort();
            problems
        };
        let own = sorted(compiler.problems().map(ToString::to_string).collect());
        let expected = sorted(whole.problems.iter().map(ToString::to_string).collect());
        assert_eq!(own, expected, "change {number}");
        assert_eq!(*compiler.snapshot(), whole.snapshot, "change {number}");
    }
}

#[test]
fn a_change_that_asks_for_too_many_clusters_is_told_until_it_is_taken_back() {
    let rule = |subsets: usize| {
        let subsets = list(subsets, |number| format!("{{name: s{number}}}"));
        object(
            "DestinationRule",
            "rule",
            &format!("  host: h0.com\n  subsets: {subsets}\n"),
        )
    };
    let (few, many) = (rule(1_000), rule(2_100));
    let other = object("DestinationRule", "other", "  host: other.com\n");
    let all = service_entry(1, 1, 1_990) + &few;
    follow(
        &all,
        &[(&many, true), (&other, true), (&few, false), (&other, false)],
    );
}

#[test]
fn a_change_that_asks_for_too_many_routes_is_told_until_it_is_taken_back() {
    let hosts = list(2_050, |number| format!("h{number}.com"));
    let server = format!("{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: {hosts}}}");
    let gateway = object(
        "Gateway",
        "web",
        &format!("  selector: {{istio: ingressgateway}}\n  servers: [{server}]\n"),
    );
    let routes = |name: &str, count: usize| {
        let rules = list(count, |number| {
            format!("{{match: [{{uri: {{exact: /{number}}}}}], directResponse: {{status: 200}}}}")
        });
        let spec = format!("  gateways: [web]\n  hosts: ['*.com']\n  http: {rules}\n");
        object("VirtualService", name, &spec)
    };
    let (few, many) = (routes("a", 10), routes("a", 1_000));
    let all = gateway + &few;
    follow(&all, &[(&many, true), (&routes("b", 1), true), (&few, false)]);
}
