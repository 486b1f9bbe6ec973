//! Retries, faults, mirrors and CORS of a rule (istio `pilot/pkg/networking/core/route`).

use std::sync::Arc;
use std::time::Duration;

use edge_config::GoDuration;
use edge_config::istio::Percent;
use edge_config::istio::virtual_service::http::{
    CorsPolicy as WrittenCors, FaultAbort as WrittenAbort, FaultDelay as WrittenDelay, HttpRetry,
    StringMatch as Written, UnmatchedPreflights,
};
use edge_model::{
    AbortStatus, CorsPolicy, Fault, FaultAbort, FaultDelay, Fraction, GRPC_STATUSES, Mirror, Pattern,
    RetryCondition, RetryOn, RetryPolicy, StringMatch,
};
use http::{HeaderValue, StatusCode};

use super::action::{Rule, cluster_name};
use super::context::Context;
use super::report::Report;

/// The retry policy of a rule (istio `retry.ConvertPolicy`). With a consistent hash a retry may go to the same endpoint.
pub(crate) fn retries(
    rule: &Rule<'_, '_>,
    is_hashed: bool,
    defaults: &RetryDefaults,
    report: &mut Report,
) -> Arc<RetryPolicy> {
    let Some(written) = &rule.spec.retries else {
        return defaults.of(is_hashed);
    };
    if written.attempts <= 0 {
        return Arc::new(RetryPolicy {
            attempts: 0,
            retry_on: RetryOn::NEVER,
            avoid_previous_hosts: false,
            ..RetryPolicy::default()
        });
    }
    let (retry_on, retriable_status_codes) = conditions(rule, written, report);
    let avoid = written.retry_ignore_previous_hosts.unwrap_or(true);
    Arc::new(RetryPolicy {
        attempts: u32::try_from(written.attempts).unwrap_or(0),
        retry_on,
        retriable_status_codes,
        per_try_timeout: positive(written.per_try_timeout),
        base_interval: positive(written.backoff).unwrap_or(RetryPolicy::BASE_INTERVAL),
        avoid_previous_hosts: avoid && !is_hashed,
        remote_localities: written.retry_remote_localities.unwrap_or(false),
    })
}

/// The policies of rules without `retries`, one value for all of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryDefaults {
    plain: Arc<RetryPolicy>,
    hashed: Option<Arc<RetryPolicy>>,
}

impl RetryDefaults {
    pub(crate) fn new() -> Self {
        Self {
            plain: Arc::default(),
            hashed: Some(Arc::new(RetryPolicy {
                avoid_previous_hosts: false,
                ..RetryPolicy::default()
            })),
        }
    }

    fn of(&self, is_hashed: bool) -> Arc<RetryPolicy> {
        let hashed = self.hashed.as_ref().filter(|_| is_hashed);
        Arc::clone(hashed.unwrap_or(&self.plain))
    }
}

/// `retryOn`: names of conditions; numbers are statuses, and stand for `retriable-status-codes` with them.
fn conditions(rule: &Rule<'_, '_>, written: &HttpRetry, report: &mut Report) -> (RetryOn, Vec<StatusCode>) {
    if written.retry_on.is_empty() {
        return (RetryOn::DEFAULT, vec![]);
    }
    let (mut conditions, mut codes) = (RetryOn::NEVER, vec![]);
    for name in written
        .retry_on
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let code = name
            .parse()
            .ok()
            .and_then(|code: u16| StatusCode::from_u16(code).ok());
        if let Some(code) = code {
            codes.push(code);
            conditions = conditions.with(RetryCondition::RetriableStatusCodes);
        } else if let Some(condition) = RetryCondition::from_name(name) {
            conditions = conditions.with(condition);
        } else {
            let field = format!("{}.retries.retryOn", rule.field);
            let message = format!("{name:?} is no condition for a retry, it is left out");
            report.warn(rule.object, field, message, "see Envoy's x-envoy-retry-on");
        }
    }
    (conditions, codes)
}

fn positive(duration: Option<GoDuration>) -> Option<Duration> {
    duration
        .map(|duration| duration.0)
        .filter(|duration| !duration.is_zero())
}

/// The faults of a rule. Without a percentage a delay and an abort come never.
pub(crate) fn fault(rule: &Rule<'_, '_>, report: &mut Report) -> Option<Arc<Fault>> {
    let written = rule.spec.fault.as_ref()?;
    let fault = Fault {
        delay: written.delay.as_ref().and_then(delay),
        abort: written
            .abort
            .as_ref()
            .and_then(|written| abort(rule, written, report)),
    };
    Some(Arc::new(fault))
}

fn delay(written: &WrittenDelay) -> Option<FaultDelay> {
    let share = match written.percentage {
        Some(percentage) => fraction(percentage),
        None => fraction(Percent {
            value: f64::from(written.percent),
        }),
    };
    Some(FaultDelay {
        duration: written.fixed_delay?.0,
        share,
    })
}

fn abort(rule: &Rule<'_, '_>, written: &WrittenAbort, report: &mut Report) -> Option<FaultAbort> {
    let share = written.percentage.map_or(Fraction::NEVER, fraction);
    let field = |name: &str| format!("{}.fault.abort.{name}", rule.field);
    let status = if let Some(name) = &written.grpc_status {
        let number = GRPC_STATUSES
            .iter()
            .position(|own| own.eq_ignore_ascii_case(name));
        let Some(number) = number.and_then(|number| u8::try_from(number).ok()) else {
            let message = format!("{name:?} is no gRPC status");
            report.error(
                rule.object,
                field("grpcStatus"),
                message,
                "write a name such as UNAVAILABLE",
            );
            return None;
        };
        AbortStatus::Grpc(number)
    } else {
        let code = written.http_status.unwrap_or(0);
        let status = u16::try_from(code).ok().filter(|code| (200..600).contains(code));
        let Some(status) = status.and_then(|code| StatusCode::from_u16(code).ok()) else {
            let message = format!("{code} is no status of a response");
            report.error(
                rule.object,
                field("httpStatus"),
                message,
                "use a status from 200 to 599",
            );
            return None;
        };
        AbortStatus::Http(status)
    };
    Some(FaultAbort { status, share })
}

/// The mirrors of a rule; one with a share of 0 is none.
pub(crate) fn mirrors(rule: &Rule<'_, '_>, context: &Context<'_, '_>, report: &mut Report) -> Vec<Mirror> {
    let mut mirrors = vec![];
    if let Some(destination) = &rule.spec.mirror {
        let share = match (rule.spec.mirror_percentage, rule.spec.mirror_percent) {
            (Some(percentage), _) => fraction(percentage),
            (None, Some(percent)) => fraction(Percent {
                value: f64::from(percent),
            }),
            (None, None) => Fraction::ALWAYS,
        };
        mirrors.push((format!("{}.mirror", rule.field), destination, share));
    }
    for (index, mirror) in rule.spec.mirrors.iter().enumerate() {
        if let Some(destination) = &mirror.destination {
            let share = mirror.percentage.map_or(Fraction::ALWAYS, fraction);
            let field = format!("{}.mirrors[{index}].destination", rule.field);
            mirrors.push((field, destination, share));
        }
    }
    let wanted = mirrors
        .into_iter()
        .filter(|(_, _, share)| *share != Fraction::NEVER);
    wanted
        .filter_map(|(field, destination, share)| {
            let place = rule.place();
            let cluster = cluster_name(&place, &field, destination, context, report)?;
            Some(Mirror { cluster, share })
        })
        .collect()
}

/// A percentage in parts per million.
fn fraction(percent: Percent) -> Fraction {
    let parts = (percent.value.clamp(0.0, 100.0) * 10_000.0).round();
    Fraction::per_million(parts as u32)
}

/// The CORS policy of a rule.
pub(crate) fn cors(rule: &Rule<'_, '_>, report: &mut Report) -> Option<Arc<CorsPolicy>> {
    let written = rule.spec.cors_policy.as_ref()?;
    let field = format!("{}.corsPolicy", rule.field);
    let deprecated = written.allow_origin.iter().cloned().map(StringMatch::Exact);
    let origins = written.allow_origins.iter().enumerate();
    let origins = origins.filter_map(|(index, origin)| {
        let field = format!("{field}.allowOrigins[{index}]");
        self::origin(rule, &field, origin, report)
    });
    Some(Arc::new(CorsPolicy {
        allow_origins: deprecated.chain(origins.collect::<Vec<_>>()).collect(),
        allow_methods: list(&written.allow_methods),
        allow_headers: list(&written.allow_headers),
        expose_headers: list(&written.expose_headers),
        max_age: max_age(written),
        allow_credentials: written.allow_credentials.unwrap_or(false),
        forward_unmatched_preflights: written.unmatched_preflights != UnmatchedPreflights::Ignore,
    }))
}

fn origin(rule: &Rule<'_, '_>, field: &str, written: &Written, report: &mut Report) -> Option<StringMatch> {
    if let Some(value) = &written.exact {
        Some(StringMatch::Exact(value.clone()))
    } else if let Some(value) = &written.prefix {
        Some(StringMatch::Prefix(value.clone()))
    } else {
        let pattern = Pattern::new(written.regex.as_deref()?);
        pattern
            .map_err(|error| {
                report.error(
                    rule.object,
                    format!("{field}.regex"),
                    error.to_string(),
                    "see RE2's syntax",
                )
            })
            .ok()
            .map(StringMatch::Regex)
    }
}

/// The values of a list with commas between them; values that no header can have are left out.
fn list(values: &[String]) -> Option<HeaderValue> {
    let text = values.join(",");
    HeaderValue::from_str(&text).ok().filter(|_| !values.is_empty())
}

/// Whole seconds, as the header has it.
fn max_age(written: &WrittenCors) -> Option<HeaderValue> {
    written.max_age.map(|age| HeaderValue::from(age.0.as_secs()))
}
