//! Retries, injected faults and cross-origin policies.

use edge_model::GRPC_STATUSES;

use super::http_action::http_status;
use super::http_match::string_match;
use super::{names, values};
use crate::checker::Checker;
use crate::istio::virtual_service::http::{
    CorsPolicy, FaultAbort, FaultDelay, HttpFaultInjection, HttpRetry,
};

/// Conditions of `retryOn` (Envoy `x-envoy-retry-on` and `x-envoy-retry-grpc-on`).
const RETRY_CONDITIONS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Methods that a cross-origin policy may name.
const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*",
];

pub(super) fn retries(check: &mut Checker<'_>, path: &str, retries: &HttpRetry) {
    let attempts = format!("{path}.attempts");
    values::not_negative(check, &attempts, retries.attempts);
    let others = retries.per_try_timeout.is_some()
        || !retries.retry_on.is_empty()
        || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && others {
        let hint = "set attempts to at least 1, or keep only attempts: 0";
        check.error(
            &attempts,
            "0 turns retries off, yet other fields say how to retry",
            hint,
        );
    }
    values::duration(check, &format!("{path}.perTryTimeout"), retries.per_try_timeout);
    values::duration(check, &format!("{path}.backoff"), retries.backoff);
    if !retries.retry_on.is_empty() {
        retry_on(check, &format!("{path}.retryOn"), &retries.retry_on);
    }
}

/// Most wrong conditions of one list that are named: a hostile one could have half a million.
const MAX_WRONG_CONDITIONS: usize = 20;

/// Conditions with commas and nothing else between them.
fn retry_on(check: &mut Checker<'_>, field: &str, conditions: &str) {
    let mut wrong = 0;
    for condition in conditions.split(',') {
        let is_status = condition.parse().is_ok_and(is_registered_status);
        if is_status || RETRY_CONDITIONS.contains(&condition) {
            continue;
        }
        let message = format!("{condition:?} is not a condition to retry on");
        let hint = match crate::yaml::nearest(condition.trim(), RETRY_CONDITIONS) {
            Some(near) if near == condition.trim() => "put no spaces around commas".to_owned(),
            Some(near) => format!("did you mean {near}?"),
            None => "write conditions and registered statuses, as 5xx,connect-failure,429".to_owned(),
        };
        check.error(field, message, hint);
        wrong += 1;
        if wrong == MAX_WRONG_CONDITIONS {
            return;
        }
    }
}

/// Statuses that IANA has registered (RFC 9110, section 16.2); Go knows no others, and Istio goes by it.
fn is_registered_status(status: u16) -> bool {
    matches!(
        status,
        100..=103 | 200..=208 | 226 | 300..=308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451 | 500..=508 | 510 | 511
    ) && status != 306
}

pub(super) fn fault(check: &mut Checker<'_>, path: &str, fault: &HttpFaultInjection) {
    if fault.delay.is_none() && fault.abort.is_none() {
        check.error(path, "neither a delay nor an abort is there", "add one of them");
    }
    if let Some(delay) = &fault.delay {
        self::delay(check, &format!("{path}.delay"), delay);
    }
    if let Some(abort) = &fault.abort {
        self::abort(check, &format!("{path}.abort"), abort);
    }
}

fn delay(check: &mut Checker<'_>, path: &str, delay: &FaultDelay) {
    values::fault_percent(check, &format!("{path}.percentage"), delay.percentage);
    values::percent_value(check, &format!("{path}.percent"), f64::from(delay.percent));
    if delay.percent != 0 {
        let hint = "write percentage: {value: ...}";
        check.warn(&format!("{path}.percent"), "is deprecated", hint);
    }
    if delay.exponential_delay.is_some() {
        let hint = "use fixedDelay";
        check.error(
            &format!("{path}.exponentialDelay"),
            "is not implemented by Istio",
            hint,
        );
    } else if delay.fixed_delay.is_none() {
        check.warn(
            &format!("{path}.fixedDelay"),
            "is missing, so that nothing is delayed",
            "set how long requests are held, such as 5s",
        );
    }
    values::duration(check, &format!("{path}.fixedDelay"), delay.fixed_delay);
}

fn abort(check: &mut Checker<'_>, path: &str, abort: &FaultAbort) {
    values::fault_percent(check, &format!("{path}.percentage"), abort.percentage);
    let kinds = [
        abort.http_status.is_some(),
        abort.grpc_status.is_some(),
        abort.http2_error.is_some(),
    ];
    if kinds.into_iter().filter(|present| *present).count() > 1 {
        check.error(
            path,
            "httpStatus, grpcStatus and http2Error exclude each other",
            "keep one of them",
        );
    }
    if kinds == [false; 3] {
        check.warn(
            path,
            "has no status, so that nothing is aborted",
            "set httpStatus",
        );
    }
    if let Some(status) = abort.http_status {
        http_status(check, &format!("{path}.httpStatus"), i64::from(status));
    }
    if let Some(status) = abort
        .grpc_status
        .as_deref()
        .filter(|status| !GRPC_STATUSES.contains(status))
    {
        let message = format!("{status:?} is not the name of a gRPC status");
        check.error(&format!("{path}.grpcStatus"), message, "such as UNAVAILABLE");
    }
    if abort.http2_error.is_some() {
        let hint = "use httpStatus";
        check.error(&format!("{path}.http2Error"), "is not implemented by Istio", hint);
    }
}

pub(super) fn cors(check: &mut Checker<'_>, path: &str, cors: &CorsPolicy) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let field = format!("{path}.allowOrigins[{index}]");
        let texts = [&origin.exact, &origin.prefix, &origin.regex];
        if texts.into_iter().flatten().all(String::is_empty) {
            check.error(&field, "names no origin", "set exact, prefix or regex");
            continue;
        }
        string_match(check, &field, origin, false);
    }
    if !cors.allow_origin.is_empty() {
        let hint = "write allowOrigins: [{exact: ...}]";
        check.warn(&format!("{path}.allowOrigin"), "is deprecated", hint);
    }
    for (index, method) in cors.allow_methods.iter().enumerate() {
        if !METHODS.contains(&method.as_str()) {
            let message = format!("{method:?} is not an HTTP method");
            check.error(
                &format!("{path}.allowMethods[{index}]"),
                message,
                "write it in upper case, as GET",
            );
        }
    }
    for (list, headers) in [
        ("allowHeaders", &cors.allow_headers),
        ("exposeHeaders", &cors.expose_headers),
    ] {
        for (index, name) in headers.iter().enumerate() {
            names::header_name(check, &format!("{path}.{list}[{index}]"), name);
        }
    }
    let field = format!("{path}.maxAge");
    values::duration(check, &field, cors.max_age);
    if cors.max_age.is_some_and(|age| age.0.subsec_millis() != 0) {
        check.error(&field, "is finer than a second", "round it to seconds");
    }
}
