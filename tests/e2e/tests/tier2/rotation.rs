//! A certificate that is replaced while clients are served.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use edge_lab::{Process, cert, wait_until};

use crate::edge::{Edge, LIMIT, Setup, gateway_of, service};

const PORT: u16 = 8443;
const WEB: u16 = 9001;
const HOST: &str = "shop.example.com";

/// Requests of the load, and how many a second: more than the rotations take.
const REQUESTS: &str = "1600";
const RATE: &str = "50";

fn resources(certs: &Path) -> String {
    let certs = certs.display();
    let server = format!(
        "{{port: {{number: {PORT}, name: https, protocol: HTTPS}}, hosts: [{HOST}], tls: {{mode: SIMPLE, \
         serverCertificate: {certs}/tls.crt, privateKey: {certs}/tls.key}}}}"
    );
    let rule = "  - route: [{destination: {host: web.internal}}]";
    gateway_of("web", &server, HOST, rule)
}

/// The certificate that a new connection is shown, in PEM.
fn shown(edge: &Edge) -> String {
    let mut openssl = edge.netns().command("openssl");
    openssl.args([
        "s_client",
        "-servername",
        HOST,
        "-connect",
        &format!("127.0.0.1:{PORT}"),
    ]);
    let out = openssl.stdin(Stdio::null()).output().expect("openssl is there");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (from, to) = (text.find("-----BEGIN"), text.find("-----END"));
    match (from, to) {
        (Some(from), Some(to)) => text[from..to].trim().to_owned(),
        (None | Some(_), None | Some(_)) => String::new(),
    }
}

/// A certificate of a file, likewise.
fn on_file(certs: &Path) -> String {
    let text = std::fs::read_to_string(certs.join("tls.crt")).expect("it is there");
    let end = text.find("-----END").expect("PEM");
    text[..end].trim().to_owned()
}

#[test]
fn a_certificate_is_rotated_under_load_without_a_failed_request() {
    let certs = tempfile::tempdir().expect("a folder");
    cert::self_signed(certs.path(), &[HOST]).expect("openssl works");
    let first = on_file(certs.path());
    let edge = Setup::new(&(resources(certs.path()) + &service("web", "http", &[WEB]))).start();
    let _web = edge.endpoint("web", WEB);
    assert_eq!(shown(&edge), first);

    let url = format!("https://{HOST}:{PORT}/");
    let mut load = edge.netns().command("h2load");
    // 4 connections; each sends so many requests a second.
    load.args(["-n", REQUESTS, "-c", "4", "-m", "4", "--rps", RATE]);
    load.args(["--connect-to", &format!("127.0.0.1:{PORT}"), &url]);
    let mut load = Process::spawn("h2load", &mut load, edge.dir()).expect("h2load starts");
    edge.expect_at_least("istio_requests_total", &["response_code=\"200\""], 50.0);
    let mut before = first;
    for _ in 0..3 {
        let new = tempfile::tempdir().expect("a folder");
        cert::self_signed(new.path(), &[HOST]).expect("openssl works");
        // As a user would: one file, and then the other one.
        for file in ["tls.crt", "tls.key"] {
            std::fs::copy(new.path().join(file), certs.path().join(file)).expect("copied");
        }
        let next = on_file(certs.path());
        assert_ne!(next, before);
        let mut seen = Vec::new();
        let is_shown = || {
            seen.push(shown(&edge));
            Ok(seen.last().is_some_and(|last| *last == next))
        };
        wait_until("the new certificate", LIMIT, is_shown).expect("it is shown");
        // Until then it was the old one: no handshake failed.
        assert!(seen.iter().all(|one| *one == before || *one == next), "{seen:?}");
        before = next;
    }
    assert!(
        load.is_running().expect("known"),
        "the load outlasts the rotations: {}",
        load.tail()
    );
    let status = load.wait(LIMIT + Duration::from_secs(20)).expect("h2load ends");
    let report = load.log().expect("a log");
    assert!(status.success(), "{report}");
    let expected = format!("{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(report.contains(&expected), "{report}");
    assert!(report.contains("Application protocol: h2"), "{report}");
    edge.expect_counted(200, "-", REQUESTS.parse().expect("a number"));
}
