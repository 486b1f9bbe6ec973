//! Whether a request is tried again (Istio `HTTPRetry`, Envoy's `RetryStateImpl`).

use std::time::Duration;

use edge_model::{RetryCondition, RetryPolicy};
use fastrand::Rng;
use http::{HeaderMap, Method, StatusCode};

const GRPC_STATUS: &str = "grpc-status";
const RATE_LIMITED: &str = "x-envoy-ratelimited";

/// How often a back-off's bound may have doubled in all: Envoy's `max_interval` is ten times the base.
const LARGEST_FACTOR: u32 = 10;

/// How a try ended, as far as it decides about another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// No connection could be made; the endpoint knows nothing of the request.
    ConnectFailure,
    /// A pooled connection was closed before any byte of the request was written.
    Unsent,
    /// A pooled connection was closed after the request was written, and no byte of a response came back: most
    /// likely the endpoint closed it just as it was used again.
    ClosedOnReuse,
    /// The endpoint refused the stream, and has not acted (RFC 9113 section 8.7).
    RefusedStream,
    /// A connection that was opened for this request was lost before a response.
    Reset,
    /// `perTryTimeout` ran out.
    PerTryTimeout,
    /// A response began.
    Response(Answer),
    /// Anything that no further try could change.
    ForGood,
}

/// What of a response's head decides about another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// `grpc-status` of a response that has it in its head (gRPC's Trailers-Only).
    pub grpc_status: Option<u8>,
    /// `x-envoy-ratelimited` is there: the upstream does not want it again.
    pub rate_limited: bool,
}

impl Answer {
    /// Of a response's head.
    #[must_use]
    pub fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        // One walk over the few names: a look-up hashes a name that most responses do not have.
        let (mut grpc, mut rate_limited) = (None, false);
        for (name, value) in headers {
            match name.as_str() {
                GRPC_STATUS => grpc = grpc.or(Some(value)),
                RATE_LIMITED => rate_limited = true,
                _ => {}
            }
        }
        let grpc = grpc.and_then(|value| value.to_str().ok());
        Self {
            status,
            grpc_status: grpc.and_then(|text| text.parse().ok()),
            rate_limited,
        }
    }
}

/// What a request allows to be done with it once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// The method may be repeated without further effect (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// The body can be sent from its beginning: there is none, or all that was taken of it is still there.
    pub body_whole: bool,
}

/// Whether `method` is idempotent (RFC 9110 section 9.2.2).
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
    ]
    .contains(method)
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after the pause, at an endpoint that the balancer picks.
    Again {
        /// Pause before the try.
        after: Duration,
    },
    /// Try the same endpoint at once, over a connection that is opened for it.
    FreshConnection,
    /// Answer with what there is.
    GiveUp {
        /// The policy would have had another try, but all were used (flag URX).
        exhausted: bool,
    },
}

/// Tries of one request.
#[derive(Debug, Clone, Copy)]
pub struct Retries<'p> {
    policy: &'p RetryPolicy,
    done: u32,
}

impl<'p> Retries<'p> {
    /// None yet.
    #[must_use]
    pub fn new(policy: &'p RetryPolicy) -> Self {
        Self { policy, done: 0 }
    }

    /// Decides after a try.
    ///
    /// A fresh connection does not count as a retry: the endpoint was never asked, or has forgotten. It cannot go on
    /// for ever, since a connection that was opened for the request fails in other ways only.
    pub fn ended(&mut self, ended: Ended, replay: Replay, rng: &mut Rng) -> Verdict {
        if replay.body_whole && (ended == Ended::Unsent || ended == Ended::ClosedOnReuse && replay.idempotent)
        {
            return Verdict::FreshConnection;
        }
        if !self.is_retriable(ended) {
            return Verdict::GiveUp { exhausted: false };
        }
        if self.done >= self.policy.attempts {
            return Verdict::GiveUp {
                exhausted: self.policy.attempts > 0,
            };
        }
        if !replay.body_whole {
            return Verdict::GiveUp { exhausted: false };
        }
        let after = self.back_off(rng);
        self.done += 1;
        Verdict::Again { after }
    }

    /// Retries done so far, fresh connections not counted.
    #[must_use]
    pub fn done(&self) -> u32 {
        self.done
    }

    /// Whether the policy asks for another try (Envoy `wouldRetryFromReset`, `wouldRetryFromHeaders`).
    fn is_retriable(&self, ended: Ended) -> bool {
        let on = |condition| self.policy.retry_on.contains(condition);
        // A failure without a response would be answered with 503 or 504.
        let any_reset =
            on(RetryCondition::ServerError) || on(RetryCondition::GatewayError) || on(RetryCondition::Reset);
        match ended {
            Ended::ConnectFailure => {
                any_reset || on(RetryCondition::ConnectFailure) || on(RetryCondition::ResetBeforeRequest)
            }
            Ended::Unsent => any_reset || on(RetryCondition::ResetBeforeRequest),
            Ended::RefusedStream => any_reset || on(RetryCondition::RefusedStream),
            Ended::ClosedOnReuse | Ended::Reset | Ended::PerTryTimeout => any_reset,
            Ended::Response(answer) => self.is_retriable_answer(answer),
            Ended::ForGood => false,
        }
    }

    fn is_retriable_answer(&self, answer: Answer) -> bool {
        let on = |condition| self.policy.retry_on.contains(condition);
        if answer.rate_limited {
            return on(RetryCondition::RateLimited);
        }
        let status = answer.status;
        let by_status = match status.as_u16() {
            502..=504 => on(RetryCondition::GatewayError) || on(RetryCondition::ServerError),
            500.. => on(RetryCondition::ServerError),
            409 => on(RetryCondition::Retriable4xx),
            _ => false,
        };
        let by_code =
            on(RetryCondition::RetriableStatusCodes) && self.policy.retriable_status_codes.contains(&status);
        let by_grpc = answer.grpc_status.is_some_and(|code| match code {
            1 => on(RetryCondition::Cancelled),
            4 => on(RetryCondition::DeadlineExceeded),
            8 => on(RetryCondition::ResourceExhausted),
            13 => on(RetryCondition::Internal),
            14 => on(RetryCondition::Unavailable),
            _ => false,
        });
        by_status || by_code || by_grpc
    }

    /// Exponential with full jitter, as Envoy's `JitteredExponentialBackOffStrategy`.
    fn back_off(&self, rng: &mut Rng) -> Duration {
        let factor = 2u32.saturating_pow(self.done).min(LARGEST_FACTOR);
        let bound = self.policy.base_interval.saturating_mul(factor);
        let bound = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(rng.u64(..bound.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::RetryOn;

    const GET: Replay = Replay {
        idempotent: true,
        body_whole: true,
    };
    const POST: Replay = Replay {
        idempotent: false,
        body_whole: true,
    };
    const TAKEN: Replay = Replay {
        idempotent: true,
        body_whole: false,
    };

    fn answer(status: u16, grpc_status: Option<u8>, rate_limited: bool) -> Ended {
        Ended::Response(Answer {
            status: StatusCode::from_u16(status).unwrap(),
            grpc_status,
            rate_limited,
        })
    }

    fn on(names: &[&str]) -> RetryPolicy {
        let condition = |name: &&str| RetryCondition::from_name(name).unwrap();
        RetryPolicy {
            attempts: 2,
            retry_on: names.iter().map(condition).fold(RetryOn::NEVER, RetryOn::with),
            ..RetryPolicy::default()
        }
    }

    fn verdict(policy: &RetryPolicy, ended: Ended, replay: Replay) -> Verdict {
        Retries::new(policy).ended(ended, replay, &mut Rng::with_seed(1))
    }

    #[test]
    fn by_default_a_request_is_repeated_only_where_it_cannot_act_twice() {
        let default = RetryPolicy::default();
        for (ended, replay, repeated) in [
            (Ended::ConnectFailure, GET, true),
            (Ended::ConnectFailure, POST, true),
            (Ended::ConnectFailure, TAKEN, false),
            (Ended::Unsent, GET, true),
            (Ended::Unsent, POST, true),
            (Ended::Unsent, TAKEN, false),
            (Ended::ClosedOnReuse, GET, true),
            (Ended::ClosedOnReuse, POST, false),
            (Ended::ClosedOnReuse, TAKEN, false),
            (Ended::RefusedStream, POST, true),
            (Ended::Reset, GET, false),
            (Ended::PerTryTimeout, GET, false),
            (answer(503, None, false), GET, false),
            (answer(200, Some(14), false), POST, true),
            (answer(200, Some(1), false), GET, true),
            (answer(200, Some(2), false), GET, false),
            (Ended::ForGood, GET, false),
        ] {
            let gave_up = matches!(verdict(&default, ended, replay), Verdict::GiveUp { .. });
            assert_eq!(gave_up, !repeated, "{ended:?} {replay:?}");
        }
    }

    #[test]
    fn each_condition_holds_for_what_envoy_says() {
        let rows: [(&str, &[Ended], &[Ended]); 13] = [
            (
                "5xx",
                &[
                    answer(500, None, false),
                    answer(599, None, false),
                    Ended::Reset,
                    Ended::PerTryTimeout,
                ],
                &[answer(499, None, false), answer(503, None, true)],
            ),
            (
                "gateway-error",
                &[answer(502, None, false), answer(504, None, false), Ended::Reset],
                &[answer(500, None, false), answer(505, None, false)],
            ),
            (
                "reset",
                &[Ended::Reset, Ended::ConnectFailure],
                &[answer(503, None, false)],
            ),
            ("reset-before-request", &[Ended::ConnectFailure], &[Ended::Reset]),
            (
                "connect-failure",
                &[Ended::ConnectFailure],
                &[Ended::Reset, Ended::RefusedStream],
            ),
            ("refused-stream", &[Ended::RefusedStream], &[Ended::Reset]),
            (
                "envoy-ratelimited",
                &[answer(429, None, true), answer(503, None, true)],
                &[answer(429, None, false)],
            ),
            (
                "retriable-4xx",
                &[answer(409, None, false)],
                &[answer(404, None, false)],
            ),
            (
                "cancelled",
                &[answer(200, Some(1), false)],
                &[answer(200, Some(14), false)],
            ),
            (
                "deadline-exceeded",
                &[answer(200, Some(4), false)],
                &[answer(200, None, false)],
            ),
            (
                "resource-exhausted",
                &[answer(200, Some(8), false)],
                &[answer(200, Some(0), false)],
            ),
            (
                "internal",
                &[answer(200, Some(13), false)],
                &[answer(500, None, false)],
            ),
            (
                "unavailable",
                &[answer(200, Some(14), false)],
                &[answer(503, None, false)],
            ),
        ];
        for (name, retried, not) in rows {
            let policy = on(&[name]);
            let again = |ended: &Ended| matches!(verdict(&policy, *ended, GET), Verdict::Again { .. });
            assert!(retried.iter().all(again), "{name}: {retried:?}");
            assert!(!not.iter().any(again), "{name}: {not:?}");
        }
    }

    #[test]
    fn listed_statuses_are_retried_with_their_condition_only() {
        let mut policy = on(&["retriable-status-codes"]);
        policy.retriable_status_codes = vec![StatusCode::NOT_FOUND];
        let ended = answer(404, None, false);
        assert!(matches!(verdict(&policy, ended, GET), Verdict::Again { .. }));
        policy.retry_on = RetryOn::NEVER;
        assert_eq!(verdict(&policy, ended, GET), Verdict::GiveUp { exhausted: false });
    }

    #[test]
    fn tries_end_after_the_policys_attempts_and_are_then_exhausted() {
        let policy = RetryPolicy {
            attempts: 6,
            ..on(&["5xx"])
        };
        let mut rng = Rng::with_seed(4);
        let mut retries = Retries::new(&policy);
        for bound in [25, 50, 100, 200, 250, 250] {
            let verdict = retries.ended(Ended::Reset, GET, &mut rng);
            let Verdict::Again { after } = verdict else {
                panic!("{verdict:?}");
            };
            assert!(after < Duration::from_millis(bound), "{after:?} of {bound}");
        }
        let last = retries.ended(Ended::Reset, GET, &mut rng);
        assert_eq!((last, retries.done()), (Verdict::GiveUp { exhausted: true }, 6));
        let none = RetryPolicy {
            attempts: 0,
            ..policy
        };
        assert_eq!(
            verdict(&none, Ended::Reset, GET),
            Verdict::GiveUp { exhausted: false }
        );
    }

    #[test]
    fn a_fresh_connection_is_not_counted_as_a_retry() {
        let none = RetryPolicy {
            attempts: 0,
            ..RetryPolicy::default()
        };
        assert_eq!(verdict(&none, Ended::Unsent, GET), Verdict::FreshConnection);
        assert_eq!(
            verdict(&none, Ended::ClosedOnReuse, GET),
            Verdict::FreshConnection
        );
    }

    #[test]
    fn an_answer_is_read_from_its_head() {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_STATUS, "14".parse().unwrap());
        let grpc = Answer::new(StatusCode::OK, &headers);
        assert_eq!((grpc.grpc_status, grpc.rate_limited), (Some(14), false));
        headers.insert(GRPC_STATUS, "x".parse().unwrap());
        headers.insert(RATE_LIMITED, "true".parse().unwrap());
        let odd = Answer::new(StatusCode::OK, &headers);
        assert_eq!((odd.grpc_status, odd.rate_limited), (None, true));
    }

    #[test]
    fn idempotent_methods_are_those_of_rfc_9110() {
        for (method, expected) in [
            ("GET", true),
            ("PUT", true),
            ("DELETE", true),
            ("POST", false),
            ("PATCH", false),
        ] {
            assert_eq!(is_idempotent(&method.parse().unwrap()), expected, "{method}");
        }
    }
}
