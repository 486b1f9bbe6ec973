//! What a route does with its requests besides choosing a cluster, in sentences, in the order in which it happens.

use std::time::Duration;

use edge_model::{
    AbortStatus, CorsPolicy, Fault, Forward, Fraction, HeaderEdit, HeaderOps, LocalRateLimit, RetryPolicy,
    Route, RouteAction, TokenBucket,
};

use crate::explanation::Step;
use crate::{RequestView, redirect_location, rewrite};

/// The steps that a request takes on a route, each with the field of its rule that asks for it.
pub(crate) fn steps(route: &Route, request: &RequestView<'_>) -> Vec<(Step, &'static str, String)> {
    let mut steps = vec![];
    if let Some(limit) = &route.rate_limit {
        steps.push((
            Step::RateLimit,
            "",
            rate_limit(limit, route.rate_limit_descriptors.len()),
        ));
    }
    if let Some(cors) = &route.cors {
        steps.push((Step::Cors, "corsPolicy", self::cors(cors, request)));
    }
    if let Some(fault) = &route.fault {
        steps.push((Step::Fault, "fault", self::fault(fault)));
    }
    match &route.action {
        RouteAction::Redirect(redirect) => {
            let location = redirect_location(redirect, &route.matcher, request);
            let message = format!("it is answered with {} to {location}", redirect.code.as_u16());
            steps.push((Step::Answer, "redirect", message));
        }
        RouteAction::DirectResponse(direct) => {
            let message = format!(
                "it is answered with {} and a body of {} bytes",
                direct.status.as_u16(),
                direct.body.len()
            );
            steps.push((Step::Answer, "directResponse", message));
        }
        RouteAction::Forward(forward) => self::forward(&mut steps, route, forward, request),
    }
    headers(&mut steps, "headers", "", &route.headers);
    steps
}

fn forward(
    steps: &mut Vec<(Step, &'static str, String)>,
    route: &Route,
    forward: &Forward,
    request: &RequestView<'_>,
) {
    for destination in &forward.destinations {
        let rewritten = rewrite(route, forward, destination, request.path_and_query);
        if let Some(path) = rewritten.path_and_query {
            steps.push((
                Step::Rewrite,
                "rewrite",
                format!("the endpoint gets the path {path:?}"),
            ));
        }
        if let Some(authority) = rewritten.authority {
            let authority = String::from_utf8_lossy(authority.as_bytes()).into_owned();
            let message = format!(
                "the endpoint of {} gets the host {authority:?}",
                destination.cluster
            );
            steps.push((Step::Rewrite, "rewrite", message));
        }
        let of = format!(" for {}", destination.cluster);
        headers(steps, "route", &of, &destination.headers);
    }
    steps.dedup();
    for mirror in &forward.mirrors {
        let message = format!("{} are copied to {}", share(mirror.share), mirror.cluster);
        steps.push((Step::Mirror, "mirrors", message));
    }
    let timeout = match forward.timeout {
        Some(timeout) => format!("all tries together may take {}, then 504 (UT)", seconds(timeout)),
        None => "it may take as long as it takes: no timeout is set".to_owned(),
    };
    steps.push((Step::Timeout, "timeout", timeout));
    steps.push((Step::Retries, "retries", retries(&forward.retries)));
}

fn headers(steps: &mut Vec<(Step, &'static str, String)>, field: &'static str, of: &str, ops: &HeaderOps) {
    for (what, edit) in [("request", &ops.request), ("response", &ops.response)] {
        if !edit.is_empty() {
            steps.push((
                Step::Headers,
                field,
                format!("the {what}'s headers{of}: {}", edits(edit)),
            ));
        }
    }
}

fn edits(edit: &HeaderEdit) -> String {
    let removed = edit.remove.iter().map(|name| format!("{name} is removed"));
    let set = edit.set.iter().map(|(name, _)| format!("{name} is set"));
    let added = edit.add.iter().map(|(name, _)| format!("{name} is added"));
    removed.chain(set).chain(added).collect::<Vec<_>>().join(", ")
}

fn rate_limit(limit: &LocalRateLimit, descriptors: usize) -> String {
    let bucket = limit.bucket.as_ref().map(bucket);
    let buckets = limit.descriptors.len();
    let by_value =
        (buckets > 0).then(|| format!("{buckets} more for what its {descriptors} descriptors say"));
    let object = &limit.object;
    let of_whom = match limit.enabled {
        Fraction::ALWAYS => "its requests".to_owned(),
        enabled => share(enabled),
    };
    match (bucket, by_value) {
        _ if limit.enabled == Fraction::NEVER => {
            format!("{object} limits nothing: filter_enabled is 0 %")
        }
        (None, None) => format!("{object} limits nothing: it has neither token_bucket nor descriptors"),
        (bucket, by_value) => {
            let limits: Vec<_> = bucket.into_iter().chain(by_value).collect();
            format!(
                "{object} limits {of_whom} to {}; beyond, {} are refused with {}",
                limits.join(", "),
                share(limit.enforced),
                limit.status.as_u16()
            )
        }
    }
}

fn bucket(bucket: &TokenBucket) -> String {
    format!(
        "{} at once and {} more each {}",
        bucket.max_tokens,
        bucket.tokens_per_fill,
        seconds(bucket.fill_interval)
    )
}

fn cors(cors: &CorsPolicy, request: &RequestView<'_>) -> String {
    let origin = request
        .headers
        .get(http::header::ORIGIN)
        .and_then(|origin| origin.to_str().ok());
    let is_preflight = request.method == "OPTIONS"
        && request
            .headers
            .contains_key(http::header::ACCESS_CONTROL_REQUEST_METHOD);
    match origin {
        None => "it has no Origin, so that the CORS policy adds nothing".to_owned(),
        Some(origin) if cors.allows(origin) && is_preflight => {
            format!("origin {origin} is allowed: the preflight is answered with 200")
        }
        Some(origin) if cors.allows(origin) => format!("origin {origin} is allowed: the response says so"),
        Some(origin) if is_preflight && !cors.forward_unmatched_preflights => {
            format!("origin {origin} is not allowed: the preflight is answered without CORS headers")
        }
        Some(origin) => format!("origin {origin} is not allowed: the response has no CORS headers"),
    }
}

fn fault(fault: &Fault) -> String {
    let delay = fault
        .delay
        .map(|delay| format!("{} wait {}", share(delay.share), seconds(delay.duration)));
    let abort = fault.abort.map(|abort| {
        let status = match abort.status {
            AbortStatus::Http(status) => format!("status {}", status.as_u16()),
            AbortStatus::Grpc(status) => format!("gRPC status {status}"),
        };
        format!("{} are answered with {status}", share(abort.share))
    });
    let both: Vec<_> = delay.into_iter().chain(abort).collect();
    format!("before anything else, {}", both.join(", then "))
}

fn retries(policy: &RetryPolicy) -> String {
    if policy.attempts == 0 {
        return "it is tried once".to_owned();
    }
    let names = policy.retry_on.names().map(str::to_owned);
    let statuses = policy
        .retriable_status_codes
        .iter()
        .map(|status| status.as_u16().to_string());
    let conditions: Vec<_> = names.chain(statuses).collect();
    let each = policy.per_try_timeout.map_or_else(String::new, |timeout| {
        format!(", each try at most {}", seconds(timeout))
    });
    format!(
        "up to {} more tries on {}{each}",
        policy.attempts,
        conditions.join(", ")
    )
}

/// `1.5 % of the requests`.
fn share(share: Fraction) -> String {
    match share {
        Fraction::ALWAYS => "all requests".to_owned(),
        share => format!(
            "{} % of the requests",
            f64::from(share.parts_per_million()) / 10_000.0
        ),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{forward_to, prefix, route};
    use edge_model::{
        ClusterName, DirectResponse, FaultAbort, FaultDelay, HeaderTemplate, Kind, Mirror, ObjectRef,
        Redirect, RedirectPath, RedirectPort, Rewrite, RewritePath, StringMatch,
    };
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
    use std::sync::Arc;

    fn request(headers: &HeaderMap) -> RequestView<'_> {
        RequestView {
            authority: "a.com",
            path_and_query: "/a/b?c",
            method: "OPTIONS",
            scheme: "http",
            headers,
            claims: None,
        }
    }

    #[track_caller]
    fn check(route: &Route, headers: &HeaderMap, expected: &[&str]) {
        let steps = steps(route, &request(headers));
        let said: Vec<_> = steps
            .iter()
            .map(|(_, field, message)| format!("{field}: {message}"))
            .collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn a_plain_route_has_istios_retries_and_no_timeout() {
        let route = route("", prefix("/a"), forward_to(&[("x", 1)]));
        check(
            &route,
            &HeaderMap::new(),
            &[
                "timeout: it may take as long as it takes: no timeout is set",
                "retries: up to 2 more tries on connect-failure, refused-stream, retriable-status-codes, cancelled, \
                 unavailable",
            ],
        );
    }

    #[test]
    fn limits_that_limit_nothing_say_why() {
        let nothing = LocalRateLimit {
            object: ObjectRef {
                kind: Kind::EnvoyFilter,
                namespace: "istio-system".into(),
                name: "limit".into(),
            },
            stat_prefix: "a".into(),
            bucket: None,
            descriptors: vec![],
            enabled: Fraction::ALWAYS,
            enforced: Fraction::ALWAYS,
            status: StatusCode::TOO_MANY_REQUESTS,
            response_headers: vec![],
            x_ratelimit_headers: false,
        };
        let five = LocalRateLimit {
            bucket: Some(TokenBucket {
                max_tokens: 5,
                tokens_per_fill: 1,
                fill_interval: Duration::from_secs(1),
            }),
            ..nothing.clone()
        };
        let disabled = LocalRateLimit {
            enabled: Fraction::NEVER,
            ..five.clone()
        };
        for (limit, expected) in [
            (
                &nothing,
                "limits nothing: it has neither token_bucket nor descriptors",
            ),
            (&disabled, "limits nothing: filter_enabled is 0 %"),
            (
                &five,
                "limits its requests to 5 at once and 1 more each 1s; beyond, all requests are refused with 429",
            ),
        ] {
            let said = rate_limit(limit, 0);
            assert_eq!(said, format!("EnvoyFilter/istio-system/limit {expected}"));
        }
    }

    #[test]
    fn everything_that_a_route_asks_for_is_told_in_its_order() {
        let RouteAction::Forward(mut forward) = forward_to(&[("x", 1)]) else {
            panic!("it forwards");
        };
        forward.rewrite = Rewrite {
            path: Some(RewritePath::Uri("/z".into())),
            authority: Some(HeaderValue::from_static("b.com")),
        };
        forward.timeout = Some(Duration::from_millis(1500));
        forward.retries = Arc::new(RetryPolicy {
            attempts: 0,
            ..RetryPolicy::default()
        });
        forward.mirrors = vec![Mirror {
            cluster: ClusterName::outbound(80, "", "copy"),
            share: Fraction::per_million(15_000),
        }];
        let mut route = route("", prefix("/a"), RouteAction::Forward(forward));
        route.fault = Some(Arc::new(Fault {
            delay: Some(FaultDelay {
                duration: Duration::from_secs(2),
                share: Fraction::ALWAYS,
            }),
            abort: Some(FaultAbort {
                status: AbortStatus::Http(StatusCode::SERVICE_UNAVAILABLE),
                share: Fraction::per_million(500_000),
            }),
        }));
        route.headers.request.remove.push(HeaderName::from_static("x-a"));
        let value = HeaderTemplate::Plain(HeaderValue::from_static("1"));
        route
            .headers
            .response
            .add
            .push((HeaderName::from_static("x-b"), value));
        check(
            &route,
            &HeaderMap::new(),
            &[
                "fault: before anything else, all requests wait 2s, then 50 % of the requests are answered with status 503",
                r#"rewrite: the endpoint gets the path "/z/b?c""#,
                r#"rewrite: the endpoint of outbound|80||x gets the host "b.com""#,
                "mirrors: 1.5 % of the requests are copied to outbound|80||copy",
                "timeout: all tries together may take 1.5s, then 504 (UT)",
                "retries: it is tried once",
                "headers: the request's headers: x-a is removed",
                "headers: the response's headers: x-b is added",
            ],
        );
    }

    #[test]
    fn answers_of_the_edge_itself_are_told() {
        let redirect = Redirect {
            code: StatusCode::FOUND,
            scheme: None,
            authority: Some("b.com".into()),
            port: RedirectPort::Unchanged,
            path: RedirectPath::Unchanged,
        };
        let redirects = route("", prefix("/"), RouteAction::Redirect(redirect));
        check(
            &redirects,
            &HeaderMap::new(),
            &["redirect: it is answered with 302 to http://b.com/a/b?c"],
        );
        let direct = DirectResponse {
            status: StatusCode::OK,
            body: "hello".into(),
        };
        let answers = route("", prefix("/"), RouteAction::DirectResponse(direct));
        check(
            &answers,
            &HeaderMap::new(),
            &["directResponse: it is answered with 200 and a body of 5 bytes"],
        );
    }

    #[test]
    fn what_cross_origin_policies_do_depends_on_the_request() {
        let policy = |forward_unmatched_preflights| CorsPolicy {
            allow_origins: vec![StringMatch::Exact("https://a.com".into())],
            allow_methods: None,
            allow_headers: None,
            expose_headers: None,
            max_age: None,
            allow_credentials: false,
            forward_unmatched_preflights,
        };
        for (origin, is_preflight, forwards, expected) in [
            (None, true, true, "has no Origin"),
            (Some("https://a.com"), true, true, "answered with 200"),
            (Some("https://a.com"), false, true, "the response says so"),
            (
                Some("https://b.com"),
                true,
                false,
                "answered without CORS headers",
            ),
            (
                Some("https://b.com"),
                true,
                true,
                "the response has no CORS headers",
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(origin.map(|origin| (http::header::ORIGIN, HeaderValue::from_static(origin))));
            if is_preflight {
                headers.insert(
                    http::header::ACCESS_CONTROL_REQUEST_METHOD,
                    HeaderValue::from_static("GET"),
                );
            }
            let said = cors(&policy(forwards), &request(&headers));
            assert!(said.contains(expected), "{said}");
        }
    }
}
