//! Routes and what is done with a request that takes one (Istio `HTTPRoute`).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use std::sync::Arc;

use crate::{
    ClusterName, CorsPolicy, Fault, HeaderTemplate, LocalRateLimit, Mirror, ObjectRef, Pattern,
    RateLimitDescriptor, RetryPolicy, RouteMatch,
};

/// One entry of a virtual host's ordered list; the first whose match holds is taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// `HTTPRoute.name`, with `.` and the match block's name appended when it has one; may be empty.
    pub name: String,
    /// VirtualService that the route comes from.
    pub object: Arc<ObjectRef>,
    /// Index into the VirtualService's `http`; for a delegate's rule, into the delegate's.
    pub rule: usize,
    /// Index into the rule's `match`; `None` for a rule without match blocks.
    pub match_index: Option<usize>,
    /// When the route is taken.
    pub matcher: RouteMatch,
    /// What is done.
    pub action: RouteAction,
    /// Header operations of the rule (for a forwarded request, see also [`WeightedDestination::headers`]).
    pub headers: HeaderOps,
    /// Faults that are injected before anything else is done.
    pub fault: Option<Arc<Fault>>,
    /// Cross-origin resource sharing, in force whatever the action is.
    pub cors: Option<Arc<CorsPolicy>>,
    /// `match.statPrefix`: name under which requests of this route are counted; may be empty.
    pub stat_prefix: String,
    /// Local rate limit in force on this route: the most specific of route, virtual host and listener.
    pub rate_limit: Option<Arc<LocalRateLimit>>,
    /// Descriptors that the route asks the rate limit about.
    pub rate_limit_descriptors: Arc<[RateLimitDescriptor]>,
}

impl Route {
    /// A route of rule 0 without name, header operations and policies.
    #[must_use]
    pub fn new(object: Arc<ObjectRef>, matcher: RouteMatch, action: RouteAction) -> Self {
        Self {
            name: String::new(),
            object,
            rule: 0,
            match_index: None,
            matcher,
            action,
            headers: HeaderOps::default(),
            fault: None,
            cors: None,
            stat_prefix: String::new(),
            rate_limit: None,
            rate_limit_descriptors: Arc::new([]),
        }
    }
}

/// What is done with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteAction {
    /// It goes to an endpoint of a cluster.
    Forward(Forward),
    /// It is answered with a redirect.
    Redirect(Redirect),
    /// It is answered with a fixed response.
    DirectResponse(DirectResponse),
}

/// Forwarding to one of several clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Where to; at least one, and the weights do not sum to 0.
    pub destinations: Vec<WeightedDestination>,
    /// What of the request's path and authority is replaced.
    pub rewrite: Rewrite,
    /// Time for the whole exchange up to the end of the response, all tries included; `None` has no limit.
    pub timeout: Option<Duration>,
    /// When a request is tried again.
    pub retries: Arc<RetryPolicy>,
    /// Copies of the traffic.
    pub mirrors: Vec<Mirror>,
}

impl Forward {
    /// Forwarding with Istio's default retries, and nothing else.
    #[must_use]
    pub fn to(destinations: Vec<WeightedDestination>) -> Self {
        Self {
            destinations,
            rewrite: Rewrite::default(),
            timeout: None,
            retries: Arc::new(RetryPolicy::default()),
            mirrors: vec![],
        }
    }
}

/// A cluster with its share of the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedDestination {
    /// Cluster; it may be missing from the Snapshot, and then its share is answered with 503 (flag NC).
    pub cluster: ClusterName,
    /// Share relative to the sum of all weights.
    pub weight: u32,
    /// Header operations of this destination.
    pub headers: HeaderOps,
}

/// Replacement of path and authority before forwarding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// What becomes of the path; the query is kept.
    pub path: Option<RewritePath>,
    /// Replacement for Host and `:authority`.
    pub authority: Option<HeaderValue>,
}

/// How the path is rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RewritePath {
    /// `rewrite.uri`: replaces the matched prefix, or the whole path when the match was exact or by regex.
    Uri(String),
    /// `rewrite.uriRegexRewrite`: every match in the path is replaced.
    Regex {
        /// What is replaced; here the expression need not match the whole path.
        pattern: Pattern,
        /// Replacement with `\0` to `\9` for the groups.
        substitution: String,
    },
}

/// Answer with a Location header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub code: StatusCode,
    /// New scheme; `None` keeps the request's.
    pub scheme: Option<String>,
    /// New host; `None` keeps the request's.
    pub authority: Option<String>,
    /// Port of the new location.
    pub port: RedirectPort,
    /// Path of the new location.
    pub path: RedirectPath,
}

/// Port of a redirect's location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectPort {
    /// As the request had it; dropped when the authority is replaced, or when the scheme changes and it was the default
    /// port of the old one (Envoy).
    Unchanged,
    /// The given one, or with `FROM_REQUEST_PORT` the one that the Gateway declares; left out when it is the scheme's
    /// default.
    Number(u16),
    /// `FROM_PROTOCOL_DEFAULT`: none is written.
    ProtocolDefault,
}

/// Path of a redirect's location; the request's query is kept unless the new path brings its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPath {
    /// As in the request.
    Unchanged,
    /// `uri`: the whole path is replaced.
    Whole(String),
    /// `prefixRewrite`: the matched prefix is replaced.
    Prefix(String),
}

/// A response that the edge gives by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// Status, 200 to 599.
    pub status: StatusCode,
    /// Body, at most a mebibyte.
    pub body: Bytes,
}

/// Header operations on the way up (request) and down (response).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderOps {
    /// On the request before it is forwarded.
    pub request: HeaderEdit,
    /// On the response before it goes to the client.
    pub response: HeaderEdit,
}

/// Removes run before sets, sets before adds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdit {
    /// Names that are removed.
    pub remove: Vec<HeaderName>,
    /// Headers that replace all lines of their name.
    pub set: Vec<(HeaderName, HeaderTemplate)>,
    /// Header lines that are appended.
    pub add: Vec<(HeaderName, HeaderTemplate)>,
}

impl HeaderEdit {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}
