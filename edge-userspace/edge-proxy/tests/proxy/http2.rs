//! HTTP/2 with clients and endpoints, and trailers between the versions.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use edge_model::UpstreamProtocol;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use tokio::sync::Notify;

use crate::support::{
    Backend, Client, Edge, Http2Backend, Snap, eventually, forward, free_port, http2, listening, prefix,
    route, service,
};

fn request(method: Method, uri: &str) -> http::request::Builder {
    Request::builder().method(method).uri(uri)
}

fn empty() -> Full<Bytes> {
    Full::default()
}

/// Everything goes to one endpoint that is spoken to as given.
fn snap(port: u16, address: SocketAddr, protocol: UpstreamProtocol) -> Snap {
    let mut cluster = service("web", &[address]);
    cluster.protocol = protocol;
    Snap::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))]).with(cluster)
}

#[test]
fn requests_of_one_connection_are_served_at_once_and_told_apart() {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let requests = (0..50).map(|n| {
        request(Method::POST, &format!("http://a.com/echo/{n}"))
            .body(Full::from(format!("body {n}")))
            .unwrap()
    });
    for (n, answer) in http2(port, requests.collect()).into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.text(), format!("body {n}"));
    }
}

#[test]
fn a_request_reaches_an_http1_endpoint_in_its_form() {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let get = request(Method::GET, "http://a.com/x?y")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .body(empty())
        .unwrap();
    let head = request(Method::HEAD, "http://a.com/bytes/5")
        .body(empty())
        .unwrap();
    let answers = http2(port, vec![get, head]);
    let text = answers[0].as_ref().unwrap().text();
    for line in [
        "line: GET /x?y",
        "host: a.com",
        "cookie: a=1; b=2",
        "x-forwarded-proto: http",
    ] {
        assert!(
            text.lines().any(|other| other == line),
            "{line:?} is not in {text}"
        );
    }
    let head = answers[1].as_ref().unwrap();
    assert_eq!((head.header("content-length"), head.body.len()), (Some("5"), 0));
}

#[test]
fn malformed_requests_are_refused_and_the_connection_goes_on() {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let with = |name: &'static str, value: &'static str| {
        let request = request(Method::GET, "http://a.com/").header(name, value);
        request.body(empty()).unwrap()
    };
    let refused = vec![
        with("host", "b.com"),
        with("x", " padded"),
        request(Method::CONNECT, "a.com:443").body(empty()).unwrap(),
    ];
    for answer in http2(port, refused) {
        let status = answer.unwrap().status;
        assert!(status == 400 || status == 405, "{status}");
    }
    assert_eq!(web.hits(), 0);
    let answers = http2(port, vec![with("host", "A.COM"), with("x", "y")]);
    assert!(answers.into_iter().all(|answer| answer.unwrap().status == 200));
}

#[test]
fn an_endpoint_that_speaks_http2_gets_it_from_every_client() {
    let grpc = Http2Backend::start();
    let port = free_port();
    let _edge = Edge::start(snap(port, grpc.address, UpstreamProtocol::Http2));
    let call = || {
        request(Method::POST, "http://a.com/pkg.Service/Call")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::from("abc"))
            .unwrap()
    };
    for answer in http2(port, (0..150).map(|_| call()).collect()) {
        let answer = answer.unwrap();
        let text = answer.text();
        assert!(
            text.starts_with("line: POST http://a.com/pkg.Service/Call\n"),
            "{text}"
        );
        assert!(text.contains("\nte: trailers\n"), "{text}");
        let trailers = answer.trailers.unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-sum"], "3");
        assert!(!trailers.contains_key("content-length"));
    }
    let mut client = Client::connect(port);
    for _ in 0..3 {
        let reply = client.get("a.com", "/x").unwrap();
        assert!(
            reply.text().starts_with("line: GET http://a.com/x\n"),
            "{}",
            reply.text()
        );
    }
}

#[test]
fn a_client_of_http1_that_asks_for_trailers_gets_them() {
    let grpc = Http2Backend::start();
    let port = free_port();
    let _edge = Edge::start(snap(port, grpc.address, UpstreamProtocol::Http2));
    let mut client = Client::connect(port);
    client
        .write("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te, close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut client.stream(), &mut answer).unwrap();
    assert!(
        answer.ends_with("\r\n0\r\ngrpc-status: 0\r\nx-sum: 0\r\n\r\n"),
        "{answer}"
    );
}

#[test]
fn an_endpoint_may_be_spoken_to_as_the_client_speaks() {
    let (one, two) = (Backend::start("web"), Http2Backend::start());
    let (port_one, port_two) = (free_port(), free_port());
    let _edge = Edge::start(snap(port_one, one.address, UpstreamProtocol::ClientProtocol));
    let _other = Edge::start(snap(port_two, two.address, UpstreamProtocol::ClientProtocol));
    assert_eq!(Client::connect(port_one).get("a", "/").unwrap().status, 200);
    let get = request(Method::GET, "http://a.com/").body(empty()).unwrap();
    assert_eq!(http2(port_two, vec![get])[0].as_ref().unwrap().status, 200);
}

#[test]
fn a_preface_in_pieces_is_still_one() {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut client = Client::connect(port);
    for piece in ["P", "R", "I * HTTP/2.0\r\n\r\nSM", "\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        client.write(piece).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut frame = [0; 9];
    std::io::Read::read_exact(&mut client.stream(), &mut frame).unwrap();
    assert_eq!(frame[3], 4, "not a SETTINGS frame: {frame:?}");
    // A method that begins like the preface is none.
    let mut client = Client::connect(port);
    client.write("PR").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    client.write("OP / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert_eq!(client.read("PROP").unwrap().status, 200);
}

/// Octets of a body that an endpoint's window lets through.
const WINDOW: u32 = 10;

/// What an endpoint has seen of the body of a request that it had answered.
#[derive(Default)]
struct Unwanted {
    data: Vec<u8>,
    is_over: bool,
}

/// An endpoint with small windows. It answers the first request with a body when it is told to, and reads on in that body
/// when the second one is there; of that it answers with the body.
fn answering_early(go: Arc<Notify>) -> (SocketAddr, Arc<Mutex<Unwanted>>) {
    let seen = Arc::new(Mutex::new(Unwanted::default()));
    let first = Arc::clone(&seen);
    let address = listening(async move |listener| {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::Builder::new()
            .initial_window_size(WINDOW)
            .handshake::<_, Bytes>(stream)
            .await
            .unwrap();
        let second_came = Arc::new(Notify::new());
        let mut bodies = 0;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let body = request.into_body();
            if body.is_end_stream() {
                respond.send_response(http::Response::new(()), true).unwrap();
                continue;
            }
            bodies += 1;
            if bodies == 1 {
                let waits = (Arc::clone(&go), Arc::clone(&second_came));
                tokio::spawn(answer_early(body, respond, waits, Arc::clone(&first)));
            } else {
                second_came.notify_one();
                tokio::spawn(give_back(body, respond));
            }
        }
    });
    (address, seen)
}

async fn answer_early(
    mut body: h2::RecvStream,
    mut respond: h2::server::SendResponse<Bytes>,
    (go, second_came): (Arc<Notify>, Arc<Notify>),
    seen: Arc<Mutex<Unwanted>>,
) {
    let mut length = 0;
    while length < WINDOW as usize {
        let data = body.data().await.unwrap().unwrap();
        length += data.len();
        seen.lock().unwrap().data.extend_from_slice(&data);
    }
    go.notified().await;
    respond.send_response(http::Response::new(()), true).unwrap();
    second_came.notified().await;
    let _ = body.flow_control().release_capacity(length);
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        seen.lock().unwrap().data.extend_from_slice(&data);
    }
    seen.lock().unwrap().is_over = true;
}

async fn give_back(mut body: h2::RecvStream, mut respond: h2::server::SendResponse<Bytes>) {
    let mut data = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
        data.extend_from_slice(&piece);
    }
    let mut answer = respond.send_response(http::Response::new(()), false).unwrap();
    answer.send_data(data.into(), true).unwrap();
}

/// Octets that a client has written and the kernel of the other side has not acknowledged (proc(5), `/proc/net/tcp`).
fn under_way(client: &Client) -> u64 {
    let port = |address: std::io::Result<SocketAddr>| format!(":{:04X}", address.unwrap().port());
    let ends = [client.stream().local_addr(), client.stream().peer_addr()].map(port);
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut own = line.filter(|words| words[1].ends_with(&ends[0]) && words[2].ends_with(&ends[1]));
    let queues = own.next().unwrap()[4];
    u64::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap()
}

#[test]
fn a_body_whose_request_was_answered_reads_nothing_of_the_next_request() {
    let go = Arc::new(Notify::new());
    let (endpoint, first) = answering_early(Arc::clone(&go));
    let port = free_port();
    let _edge = Edge::start(snap(port, endpoint, UpstreamProtocol::Http2));
    let mut client = Client::connect(port);
    // From then on the endpoint's window is known.
    assert_eq!(client.get("a.com", "/").unwrap().status, 200);
    let head = "POST / HTTP/1.1\r\nhost: a.com\r\ncontent-length: 1000\r\n\r\n";
    // The window takes the first piece, and the rest is still here when the answer ends.
    client
        .write(format!("{head}{}", "A".repeat(WINDOW as usize)))
        .unwrap();
    let has_first = || first.lock().unwrap().data.len() == WINDOW as usize;
    assert!(eventually(has_first), "{}", first.lock().unwrap().data.len());
    client.write("A".repeat(1000 - WINDOW as usize)).unwrap();
    assert!(eventually(|| under_way(&client) == 0));
    go.notify_one();
    assert_eq!(client.read("POST").unwrap().status, 200);
    client.write(head).unwrap();
    // The endpoint has made room for more of the first body, and is told that nothing more comes.
    assert!(eventually(|| first.lock().unwrap().is_over));
    client.write("B".repeat(1000)).unwrap();
    assert_eq!(client.read("POST").unwrap().text(), "B".repeat(1000));
    assert!(first.lock().unwrap().data.iter().all(|octet| *octet == b'A'));
}
