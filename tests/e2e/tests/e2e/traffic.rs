//! Requests through the whole path.

use std::time::Duration;

use edge_lab::{Curl, Wrk, address};
use serde_json::Value;

use crate::fixture::{SHOP, site, url};

#[test]
fn every_rule_of_the_demo_is_applied_on_the_wire() {
    let site = site();
    let curl = || Curl::new(site.lab().client());
    let tls = || {
        curl()
            .resolve("shop.example.com", 443, address::VIP)
            .ca(&site.certificate())
    };

    let tester = curl()
        .header(SHOP)
        .header("x-tester: yes")
        .get(&url("/"))
        .expect("an answer");
    assert_eq!((tester.status, tester.header("x-version")), (200, Some("v2")));

    for (answer, path) in [
        (curl().header(SHOP).get(&url("/api/v3/items?q=1")), "/items"),
        (
            curl()
                .header(SHOP)
                .get(&format!("http://[{}]/api/v3/six", address::VIP_V6)),
            "/six",
        ),
        (tls().get("https://shop.example.com/api/v3/tls"), "/tls"),
    ] {
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {error:#}"));
        assert_eq!(
            (answer.status, answer.header("x-version"), answer.header("x-api")),
            (200, Some("v3"), Some("v3"))
        );
        assert_eq!(answer.json().expect("JSON")["path"], path);
    }

    for (host, path, status, location) in [
        (
            "shop.example.com",
            "/old?a=b",
            308,
            "http://shop.example.com/new?a=b",
        ),
        (
            "secure.example.com",
            "/x?y",
            301,
            "https://secure.example.com/x?y",
        ),
    ] {
        let answer = curl()
            .header(&format!("host: {host}"))
            .get(&url(path))
            .expect("an answer");
        assert_eq!(
            (answer.status, answer.header("location")),
            (status, Some(location))
        );
    }

    let nobody = curl()
        .header("host: nobody.example.com")
        .get(&url("/"))
        .expect("an answer");
    assert_eq!((nobody.status, nobody.body.len()), (404, 0));
}

#[test]
fn a_handshake_for_a_name_that_no_gateway_has_is_refused() {
    let site = site();
    let stranger = Curl::new(site.lab().client())
        .resolve("other.example.com", 443, address::VIP)
        .args(&["--insecure"]);
    assert!(stranger.get("https://other.example.com/").is_err());
}

#[test]
fn xdp_the_socket_lookup_and_the_workers_agree_on_every_connection() {
    let site = site();
    let load = Wrk::new(site.lab().client())
        .connections(100, 1)
        .duration(Duration::from_secs(3))
        .header(SHOP);
    let (report, status) = load
        .run_while(&url("/"), || site.status_with_open(100))
        .expect("wrk runs");
    assert_eq!(report.failures(), 0, "{report:?}");
    let number = |worker: &Value, key: &str| worker[key].as_u64().expect("a number");
    let workers = status["workers"].as_array().expect("workers");
    assert_eq!(workers.len(), 2);
    for worker in workers {
        let accepted = number(worker, "accepted");
        assert!(accepted > 10, "{worker}");
        assert_eq!(accepted, number(worker, "steered"), "{worker}");
        // A SYN that was sent twice counts twice here.
        assert!(number(worker, "new_connections") >= accepted, "{worker}");
    }
    assert_eq!(status["datapath"]["steer_misses"], 0);
    assert_eq!(status["datapath"]["interfaces"][0]["mode"], "native");
}

#[test]
fn the_backend_sees_who_asked_and_not_what_concerns_one_hop() {
    let site = site();
    let answer = Curl::new(site.lab().client())
        .header(SHOP)
        .header("x-tester: yes")
        .header("connection: x-private, keep-alive")
        .header("x-private: secret")
        .header("x-envoy-retry-on: 5xx")
        .get(&url("/"))
        .expect("an answer");
    let headers = answer.json().expect("JSON")["headers"].to_string();
    assert!(
        headers.contains(&format!(r#"["x-forwarded-for","{}"]"#, address::CLIENT)),
        "{headers}"
    );
    assert!(headers.contains(r#"["x-forwarded-proto","http"]"#), "{headers}");
    assert!(headers.contains("x-request-id"), "{headers}");
    for foreign in ["x-private", "x-envoy-retry-on"] {
        assert!(!headers.contains(foreign), "{headers}");
    }
}

#[test]
fn ten_megabytes_pass_in_both_directions() {
    let site = site();
    let file = site.lab().dir().join("upload");
    std::fs::write(&file, vec![b'x'; 10 << 20]).expect("a file");
    let answer = Curl::new(site.lab().client())
        .header(SHOP)
        .args(&["--data-binary", &format!("@{}", file.display())])
        .get(&url("/upload"))
        .expect("an answer");
    assert_eq!(answer.json().expect("JSON")["body_length"], 10 << 20);
}
