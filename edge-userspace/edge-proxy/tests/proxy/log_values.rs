//! What commands of a format stand for: of connections, handshakes, certificates and trailers.

use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edge_model::{
    ClientAuth, Cluster, FormatString, Fraction, HeaderTemplate, ListenerProtocol, PeerVerification,
    RouteTable, ServerTls, ServerVerification, TlsService, UpstreamTls,
};
use edge_proxy::AccessLogFormat;
use http::HeaderName;

use crate::tcp::{echo, exchange, tcp_route};

use crate::support::{
    Authority, Backend, Client, Edge, Log, RawBackend, Snap, TlsBackend, client_config, connect, direct,
    forward, free_port, get, prefix, refusing, route, service, tls_server, virtual_host,
};

const HOST: &str = "a.com";

fn text(format: &str) -> AccessLogFormat {
    AccessLogFormat::Text(FormatString::parse(&format!("{format}\n")).unwrap())
}

/// An edge that logs by a format.
fn logging(name: &str, format: &str, snap: Snap) -> (Edge, Log) {
    let log = Log::new(name);
    let options = log.options(text(format), Fraction::ALWAYS);
    (Edge::start_with(snap, options), log)
}

fn fields(line: &str) -> Vec<&str> {
    line.split('|').collect()
}

#[test]
fn connections_and_requests_have_numbers_of_their_own() {
    let port = free_port();
    let snap = Snap::new(port, vec![route(prefix("/"), direct(200, "x"))]);
    let (_edge, log) = logging("numbers", "%CONNECTION_ID%|%STREAM_ID%|%HOSTNAME%", snap);
    let mut one = Client::connect(port);
    for path in ["/1", "/2"] {
        assert_eq!(one.get("a", path).unwrap().status, 200);
    }
    log.expect(2);
    // More connections than workers, so that two are of one.
    for _ in 0..4 {
        assert_eq!(get(port, "a", "/").status, 200);
    }
    let lines = log.expect(6);
    let rows: Vec<_> = lines.iter().map(|line| fields(line)).collect();
    assert_eq!(rows[0][0], rows[1][0], "one connection");
    let mut numbers: Vec<u64> = rows[1..].iter().map(|row| row[0].parse().unwrap()).collect();
    numbers.extend(rows.iter().map(|row| row[1].parse::<u64>().unwrap()));
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 5 + 6, "{lines:?}");
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(rows.iter().all(|row| row[2] == hostname.trim_end()), "{lines:?}");
}

#[test]
fn the_gateways_address_is_the_one_that_the_endpoint_sees() {
    let backend = RawBackend::start(|mut stream, _| {
        let peer = stream.peer_addr().unwrap();
        while !RawBackend::read_head(&mut stream).is_empty() {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nx-peer: {peer}\r\ncontent-length: 0\r\n\r\n"
            )
            .unwrap();
        }
    });
    let port = free_port();
    let snap = Snap::simple(port, &[backend.address]);
    let (_edge, log) = logging("local", "%RESP(x-peer)%|%UPSTREAM_LOCAL_ADDRESS%", snap);
    for _ in 0..3 {
        assert_eq!(get(port, "a", "/").status, 200);
    }
    for line in log.expect(3) {
        let row = fields(&line);
        assert!(row[0] == row[1] && row[0].starts_with("127.0.0.1:"), "{line}");
    }
}

#[test]
fn a_request_lasts_until_its_last_byte() {
    const PAUSE: Duration = Duration::from_millis(50);
    let (told, came) = channel();
    let told = Mutex::new(told);
    let backend = RawBackend::start(move |mut stream, _| {
        loop {
            let head = RawBackend::read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            told.lock().unwrap().send(()).unwrap();
            if head.starts_with("POST") {
                stream.read_exact(&mut [0; 6]).unwrap();
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .unwrap();
        }
    });
    let port = free_port();
    let snap = Snap::simple(port, &[backend.address]);
    let (_edge, log) = logging("lasts", "%REQUEST_DURATION%|%DURATION%|%BYTES_RECEIVED%", snap);
    let mut client = Client::connect(port);
    let began = Instant::now();
    client
        .write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc")
        .unwrap();
    // The endpoint has the head, so that the request has begun.
    came.recv().unwrap();
    std::thread::sleep(PAUSE);
    client.write("def").unwrap();
    assert_eq!(client.read("POST").unwrap().status, 200);
    let took = began.elapsed();
    assert_eq!(client.get("a", "/").unwrap().status, 200);
    let lines = log.expect(2);
    let fields = fields(&lines[0]);
    let row: Vec<u128> = fields.iter().map(|field| field.parse().unwrap()).collect();
    assert!(
        (PAUSE.as_millis()..=took.as_millis()).contains(&row[0]),
        "{lines:?}"
    );
    assert!(row[1] >= row[0] && row[2] == 6, "{lines:?}");
    assert!(lines[1].starts_with("0|"), "{lines:?}");
}

#[test]
fn trailers_are_told_of_and_their_grpc_status_is_counted() {
    let backend = RawBackend::start(|mut stream, _| {
        while !RawBackend::read_head(&mut stream).is_empty() {
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n\
                          3\r\nabc\r\n0\r\ngrpc-status: 7\r\nx-sum: 9\"\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let port = free_port();
    let format = "%TRAILER(X-SUM)%|%TRAILER(x-none?GRPC-STATUS)%|%TRAILER(x-none)%|%GRPC_STATUS%|\
                  %GRPC_STATUS_NUMBER%|%RESP(x-sum)%";
    let (edge, log) = logging("trailers", format, Snap::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client
        .write("POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\nte: trailers\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    let head = client.read_head().unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(log.expect(1), ["9\\\"|7|-|PermissionDenied|7|-"]);
    edge.expect_metric("istio_requests_total", &["grpc_response_status=\"7\""], 1);
}

#[test]
fn why_no_connection_could_be_opened_is_told() {
    let servers = Authority::new("servers");
    let endpoint = TlsBackend::start("tls", &servers.issue(&[HOST]), None);
    let tls = UpstreamTls {
        certificate: None,
        sni: Some(HOST.to_owned()),
        verify: ServerVerification::Verify {
            ca_pem: Some(Authority::new("others").pem().into()),
            crl_pem: vec![].into(),
            subject_alt_names: vec![],
        },
        broken: None,
    };
    let good = Backend::start("good");
    let port = free_port();
    let rule = |path: &str, to: &str| route(prefix(path), forward(&[(to, 1)]));
    let snap = Snap::new(
        port,
        vec![
            rule("/refused", "refused"),
            rule("/tls", "tls"),
            rule("/", "good"),
        ],
    )
    .with(service("refused", &[refusing()]))
    .with(service("good", &[good.address]))
    .with(Cluster {
        tls: Some(Arc::new(tls)),
        ..service("tls", &[endpoint.backend.address])
    });
    let format = "%RESPONSE_CODE%|%UPSTREAM_TRANSPORT_FAILURE_REASON%|%UPSTREAM_LOCAL_ADDRESS%";
    let (_edge, log) = logging("failure", format, snap);
    for (path, expected) in [
        ("/refused", "503|delayed_connect_error:_Connection_refused|-"),
        ("/tls", "503|TLS_error:|invalid_peer_certificate:_UnknownIssuer|-"),
        ("/", "200|-|127.0.0.1:"),
    ] {
        let before = log.lines().len();
        get(port, "a", path);
        let lines = log.expect(before + 1);
        assert!(lines[before].starts_with(expected), "{path}: {lines:?}");
    }
}

#[test]
fn handshakes_and_certificates_of_clients_are_told() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let own = servers.issue(&[HOST]);
    let ann = clients.issue(&["ann", "b.ann", "spiffe://td/ns/shop/sa/ann", "https://ann"]);
    let verification = PeerVerification {
        ca_pem: clients.pem(),
        ..PeerVerification::default()
    };
    let tls = ServerTls {
        client_auth: ClientAuth::Optional(Arc::new(verification)),
        ..ServerTls::simple(Some(Arc::clone(&own.certificate)))
    };
    let mut rule = route(prefix("/"), direct(200, "x"));
    let subject = HeaderTemplate::parse("%DOWNSTREAM_PEER_SUBJECT%").unwrap();
    rule.headers.response.set = vec![(HeaderName::from_static("x-subject"), subject)];
    let routes = RouteTable::new("https.443", [Arc::new(virtual_host("*", vec![rule]))]);
    let service = TlsService::Http {
        tls,
        routes: Arc::new(routes),
    };
    let port = free_port();
    let listener = ListenerProtocol::Tls(vec![Arc::new(tls_server(&[HOST], service))]);
    let snap = Snap::default().listen_with(port, listener);
    let format = "%DOWNSTREAM_TLS_VERSION%|%DOWNSTREAM_TLS_CIPHER%|%DOWNSTREAM_PEER_SUBJECT%|%DOWNSTREAM_PEER_ISSUER%|\
                  %DOWNSTREAM_PEER_SERIAL%|%DOWNSTREAM_PEER_FINGERPRINT_256%|%DOWNSTREAM_PEER_URI_SAN%|\
                  %DOWNSTREAM_PEER_DNS_SAN%|%DOWNSTREAM_PEER_CERT%|%REQUESTED_SERVER_NAME%";
    let (_edge, log) = logging("tls", format, snap);
    let plain = client_config(&servers.roots());
    let with_certificate = {
        let (chain, key) = ann.chain_and_key();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(servers.roots())
            .with_client_auth_cert(chain, key)
            .unwrap()
    };
    let mut subjects = Vec::new();
    for config in [plain, with_certificate] {
        let (mut client, _) = connect(port, HOST, &Arc::new(config)).unwrap();
        let reply = client.get(HOST, "/").unwrap();
        subjects.push(reply.header("x-subject").map(str::to_owned));
        log.expect(subjects.len());
    }
    assert_eq!(subjects, [None, Some("O=Shop,CN=ann".to_owned())]);
    let lines = log.lines();
    assert!(
        lines[0].starts_with("TLSv1.3|TLS_") && lines[0].ends_with("|-|-|-|-|-|-|-|a.com"),
        "{lines:?}"
    );
    let row = fields(&lines[1]);
    assert_eq!(row[0], "TLSv1.2");
    assert!(row[1].starts_with("ECDHE-ECDSA-"), "{row:?}");
    assert_eq!(row[2], "O=Shop,CN=ann");
    assert!(row[3].contains("CN=clients"), "{row:?}");
    let digits = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    assert!(digits(row[4]) && !row[4].is_empty(), "{row:?}");
    assert!(digits(row[5]) && row[5].len() == 64, "{row:?}");
    assert_eq!(row[6], "spiffe://td/ns/shop/sa/ann,https://ann");
    assert_eq!(row[7], "ann,b.ann");
    assert!(row[8].starts_with("-----BEGIN%20CERTIFICATE-----%0A"), "{row:?}");
    assert_eq!(row[9], HOST);
}

#[test]
fn what_clients_send_cannot_break_a_line_of_either_format() {
    let port = free_port();
    let log = Log::new("escapes");
    let members = [
        ("agent", "%REQ(user-agent)%"),
        ("both", "<%REQ(:METHOD)% %REQ(user-agent)%>"),
        ("x", "%REQ(x)%"),
    ];
    let members = members.map(|(name, format)| (name.to_owned(), FormatString::parse(format).unwrap()));
    let options = log.options(AccessLogFormat::Json(members.to_vec()), Fraction::ALWAYS);
    let snap = Snap::new(port, vec![route(prefix("/"), direct(200, "x"))]);
    let _edge = Edge::start_with(snap, options);
    let mut client = Client::connect(port);
    client
        .write(b"GET / HTTP/1.1\r\nhost: a\r\nuser-agent: a\"b\\c\td\xffe\xc3\xa9\r\n\r\n")
        .unwrap();
    assert_eq!(client.read("GET").unwrap().status, 200);
    let agent = "a\\\"b\\\\c\\u0009d\u{fffd}e\u{e9}";
    let expected = format!("{{\"agent\":\"{agent}\",\"both\":\"<GET {agent}>\",\"x\":null}}");
    assert_eq!(log.expect(1), [expected]);
}

#[test]
fn a_connection_whose_bytes_are_forwarded_has_a_line_at_its_end() {
    let db = echo("db:");
    let servers = Authority::new("servers");
    let inner = TlsBackend::start("inner", &servers.issue(&[HOST]), None);
    let [plain, refused, none, tls] = std::array::from_fn(|_| free_port());
    let passing = tls_server(
        &[HOST],
        TlsService::Passthrough {
            route: tcp_route(&[("inner", 1)]),
        },
    );
    let snap = Snap::default()
        .listen_with(plain, ListenerProtocol::Tcp(tcp_route(&[("db", 1)])))
        .listen_with(refused, ListenerProtocol::Tcp(tcp_route(&[("refused", 1)])))
        .listen_with(none, ListenerProtocol::Tcp(tcp_route(&[("nobody", 1)])))
        .listen_with(tls, ListenerProtocol::Tls(vec![Arc::new(passing)]))
        .with(service("db", &[db.address]))
        .with(service("refused", &[refusing()]))
        .with(service("inner", &[inner.backend.address]));
    let format = "%PROTOCOL%|%REQ(:METHOD)%|%RESP(x)%|%RESPONSE_CODE%|%RESPONSE_FLAGS%|%BYTES_RECEIVED%|%BYTES_SENT%|\
                  %REQUEST_DURATION%|%UPSTREAM_HOST%|%UPSTREAM_CLUSTER%|%REQUESTED_SERVER_NAME%|%ROUTE_NAME%|\
                  %DOWNSTREAM_LOCAL_ADDRESS%|%UPSTREAM_TRANSPORT_FAILURE_REASON%|%UPSTREAM_LOCAL_ADDRESS%";
    let (_edge, log) = logging("tcp", format, snap);
    assert_eq!(exchange(plain, b"hello").unwrap(), b"db:hello");
    let line = log.expect(1).remove(0);
    let expected = format!(
        "-|-|-|0|-|5|8|-|{}|outbound|80||db.shop.svc.cluster.local|-|-|127.0.0.1:{plain}|-|127.0.0.1:",
        db.address
    );
    assert!(line.starts_with(&expected), "{line}");
    let _ = exchange(refused, b"hello");
    let line = log.expect(2).remove(1);
    assert!(line.starts_with("-|-|-|0|URX,UF|0|0|-|127.0.0.1:"), "{line}");
    assert!(
        line.ends_with("|delayed_connect_error:_Connection_refused|-"),
        "{line}"
    );
    let _ = exchange(none, b"hello");
    let line = log.expect(3).remove(2);
    assert!(line.starts_with("-|-|-|0|NC|0|0|-|-|-|-|-|"), "{line}");
    let (mut client, _) = connect(tls, HOST, &Arc::new(client_config(&servers.roots()))).unwrap();
    assert_eq!(client.get(HOST, "/").unwrap().status, 200);
    drop(client);
    let line = log.expect(4).remove(3);
    let expected = format!(
        "|{}|outbound|80||inner.shop.svc.cluster.local|{HOST}|-|",
        inner.backend.address
    );
    assert!(
        line.starts_with("-|-|-|0|-|") && line.contains(&expected),
        "{line}"
    );
}
