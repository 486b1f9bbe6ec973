//! What `edge validate`, `edge explain` and `edge routes` say of files, without a running edge, a network or a
//! privilege.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `edge` in a folder.
fn edge(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge"));
    command.current_dir(folder).args(words).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The lines of an output, each a JSON object.
fn lines(output: &Output) -> Vec<Value> {
    text(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A folder with a file for each part.
fn folder(parts: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("edge.yaml"), "").unwrap();
    for (number, part) in parts.iter().enumerate() {
        fs::write(folder.path().join(format!("{number}.yaml")), part).unwrap();
    }
    folder
}

const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.com']}
";

const SERVICE: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.internal]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1}]
";

/// Every mistake between objects that can be made, at once.
const MISTAKES: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: lost}
spec:
  gateways: [nowhere]
  hosts: [lost.com]
  http: [{route: [{destination: {host: api.internal}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: host}
spec:
  gateways: [web]
  hosts: [api.org]
  http: [{route: [{destination: {host: api.internal}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: destinations}
spec:
  gateways: [web]
  hosts: [a.com]
  http:
  - match: [{uri: {prefix: /host}}]
    route: [{destination: {host: gone.internal}}]
  - match: [{uri: {prefix: /subset}}]
    route: [{destination: {host: api.internal, subset: v9}}]
  - match: [{uri: {prefix: /weights}}]
    route: [{destination: {host: api.internal}, weight: 0}, {destination: {host: api.internal}, weight: 0}]
  - match: [{uri: {prefix: /weights/below}}]
    route: [{destination: {host: api.internal}}]
  - match: [{uri: {prefix: /host}, name: again}]
    route: [{destination: {host: api.internal}}]
  - route: [{destination: {host: api.internal}}]
  - match: [{uri: {exact: /never}}]
    redirect: {uri: /}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root}
spec:
  gateways: [web]
  hosts: [b.com]
  http:
  - {match: [{uri: {prefix: /a}}], delegate: {name: nobody}}
  - {match: [{uri: {prefix: /b}}], delegate: {name: middle}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: middle}
spec:
  http:
  - delegate: {name: last}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: last}
spec:
  http: [{route: [{destination: {host: api.internal}}]}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: xlate}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*.com']}
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [tls.com]
    tls: {mode: SIMPLE, credentialName: missing}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: gone}
spec: {host: gone.internal, subsets: [{name: v1}]}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit, namespace: istio-system}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: GATEWAY
      listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: a
  - applyTo: VIRTUAL_HOST
    match: {context: GATEWAY, routeConfiguration: {vhost: {name: 'nobody.com:80'}}}
    patch:
      operation: MERGE
      value:
        typed_per_filter_config:
          envoy.filters.http.local_ratelimit:
            '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
            stat_prefix: b
            token_bucket: {max_tokens: 1, fill_interval: 1s}
";

#[test]
fn validate_finds_every_mistake_between_objects_at_once() {
    let folder = folder(&[GATEWAY, SERVICE, MISTAKES]);
    let output = edge(folder.path(), &["validate", "--json", "."]);
    let reports = lines(&output);
    for (what, object, field, part) in [
        (
            "unknown gateway",
            "lost",
            "spec.gateways[0]",
            "there is no Gateway default/nowhere",
        ),
        (
            "host that no server takes",
            "host",
            "spec.hosts[0]",
            "no server of its Gateways takes api.org",
        ),
        (
            "unknown host",
            "destinations",
            "spec.http[0].route[0].destination.host",
            "503 (NC)",
        ),
        (
            "unknown subset",
            "destinations",
            "spec.http[1].route[0].destination.subset",
            "503 (NC)",
        ),
        (
            "weights that sum to 0",
            "destinations",
            "spec.http[2].route",
            "sum to 0",
        ),
        (
            "path below an earlier one",
            "destinations",
            "spec.http[3].match[0]",
            "begins with \"/weights\"",
        ),
        (
            "block that is there twice",
            "destinations",
            "spec.http[4].match[0]",
            "takes the same requests",
        ),
        ("unreachable rule", "destinations", "spec.http[6]", "spec.http[5]"),
        (
            "delegate that is not there",
            "root",
            "spec.http[0].delegate",
            "there is no VirtualService default/nobody",
        ),
        (
            "chain of delegates",
            "middle",
            "spec.http[0].delegate",
            "delegate",
        ),
        (
            "conflict on a port",
            "xlate",
            "spec.servers[0]",
            "port 80 serves plain HTTP for another server",
        ),
        (
            "credential that is not there",
            "xlate",
            "spec.servers[1].tls.credentialName",
            "missing",
        ),
        (
            "rule without its service",
            "gone",
            "spec.host",
            "there is no service gone.internal",
        ),
        (
            "virtual host that is not there",
            "limit",
            "spec.configPatches[1].match",
            "fits nothing",
        ),
    ] {
        let report = reports.iter().find(|report| report["name"] == object).unwrap();
        let problems = report["problems"].as_array().unwrap();
        let is_meant = |problem: &&Value| {
            problem["field"] == field
                && problem["message"]
                    .as_str()
                    .is_some_and(|message| message.contains(part))
        };
        let problem = problems.iter().find(is_meant);
        let problem = problem.unwrap_or_else(|| panic!("{what}: no {part:?} at {field} in {problems:#?}"));
        assert!(
            problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
            "{what}: {problem}"
        );
        assert!(
            problem["line"].as_u64().is_some_and(|line| line > 0),
            "{what}: {problem}"
        );
        assert!(
            problem["file"]
                .as_str()
                .is_some_and(|file| file.ends_with("2.yaml")),
            "{what}: {problem}"
        );
    }
    // Only what Istio's webhook refuses too is an error: the weights and the chain of delegates.
    let rejected: Vec<_> = reports
        .iter()
        .filter(|report| report["verdict"] == "invalid")
        .map(|report| report["name"].as_str().unwrap())
        .collect();
    assert_eq!(rejected, ["destinations", "middle"]);
    assert_eq!(output.status.code(), Some(1));
}

/// Objects of which each has another fate.
const FATES: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: young, creationTimestamp: '2026-01-02T00:00:00Z'}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: other}
spec:
  selector: {istio: another}
  servers:
  - {port: {number: 81, name: http, protocol: HTTP}, hosts: ['*']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  gateways: [web]
  hosts: [shop.com]
  http:
  - name: api
    match: [{uri: {prefix: /api}, method: {exact: GET}}]
    route: [{destination: {host: api.internal}}]
  - redirect: {uri: /home, redirectCode: 302}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: unbound}
spec:
  gateways: [nowhere]
  hosts: [unbound.com]
  http: [{directResponse: {status: 200}}]
";

const REJECTED: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wrong}
spec:
  gateways: [web]
  hosts: [wrong.com]
  http: [{redirect: {uri: /}, directResponse: {status: 200}}]
";

#[test]
fn explain_config_says_what_became_of_every_object_as_json_and_as_a_tree() {
    let folder = folder(&[GATEWAY, SERVICE, FATES, REJECTED]);
    let output = edge(folder.path(), &["explain", "config", "--json", "--config", "."]);
    let fates = lines(&output);
    for (kind, name, state, place) in [
        ("Gateway", "web", "bound", "80"),
        ("Gateway", "young", "shadowed", "web"),
        ("Gateway", "other", "unused", ""),
        ("VirtualService", "shop", "bound", "shop.com:80"),
        ("VirtualService", "unbound", "unused", ""),
        ("VirtualService", "wrong", "rejected", ""),
        ("ServiceEntry", "api", "bound", ""),
    ] {
        let fate = fates
            .iter()
            .find(|fate| fate["kind"] == kind && fate["name"] == name)
            .unwrap();
        assert_eq!(fate["state"], state, "{fate:#}");
        assert!(fate["places"].to_string().contains(place), "{fate:#}");
        assert!(fate["line"].as_u64().is_some_and(|line| line > 0), "{fate:#}");
    }
    assert_eq!(output.status.code(), Some(1), "an error makes the exit code 1");

    let tree = text(&edge(folder.path(), &["explain", "config", "--config", "."]));
    for line in [
        "Gateway\n",
        "├─ default/web  bound  (",
        "└─ default/young  shadowed  (",
        "└─ default/wrong  rejected  (",
        "   └─ error spec.http[0].redirect: ",
        "│  └─ warning spec.gateways[0]: there is no Gateway default/nowhere",
    ] {
        assert!(tree.contains(line), "no {line:?} in\n{tree}");
    }
}

#[test]
fn routes_lists_the_compiled_table_by_port_and_host() {
    let folder = folder(&[GATEWAY, SERVICE, FATES]);
    let table = text(&edge(folder.path(), &["routes", "--config", "."]));
    for line in [
        "port 80  listener 0.0.0.0_80\n",
        "─ shop.com\n",
        "-> outbound|80||api.internal  VirtualService/default/shop http[0].match[0]  \"api\"\n",
        "-> redirect 302  VirtualService/default/shop http[1]\n",
    ] {
        assert!(table.contains(line), "no {line:?} in\n{table}");
    }
    let output = edge(folder.path(), &["routes", "--json", "--config", "."]);
    let listeners = lines(&output);
    assert_eq!(listeners.len(), 1, "{listeners:#?}");
    let listener = listeners[0].to_string();
    assert!(
        listener.contains("outbound|80||api.internal") && listener.contains("shop.com"),
        "{listener}"
    );
    assert_eq!(output.status.code(), Some(0));
}

/// A rule that asks for everything, and a policy that closes the edge.
const RICH: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rich}
spec:
  gateways: [web]
  hosts: [rich.com]
  http:
  - match: [{uri: {prefix: /x}, headers: {x-a: {exact: b}}}]
    route: [{destination: {host: api.internal}}]
  - match: [{uri: {prefix: /x}}]
    fault: {delay: {fixedDelay: 2s, percentage: {value: 100}}, abort: {httpStatus: 503, percentage: {value: 50}}}
    corsPolicy: {allowOrigins: [{exact: 'https://a.com'}]}
    rewrite: {uri: /y, authority: b.com}
    headers: {request: {set: {x-b: c}}, response: {remove: [x-c]}}
    timeout: 3s
    retries: {attempts: 4, retryOn: '5xx,429', perTryTimeout: 1s}
    mirrors: [{destination: {host: api.internal}, percentage: {value: 10}}]
    route: [{destination: {host: api.internal}}]
";

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: custom, namespace: istio-system}
spec:
  action: CUSTOM
  provider: {name: asks-elsewhere}
  rules: [{}]
";

#[test]
fn explain_request_tells_each_step_with_object_rule_and_field() {
    let folder = folder(&[GATEWAY, SERVICE, RICH]);
    let words = ["explain", "request", "--json", "--config", ".", "--port", "80"];
    let asked = ["-H", "origin: https://a.com", "http://rich.com/x/1?q"];
    let output = edge(folder.path(), &[&words[..], &asked[..]].concat());
    let explanation = &lines(&output)[0];
    assert_eq!(explanation["outcome"], "route", "{explanation:#}");
    let trace = explanation["trace"].as_array().unwrap();
    for (step, rule, field, part) in [
        ("route", 0, Some("headers.x-a"), "does not match"),
        ("route", 1, None, "matches"),
        ("cors", 1, Some("corsPolicy"), "origin https://a.com is allowed"),
        (
            "fault",
            1,
            Some("fault"),
            "all requests wait 2s, then 50 % of the requests are answered with status 503",
        ),
        ("rewrite", 1, Some("rewrite"), "\"/y/1?q\""),
        ("rewrite", 1, Some("rewrite"), "\"b.com\""),
        (
            "mirror",
            1,
            Some("mirrors"),
            "10 % of the requests are copied to outbound|80||api.internal",
        ),
        ("timeout", 1, Some("timeout"), "3s"),
        (
            "retries",
            1,
            Some("retries"),
            "up to 4 more tries on 5xx, retriable-status-codes, 429, each try at most 1s",
        ),
        ("headers", 1, Some("headers"), "x-b is set"),
        ("headers", 1, Some("headers"), "x-c is removed"),
    ] {
        let is_meant = |found: &&Value| {
            let message = found["message"].as_str().unwrap_or_default();
            let same_field = found.get("field").and_then(Value::as_str) == field;
            found["step"] == step && found["rule"] == rule && same_field && message.contains(part)
        };
        let found = trace.iter().find(is_meant);
        let found = found.unwrap_or_else(|| panic!("no {step} of rule {rule} with {part:?} in {trace:#?}"));
        assert_eq!(found["object"], "VirtualService/default/rich", "{found}");
    }
}

#[test]
fn explain_request_names_the_policy_that_closes_the_edge() {
    let folder = folder(&[GATEWAY, SERVICE, RICH, POLICY]);
    let words = [
        "explain",
        "request",
        "--config",
        ".",
        "--port",
        "80",
        "http://rich.com/x",
    ];
    let said = text(&edge(folder.path(), &words));
    assert!(said.starts_with("refused\n"), "{said}");
    assert!(
        said.contains("AuthorizationPolicy/istio-system/custom selects this edge"),
        "{said}"
    );
}
