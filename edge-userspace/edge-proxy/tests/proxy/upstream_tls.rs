//! TLS to endpoints: what they are shown, and what they must show.

use std::sync::Arc;

use edge_model::{Cluster, ServerVerification, UpstreamTls};
use edge_proxy::ProxyOptions;

use crate::support::{
    Authority, Edge, Issued, Snap, TlsBackend, forward, free_port, get, prefix, route, service,
};

/// Trust in an authority; `names` are the DestinationRule's `subjectAltNames`.
fn verify(authority: &Authority, names: &[&str]) -> ServerVerification {
    verify_with(authority, names, vec![])
}

fn verify_with(authority: &Authority, names: &[&str], crl: Vec<u8>) -> ServerVerification {
    ServerVerification::Verify {
        ca_pem: Some(authority.pem().into()),
        crl_pem: crl.into(),
        subject_alt_names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn simple(sni: Option<&str>, verify: ServerVerification) -> UpstreamTls {
    UpstreamTls {
        certificate: None,
        sni: sni.map(str::to_owned),
        verify,
        broken: None,
    }
}

/// One cluster with these terms; what a request gets.
fn ask(backend: &TlsBackend, tls: UpstreamTls) -> (u16, String, String) {
    let port = free_port();
    let cluster = Cluster {
        tls: Some(Arc::new(tls)),
        ..service("web", &[backend.backend.address])
    };
    let routes = vec![route(prefix("/"), forward(&[("web", 1)]))];
    let edge = Edge::start(Snap::new(port, routes).with(cluster));
    let reply = get(port, "a.com", "/");
    let flags = ["-", "UF", "URX,UF"]
        .into_iter()
        .find(|flags| edge.metric("istio_requests_total", &[&format!("response_flags=\"{flags}\"")]) > 0.0);
    (
        reply.status,
        reply.text().to_owned(),
        flags.unwrap_or("?").to_owned(),
    )
}

fn told(text: &str, part: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(part));
    line.and_then(|rest| rest.strip_prefix(": "))
        .unwrap_or("?")
        .to_owned()
}

#[test]
fn an_endpoint_is_taken_by_its_authority_and_name() {
    let (own, foreign) = (Authority::new("own"), Authority::new("foreign"));
    let issued = own.issue(&["web.internal", "spiffe://td/ns/shop/sa/web"]);
    let backend = TlsBackend::start("web", &issued, None);
    let rows: [(&str, UpstreamTls, bool); 9] = [
        (
            "the name that is sent",
            simple(Some("web.internal"), verify(&own, &[])),
            true,
        ),
        (
            "another name",
            simple(Some("other.internal"), verify(&own, &[])),
            false,
        ),
        (
            "a foreign authority",
            simple(Some("web.internal"), verify(&foreign, &[])),
            false,
        ),
        (
            "one of the listed names, whatever is sent",
            simple(Some("other.internal"), verify(&own, &["x", "web.internal"])),
            true,
        ),
        (
            "a SPIFFE id",
            simple(
                Some("other.internal"),
                verify(&own, &["spiffe://td/ns/shop/sa/web"]),
            ),
            true,
        ),
        (
            "none of the listed names",
            simple(Some("web.internal"), verify(&own, &["x"])),
            false,
        ),
        (
            "a listed name of a foreign authority",
            simple(Some("web.internal"), verify(&foreign, &["web.internal"])),
            false,
        ),
        (
            "nothing is verified",
            simple(Some("other.internal"), ServerVerification::None),
            true,
        ),
        (
            "a revoked certificate",
            simple(
                Some("web.internal"),
                verify_with(&own, &[], own.revoke(&[&issued])),
            ),
            false,
        ),
    ];
    for (name, tls, taken) in rows {
        let sni = tls.sni.clone().unwrap();
        let (status, text, flags) = ask(&backend, tls);
        match taken {
            true => {
                assert_eq!((status, flags.as_str()), (200, "-"), "{name}: {text}");
                assert_eq!(told(&text, "sni"), sni, "{name}");
                assert_eq!(told(&text, "client-certificate"), "false", "{name}");
                assert_eq!(told(&text, "alpn"), "http/1.1", "{name}");
            }
            false => assert_eq!((status, flags.as_str()), (503, "URX,UF"), "{name}: {text}"),
        }
    }
}

#[test]
fn a_list_that_revokes_others_revokes_nobody_else() {
    let own = Authority::new("own");
    let (good, bad) = (own.issue(&["web.internal"]), own.issue(&["web.internal"]));
    let crl = own.revoke(&[&bad]);
    for (issued, status) in [(&good, 200), (&bad, 503)] {
        let backend = TlsBackend::start("web", issued, None);
        let tls = simple(Some("web.internal"), verify_with(&own, &[], crl.clone()));
        assert_eq!(ask(&backend, tls).0, status);
    }
}

#[test]
fn an_endpoint_that_asks_for_a_certificate_gets_the_clusters() {
    let (servers, clients, foreign) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("foreign"),
    );
    let backend = TlsBackend::start("web", &servers.issue(&["web.internal"]), Some(clients.roots()));
    let with = |issued: Option<Issued>| UpstreamTls {
        certificate: issued.map(|issued| issued.certificate),
        ..simple(Some("web.internal"), verify(&servers, &[]))
    };
    let (status, text, _) = ask(&backend, with(Some(clients.issue(&["edge"]))));
    assert_eq!(
        (status, told(&text, "client-certificate").as_str()),
        (200, "true")
    );
    for (name, issued) in [("none", None), ("a foreign one", Some(foreign.issue(&["edge"])))] {
        assert_eq!(ask(&backend, with(issued)).0, 503, "{name}");
    }
}

#[test]
fn without_a_usable_file_no_connection_is_made_and_none_in_plain_text() {
    let own = Authority::new("own");
    let backend = TlsBackend::start("web", &own.issue(&["web.internal"]), None);
    let broken = UpstreamTls {
        broken: Some("no such Secret".into()),
        ..simple(Some("web.internal"), verify(&own, &[]))
    };
    let no_pem = simple(
        Some("web.internal"),
        ServerVerification::Verify {
            ca_pem: Some(b"no PEM".as_slice().into()),
            crl_pem: Vec::new().into(),
            subject_alt_names: vec![],
        },
    );
    for tls in [broken, no_pem] {
        let (status, _, flags) = ask(&backend, tls);
        assert_eq!((status, flags.as_str()), (503, "URX,UF"));
    }
}

#[test]
fn without_a_set_name_the_requests_own_is_sent_and_verified() {
    let own = Authority::new("own");
    let backend = TlsBackend::start(
        "web",
        &own.issue(&["a.com", "*.b.com", "web.shop.svc.cluster.local"]),
        None,
    );
    let port = free_port();
    let cluster = Cluster {
        tls: Some(Arc::new(simple(None, verify(&own, &[])))),
        ..service("web", &[backend.backend.address])
    };
    let routes = vec![route(prefix("/"), forward(&[("web", 1)]))];
    let _edge = Edge::start_with(Snap::new(port, routes).with(cluster), ProxyOptions::new(1));
    for _ in 0..2 {
        for (host, status, sni) in [
            ("a.com", 200, "a.com"),
            ("x.b.com:81", 200, "x.b.com"),
            ("other.com", 503, "?"),
            // An address is no server name: the cluster's host stands in for it.
            ("127.0.0.1", 200, "web.shop.svc.cluster.local"),
        ] {
            let reply = get(port, host, "/");
            assert_eq!(
                (reply.status, told(reply.text(), "sni").as_str()),
                (status, sni),
                "{host}"
            );
        }
    }
    // Three of each failed attempt, and one connection for each name that was kept.
    assert_eq!(backend.backend.connections(), 3 + 2 * 3);
}
