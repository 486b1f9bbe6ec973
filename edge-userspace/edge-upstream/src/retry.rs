//! What becomes of a request whose try failed.
//!
//! Istio's default for a route without `retries` is two retries on `connect-failure,refused-stream,unavailable,
//! cancelled,retriable-status-codes`, on other hosts than before (istio `pilot/pkg/networking/core/route/retry`).
//! Over HTTP/1.1 to the upstream, a connect failure is the only one of these that can happen.

use std::time::Duration;

use fastrand::Rng;
use http::Method;

/// How often and how soon a failed request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Retries after the first try.
    pub retries: u32,
    /// Upper bound of the first back-off; each further one doubles it.
    pub back_off_base: Duration,
    /// Upper bound of every back-off.
    pub back_off_max: Duration,
}

impl Policy {
    /// Istio's default number of retries with Envoy's default back-off.
    pub const ISTIO_DEFAULT: Self = Self {
        retries: 2,
        back_off_base: Duration::from_millis(25),
        back_off_max: Duration::from_millis(250),
    };
}

/// How a try ended without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made; the endpoint knows nothing of the request.
    Connect,
    /// A pooled connection was closed before any byte of the request was written.
    Unsent,
    /// A pooled connection was closed after the request was written, and no byte of a response came back: most
    /// likely the endpoint closed it just as it was used again.
    ClosedOnReuse,
    /// Anything else, such as a connection that was opened for this request and then lost.
    Other,
}

/// What a request allows to be done with it once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// The method may be repeated without further effect (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// Nothing of the body was taken from the client yet, or there is none.
    pub body_untouched: bool,
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
    /// Try another endpoint after the pause.
    AnotherEndpoint {
        /// Pause before the try.
        after: Duration,
    },
    /// Try the same endpoint at once, over a connection that is opened for it.
    FreshConnection,
    /// Answer with the failure.
    GiveUp,
}

/// Tries of one request.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    policy: Policy,
    done: u32,
}

impl Retries {
    /// None yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, done: 0 }
    }

    /// Decides after a failed try.
    ///
    /// A fresh connection does not count as a retry: the endpoint was never asked, or has forgotten. It cannot go on
    /// for ever, since a connection that was opened for the request fails in other ways only.
    pub fn failed(&mut self, failure: Failure, replay: Replay, rng: &mut Rng) -> Verdict {
        match failure {
            Failure::Unsent if replay.body_untouched => Verdict::FreshConnection,
            Failure::ClosedOnReuse if replay.body_untouched && replay.idempotent => Verdict::FreshConnection,
            Failure::Connect if replay.body_untouched && self.done < self.policy.retries => {
                let after = self.back_off(rng);
                self.done += 1;
                Verdict::AnotherEndpoint { after }
            }
            Failure::Unsent | Failure::ClosedOnReuse | Failure::Connect | Failure::Other => Verdict::GiveUp,
        }
    }

    /// Retries done so far, fresh connections not counted.
    #[must_use]
    pub fn done(&self) -> u32 {
        self.done
    }

    /// Exponential with full jitter, as Envoy's `JitteredExponentialBackOffStrategy`.
    fn back_off(&self, rng: &mut Rng) -> Duration {
        let factor = 2u32.saturating_pow(self.done);
        let bound = self
            .policy
            .back_off_base
            .saturating_mul(factor)
            .min(self.policy.back_off_max);
        let bound = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(rng.u64(..bound.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Replay = Replay {
        idempotent: true,
        body_untouched: true,
    };
    const POST: Replay = Replay {
        idempotent: false,
        body_untouched: true,
    };
    const POST_UNDER_WAY: Replay = Replay {
        idempotent: false,
        body_untouched: false,
    };
    const PUT_UNDER_WAY: Replay = Replay {
        idempotent: true,
        body_untouched: false,
    };

    #[test]
    fn a_request_is_repeated_only_where_it_cannot_act_twice() {
        for (failure, replay, repeated) in [
            (Failure::Connect, GET, true),
            (Failure::Connect, POST, true),
            (Failure::Connect, POST_UNDER_WAY, false),
            (Failure::Unsent, GET, true),
            (Failure::Unsent, POST, true),
            (Failure::Unsent, PUT_UNDER_WAY, false),
            (Failure::ClosedOnReuse, GET, true),
            (Failure::ClosedOnReuse, POST, false),
            (Failure::ClosedOnReuse, PUT_UNDER_WAY, false),
            (Failure::Other, GET, false),
        ] {
            let verdict = Retries::new(Policy::ISTIO_DEFAULT).failed(failure, replay, &mut Rng::with_seed(1));
            assert_eq!(verdict != Verdict::GiveUp, repeated, "{failure:?} {replay:?}");
        }
    }

    #[test]
    fn connect_failures_end_after_the_policys_retries() {
        let (mut retries, mut rng) = (Retries::new(Policy::ISTIO_DEFAULT), Rng::with_seed(4));
        let mut fail = || retries.failed(Failure::Connect, GET, &mut rng);
        assert!(matches!(fail(), Verdict::AnotherEndpoint { after } if after < Duration::from_millis(25)));
        assert!(matches!(fail(), Verdict::AnotherEndpoint { after } if after < Duration::from_millis(50)));
        assert_eq!(fail(), Verdict::GiveUp);
    }

    #[test]
    fn a_fresh_connection_is_not_counted_as_a_retry() {
        let (mut retries, mut rng) = (Retries::new(Policy::ISTIO_DEFAULT), Rng::with_seed(4));
        assert_eq!(
            retries.failed(Failure::Unsent, GET, &mut rng),
            Verdict::FreshConnection
        );
        assert_eq!(retries.done(), 0);
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
