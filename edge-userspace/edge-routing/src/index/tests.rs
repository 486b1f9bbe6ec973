//! The index decides as the walk does, whatever the routes and the request are.

use std::sync::Arc;

use edge_model::{ClaimMatch, HeaderMatch, PathMatch, Pattern, QueryMatch, Route, RouteMatch, StringMatch};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{FEW, RouteIndex};
use crate::fixture::{forward_to, route};
use crate::request::Head;
use crate::{Claims, RequestView, predicate};

/// Few pieces, so that paths have much in common.
fn path() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "/", "a", "b", "A", "/a", "/ab", "/api", "/api/v1", "\u{e4}", "1", ".", "*",
    ]);
    vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

/// Expressions as people write them, and the pieces that they are made of in any order: literal beginnings of all
/// lengths, beginnings that are each other's, alternatives, flags, assertions and texts that may be empty.
fn pattern() -> impl Strategy<Value = Pattern> {
    let fixed = select(vec![
        ".*",
        "/.*",
        "/a+",
        "/(a|b)/.*",
        "/api/v[0-9]+",
        "/api/v[0-9]+/.*",
        "(?i)/API.*",
        "/a|/b",
        r"/\w+",
        ".*b",
        "/api/[^/]*",
        "a?",
        "(/a)+b?",
        "^/ab$",
        "",
        "/(ab|ac).*",
        r".*\b1",
        "/a.*1|/b",
        "/a(?i:b)",
        "/a(^b)?",
        "(/api/v1|/ab)/?$",
        "(?s)/a.*",
    ]);
    let exact = path().prop_map(|path| regex_syntax::escape(&path));
    let tail = select(vec![
        "", ".*", "[^/]+", "(/.*)?", "[0-9]+/?", "(a|b)*", "a{0,2}", "(?i:b)", r"\b.*", "$",
    ]);
    let begun = (path(), tail).prop_map(|(path, tail)| format!("{}{tail}", regex_syntax::escape(&path)));
    let piece = select(vec![
        "/", "/a", "b", "A", "1", ".", "[ab]", "(a|/b)", "(?i:a)", "a*", "(ab)?", r"\B", "[^1]", "(|b)",
    ]);
    let built = vec(piece, 0..6).prop_map(|pieces| pieces.concat());
    let either = (path(), path()).prop_map(|(one, other)| {
        format!(
            "{}|{}.+",
            regex_syntax::escape(&one),
            regex_syntax::escape(&other)
        )
    });
    prop_oneof![
        4 => fixed.prop_map(str::to_owned),
        1 => exact,
        4 => begun,
        3 => built,
        1 => either,
    ]
    .prop_map(|source| Pattern::new(&source).unwrap())
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        1 => Just(PathMatch::Any),
        3 => (path(), any::<bool>()).prop_map(|(value, ignore_case)| PathMatch::Exact { value, ignore_case }),
        5 => (path(), any::<bool>()).prop_map(|(value, ignore_case)| PathMatch::Prefix { value, ignore_case }),
        3 => pattern().prop_map(PathMatch::Regex),
    ]
}

fn word() -> impl Strategy<Value = String> {
    select(vec![
        "", "a", "b", "ab", "A", "1", "a.com:80", "GET", "POST", "\u{e4}",
    ])
    .prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        6 => word().prop_map(StringMatch::Exact),
        1 => word().prop_map(StringMatch::Prefix),
        1 => Just(StringMatch::Present),
        1 => select(vec!["a.*", ".*", r"\d", "[^a]*"]).prop_map(|s| StringMatch::Regex(Pattern::new(s).unwrap())),
    ]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    let custom = ["x-a", "x-b"].map(HeaderName::from_static);
    select(vec![custom[0].clone(), custom[1].clone(), HOST])
}

fn header_match() -> impl Strategy<Value = HeaderMatch> {
    (header_name(), text(), prop::bool::weighted(0.2)).prop_map(|(name, value, invert)| HeaderMatch {
        name,
        value,
        invert,
    })
}

fn query_match() -> impl Strategy<Value = QueryMatch> {
    (select(vec!["q", "r", ""]), text()).prop_map(|(name, value)| QueryMatch {
        name: name.into(),
        value,
    })
}

fn claim_match() -> impl Strategy<Value = ClaimMatch> {
    let path = select(vec![vec!["sub".to_owned()], vec!["groups".to_owned()]]);
    (path, text(), any::<bool>()).prop_map(|(path, value, invert)| ClaimMatch { path, value, invert })
}

fn maybe<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.2, strategy)
}

fn matcher() -> impl Strategy<Value = RouteMatch> {
    let scheme = select(vec!["http", "https"]).prop_map(|scheme| StringMatch::Exact(scheme.into()));
    let one_line = (maybe(text()), maybe(scheme), maybe(text()));
    let lists = (
        vec(header_match(), 0..3),
        vec(query_match(), 0..2),
        maybe(claim_match()),
    );
    (path_match(), one_line, lists).prop_map(
        |(path, (method, scheme, authority), (headers, query, claim))| RouteMatch {
            path,
            method,
            scheme,
            authority,
            headers,
            query,
            claims: claim.into_iter().collect(),
        },
    )
}

/// Routes of one virtual host. Some lists have one path for all, so that only the other conditions tell them apart.
fn routes() -> impl Strategy<Value = Vec<Arc<Route>>> {
    let mixed = vec(matcher(), FEW + 1..60);
    // Expressions without further conditions, as most are.
    let expressions = vec(pattern(), FEW + 1..60).prop_map(|patterns| {
        let matchers = patterns.into_iter().map(|pattern| RouteMatch {
            path: PathMatch::Regex(pattern),
            ..RouteMatch::any()
        });
        matchers.collect::<Vec<_>>()
    });
    let one_path = (path_match(), vec(matcher(), FEW + 1..60)).prop_map(|(path, mut matchers)| {
        for matcher in &mut matchers {
            matcher.path = path.clone();
        }
        matchers
    });
    prop_oneof![2 => mixed, 1 => one_path, 1 => expressions].prop_map(|matchers| {
        let routes = (0..).zip(matchers);
        let routes =
            routes.map(|(number, matcher)| route(&number.to_string(), matcher, forward_to(&[("x", 1)])));
        routes.map(Arc::new).collect()
    })
}

/// What a request consists of.
#[derive(Debug, Clone)]
struct Request {
    target: String,
    method: &'static str,
    scheme: &'static str,
    authority: &'static str,
    headers: HeaderMap,
    claims: Option<Claims>,
}

fn request() -> impl Strategy<Value = Request> {
    let target = (path(), prop::option::of(r"([qr]=(a|b|ab|1)?&?){0,3}"));
    let target = target.prop_map(|(path, query)| match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    });
    let headers = vec((header_name(), word()), 0..4).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines.into_iter().filter(|(name, _)| *name != HOST) {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    });
    let claims = prop::option::of(word()).prop_map(|word| {
        let claims = serde_json::json!({"sub": word?, "groups": ["a", "b"]});
        claims.as_object().cloned()
    });
    let lines = (
        select(vec!["GET", "POST", "a"]),
        select(vec!["http", "https"]),
        select(vec!["a", "a.com:80"]),
    );
    (target, lines, headers, claims).prop_map(|(target, (method, scheme, authority), headers, claims)| {
        Request {
            target,
            method,
            scheme,
            authority,
            headers,
            claims,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_index_finds_what_the_walk_finds(routes in routes(), requests in vec(request(), 1..12)) {
        let index = RouteIndex::new(&routes).unwrap();
        for request in &requests {
            let view = RequestView {
                authority: request.authority,
                path_and_query: &request.target,
                method: request.method,
                scheme: request.scheme,
                headers: &request.headers,
                claims: request.claims.as_ref(),
            };
            let head = Head::new(&view);
            let walked = routes.iter().find(|route| predicate::check(&route.matcher, &head).is_ok());
            let found = index.find(&routes, &head);
            prop_assert_eq!(found.map(|route| &route.name), walked.map(|route| &route.name), "{:?}", request);
        }
    }
}

/// Three hundred routes with expressions, and one at the end for what is below /shop.
#[track_caller]
fn check_many(source: impl Fn(usize) -> String, rows: &[(&str, Option<&str>)]) {
    let sources = (0..300).map(source).chain(["/shop/.*".to_owned()]);
    let routes: Vec<_> = sources
        .enumerate()
        .map(|(number, source)| {
            let matcher = RouteMatch {
                path: PathMatch::Regex(Pattern::new(&source).unwrap()),
                ..RouteMatch::any()
            };
            Arc::new(route(&number.to_string(), matcher, forward_to(&[("x", 1)])))
        })
        .collect();
    let index = RouteIndex::new(&routes).unwrap();
    let headers = HeaderMap::new();
    for (path, expected) in rows {
        let view = RequestView {
            authority: "a",
            path_and_query: path,
            method: "GET",
            scheme: "http",
            headers: &headers,
            claims: None,
        };
        let found = index.find(&routes, &Head::new(&view));
        assert_eq!(found.map(|route| route.name.as_str()), *expected, "{path}");
    }
}

#[test]
fn many_expressions_are_matched_together_and_the_first_is_taken() {
    check_many(
        |number| format!("/[a-z]+/item{number}(/.*)?"),
        &[
            ("/shop/item0", Some("0")),
            ("/shop/item299/x", Some("299")),
            ("/a/item77", Some("77")),
            ("/shop/item300", Some("300")),
            ("/a/item300", None),
            ("/a/item77x", None),
        ],
    );
}

#[test]
fn expressions_that_begin_with_different_texts_are_found_by_these() {
    check_many(
        |number| format!("/s(?:hop)?/v{number}/[a-z]+|/service{number}/.*"),
        &[
            ("/service7/x", Some("7")),
            ("/shop/v7/abc", Some("7")),
            ("/shop/v7/1", Some("300")),
            ("/s/v300/a", None),
        ],
    );
    check_many(
        |number| format!("/service{number}/v[0-9]+/.*"),
        &[
            ("/service7/v2/", Some("7")),
            ("/service77/v2/x", Some("77")),
            ("/service299/v0/x/y", Some("299")),
            ("/service300/v2/x", None),
            ("/service7/x", None),
            ("/shop/", Some("300")),
        ],
    );
}

#[test]
fn an_automaton_that_its_paths_overtax_is_left_aside_and_the_answers_stay() {
    let mut random = 1_u64;
    let mut draw = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    // Each of these remembers which of the letters it has seen: two to the power of three hundred states.
    let source = |number: usize| {
        let letter = |shift: u32| char::from(b'a' + u8::try_from(number / 17_usize.pow(shift) % 17).unwrap());
        format!("/.*{}.*{}.*{}.*", letter(0), letter(1), letter(2))
    };
    let paths: Vec<String> = (0..300)
        .map(|_| {
            let letters = (0..60).map(|_| char::from(b'a' + u8::try_from(draw() % 17).unwrap()));
            format!("/{}", letters.collect::<String>())
        })
        .collect();
    let expected: Vec<Option<String>> = paths
        .iter()
        .map(|path| {
            let first = (0..300).find(|number| Pattern::new(&source(*number)).unwrap().matches(path));
            first.map(|number| number.to_string())
        })
        .collect();
    let rows: Vec<_> = paths
        .iter()
        .map(String::as_str)
        .zip(expected.iter().map(Option::as_deref))
        .collect();
    check_many(source, &rows);
}

/// Paths that make matchers with backtracking, or automata that begin anew for each place, take the square of their
/// length or worse.
fn hostile_paths() -> Vec<String> {
    let pieces = ["a", "aab", "/", "a/", "ab1", "\u{e4}", "aaaaaaaaaaaaaaaab", "%41"];
    let repeated = pieces
        .iter()
        .map(|piece| format!("/{}", piece.repeat(HOSTILE_BYTES / piece.len())));
    repeated.flat_map(|path| [format!("{path}!"), path]).collect()
}

/// As long as a path can be.
const HOSTILE_BYTES: usize = 1 << 14;
/// For all of them together, in seconds of processor time. A few are used; the square of the length would be hundreds.
const HOSTILE_SECONDS: i64 = 60;

#[test]
fn no_path_makes_an_expression_take_the_square_of_its_length() {
    let sources = [
        "/(a+)+$",
        "/(a|a)*b",
        "/(a|aa)+b",
        "/(.*)*x",
        "/(a*)*(a*)*c",
        "/.*.*.*.*=.*",
        "/(x+x+)+y",
        "/([^/]+/?)+z",
        "/(?:[^/]{1,9}/){1,9}",
        "/.*a.{20}c",
        "/(a?){30}a{30}c",
        r"/.*\ba\b.*q",
        "(?i)/(a|A|ab)*q",
    ];
    let paths = hostile_paths();
    let begin = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
    // Alone, and so many alike that they are matched together.
    for copies in [1, 8] {
        let sources = sources
            .iter()
            .flat_map(|source| (0..copies).map(move |copy| format!("{source}{}", "q".repeat(copy))));
        let routes: Vec<_> = sources
            .map(|source| {
                let matcher = RouteMatch {
                    path: PathMatch::Regex(Pattern::new(&source).unwrap()),
                    ..RouteMatch::any()
                };
                Arc::new(route(&source, matcher, forward_to(&[("x", 1)])))
            })
            .collect();
        let index = RouteIndex::new(&routes).unwrap();
        let headers = HeaderMap::new();
        for path in &paths {
            let view = RequestView {
                authority: "a",
                path_and_query: path,
                method: "GET",
                scheme: "http",
                headers: &headers,
                claims: None,
            };
            let head = Head::new(&view);
            let found = index.find(&routes, &head).map(|route| route.name.as_str());
            let is_all_a = path.bytes().skip(1).all(|byte| byte == b'a');
            assert_eq!(found, is_all_a.then_some("/(a+)+$"), "{:.40}", path);
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
        assert!(now - begin < HOSTILE_SECONDS, "{} seconds", now - begin);
    }
}
