//! Small texts that ask for much: what multiplies is bounded, and told.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write as _;
use std::io;

use edge_config::{Resource, check, parse_documents};
use edge_control::{CompileOptions, Compiled, compile};

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
