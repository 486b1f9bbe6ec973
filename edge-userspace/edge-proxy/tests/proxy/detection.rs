//! Which failures eject an endpoint, by what `outlierDetection` says.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_model::{Cluster, OutlierDetection, RouteAction};
use http::StatusCode;

use crate::support::{
    Backend, Client, Edge, RawBackend, Snap, forward, free_port, prefix, refusing, route, service,
};

/// How an endpoint fails.
#[derive(Debug, Clone, Copy)]
enum Fails {
    /// It answers with this status.
    Status(u16),
    /// It closes the connection instead of an answer.
    Closes,
    /// It refuses connections.
    Refuses,
}

/// Failures in a row that eject, where they count.
const IN_A_ROW: u32 = 3;

/// Requests that are sent, to two endpoints in turn.
const REQUESTS: u64 = 20;

impl Fails {
    fn endpoint(self) -> (Option<RawBackend>, SocketAddr) {
        let backend = match self {
            Self::Refuses => return (None, refusing()),
            Self::Closes => RawBackend::start(|mut stream, _| drop(RawBackend::read_head(&mut stream))),
            Self::Status(status) => RawBackend::start(move |mut stream, _| {
                while !RawBackend::read_head(&mut stream).is_empty() {
                    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes());
                }
            }),
        };
        let address = backend.address;
        (Some(backend), address)
    }
}

/// Nothing is counted but what is set.
fn nothing() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: None,
        consecutive_gateway_errors: None,
        consecutive_local_origin_failures: None,
        base_ejection_time: Duration::from_secs(60),
        max_ejection_percent: 50,
        ..OutlierDetection::default()
    }
}

fn of_5xx() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: Some(IN_A_ROW),
        ..nothing()
    }
}

fn of_gateway_errors() -> OutlierDetection {
    OutlierDetection {
        consecutive_gateway_errors: Some(IN_A_ROW),
        ..nothing()
    }
}

/// Failures of local origin are counted by themselves, or not at all.
fn split(local: Option<u32>, of_5xx: Option<u32>) -> OutlierDetection {
    OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failures: local,
        consecutive_5xx: of_5xx,
        ..nothing()
    }
}

#[track_caller]
fn check(name: &str, detection: OutlierDetection, fails: Fails, is_ejected: bool) {
    let good = Backend::start("good");
    let (_bad, address) = fails.endpoint();
    let port = free_port();
    let cluster = Cluster {
        outlier_detection: Some(detection),
        ..service("web", &[good.address, address])
    };
    let mut action = forward(&[("web", 1)]);
    if let RouteAction::Forward(forward) = &mut action {
        // Each failure is one request's.
        Arc::make_mut(&mut forward.retries).attempts = 0;
    }
    let rule = route(prefix("/"), action);
    let edge = Edge::start(Snap::new(port, vec![rule]).with(cluster));
    let mut client = Client::connect(port);
    for _ in 0..REQUESTS {
        client.get("a", "/").unwrap();
    }
    let clusters = edge.proxy.clusters();
    let asked = clusters[0].endpoints.iter().find(|own| own.address == address);
    let asked = asked.unwrap().requests_total;
    // Whoever is out and in again comes in another turn.
    let is_as_told = match is_ejected {
        true => asked == u64::from(IN_A_ROW),
        false => asked >= REQUESTS / 2,
    };
    assert!(is_as_told, "{name}: {fails:?}: {asked}");
}

#[test]
fn what_counts_as_a_failure_is_as_the_policy_says() {
    let codes = |codes: &[u16]| OutlierDetection {
        error_codes: codes
            .iter()
            .map(|code| StatusCode::from_u16(*code).unwrap())
            .collect(),
        ..of_5xx()
    };
    for (name, detection, fails, is_ejected) in [
        ("5xx", of_5xx(), Fails::Status(500), true),
        ("5xx", of_5xx(), Fails::Status(404), false),
        (
            "5xx, what no endpoint said among them",
            of_5xx(),
            Fails::Closes,
            true,
        ),
        (
            "5xx, what no endpoint said among them",
            of_5xx(),
            Fails::Refuses,
            true,
        ),
        ("gateway errors", of_gateway_errors(), Fails::Status(502), true),
        ("gateway errors", of_gateway_errors(), Fails::Status(503), true),
        ("gateway errors", of_gateway_errors(), Fails::Status(504), true),
        ("gateway errors", of_gateway_errors(), Fails::Status(500), false),
        ("gateway errors", of_gateway_errors(), Fails::Closes, true),
        ("local origin", split(Some(IN_A_ROW), None), Fails::Refuses, true),
        ("local origin", split(Some(IN_A_ROW), None), Fails::Closes, true),
        (
            "local origin",
            split(Some(IN_A_ROW), None),
            Fails::Status(503),
            false,
        ),
        (
            "not local origin",
            split(None, Some(IN_A_ROW)),
            Fails::Refuses,
            false,
        ),
        (
            "not local origin",
            split(None, Some(IN_A_ROW)),
            Fails::Status(500),
            true,
        ),
        ("codes of one's own", codes(&[429]), Fails::Status(429), true),
        ("codes of one's own", codes(&[429]), Fails::Status(500), false),
    ] {
        check(name, detection, fails, is_ejected);
    }
}

#[test]
fn where_too_few_are_healthy_the_ejected_are_asked_too() {
    for (min_health_percent, is_ejected) in [(0, true), (50, true), (51, false), (100, false)] {
        let detection = OutlierDetection {
            min_health_percent,
            ..of_5xx()
        };
        let name = format!("{min_health_percent} %");
        check(&name, detection, Fails::Status(500), is_ejected);
    }
}
