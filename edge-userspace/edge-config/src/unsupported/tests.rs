use crate::{parse_documents, unsupported, validate};

/// The fields that are reported, each with the first word of its message, `not` (enforced) or `has` (no effect).
#[track_caller]
fn check(kind: &str, spec: &str, expected: &[&str]) {
    let text =
        format!("apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n{spec}");
    let parsed = parse_documents("a.yaml", &text);
    assert_eq!(parsed.problems, []);
    let problems: Vec<_> = parsed.resources.iter().flat_map(unsupported).collect();
    let wrong = parsed.resources.iter().flat_map(validate);
    assert_eq!(wrong.filter(|problem| problem.is_error()).collect::<Vec<_>>(), []);
    let lines: Vec<_> = problems
        .iter()
        .map(|problem| {
            format!(
                "{} {}",
                problem.field,
                problem.message.split(' ').next().unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(lines, expected, "{problems:#?}");
}

#[test]
fn a_gateway_for_http_and_https_is_honoured() {
    check(
        "Gateway",
        "  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ['*']
    tls: {httpsRedirect: true}
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [shop/*.example.com]
    tls: {mode: SIMPLE, serverCertificate: c.pem, privateKey: k.pem, minProtocolVersion: TLSV1_3}
",
        &[],
    );
}

#[test]
fn addresses_and_old_versions_of_a_gateway_are_reported() {
    check(
        "Gateway",
        "  servers:
  - port: {number: 0, name: a, protocol: TCP}
    bind: unix:///run/edge.sock
    hosts: ['*']
  - port: {number: 80, name: c, protocol: TCP}
    bind: 10.0.0.1
    hosts: ['*']
  - port: {number: 443, name: b, protocol: https}
    hosts: ['*']
    tls: {mode: MUTUAL, credentialName: cert, minProtocolVersion: TLSV1_0}
",
        &[
            "spec.servers[0].bind not",
            "spec.servers[2].tls.minProtocolVersion not",
        ],
    );
}

#[test]
fn what_a_virtual_service_routes_redirects_and_answers_is_honoured() {
    check(
        "VirtualService",
        "  hosts: [a.example.com]
  gateways: [gw, mesh]
  exportTo: ['*']
  http:
  - name: all
    match:
    - name: m
      uri: {prefix: /a}
      ignoreUriCase: true
      scheme: {exact: http}
      method: {exact: GET}
      authority: {regex: .*}
      headers: {x: {exact: y}}
      withoutHeaders: {z: {}}
      queryParams: {q: {exact: ''}}
      port: 80
      gateways: [gw]
    route:
    - destination: {host: b, subset: v1, port: {number: 80}}
      weight: 9
      headers: {response: {add: {x-version: '100%% v1'}}}
    - destination: {host: b, subset: v2}
      weight: 1
    rewrite: {uri: /b, authority: b.example.com}
    timeout: 3s
    retries: {attempts: 0}
    headers: {request: {set: {x: y}, remove: [z]}}
  - match: [{uri: {prefix: /old}}]
    redirect: {prefixRewrite: /new, redirectCode: 308, derivePort: FROM_REQUEST_PORT}
  - directResponse: {status: 503, body: {string: later}}
",
        &[],
    );
}

#[test]
fn what_a_virtual_service_asks_for_beyond_that_is_reported_field_by_field() {
    check(
        "VirtualService",
        "  hosts: [a.example.com]
  gateways: [gw]
  http:
  - match:
    - uri: {prefix: /a}
      statPrefix: a
      sourceLabels: {app: a}
      headers: {'@request.auth.claims.sub': {exact: me}}
    route: [{destination: {host: b}}]
    retries: {attempts: 3}
    fault: {abort: {httpStatus: 500}}
    mirror: {host: c}
    mirrorPercentage: {value: 1}
    corsPolicy: {allowMethods: [GET]}
    headers: {response: {set: {x: '%PROTOCOL%'}}}
  - redirect: {uri: /x, redirectCode: 304}
",
        &[
            "spec.http[0].match[0].sourceLabels has",
            "spec.http[0].match[0].headers.@request.auth.claims.sub not",
            "spec.http[1].redirect.redirectCode not",
        ],
    );
}

#[test]
fn a_virtual_service_for_the_mesh_alone_gets_a_warning() {
    check(
        "VirtualService",
        "  hosts: [a]\n  http: [{route: [{destination: {host: a}}]}]\n",
        &["spec.gateways has"],
    );
}

#[test]
fn balancing_ejection_and_limits_are_honoured_and_how_connections_are_kept_is_not() {
    check(
        "DestinationRule",
        "  host: b
  trafficPolicy:
    loadBalancer: {simple: LEAST_CONN}
    connectionPool: {tcp: {connectTimeout: 1s}}
    tls: {mode: DISABLE}
    portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
",
        &[],
    );
    check(
        "DestinationRule",
        "  host: b
  workloadSelector: {matchLabels: {app: a}}
  trafficPolicy:
    loadBalancer: {simple: PASSTHROUGH, warmup: {duration: 1s}}
    connectionPool: {tcp: {maxConnections: 1}, http: {maxRetries: 1, http2MaxRequests: 2, idleTimeout: 1s}}
    outlierDetection: {}
    tls: {mode: SIMPLE}
  subsets:
  - name: v1
    trafficPolicy:
      portLevelSettings: [{port: {number: 80}, loadBalancer: {consistentHash: {useSourceIp: true}}}]
",
        &["spec.trafficPolicy.loadBalancer.simple not"],
    );
}

#[test]
fn service_entries_are_honoured_and_the_original_destination_is_not() {
    check(
        "ServiceEntry",
        "  hosts: [b.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  endpoints: [{address: 10.0.0.1, ports: {http: 81}, labels: {version: v1}, weight: 2, locality: a/b}]
",
        &[],
    );
    check(
        "ServiceEntry",
        "  hosts: [b.example.com]\n  resolution: DNS\n  ports: [{number: 80, name: http}]\n",
        &[],
    );
    check(
        "ServiceEntry",
        "  hosts: [b.example.com]\n  ports: [{number: 80, name: http}]\n",
        &["spec.resolution not"],
    );
    check(
        "WorkloadEntry",
        "  address: vm.example.com\n  serviceAccount: vm\n",
        &["spec.serviceAccount has"],
    );
}

#[test]
fn client_certificates_have_no_effect_in_modes_that_do_not_ask_for_them() {
    check(
        "Gateway",
        "  servers:
  - port: {number: 443, name: a, protocol: HTTPS}
    hosts: ['*']
    bind: 0.0.0.0
    tls: {mode: SIMPLE, serverCertificate: c, privateKey: k, caCertificates: ca, subjectAltNames: [a]}
  - port: {number: 444, name: b, protocol: HTTPS}
    hosts: ['*']
    tls: {mode: MUTUAL, serverCertificate: c, privateKey: k, caCertificates: ca, subjectAltNames: [a]}
",
        &[
            "spec.servers[0].tls.caCertificates has",
            "spec.servers[0].tls.subjectAltNames has",
        ],
    );
}

/// What is said about a security policy: the first words of the hints.
#[track_caller]
fn check_policy(kind: &str, annotations: &str, spec: &str, expected: &[&str]) {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: a, annotations: {annotations}}}\n\
         spec: {spec}\n"
    );
    let parsed = parse_documents("a.yaml", &text);
    assert_eq!(parsed.problems, []);
    let hints = parsed.resources.iter().flat_map(unsupported);
    let hints: Vec<_> = hints.map(|problem| problem.hint).collect();
    assert_eq!(hints.len(), expected.len(), "{hints:?}");
    for (hint, expected) in hints.iter().zip(expected) {
        assert!(hint.starts_with(expected), "{hint}");
    }
}

#[test]
fn a_policy_that_keeps_anything_out_closes_the_gateway() {
    let closed = "while it selects this gateway, every request gets 403";
    for (action, rules, hint) in [
        ("ALLOW", "[]", closed),
        ("ALLOW", "[{}]", closed),
        ("DENY", "[{}]", closed),
        ("CUSTOM", "[{}]", closed),
        ("DENY", "[]", "it keeps nothing out"),
        ("AUDIT", "[{}]", "it keeps nothing out"),
    ] {
        let spec = format!("{{action: {action}, rules: {rules}}}");
        check_policy("AuthorizationPolicy", "{}", &spec, &[hint]);
    }
    check_policy(
        "AuthorizationPolicy",
        "{istio.io/dry-run: 'true'}",
        "{}",
        &["it keeps nothing out"],
    );
    check_policy(
        "AuthorizationPolicy",
        "{istio.io/dry-run: 'false'}",
        "{}",
        &[closed],
    );
    check_policy(
        "RequestAuthentication",
        "{}",
        "{jwtRules: [{issuer: a}]}",
        &[closed],
    );
    check_policy("RequestAuthentication", "{}", "{}", &[]);
    let strict = "mtls: {mode: STRICT}";
    let labels = "selector: {matchLabels: {app: a}}";
    check_policy(
        "PeerAuthentication",
        "{}",
        &format!("{{{strict}, {labels}}}"),
        &[closed],
    );
    check_policy(
        "PeerAuthentication",
        "{}",
        &format!("{{{strict}}}"),
        &["the edge has no certificate of a mesh"],
    );
    check_policy("PeerAuthentication", "{}", "{mtls: {mode: PERMISSIVE}}", &[]);
}
