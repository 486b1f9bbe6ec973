//! The local rate limit of a request, and what repeated refusals lead to.

use std::net::IpAddr;
use std::time::Instant;

use edge_model::{LocalRateLimit, PenaltyReason};
use edge_upstream::rate_limit::{self, LocalRateLimiter, Quota, descriptors};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Decision, Exchange, Flag, Reply, Table};
use crate::worker::Limit;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What the client is told about its limit.
#[derive(Debug, Default)]
pub(super) struct Limited(Option<Quota>);

impl Limited {
    fn new(limit: &LocalRateLimit, quota: Quota) -> Self {
        Self(limit.x_ratelimit_headers.then_some(quota))
    }

    pub(super) fn write_headers(&self, headers: &mut HeaderMap) {
        let Some(quota) = self.0 else { return };
        // Whole seconds, rounded up: after that time there is a token.
        let reset = quota.reset.as_secs() + u64::from(quota.reset.subsec_nanos() > 0);
        headers.insert(LIMIT, HeaderValue::from(quota.limit));
        headers.insert(REMAINING, HeaderValue::from(quota.remaining));
        headers.insert(RESET, HeaderValue::from(reset));
    }
}

impl Exchange<'_> {
    /// Counts the request against the limit of its route, or of the table when no route matched.
    pub(super) fn limit(
        &self,
        table: &Table,
        decision: &Decision<'_>,
        now: Instant,
    ) -> Result<Limited, Reply> {
        let (limit, wanted) = match decision {
            Decision::Route { route, .. } => (&route.rate_limit, &*route.rate_limit_descriptors),
            Decision::NoVirtualHost | Decision::NoRoute { .. } | Decision::RequireTls { .. } => {
                (&table.routes().rate_limit, &[][..])
            }
        };
        let metrics = self.conn.worker().metrics();
        let found = limit.as_ref().and_then(|limit| self.view.limiter(limit, metrics));
        let Some(Limit {
            limiter,
            refused,
            let_through,
        }) = found
        else {
            return Ok(Limited::default());
        };
        let client = self.trusted_address().unwrap_or(self.conn.peer().address);
        let source = self.conn.peer().address;
        let asked = descriptors(wanted, client, &self.head.headers);
        let verdict = limiter.check(&asked, now, &mut self.conn.worker().rng());
        match verdict {
            rate_limit::Decision::NotCounted => Ok(Limited::default()),
            rate_limit::Decision::Allowed(quota) => Ok(Limited::new(limiter.limit(), quota)),
            rate_limit::Decision::OverLimit { quota, enforced } => {
                if enforced {
                    refused.inc()
                } else {
                    let_through.inc()
                }
                match enforced {
                    true => Err(self.refuse(&limiter, quota, source, now)),
                    false => Ok(Limited::new(limiter.limit(), quota)),
                }
            }
        }
    }

    /// The refusal, which may be the one that brings a penalty. Behind trusted proxies there are none: tier 1 sees the
    /// proxies' addresses alone.
    fn refuse(&self, limiter: &LocalRateLimiter, quota: Quota, source: IpAddr, now: Instant) -> Reply {
        if self.conn.worker().trusted_proxies() == 0
            && let Some(escalation) = &self.view.config().escalation
            && let Some(penalty) = escalation.refused(source, PenaltyReason::RateLimit, now)
        {
            self.conn.worker().penalise(penalty);
        }
        let limit = limiter.limit();
        let mut reply = Reply::new(limit.status, Flag::RateLimited)
            .with_body(bytes::Bytes::from_static(b"local_rate_limited"))
            .details("local_rate_limited");
        for (name, value) in &limit.response_headers {
            reply.headers().append(name, value.clone());
        }
        Limited::new(limit, quota).write_headers(reply.headers());
        reply
    }
}
