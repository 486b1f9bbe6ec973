//! Endpoints that fail in every way they have: what the client saw, what was counted, and what was logged.

use edge_lab::{Process, Signal, Wrk, wait_until};

use crate::edge::{Edge, LIMIT, NOBODY, gateway, service, url};

/// Ports of endpoints.
const WEB: u16 = 9001;
const OTHER: u16 = 9002;

/// Everything to `web`, and what may hang with a time limit.
const RULES: &str = "
  - {match: [{uri: {prefix: /refused}}], route: [{destination: {host: gone.internal}}]}
  - {match: [{uri: {prefix: /nowhere}}], route: [{destination: {host: nobody.internal}}]}
  - match: [{uri: {prefix: /silent}}, {uri: {prefix: /hang}}, {uri: {prefix: /half}}, {uri: {prefix: /slow}}]
    timeout: 600ms
    route: [{destination: {host: web.internal}}]
  - {route: [{destination: {host: web.internal}}]}
";

fn failing() -> (Edge, Process) {
    let services = service("web", "http", &[WEB]) + &service("gone", "http", &[NOBODY]);
    let edge = Edge::start(&(gateway("*", RULES) + &services));
    let web = edge.endpoint("web", WEB);
    (edge, web)
}

/// What a client gets.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// A whole response with this body, if one is told.
    Whole(u16, Option<&'static str>),
    /// A response of the status 200 that breaks off.
    Broken,
}

/// What an endpoint does, by path; what the client gets; flags and details.
const ROWS: [(&str, Seen, &str, &str); 12] = [
    ("/", Seen::Whole(200, None), "-", "via_upstream"),
    ("/slow/200", Seen::Whole(200, None), "-", "via_upstream"),
    (
        "/slow/5000",
        Seen::Whole(504, Some("upstream request timeout")),
        "UT",
        "upstream_response_timeout",
    ),
    (
        "/silent",
        Seen::Whole(504, Some("upstream request timeout")),
        "UT",
        "upstream_response_timeout",
    ),
    (
        "/closed",
        Seen::Whole(503, Some(CONNECTION_TERMINATION)),
        "UC",
        "upstream_reset_before_response_started{connection_termination}",
    ),
    (
        "/reset",
        Seen::Whole(503, Some(CONNECTION_TERMINATION)),
        "UC",
        "upstream_reset_before_response_started{connection_termination}",
    ),
    ("/hang", Seen::Broken, "UT", "upstream_response_timeout"),
    ("/half", Seen::Broken, "UT", "upstream_response_timeout"),
    ("/cut", Seen::Broken, "UC", LATE),
    ("/torn", Seen::Broken, "UC", LATE),
    (
        "/refused",
        Seen::Whole(
            503,
            Some(
                "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: \
                 remote connection failure",
            ),
        ),
        "URX,UF",
        "upstream_reset_before_response_started{remote_connection_failure}",
    ),
    ("/nowhere", Seen::Whole(503, Some("")), "NC", "cluster_not_found"),
];

/// Details of an answer that breaks off because its connection does.
const LATE: &str = "upstream_reset_after_response_started{connection_termination}";

/// Body of the answer when the connection ends before there is one.
const CONNECTION_TERMINATION: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: connection termination";

#[test]
fn every_way_to_fail_has_its_answer_its_flag_and_its_line() {
    let (edge, _web) = failing();
    for (version, arguments) in [(1, &[][..]), (2, &["--http2-prior-knowledge"][..])] {
        for (path, expected, flags, details) in ROWS {
            let name = format!("{path} by HTTP/{version}");
            let asked = format!("{path}?{version}");
            let status = match (expected, edge.curl().args(arguments).get(&url(&asked))) {
                (Seen::Whole(status, body), Ok(answer)) => {
                    assert_eq!(answer.status, status, "{name}");
                    if let Some(body) = body {
                        assert_eq!(answer.text(), body, "{name}");
                    }
                    status
                }
                (Seen::Broken, Err(error)) => {
                    // A transfer that ended early, or a stream that was reset (curl's CURLE_PARTIAL_FILE,
                    // CURLE_HTTP2_STREAM).
                    let error = format!("{error:#}");
                    assert!(
                        error.contains("exit code 18") || error.contains("exit code 92"),
                        "{name}: {error}"
                    );
                    200
                }
                (expected, seen) => panic!("{name}: not {expected:?} but {seen:?}"),
            };
            edge.expect_logged(&format!("{asked} {status} {flags} {details}"));
        }
    }
    // Counted as they were answered: two versions each.
    for (status, flags, rows) in [
        (200, "-", 2),
        (200, "UC", 2),
        (200, "UT", 2),
        (503, "UC", 2),
        (503, "URX,UF", 1),
        (503, "NC", 1),
        (504, "UT", 2),
    ] {
        edge.expect_counted(status, flags, 2 * rows);
    }
}

#[test]
fn an_endpoint_that_is_killed_in_the_middle_of_its_answer_breaks_that_one_off_and_comes_back() {
    let services = service("web", "http", &[WEB, OTHER]);
    let rules = "  - {match: [{uri: {prefix: /half}}], route: [{destination: {host: web.internal}}]}
  - {route: [{destination: {host: web.internal}}]}
";
    let edge = Edge::start(&(gateway("*", rules) + &services));
    let mut first = edge.endpoint("first", WEB);
    let mut curl = edge.netns().command("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--no-buffer",
        "--include",
        "--max-time",
        "15",
    ]);
    curl.arg(url("/half"));
    let mut client = Process::spawn("client", &mut curl, edge.dir()).expect("curl starts");
    let has_half = || Ok(client.log()?.ends_with("0123456789"));
    wait_until("half of an answer", LIMIT, has_half).expect("it comes");
    // Nobody listens at the other one's port until now: it was passed over.
    let _second = edge.endpoint("second", OTHER);
    first.kill().expect("it runs");
    let end = client.wait(LIMIT).expect("curl ends");
    let log = client.log().expect("a log");
    assert_eq!(end.code(), Some(18), "a transfer that ended early: {log}");
    assert!(log.starts_with("HTTP/1.1 200 OK"), "{log}");
    edge.expect_logged(&format!("/half 200 UC {LATE}"));
    edge.expect_counted(200, "UC", 1);

    // Requests find their way to the one that is left.
    for _ in 0..20 {
        let answer = edge.curl().get(&url("/")).expect("an answer");
        assert_eq!(
            (answer.status, answer.header("x-endpoint")),
            (200, Some("second"))
        );
    }
    edge.expect_counted(200, "-", 20);
    let _first = edge.endpoint("first", WEB);
    let is_back = || {
        let answer = edge.curl().get(&url("/"))?;
        Ok(answer.header("x-endpoint") == Some("first"))
    };
    wait_until("the one that was killed", LIMIT, is_back).expect("it is asked again");
}

#[test]
fn an_endpoint_that_is_stopped_holds_its_requests_for_their_time_and_then_serves_on() {
    let (edge, mut web) = failing();
    assert_eq!(edge.curl().get(&url("/")).expect("an answer").status, 200);
    // The kernel accepts connections for a process that is stopped, and takes what they bring.
    web.signal(Signal::STOP).expect("it runs");
    let late = edge.curl().get(&url("/slow/0")).expect("an answer");
    assert_eq!(
        (late.status, late.text().as_str()),
        (504, "upstream request timeout")
    );
    edge.expect_counted(504, "UT", 1);
    web.signal(Signal::CONT).expect("it is there");
    let answer = edge.curl().get(&url("/slow/0")).expect("an answer");
    assert_eq!((answer.status, answer.header("x-endpoint")), (200, Some("web")));
}

#[test]
fn connections_that_end_as_they_are_used_again_fail_no_request() {
    let (edge, _web) = failing();
    let load = Wrk::new(edge.netns()).connections(16, 1);
    let report = load.run(&url("/fleeting")).expect("wrk runs");
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(report.requests > 100, "{report:?}");
    // It saw every request that was answered; those that met an end it has not seen.
    let url = format!("http://127.0.0.1:{WEB}/count/fleeting");
    let count = edge.curl().get(&url).expect("an answer").text();
    let count: u64 = count.trim().parse().expect("a number");
    assert!(count >= report.requests, "{count} of {report:?}");
    edge.expect_metric("istio_requests_total", &["response_code=\"503\""], 0.0);
}
