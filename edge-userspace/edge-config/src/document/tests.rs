use super::*;

/// The objects that were read, and the problems as lines.
#[track_caller]
fn check(text: &str, objects: &[&str], problems: &[&str]) {
    let parsed = parse_documents("a.yaml", text);
    let found: Vec<_> = parsed
        .resources
        .iter()
        .map(|resource| resource.object_ref().to_string())
        .collect();
    assert_eq!(found, objects, "{:#?}", parsed.problems);
    let lines: Vec<_> = parsed.problems.iter().map(Problem::with_location).collect();
    assert_eq!(lines, problems);
}

#[test]
fn a_file_may_hold_many_documents_lists_and_json() {
    check(
        "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
# nothing
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{
\t\"apiVersion\": \"v1\",
\t\"kind\": \"Pod\",
\t\"metadata\": {\"name\": \"p\"}
}
",
        &["Service/shop/web", "Namespace//shop", "Pod/default/p"],
        &[],
    );
}

#[test]
fn a_bad_document_does_not_hide_the_others() {
    check(
        "\
a: [1
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
---
- just
- text
---
kind: Service
",
        &["Service/shop/web"],
        &[
            "a.yaml:1: error a.yaml a[0]: while parsing a flow sequence, expected ',' or ']' \
             (mend the YAML syntax; often it is the indentation)",
            "a.yaml:7: error a.yaml: an object is needed, with apiVersion, kind and metadata \
             (see whether the indentation is right)",
            "a.yaml:10: error Service/default/ apiVersion: apiVersion is missing (write apiVersion: v1)",
        ],
    );
}

#[test]
fn wrong_syntax_is_told_with_the_object_that_it_is_in() {
    check(
        "\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
spec: {ports: [}
",
        &[],
        &[
            "a.yaml:6: error Service/shop/web spec.ports: while parsing a node, did not find expected node content \
           (mend the YAML syntax; often it is the indentation)",
        ],
    );
}

#[test]
fn kinds_of_others_are_passed_over_with_a_warning() {
    check(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: b}
",
        &[],
        &[
            "a.yaml:2: warning Deployment/default/a kind: unknown kind, ignored \
             (the edge does not read Deployment of apps/v1)",
            "a.yaml:6: warning Sidecar/default/b kind: unknown kind, ignored \
             (the edge does not read Sidecar of networking.istio.io/v1)",
        ],
    );
}

#[test]
fn a_wrong_api_version_is_an_error() {
    check(
        "\
apiVersion: networking.istio.io/v2
kind: Gateway
metadata: {name: a}
---
apiVersion: networking.istio.oi/v1
kind: Gateway
metadata: {name: b}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: c}
",
        &[],
        &[
            "a.yaml:1: error Gateway/default/a apiVersion: networking.istio.io/v2 is not a version of Gateway \
             (write networking.istio.io/v1)",
            "a.yaml:5: error Gateway/default/b apiVersion: networking.istio.oi/v1 is not a version of Gateway \
             (write networking.istio.io/v1)",
            "a.yaml:10: warning Gateway/default/c kind: unknown kind, ignored \
             (the edge does not read Gateway of gateway.networking.k8s.io/v1)",
        ],
    );
}

#[test]
fn everything_wrong_with_a_shape_is_told_at_once_with_its_line() {
    check(
        "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  nmae: x
spec:
  servers:
  - prot: 1
    hosts: '*'
  - port: {number: eighty}
",
        &[],
        &[
            "a.yaml:8: error Gateway/default/ spec.servers[0].hosts: a list is needed, not text \
             (begin each element on its own line with a dash)",
            "a.yaml:9: error Gateway/default/ spec.servers[1].port.number: a whole number from 0 to 4294967295 \
             is needed, not text (correct the value)",
            "a.yaml:4: error Gateway/default/ metadata.nmae: unknown field (did you mean name?)",
            "a.yaml:7: error Gateway/default/ spec.servers[0].prot: unknown field (did you mean port?)",
            "a.yaml:3: error Gateway/default/ metadata.name: the object has no name (add metadata.name)",
        ],
    );
}

#[test]
fn a_key_that_stands_twice_is_refused_with_its_line() {
    check(
        "\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  ports: []
  ports: []
",
        &[],
        &[
            "a.yaml:7: error Service/default/web spec.ports: the key stands twice in the same map \
           (keep one of them; of two, most readers would silently drop the first)",
        ],
    );
}

#[test]
fn lines_within_a_list_are_those_of_the_file() {
    check(
        "\
apiVersion: v1
kind: List
items:
- apiVersion: networking.istio.io/v1
  kind: Gateway
  metadata: {name: a}
  spec:
    server: []
",
        &[],
        &["a.yaml:8: error Gateway/default/a spec.server: unknown field (did you mean servers?)"],
    );
}

#[test]
fn what_the_api_server_adds_is_read_over_and_its_time_kept() {
    let parsed = parse_documents(
        "a.yaml",
        "\
apiVersion: networking.istio.io/v1beta1
kind: Gateway
metadata:
  name: a
  creationTimestamp: 2026-01-31T12:00:00Z
  resourceVersion: '1'
  uid: x
  generation: 3
  managedFields: [{manager: kubectl}]
  labels: {app: a}
spec: {servers: []}
status: {observedGeneration: 1}
",
    );
    assert_eq!(parsed.problems, []);
    let meta = parsed.resources[0].meta();
    assert_eq!(
        meta.creation_timestamp.map(|time| time.seconds()),
        Some(1_769_860_800)
    );
    assert_eq!(meta.labels.get("app").map(String::as_str), Some("a"));
}

#[test]
fn security_policies_secrets_and_config_maps_are_read() {
    check(
        "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a}
spec:
  selector: {matchLabels: {app: a}}
  action: DENY
  rules:
  - from: [{source: {principals: [p], notIpBlocks: [192.0.2.0/24]}}]
    to: [{operation: {methods: [GET], paths: [/a]}}]
    when: [{key: 'request.headers[x]', values: [y]}]
---
apiVersion: security.istio.io/v1beta1
kind: RequestAuthentication
metadata: {name: b}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: g}
  jwtRules:
  - issuer: i
    jwksUri: https://example.com/keys
    fromHeaders: [{name: x, prefix: 'Bearer '}]
    outputClaimToHeaders: [{header: x-sub, claim: sub}]
    timeout: 5s
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: c}
spec: {selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}
---
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {name: d}
data: {tls.crt: YQ==, tls.key: YQ==}
stringData: {ca.crt: a}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: e}
data: {ca.crt: a}
---
apiVersion: security.istio.io/v2
kind: AuthorizationPolicy
metadata: {name: f}
",
        &[
            "AuthorizationPolicy/default/a",
            "RequestAuthentication/default/b",
            "PeerAuthentication/default/c",
            "Secret/default/d",
            "ConfigMap/default/e",
        ],
        &[
            "a.yaml:41: error AuthorizationPolicy/default/f apiVersion: security.istio.io/v2 is not a version of \
             AuthorizationPolicy (write security.istio.io/v1)",
        ],
    );
}

#[test]
fn mistakes_in_documents_of_others_are_warnings() {
    check(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec: {a: 1, a: 2}
---
replicas: 3
---
apiVersion: v1
kind: List
items: [{a: 1, a: 2}]
",
        &[],
        &[
            "a.yaml:4: warning Deployment/default/ spec.a: the key stands twice in the same map (keep one of \
             them; of two, most readers would silently drop the first)",
            "a.yaml:6: warning a.yaml: is no Kubernetes object, ignored (an object has apiVersion, kind and metadata)",
            "a.yaml:10: error List/default/ items[0].a: the key stands twice in the same map (keep one of them; of \
             two, most readers would silently drop the first)",
        ],
    );
}
