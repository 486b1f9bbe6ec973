//! The index over routes: it decides as the walk through the list does.

use std::sync::Arc;

use edge_model::{
    ClusterName, Forward, HeaderMatch, HeaderOps, HostPattern, Kind, ObjectRef, PathMatch, Pattern,
    QueryMatch, Route, RouteAction, RouteMatch, RouteTable, StringMatch, VirtualHost, WeightedDestination,
};
use edge_routing::{Decision, RequestView, Table, normalize_path};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::Draws;

/// Most routes of a virtual host; the index begins to work at seven.
const MOST_ROUTES: usize = 60;

/// Few pieces, so that paths have much in common.
const PIECES: &[&str] = &[
    "/", "a", "/a", "/ab", "/api", "/api/v1", "A", "b", "\u{e4}", "1", ".", "..", "%41", "%2f", "*", "//",
];

/// Expressions of each kind that the index treats in a way of its own.
const EXPRESSIONS: &[&str] = &[
    ".*",
    "/.*",
    "/a+",
    "/(a|b)/.*",
    "/api/v[0-9]+",
    "(?i)/API.*",
    "/a|/b",
    r"/\w+",
    ".*b",
    "/api/[^/]*",
    "a?",
    "(/a)+b?",
    "^/ab$",
    "",
    r".*\b1",
    "/a.*1|/b",
];

const WORDS: &[&str] = &["a", "b", "", "ab", "A", "1", "a.com:80", "GET", "POST", "\u{e4}"];
const HOSTS: &[&str] = &["a.com", "*.com", "b.a.com", "*"];

/// The bytes are choices: virtual hosts with their routes, then requests until they are used up.
///
/// # Panics
/// If a promise is broken.
pub fn target(data: &[u8]) {
    let draws = &mut Draws::new(data);
    let hosts: Vec<_> = HOSTS
        .iter()
        .filter(|_| draws.once_in(2))
        .filter_map(|host| HostPattern::parse(host).ok())
        .collect();
    let hosts: Vec<_> = hosts
        .into_iter()
        .map(|domain| Arc::new(virtual_host(domain, draws)))
        .collect();
    let (first, all) = (hosts.iter().take(1).cloned(), hosts.iter().cloned());
    let small = Table::new(Arc::new(RouteTable::new("http.80", first)));
    let full = Arc::new(RouteTable::new("http.80", all));
    // Made anew, and by a change to what was there.
    let tables = [Table::new(Arc::clone(&full)), Table::after(Some(&small), full)];
    while !draws.is_empty() {
        check(&tables, draws);
    }
}

fn check(tables: &[Table], draws: &mut Draws<'_>) {
    let target = format!(
        "/{}{}",
        draws.text(PIECES, 4),
        draws.text(&["?", "q=a", "&", "r=b", "q", "#"], 5)
    );
    let Ok(path) = normalize_path(&target) else {
        return;
    };
    let again = normalize_path(&path).ok();
    assert_eq!(
        again.as_deref(),
        Some(&*path),
        "the canonical form of {target:?} is not its own"
    );
    let headers = headers(draws);
    let request = RequestView {
        authority: draws.pick(&["a.com", "b.a.com", "A.com:80", "c.com", "x"]),
        path_and_query: &path,
        method: draws.pick(&["GET", "POST", "a"]),
        scheme: draws.pick(&["http", "https"]),
        headers: &headers,
        claims: None,
    };
    for table in tables {
        let (found, walked) = (table.decide(&request), table.walk(&request, |_, _| {}));
        assert_eq!(place(&found), place(&walked), "{request:?}");
    }
}

/// What tells two decisions apart.
fn place(decision: &Decision<'_>) -> (&'static str, String, usize) {
    match decision {
        Decision::NoVirtualHost => ("no virtual host", String::new(), 0),
        Decision::RequireTls { virtual_host } => ("TLS", virtual_host.name.clone(), 0),
        Decision::NoRoute { virtual_host } => ("no route", virtual_host.name.clone(), 0),
        Decision::Route { virtual_host, route } => ("route", virtual_host.name.clone(), route.rule),
    }
}

fn virtual_host(domain: HostPattern, draws: &mut Draws<'_>) -> VirtualHost {
    let mut matches = draws.several(MOST_ROUTES, matcher);
    if draws.once_in(4) {
        // One path for all, so that only the other conditions tell the routes apart.
        let path = path_match(draws);
        matches.iter_mut().for_each(|matcher| matcher.path = path.clone());
    }
    let routes = matches
        .into_iter()
        .enumerate()
        .map(|(rule, matcher)| Arc::new(route(rule, matcher)));
    VirtualHost {
        routes: routes.collect(),
        require_tls: draws.once_in(8),
        ..VirtualHost::new(domain, 80)
    }
}

fn route(rule: usize, matcher: RouteMatch) -> Route {
    let object = ObjectRef {
        kind: Kind::VirtualService,
        namespace: "default".into(),
        name: "vs".into(),
    };
    let destination = WeightedDestination {
        cluster: ClusterName::outbound(80, "", "x"),
        weight: 1,
        headers: HeaderOps::default(),
    };
    Route {
        rule,
        ..Route::new(
            Arc::new(object),
            matcher,
            RouteAction::Forward(Forward::to(vec![destination])),
        )
    }
}

fn matcher(draws: &mut Draws<'_>) -> RouteMatch {
    RouteMatch {
        path: path_match(draws),
        method: draws.once_in(5).then(|| text_match(draws)),
        scheme: draws
            .once_in(8)
            .then(|| StringMatch::Exact(draws.pick(&["http", "https"]).into())),
        authority: draws.once_in(8).then(|| text_match(draws)),
        headers: draws.several(2, header_match),
        query: draws.several(1, query_match),
        claims: vec![],
    }
}

fn path_match(draws: &mut Draws<'_>) -> PathMatch {
    let ignore_case = draws.once_in(4);
    match draws.below(10) {
        0 => PathMatch::Any,
        1..=3 => PathMatch::Exact {
            value: draws.text(PIECES, 4),
            ignore_case,
        },
        4..=7 => PathMatch::Prefix {
            value: draws.text(PIECES, 4),
            ignore_case,
        },
        _ => expression(draws).map_or(PathMatch::Any, PathMatch::Regex),
    }
}

fn expression(draws: &mut Draws<'_>) -> Option<Pattern> {
    if draws.once_in(4) {
        return Pattern::new(&regex_syntax::escape(&draws.text(PIECES, 4))).ok();
    }
    Pattern::new(draws.pick(EXPRESSIONS)).ok()
}

fn text_match(draws: &mut Draws<'_>) -> StringMatch {
    match draws.below(9) {
        0 => StringMatch::Present,
        1 => StringMatch::Prefix(draws.pick(WORDS).into()),
        2 => Pattern::new(draws.pick(&["a.*", ".*", r"\d", "[^a]*"]))
            .map_or(StringMatch::Present, StringMatch::Regex),
        _ => StringMatch::Exact(draws.pick(WORDS).into()),
    }
}

fn header_name(draws: &mut Draws<'_>) -> HeaderName {
    match draws.below(3) {
        0 => HeaderName::from_static("x-a"),
        1 => HeaderName::from_static("x-b"),
        _ => HOST,
    }
}

fn header_match(draws: &mut Draws<'_>) -> HeaderMatch {
    HeaderMatch {
        name: header_name(draws),
        value: text_match(draws),
        invert: draws.once_in(5),
    }
}

fn query_match(draws: &mut Draws<'_>) -> QueryMatch {
    QueryMatch {
        name: draws.pick(&["q", "r", ""]).into(),
        value: text_match(draws),
    }
}

fn headers(draws: &mut Draws<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in draws.several(4, |draws| (header_name(draws), draws.pick(WORDS))) {
        // The authority has a field of its own.
        if let (false, Ok(value)) = (name == HOST, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
    headers
}
