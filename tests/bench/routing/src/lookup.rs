//! Nanoseconds of one routing decision.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::Result;
use edge_model::{
    ClusterName, Forward, HeaderMatch, HeaderOps, HostPattern, Kind, ObjectRef, PathMatch, Pattern, Route,
    RouteAction, RouteMatch, RouteTable, StringMatch, VirtualHost, WeightedDestination,
};
use edge_routing::{Decision, RequestView, Table};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::harness::Harness;
use crate::report::{Figure, Report};

/// The cases, in the order of the report.
pub(crate) const NAMES: &[&str] = &[
    "routes_1",
    "routes_10",
    "routes_10_linear",
    "routes_1000",
    "routes_1000_linear",
    "regex_1000_varied",
    "regex_1000_varied_linear",
    "regex_1000_unlike",
    "regex_1000_one_prefix",
    "headers_1000",
    "headers_1000_linear",
    "nested_1000",
    "nested_1000_linear",
    "hosts_10000",
];

/// Requests that are asked in turn. They and what they lead to fit into a second-level cache, as a busy edge's do.
const REQUESTS: usize = 1 << 10;
/// What the same number of conditions may cost when there are a hundred times more routes: noise and caches.
const SAME: f64 = 1.25;
/// Nanoseconds that a thousand regular expressions may add.
const REGEX_GOAL: f64 = 2000.0;

/// A table and the requests that it is asked about.
pub(crate) struct Lookup {
    name: &'static str,
    table: Table,
    requests: Vec<Request>,
    is_linear: bool,
}

struct Request {
    authority: String,
    target: String,
    headers: HeaderMap,
}

impl Request {
    fn new(target: String) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
            ("accept", "text/html,application/xhtml+xml"),
            ("accept-language", "en"),
            ("cookie", "session=0123456789abcdef"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Self {
            authority: "shop.example.com".into(),
            target,
            headers,
        }
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            authority: &self.authority,
            path_and_query: &self.target,
            method: "GET",
            scheme: "https",
            headers: &self.headers,
            claims: None,
        }
    }
}

impl Lookup {
    /// The case of a name.
    pub(crate) fn new(name: &'static str) -> Option<Self> {
        let mut random = fastrand::Rng::with_seed(4);
        let (table, requests) = match name.trim_end_matches("_linear") {
            "routes_1" => prefixes(1, &mut random),
            "routes_10" => prefixes(10, &mut random),
            "routes_1000" => prefixes(1000, &mut random),
            "regex_1000_varied" => expressions(|n| format!("/svc{n}/v[0-9]+/items/[^/]+"), &mut random),
            "regex_1000_unlike" => expressions(
                |n| format!("/svc{n}/v[0-9]+/(items|x{n})/[a-z]{{{}}}[^/]*", n % 4),
                &mut random,
            ),
            "regex_1000_one_prefix" => expressions(
                |n| format!("/[a-z]+[0-9]*/v[0-9]+/items/[a-z]+{n}.*"),
                &mut random,
            ),
            "headers_1000" => header_values(&mut random),
            "nested_1000" => nested(&mut random),
            "hosts_10000" => hosts(&mut random),
            _ => return None,
        };
        Some(Self {
            name,
            table,
            requests,
            is_linear: name.ends_with("_linear"),
        })
    }

    fn decide(&self, number: usize) -> bool {
        let Some(request) = self.requests.get(number % REQUESTS) else {
            return false;
        };
        let request = request.view();
        let decision = if self.is_linear {
            self.table.walk(&request, |_, _| {})
        } else {
            self.table.decide(&request)
        };
        matches!(decision, Decision::Route { .. })
    }

    /// Decides without looking at a clock.
    pub(crate) fn only_run(&self, count: usize) {
        let taken = (0..count)
            .filter(|number| black_box(self.decide(black_box(*number))))
            .count();
        eprintln!("{}: {taken} of {count} requests took a route", self.name);
    }

    /// Nanoseconds of one decision.
    fn nanoseconds(&self, harness: &mut Harness) -> Result<f64> {
        let mut number = 0_usize;
        harness.measure(self.name, |bencher| {
            bencher.iter(|| {
                number = number.wrapping_add(1);
                self.decide(number)
            });
        })
    }
}

/// Measures the cases.
pub(crate) fn measure(lookups: &[Lookup], harness: &mut Harness, report: &mut Report) -> Result<()> {
    let (mut ten, mut plain) = (None, None);
    for lookup in lookups {
        let is_expressions = lookup.name.starts_with("regex_");
        if is_expressions && plain.is_none() {
            plain = Some(without_expressions().nanoseconds(harness)?);
        }
        let value = lookup.nanoseconds(harness)?;
        let goal = match lookup.name {
            "routes_10" => {
                ten = Some(value);
                None
            }
            "routes_1000" => ten.map(|ten| ten * SAME),
            _ if is_expressions && !lookup.is_linear => Some(REGEX_GOAL),
            _ => None,
        };
        report.add(&Figure {
            case: lookup.name,
            // What the expressions are added to is the request as such.
            value: value - plain.filter(|_| is_expressions).unwrap_or(0.0),
            unit: "ns",
            goal,
        })?;
    }
    Ok(())
}

/// Prefixes as an API has them; requests for all of them and some for none.
fn prefixes(count: usize, random: &mut fastrand::Rng) -> (Table, Vec<Request>) {
    let path = |number: usize| format!("/api/v{}/service{number}/", number % 3);
    let routes = (0..count).map(|number| prefix(&path(number))).collect();
    let requests = draw(|| {
        format!(
            "{}items/{}?page=2",
            path(random.usize(..count + count.div_ceil(20))),
            random.u16(..)
        )
    });
    (table(vec![("shop.example.com".into(), routes)]), requests)
}

/// A thousand expressions. Each request matches one of them, and no two requests are the same.
fn expressions(source: impl Fn(usize) -> String, random: &mut fastrand::Rng) -> (Table, Vec<Request>) {
    let routes = (0..1000).map(|number| RouteMatch {
        path: Pattern::new(&source(number)).map_or(PathMatch::Any, PathMatch::Regex),
        ..RouteMatch::any()
    });
    let routes = routes.collect();
    let requests = varied(random);
    (table(vec![("shop.example.com".into(), routes)]), requests)
}

fn varied(random: &mut fastrand::Rng) -> Vec<Request> {
    draw(|| {
        let (service, version) = (random.usize(..1000), random.u8(1..30));
        let word: String = (0..random.usize(3..12)).map(|_| random.lowercase()).collect();
        format!("/svc{service}/v{version}/items/{word}{}", random.usize(..1000))
    })
}

/// The same requests where one route takes them all.
fn without_expressions() -> Lookup {
    Lookup {
        name: "plain",
        table: table(vec![("shop.example.com".into(), vec![prefix("/")])]),
        requests: varied(&mut fastrand::Rng::with_seed(4)),
        is_linear: false,
    }
}

/// A thousand tenants told apart by a header, on one prefix.
fn header_values(random: &mut fastrand::Rng) -> (Table, Vec<Request>) {
    let name = HeaderName::from_static("x-tenant");
    let routes = (0..1000).map(|number| RouteMatch {
        headers: vec![HeaderMatch {
            name: name.clone(),
            value: StringMatch::Exact(format!("tenant-{number}")),
            invert: false,
        }],
        ..prefix("/api/")
    });
    let routes = routes.collect();
    let mut requests = draw(|| "/api/items".into());
    for request in &mut requests {
        if let Ok(value) = HeaderValue::from_str(&format!("tenant-{}", random.usize(..1000))) {
            request.headers.insert(name.clone(), value);
        }
    }
    (table(vec![("shop.example.com".into(), routes)]), requests)
}

/// A thousand prefixes, each the beginning of the next, the longest first; requests end anywhere.
fn nested(random: &mut fastrand::Rng) -> (Table, Vec<Request>) {
    let path = |depth: usize| "/a".repeat(depth);
    let routes = (1..=1000).rev().map(|depth| prefix(&path(depth))).collect();
    let requests = draw(|| path(random.usize(1..200)));
    (table(vec![("shop.example.com".into(), routes)]), requests)
}

/// Ten thousand hosts with three routes each, an eighth of them wildcards.
fn hosts(random: &mut fastrand::Rng) -> (Table, Vec<Request>) {
    let name = |number: usize| format!("host-{number}.example.com");
    let hosts = (0..10_000_usize).map(|number| {
        let domain = if number.is_multiple_of(8) {
            format!("*.{}", name(number))
        } else {
            name(number)
        };
        (domain, vec![prefix("/api/"), prefix("/static/"), prefix("/")])
    });
    let table = table(hosts.collect());
    let mut requests = draw(|| "/api/items".into());
    for request in &mut requests {
        let number = random.usize(..10_000);
        let label = if number.is_multiple_of(8) { "www." } else { "" };
        request.authority = format!("{label}{}", name(number));
    }
    (table, requests)
}

fn draw(mut target: impl FnMut() -> String) -> Vec<Request> {
    (0..REQUESTS).map(|_| Request::new(target())).collect()
}

fn prefix(value: &str) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix {
            value: value.into(),
            ignore_case: false,
        },
        ..RouteMatch::any()
    }
}

fn table(hosts: Vec<(String, Vec<RouteMatch>)>) -> Table {
    let object = Arc::new(ObjectRef {
        kind: Kind::VirtualService,
        namespace: "default".into(),
        name: "bench".into(),
    });
    let route = |matcher| {
        let destination = WeightedDestination {
            cluster: ClusterName::outbound(80, "", "web"),
            weight: 1,
            headers: HeaderOps::default(),
        };
        let action = RouteAction::Forward(Forward::to(vec![destination]));
        Arc::new(Route::new(Arc::clone(&object), matcher, action))
    };
    let hosts = hosts.into_iter().filter_map(|(domain, matchers)| {
        Some(Arc::new(VirtualHost {
            routes: matchers.into_iter().map(route).collect(),
            ..VirtualHost::new(HostPattern::parse(&domain).ok()?, 80)
        }))
    });
    Table::new(Arc::new(RouteTable::new("http.80", hosts)))
}
