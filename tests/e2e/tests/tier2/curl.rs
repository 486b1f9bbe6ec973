//! What curl and nghttp see of the finer parts of HTTP.

use std::process::Command;

use edge_lab::{Process, wait_until};

use crate::edge::{Edge, LIMIT, gateway, service, url};

const WEB: u16 = 9001;

const RULES: &str = "
  - {route: [{destination: {host: web.internal}}]}
";

fn output(command: &mut Command) -> String {
    let out = command.output().expect("it starts");
    let (text, errors) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    format!("{text}{errors}")
}

/// Versions of HTTP, as curl is told to speak them.
const VERSIONS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

fn edge() -> (Edge, Process) {
    let edge = Edge::start(&(gateway("*", RULES) + &service("web", "http", &[WEB])));
    let web = edge.endpoint("web", WEB);
    (edge, web)
}

#[test]
fn clients_get_what_they_asked_for_in_the_form_that_they_asked_for() {
    let (edge, _web) = edge();
    a_client_that_expects_100_sends_its_body_once_it_is_told_to(&edge);
    heads_have_the_length_of_what_get_would_bring_and_no_body(&edge);
    trailers_pass_in_both_directions(&edge);
    for version in VERSIONS {
        events_pass_as_they_are_made(&edge, version);
    }
}

fn a_client_that_expects_100_sends_its_body_once_it_is_told_to(edge: &Edge) {
    let body = "b".repeat(100_000);
    let file = edge.dir().join("body");
    std::fs::write(&file, &body).expect("written");
    let ask = |path: &str| {
        let mut curl = edge.netns().command("curl");
        curl.args(["--silent", "--verbose", "--http1.1", "--expect100-timeout", "20"]);
        curl.args(["--header", "expect: 100-continue", "--data-binary"]);
        curl.arg(format!("@{}", file.display())).arg(url(path));
        output(&mut curl)
    };
    let seen = ask("/");
    let at = |what: &str| seen.find(what).unwrap_or_else(|| panic!("no {what:?} in {seen}"));
    assert!(at("< HTTP/1.1 100 Continue") < at("< HTTP/1.1 200 OK"), "{seen}");
    assert!(seen.contains("length: 100000"), "{seen}");
    // An endpoint that does not want the body says so before it has come.
    let seen = ask("/refuses");
    assert!(seen.contains("< HTTP/1.1 413 "), "{seen}");
    edge.expect_counted(413, "-", 1);
}

fn heads_have_the_length_of_what_get_would_bring_and_no_body(edge: &Edge) {
    for version in VERSIONS {
        let answer = edge.curl().args(&[version, "--head"]).get(&url("/"));
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{version}");
        let length = answer.header("content-length").expect("a length");
        assert!(
            length.parse::<u32>().expect("a number") > 10,
            "{version}: {length}"
        );
    }
}

fn trailers_pass_in_both_directions(edge: &Edge) {
    // curl has the trailers in its file of heads, behind the head. By HTTP/1.1 they are sent to who asks for them (RFC
    // 9110 section 6.5.1).
    for (version, te, expected) in [
        ("--http1.1", "te: trailers", true),
        ("--http1.1", "te:", false),
        ("--http2-prior-knowledge", "te: trailers", true),
    ] {
        let heads = edge.dir().join("heads");
        let mut curl = edge.netns().command("curl");
        curl.args(["--silent", version, "--header", te, "--dump-header"]);
        let body = output(curl.arg(&heads).arg(url("/trailers")));
        assert_eq!(body, "body\n", "{version} {te}");
        let heads = std::fs::read_to_string(heads).expect("heads");
        let head = heads.find("\r\n\r\n").expect("a head");
        assert_eq!(
            heads[head..].contains("x-sum: 42"),
            expected,
            "{version} {te}: {heads}"
        );
    }
    let file = edge.dir().join("body");
    std::fs::write(&file, "body").expect("written");
    let mut nghttp = edge.netns().command("nghttp");
    nghttp.args(["--no-content-length", "--trailer", "x-end: yes", "--data"]);
    let seen = output(nghttp.arg(&file).arg(url("/")));
    assert!(seen.contains("trailer x-end: yes"), "{seen}");
    assert!(seen.contains("length: 4"), "{seen}");
}

fn events_pass_as_they_are_made(edge: &Edge, version: &str) {
    let mut curl = edge.netns().command("curl");
    curl.args(["--silent", "--no-buffer", version, "--max-time", "30"]);
    curl.args(["--header", "accept: text/event-stream"])
        .arg(url("/events"));
    let mut client = Process::spawn("events", &mut curl, edge.dir()).expect("curl starts");
    let first = || Ok(client.log()? == "data: first\n\n");
    wait_until("the first event", LIMIT, first).expect("it passes alone");
    // The second one is made only now.
    assert_eq!(edge.curl().get(&url("/go")).expect("an answer").status, 200);
    assert!(client.wait(LIMIT).expect("it ends").success(), "{version}");
    assert_eq!(
        client.log().expect("a log"),
        "data: first\n\ndata: second\n\n",
        "{version}"
    );
}
