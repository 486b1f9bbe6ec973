//! What a route makes of a request: the destination, the rewritten path and authority, the redirect's location.

use edge_model::{
    Forward, PathMatch, Redirect, RedirectPath, RedirectPort, RewritePath, Route, RouteMatch,
    WeightedDestination,
};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::RequestView;
use crate::request::split_query;

/// Header in which the upstream finds the path before a rewrite.
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
/// Header in which the upstream finds the authority before a rewrite.
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");

/// Picks a destination in proportion to the weights; `draw` is any random number.
///
/// A single destination is taken whatever its weight. A destination whose cluster is missing keeps its share: its
/// requests are answered with 503 and not given to the others. `None` only for a list without any weight, which
/// no compiled route has.
#[must_use]
pub fn choose_destination(forward: &Forward, draw: u64) -> Option<&WeightedDestination> {
    if let [only] = forward.destinations.as_slice() {
        return Some(only);
    }
    let total: u64 = forward.destinations.iter().map(|d| u64::from(d.weight)).sum();
    let mut rest = draw.checked_rem(total)?;
    forward.destinations.iter().find(|destination| {
        let weight = u64::from(destination.weight);
        let taken = rest < weight;
        rest = rest.saturating_sub(weight);
        taken
    })
}

/// What replaces the request's path and authority; `None` leaves them as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// New path, with the request's query.
    pub path_and_query: Option<String>,
    /// New Host or `:authority`.
    pub authority: Option<HeaderValue>,
}

/// Rewrites path and authority for the chosen destination.
///
/// `rewrite.authority`, and a `set` of Host on the route, beat a `set` of Host on the destination.
#[must_use]
pub fn rewrite(
    route: &Route,
    forward: &Forward,
    destination: &WeightedDestination,
    path_and_query: &str,
) -> Rewritten {
    let rewrite = forward.rewrite.path.as_ref();
    Rewritten {
        path_and_query: rewrite.map(|rewrite| rewrite_path(rewrite, &route.matcher, path_and_query)),
        authority: forward
            .rewrite
            .authority
            .as_ref()
            .or_else(|| host_set_by(destination))
            .cloned(),
    }
}

impl Rewritten {
    /// Writes Host, and tells the upstream what the client had asked for (Envoy's `x-envoy-original-path` and
    /// `x-envoy-original-host`). The arguments are the request's own authority and path.
    pub fn write_headers(&self, headers: &mut HeaderMap, authority: &str, path_and_query: &str) {
        if self.path_and_query.is_some()
            && let Ok(original) = HeaderValue::from_str(path_and_query)
        {
            headers.insert(ORIGINAL_PATH, original);
        }
        if let Some(new) = &self.authority {
            if let Ok(original) = HeaderValue::from_str(authority) {
                headers.insert(ORIGINAL_HOST, original);
            }
            headers.insert(HOST, new.clone());
        }
    }
}

fn host_set_by(destination: &WeightedDestination) -> Option<&HeaderValue> {
    let set = &destination.headers.request.set;
    set.iter()
        .rfind(|(name, _)| *name == HOST)
        .and_then(|(_, value)| value.plain())
}

fn rewrite_path(rewrite: &RewritePath, matcher: &RouteMatch, path_and_query: &str) -> String {
    let (path, query) = split_query(path_and_query);
    let new = match rewrite {
        RewritePath::Uri(uri) => format!("{uri}{}", behind_match(matcher, path)),
        RewritePath::Regex {
            pattern,
            substitution,
        } => pattern.replace_all(path, substitution).into_owned(),
    };
    // A request target begins with a slash (RFC 9112 section 3.2.1), whatever the rewrite says.
    let slash = if new.starts_with('/') { "" } else { "/" };
    match query {
        Some(query) => format!("{slash}{new}?{query}"),
        None => format!("{slash}{new}"),
    }
}

/// The part of the path behind the matched prefix; nothing when the match was exact or by regular expression.
fn behind_match<'p>(matcher: &RouteMatch, path: &'p str) -> &'p str {
    let matched = match &matcher.path {
        PathMatch::Prefix { value, .. } => value.len(),
        // Without a condition Istio matches the prefix `/`.
        PathMatch::Any => 1,
        PathMatch::Exact { .. } | PathMatch::Regex(_) => path.len(),
    };
    path.get(matched..).unwrap_or("")
}

/// The location that a redirect names.
///
/// The request's own port stays unless the redirect has an authority or a port, or changes the scheme away from the one
/// whose default port it was (Envoy `newUri`).
#[must_use]
pub fn redirect_location(redirect: &Redirect, matcher: &RouteMatch, request: &RequestView<'_>) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(request.scheme);
    let (own_host, own_port) = split_port(request.authority);
    let keeps_own_port = redirect.authority.is_none()
        && own_port.is_some_and(|port| scheme == request.scheme || !is_default(port, request.scheme));
    let host = redirect.authority.as_deref().unwrap_or(own_host);
    let port = match redirect.port {
        RedirectPort::Unchanged if keeps_own_port => own_port.map(str::to_owned),
        RedirectPort::Unchanged | RedirectPort::ProtocolDefault => None,
        RedirectPort::Number(port) => Some(port.to_string()),
    };
    let given_default = redirect.port != RedirectPort::Unchanged;
    let path = redirect_path(&redirect.path, matcher, request);
    match port.filter(|port| !(given_default && is_default(port, scheme))) {
        Some(port) => format!("{scheme}://{host}:{port}{path}"),
        None => format!("{scheme}://{host}{path}"),
    }
}

/// The location that `httpsRedirect` names: the same authority and path by `https`.
#[must_use]
pub fn tls_redirect_location(request: &RequestView<'_>) -> String {
    format!("https://{}{}", request.authority, request.path_and_query)
}

fn redirect_path(path: &RedirectPath, matcher: &RouteMatch, request: &RequestView<'_>) -> String {
    let (own_path, query) = split_query(request.path_and_query);
    let new = match path {
        RedirectPath::Unchanged => own_path.to_owned(),
        RedirectPath::Whole(uri) => uri.clone(),
        RedirectPath::Prefix(prefix) => format!("{prefix}{}", behind_match(matcher, own_path)),
    };
    match query {
        Some(query) if !new.contains('?') => format!("{new}?{query}"),
        Some(_) | None => new,
    }
}

/// Host (with the brackets of an IPv6 address) and port of an authority.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    }
}

fn is_default(port: &str, scheme: &str) -> bool {
    matches!((scheme, port), ("http", "80") | ("https", "443"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{forward_to, prefix, route};
    use edge_model::{Pattern, RouteAction};
    use http::StatusCode;

    #[track_caller]
    fn check_rewrite(matcher: RouteMatch, uri: &str, rows: &[(&str, &str)]) {
        for (path, expected) in rows {
            let rewritten = rewrite_path(&RewritePath::Uri(uri.into()), &matcher, path);
            assert_eq!(rewritten, *expected, "{matcher:?} {path} to {uri}");
        }
    }

    fn path(path: PathMatch) -> RouteMatch {
        RouteMatch {
            path,
            ..RouteMatch::any()
        }
    }

    #[test]
    fn a_rewrite_replaces_the_matched_prefix_only() {
        check_rewrite(
            prefix("/rp/foo"),
            "/bar",
            &[("/rp/foobar", "/barbar"), ("/rp/foo?x=1", "/bar?x=1")],
        );
        check_rewrite(
            prefix("/rs/foo"),
            "/",
            &[("/rs/foo/baz", "//baz"), ("/rs/foobar", "/bar")],
        );
        check_rewrite(prefix("/rt/foo/"), "/", &[("/rt/foo/baz", "/baz")]);
        check_rewrite(RouteMatch::any(), "/v1/", &[("/a", "/v1/a")]);
        check_rewrite(prefix("/a"), "b", &[("/a/c", "/b/c")]);
    }

    #[test]
    fn a_rewrite_replaces_the_whole_path_of_an_exact_or_regex_match() {
        let exact = path(PathMatch::Exact {
            value: "/a/b".into(),
            ignore_case: false,
        });
        check_rewrite(exact, "/c", &[("/a/b?q", "/c?q")]);
        check_rewrite(
            path(PathMatch::Regex(Pattern::new("/a.*").unwrap())),
            "/c",
            &[("/abc", "/c")],
        );
    }

    #[test]
    fn a_regex_rewrite_replaces_every_match_and_keeps_the_query() {
        let rewrite = RewritePath::Regex {
            pattern: Pattern::new("/v([0-9])").unwrap(),
            substitution: r"/\1".into(),
        };
        assert_eq!(
            rewrite_path(&rewrite, &RouteMatch::any(), "/v1/x/v2?y=/v3"),
            "/1/x/2?y=/v3"
        );
    }

    #[test]
    fn the_routes_authority_beats_the_destinations() {
        let mut action = forward_to(&[("x", 1)]);
        let host = |text| HeaderValue::from_static(text);
        let RouteAction::Forward(forward) = &mut action else {
            unreachable!("forward_to makes a Forward");
        };
        forward.destinations[0].headers.request.set = vec![(HOST, host("d.com").into())];
        let mut forward = forward.clone();
        let taken = route("r", RouteMatch::any(), action);
        let authority = |forward: &Forward| rewrite(&taken, forward, &forward.destinations[0], "/").authority;
        assert_eq!(authority(&forward), Some(host("d.com")));
        forward.rewrite.authority = Some(host("r.com"));
        assert_eq!(authority(&forward), Some(host("r.com")));
    }

    #[test]
    fn the_upstream_learns_what_was_asked_for() {
        let rewritten = Rewritten {
            path_and_query: Some("/b".into()),
            authority: Some(HeaderValue::from_static("b.com")),
        };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a.com"));
        rewritten.write_headers(&mut headers, "a.com", "/a?x");
        assert_eq!(headers[HOST], "b.com");
        assert_eq!(headers[ORIGINAL_HOST], "a.com");
        assert_eq!(headers[ORIGINAL_PATH], "/a?x");
    }

    #[test]
    fn destinations_are_drawn_in_proportion_to_their_weights() {
        let RouteAction::Forward(forward) = forward_to(&[("a", 90), ("none", 0), ("b", 10)]) else {
            unreachable!("forward_to makes a Forward");
        };
        let picked = |draw| choose_destination(&forward, draw).unwrap().cluster.to_string();
        let b = (0..1000).filter(|draw| picked(*draw) == "outbound|80||b").count();
        let a = (0..1000).filter(|draw| picked(*draw) == "outbound|80||a").count();
        assert_eq!((a, b), (900, 100));
    }

    #[track_caller]
    fn check_location(redirect: &Redirect, authority: &str, target: &str, expected: &str) {
        let headers = HeaderMap::new();
        let request = RequestView {
            authority,
            path_and_query: target,
            method: "GET",
            scheme: "http",
            headers: &headers,
            claims: None,
        };
        let location = redirect_location(redirect, &prefix("/old"), &request);
        assert_eq!(location, expected, "{redirect:?} of {authority}{target}");
    }

    fn unchanged() -> Redirect {
        Redirect {
            code: StatusCode::MOVED_PERMANENTLY,
            scheme: None,
            authority: None,
            port: RedirectPort::Unchanged,
            path: RedirectPath::Unchanged,
        }
    }

    #[test]
    fn a_redirects_uri_replaces_the_whole_path_and_keeps_the_query_unless_it_has_one() {
        let whole = |uri: &str| Redirect {
            path: RedirectPath::Whole(uri.into()),
            ..unchanged()
        };
        check_location(&whole("/new"), "a.com", "/old/x?q=1", "http://a.com/new?q=1");
        check_location(&whole("/new?z"), "a.com", "/old/x?q=1", "http://a.com/new?z");
        let prefix = Redirect {
            path: RedirectPath::Prefix("/new".into()),
            ..unchanged()
        };
        check_location(&prefix, "a.com", "/old/x?q=1", "http://a.com/new/x?q=1");
    }

    #[test]
    fn a_redirects_authority_drops_the_requests_port() {
        let authority = Redirect {
            authority: Some("b.com".into()),
            ..unchanged()
        };
        check_location(&authority, "a.com:8080", "/", "http://b.com/");
        check_location(&unchanged(), "a.com:8080", "/", "http://a.com:8080/");
        check_location(&unchanged(), "[::1]:8080", "/", "http://[::1]:8080/");
        check_location(&unchanged(), "[::1]", "/", "http://[::1]/");
    }

    #[test]
    fn a_new_scheme_drops_the_default_port_of_the_old_one() {
        let https = Redirect {
            scheme: Some("https".into()),
            ..unchanged()
        };
        check_location(&https, "a.com:80", "/", "https://a.com/");
        check_location(&https, "a.com:8080", "/", "https://a.com:8080/");
    }

    #[test]
    fn the_default_port_of_the_scheme_is_not_written() {
        let port = |port| Redirect { port, ..unchanged() };
        check_location(&port(RedirectPort::Number(80)), "a.com:1", "/", "http://a.com/");
        check_location(
            &port(RedirectPort::Number(8443)),
            "a.com:1",
            "/",
            "http://a.com:8443/",
        );
        check_location(
            &port(RedirectPort::ProtocolDefault),
            "a.com:1",
            "/",
            "http://a.com/",
        );
    }
}
