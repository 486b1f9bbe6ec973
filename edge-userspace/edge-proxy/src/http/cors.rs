//! Cross-origin resource sharing (Envoy's CORS filter, WHATWG Fetch).

use edge_model::CorsPolicy;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::{Flags, Reply};

/// What is written on the response to a request of an allowed origin.
#[derive(Debug)]
pub(super) struct Allowed<'p> {
    policy: &'p CorsPolicy,
    origin: HeaderValue,
}

/// Judges a request by the rule's policy. A preflight is answered here when its origin is allowed, and else goes to the
/// backend unless the policy says otherwise.
pub(super) fn check<'p>(policy: &'p CorsPolicy, head: &Parts) -> Result<Option<Allowed<'p>>, Reply> {
    let Some(origin) = head.headers.get(ORIGIN).filter(|origin| !origin.is_empty()) else {
        return Ok(None);
    };
    let is_preflight = head.method == Method::OPTIONS
        && head
            .headers
            .get(ACCESS_CONTROL_REQUEST_METHOD)
            .is_some_and(|method| !method.is_empty());
    let is_allowed = origin.to_str().is_ok_and(|origin| policy.allows(origin));
    match (is_allowed, is_preflight) {
        (true, true) => Err(preflight(policy, origin)),
        (true, false) => Ok(Some(Allowed {
            policy,
            origin: origin.clone(),
        })),
        (false, true) if !policy.forward_unmatched_preflights => {
            Err(Reply::new(StatusCode::OK, Flags::NONE).details("cors_response"))
        }
        (false, _) => Ok(None),
    }
}

fn preflight(policy: &CorsPolicy, origin: &HeaderValue) -> Reply {
    let mut reply = Reply::new(StatusCode::OK, Flags::NONE).details("cors_response");
    let headers = reply.headers();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    let given = [
        (ACCESS_CONTROL_ALLOW_METHODS, &policy.allow_methods),
        (ACCESS_CONTROL_ALLOW_HEADERS, &policy.allow_headers),
        (ACCESS_CONTROL_MAX_AGE, &policy.max_age),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    allow_credentials(policy, headers);
    reply
}

fn allow_credentials(policy: &CorsPolicy, headers: &mut HeaderMap) {
    if policy.allow_credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

impl Allowed<'_> {
    pub(super) fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        allow_credentials(self.policy, headers);
        if let Some(exposed) = &self.policy.expose_headers {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }
}
