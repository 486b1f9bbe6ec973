use std::time::Duration;

use edge_model::{Fraction, RateLimitAction, TokenBucket};
use http::StatusCode;

use super::*;
use crate::{Resource, parse_documents};

const HEAD: &str = "apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit, namespace: istio-system}
spec:
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:
";

fn read(patches: &str) -> RateLimits {
    let parsed = parse_documents("limit.yaml", &format!("{HEAD}{patches}"));
    assert_eq!(parsed.problems, [], "the shape itself is right");
    match parsed.resources.as_slice() {
        [Resource::EnvoyFilter(filter)] => rate_limits(filter),
        other => panic!("one EnvoyFilter is expected, not {other:?}"),
    }
}

/// Patches become so many of the understood ones, and these problems.
#[track_caller]
fn check(patches: &str, understood: usize, problems: &[&str]) {
    let found = read(patches);
    let all = found.problems.iter().chain(&found.unsupported);
    let lines: Vec<_> = all
        .map(|problem| format!("{}: {}", problem.field, problem.message))
        .collect();
    assert_eq!(lines, problems);
    assert_eq!(found.patches.len(), understood, "{:?}", found.patches);
}

/// A patch that inserts the filter with the given lines in its message.
fn filter(config: &str) -> String {
    let config: String = config.lines().map(|line| format!("          {line}\n")).collect();
    format!(
        "  - applyTo: HTTP_FILTER
    match: {{context: GATEWAY, listener: {{portNumber: 8080}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: limiter
          filter_enabled: {{default_value: {{numerator: 100}}}}
          filter_enforced: {{default_value: {{numerator: 5, denominator: TEN_THOUSAND}}}}
{config}"
    )
}

#[test]
fn the_filter_is_read_with_its_bucket_shares_and_headers() {
    let found = read(&filter(
        "token_bucket: {max_tokens: 10, tokens_per_fill: 5, fill_interval: 0.5s}
enable_x_ratelimit_headers: DRAFT_VERSION_03
response_headers_to_add:
- {append: false, header: {key: x-local-rate-limit, value: 'true'}}
descriptors:
- entries: [{key: remote_address}, {key: path, value: /login}]
  token_bucket: {max_tokens: 1, fill_interval: 60s}",
    ));
    let patch = &found.patches[0];
    let PatchTarget::Listener(listener) = &patch.target else {
        panic!("{patch:?}")
    };
    assert_eq!(listener.port_number, 8080);
    let limit = patch.limit.as_ref().unwrap();
    let bucket = TokenBucket {
        max_tokens: 10,
        tokens_per_fill: 5,
        fill_interval: Duration::from_millis(500),
    };
    assert_eq!(limit.bucket, Some(bucket));
    assert_eq!(
        (limit.enabled, limit.enforced),
        (Fraction::ALWAYS, Fraction::per_million(500))
    );
    assert_eq!(
        (limit.status, limit.x_ratelimit_headers),
        (StatusCode::TOO_MANY_REQUESTS, true)
    );
    assert_eq!(limit.response_headers.len(), 1);
    let descriptor = &limit.descriptors[0];
    let entries: Vec<_> = descriptor
        .entries
        .iter()
        .map(|e| (e.key.as_str(), e.value.as_deref()))
        .collect();
    assert_eq!(entries, [("remote_address", None), ("path", Some("/login"))]);
    assert_eq!(descriptor.bucket.fill_interval, Duration::from_secs(60));
}

#[test]
fn a_typed_struct_and_camel_case_say_the_same() {
    let found = read(
        "  - applyTo: HTTP_FILTER
    patch:
      operation: INSERT_FIRST
      value:
        name: envoy.filters.http.local_ratelimit
        typedConfig:
          \"@type\": type.googleapis.com/udpa.type.v1.TypedStruct
          typeUrl: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          value:
            statPrefix: limiter
            tokenBucket: {maxTokens: 4, fillInterval: 1s}
            filterEnabled: {runtimeKey: a, defaultValue: {numerator: 100, denominator: HUNDRED}}
            filterEnforced: {runtimeKey: b, defaultValue: {numerator: 100, denominator: HUNDRED}}
",
    );
    assert_eq!(found.problems, []);
    let limit = found.patches[0].limit.as_ref().unwrap();
    let bucket = TokenBucket {
        max_tokens: 4,
        tokens_per_fill: 1,
        fill_interval: Duration::from_secs(1),
    };
    assert_eq!((limit.bucket, limit.enforced), (Some(bucket), Fraction::ALWAYS));
}

#[test]
fn routes_name_their_descriptors_and_their_own_limit() {
    let found = read(
        "  - applyTo: HTTP_ROUTE
    match:
      context: GATEWAY
      routeConfiguration: {vhost: {name: 'shop.example.com:80', route: {name: cart, action: ANY}}}
    patch:
      operation: MERGE
      value:
        route:
          rate_limits:
          - actions:
            - remote_address: {}
            - generic_key: {descriptor_value: cart}
            - request_headers: {header_name: X-User, descriptor_key: user, skip_if_absent: true}
        typed_per_filter_config:
          envoy.filters.http.local_ratelimit:
            \"@type\": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
            stat_prefix: cart
",
    );
    assert_eq!(found.problems, []);
    let patch = &found.patches[0];
    let PatchTarget::Route(routes) = &patch.target else {
        panic!("{patch:?}")
    };
    assert_eq!(routes.vhost.as_ref().unwrap().name, "shop.example.com:80");
    assert_eq!(patch.limit.as_ref().unwrap().stat_prefix, "cart");
    let [remote, generic, header] = patch.descriptors[0].actions.as_slice() else {
        panic!("{patch:?}")
    };
    assert_eq!(remote, &RateLimitAction::RemoteAddress);
    let (key, value) = ("generic_key".to_owned(), "cart".to_owned());
    assert_eq!(generic, &RateLimitAction::GenericKey { key, value });
    assert!(matches!(
        header,
        RateLimitAction::RequestHeader {
            skip_if_absent: true,
            ..
        }
    ));
}

#[test]
fn a_malformed_filter_is_refused_with_the_field_at_fault() {
    let at = "spec.configPatches[0].patch.value.typed_config";
    let zero = filter("token_bucket: {max_tokens: 0, tokens_per_fill: 0, fill_interval: 0.01s}");
    check(
        &zero,
        0,
        &[
            &format!("{at}.token_bucket.max_tokens: must be at least 1"),
            &format!("{at}.token_bucket.tokens_per_fill: must be at least 1"),
            &format!("{at}.token_bucket.fill_interval: must be at least 0.05s"),
        ],
    );
    let duration =
        format!("{at}.token_bucket.fill_interval: \"1m\" is not a protobuf duration like 60s or 0.5s");
    check(
        &filter("token_bucket: {max_tokens: 1, fill_interval: 1m}"),
        0,
        &[&duration],
    );
    check(
        &filter("token_buket: {}"),
        0,
        &[&format!("{at}.token_buket: unknown field")],
    );
    check(
        &filter("status: {code: 700}"),
        0,
        &[&format!("{at}.status.code: is not an HTTP status")],
    );
    let no_type = filter("").replace("@type", "@typ");
    check(
        &no_type,
        0,
        &[&format!(
            "{at}.@type: the message type is missing or not the filter's"
        )],
    );
}

#[test]
fn what_is_not_enforced_is_reported_by_name() {
    let at = "spec.configPatches[0].patch.value";
    let field = "local_rate_limit_per_downstream_connection";
    let message = format!("{at}.typed_config.{field}: not enforced: {field}");
    check(&filter(&format!("{field}: true")), 1, &[&message]);
    check(
        &global("{domain: a, rate_limit_service: {grpc_service: {envoy_grpc: {cluster_name: c}}}}"),
        0,
        &[&format!(
            "{at}: not enforced: the global rate limit filter envoy.filters.http.ratelimit"
        )],
    );
    check(
        "  - applyTo: VIRTUAL_HOST
    patch: {operation: MERGE, value: {rate_limits: [{actions: [{source_cluster: {}}]}]}}
",
        1,
        &[&format!(
            "{at}.rate_limits[0].actions[0].source_cluster: not enforced: source_cluster"
        )],
    );
}

#[test]
fn other_patches_are_let_through_with_a_warning() {
    let path = "spec.configPatches[0]";
    check(
        "  - {applyTo: CLUSTER, patch: {operation: ADD, value: {name: x}}}\n",
        0,
        &[&format!(
            "{path}: has no effect: the edge does not understand this patch"
        )],
    );
    check(
        "  - {applyTo: HTTP_FILTER, match: {context: SIDECAR_INBOUND}, patch: {operation: ADD, value: {name: x}}}\n",
        0,
        &[&format!(
            "{path}.match.context: has no effect: the patch is for sidecars or waypoints"
        )],
    );
    check(
        "  - {applyTo: HTTP_ROUTE, patch: {operation: MERGE, value: {route: {timeout: 1s}}}}\n",
        0,
        &[&format!(
            "{path}.patch.value.route.timeout: has no effect: the edge does not understand this field"
        )],
    );
}

#[test]
fn a_limit_that_never_refuses_gets_a_warning() {
    let text = filter("token_bucket: {max_tokens: 1, fill_interval: 1s}");
    let text = text.replace("numerator: 5,", "numerator: 0,");
    let at = "spec.configPatches[0].patch.value.typed_config.filter_enforced";
    check(
        &text,
        1,
        &[&format!(
            "{at}: filter_enforced is 0 %, so nothing is ever refused"
        )],
    );
}

/// A patch with the global rate limit filter; `value` goes into its TypedStruct.
fn global(value: &str) -> String {
    format!(
        "  - applyTo: HTTP_FILTER
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.ratelimit
        typed_config:
          '@type': type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
          value: {value}
"
    )
}

#[test]
fn a_malformed_global_rate_limit_is_refused() {
    let at = "spec.configPatches[0].patch.value";
    let inner = format!("{at}.typed_config.value");
    let not_enforced =
        format!("{at}: not enforced: the global rate limit filter envoy.filters.http.ratelimit");
    for (value, problems) in [
        ("{domian: a}", vec!["domian: unknown field"]),
        (
            "{timeout: soon}",
            vec!["timeout: \"soon\" is not a duration like 500ms, 10s or 1h30m"],
        ),
        (
            "{stage: 11, rate_limited_status: {code: 700}}",
            vec![
                "domain: must not be empty",
                "stage: is not from 0 to 10",
                "rate_limited_status.code: is not an HTTP status",
                "rate_limit_service: is missing",
            ],
        ),
        (
            "{domain: a, rate_limit_service: {grpc_service: {envoy_grpc: {}}}}",
            vec!["rate_limit_service.grpc_service.envoy_grpc.cluster_name: must not be empty"],
        ),
        (
            "{domain: a, rate_limit_service: {}}",
            vec!["rate_limit_service.grpc_service: names no service"],
        ),
    ] {
        let mut lines: Vec<_> = problems
            .iter()
            .map(|problem| format!("{inner}.{problem}"))
            .collect();
        lines.push(not_enforced.clone());
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        check(&global(value), 0, &lines);
    }
}
