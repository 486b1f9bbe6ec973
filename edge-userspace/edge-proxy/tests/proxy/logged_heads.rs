//! What the access log tells of a response's head: what the client gets, however the response came about.

use std::convert::Infallible;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use bytes::Bytes;
use edge_model::{
    FormatString, Fraction, HeaderEdit, HeaderTemplate, RedirectPath, Route, RouteAction, UpstreamProtocol,
};
use edge_proxy::{AccessLog, AccessLogFormat, ProxyOptions};
use http::{HeaderName, HeaderValue};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::{
    Client, Edge, RawBackend, Snap, direct, eventually, forward, free_port, http2, listening, prefix,
    redirect, route, service,
};

/// Fields of a response that are logged, in the order in which they stand in a line.
const FIELDS: [&str; 6] = [
    "content-length",
    "transfer-encoding",
    "date",
    "server",
    "connection",
    "x-op",
];

/// A request, and the Content-Length of its answer in HTTP/1.1 and in HTTP/2. An empty path of [`PATHS`] goes to the
/// endpoint; `hello` is the body where there is one.
type Row = (&'static str, &'static str, [Option<&'static str>; 2]);

const ROWS: [Row; 19] = [
    // The endpoint tells the length of its body, or does not.
    ("GET", "/length", [Some("5"); 2]),
    ("GET", "/chunked", [None; 2]),
    ("GET", "/until-close", [None; 2]),
    // HTTP/2 tells of nothing by the end of the stream.
    ("GET", "/empty", [Some("0"), None]),
    // What GET would get (RFC 9110 section 8.6).
    ("HEAD", "/length", [Some("5"); 2]),
    ("HEAD", "/chunked", [None; 2]),
    ("GET", "/not-modified", [Some("5"); 2]),
    ("HEAD", "/not-modified", [Some("5"); 2]),
    ("GET", "/no-content", [None; 2]),
    ("HEAD", "/no-content", [None; 2]),
    // The gateway answers by itself, as it is told to ...
    ("GET", "/direct", [Some("5"); 2]),
    ("HEAD", "/direct", [Some("5"); 2]),
    ("GET", "/direct-no-content", [None; 2]),
    ("GET", "/direct-empty", [Some("0"), None]),
    ("GET", "/redirect", [Some("0"), None]),
    ("HEAD", "/redirect", [None; 2]),
    // ... or because it has to.
    ("GET", "/nowhere", [Some("19"); 2]),
    ("HEAD", "/nowhere", [Some("19"); 2]),
    ("POST", "/nowhere", [Some("19"); 2]),
];

/// An endpoint of HTTP/1.1 that answers as the last segment of the path says.
fn endpoint() -> SocketAddr {
    let backend = RawBackend::start(|mut stream, _| {
        loop {
            let head = RawBackend::read_head(&mut stream);
            let mut words = head.split(' ');
            let (Some(method), Some(path)) = (words.next(), words.next()) else {
                return;
            };
            let goes_on = answer(&mut stream, method == "HEAD", path.rsplit('/').next().unwrap());
            if !goes_on {
                return;
            }
        }
    });
    let address = backend.address;
    // Its thread ends with the program.
    std::mem::forget(backend);
    address
}

fn answer(stream: &mut TcpStream, is_head: bool, what: &str) -> bool {
    let (head, body) = match what {
        "chunked" => (
            "200 OK\r\ntransfer-encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        "until-close" => ("200 OK\r\n", "hello"),
        "empty" => ("200 OK\r\ncontent-length: 0\r\n", ""),
        "no-content" => ("204 No Content\r\n", ""),
        "not-modified" => ("304 Not Modified\r\ncontent-length: 5\r\n", ""),
        _ => ("200 OK\r\ncontent-length: 5\r\n", "hello"),
    };
    let body = if is_head { "" } else { body };
    write!(stream, "HTTP/1.1 {head}\r\n{body}").is_ok() && what != "until-close"
}

type Body = Either<Full<Bytes>, StreamBody<futures_util::stream::Iter<std::array::IntoIter<Piece, 1>>>>;
type Piece = Result<Frame<Bytes>, Infallible>;

/// The same of HTTP/2.
fn endpoint_http2() -> SocketAddr {
    listening(async |listener| {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(answer_http2)));
        }
    })
}

async fn answer_http2(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let hello = Bytes::from_static(b"hello");
    let what = request.uri().path().rsplit('/').next().unwrap().to_owned();
    let (status, length, body) = match what.as_str() {
        "chunked" | "until-close" => (200, None, hello),
        "empty" => (200, Some("0"), Bytes::new()),
        "no-content" => (204, None, Bytes::new()),
        "not-modified" => (304, Some("5"), Bytes::new()),
        _ => (200, Some("5"), hello),
    };
    let mut response = Response::builder().status(status);
    if let Some(length) = length {
        response = response.header("content-length", length);
    }
    let body = match length {
        _ if request.method() == Method::HEAD => Either::Left(Full::default()),
        None if !body.is_empty() => {
            let pieces = [Ok(Frame::data(body))];
            Either::Right(StreamBody::new(futures_util::stream::iter(pieces)))
        }
        Some(_) | None => Either::Left(Full::new(body)),
    };
    Ok(response.body(body).unwrap())
}

/// Actions by path.
fn actions() -> Vec<(&'static str, RouteAction)> {
    vec![
        ("/direct-no-content", direct(204, "hello")),
        ("/direct-empty", direct(200, "")),
        ("/direct", direct(200, "hello")),
        (
            "/redirect",
            redirect(301, None, RedirectPath::Whole("/new".into())),
        ),
        ("/nowhere", forward(&[("nobody", 1)])),
        ("/", forward(&[("web", 1)])),
    ]
}

/// Header operations that say of framing what is not so, and one that is done.
fn editing() -> HeaderEdit {
    let pair = |name, value| {
        let value = HeaderTemplate::Plain(HeaderValue::from_static(value));
        (HeaderName::from_static(name), value)
    };
    HeaderEdit {
        remove: vec![HeaderName::from_static("content-length")],
        set: vec![pair("content-length", "99"), pair("x-op", "done")],
        add: vec![
            pair("transfer-encoding", "chunked"),
            pair("content-length", "1"),
            pair("connection", "close"),
        ],
    }
}

/// Each action twice: as it is, and below `/edited` with header operations.
fn routes() -> Vec<Route> {
    let edited = actions().into_iter().map(|(path, action)| {
        let mut edited = route(prefix(&format!("/edited{path}")), action);
        edited.headers.response = editing();
        edited
    });
    let plain = actions()
        .into_iter()
        .map(|(path, action)| route(prefix(path), action));
    edited.chain(plain).collect()
}

fn log(name: &str) -> (PathBuf, ProxyOptions) {
    let path = std::env::temp_dir().join(format!("edge-heads-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let fields = FIELDS.map(|name| format!("{name}=%RESP({name})%"));
    let format = format!("%REQ(:METHOD)% %REQ(:PATH)% {}\n", fields.join(" "));
    let options = ProxyOptions {
        access_log: Some(AccessLog {
            path: Some(path.clone()),
            format: AccessLogFormat::Text(FormatString::parse(&format).unwrap()),
            sample: Fraction::ALWAYS,
        }),
        ..ProxyOptions::new(1)
    };
    (path, options)
}

/// What a client gets: the fields of a head, all lines of a name joined by `|`, and the body's length.
type Got = (Vec<(String, String)>, usize);

fn ask_http1(port: u16, method: &str, path: &str, more: &str) -> Got {
    let mut client = Client::connect(port);
    let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{more}\r\n");
    client.write(head).unwrap();
    let reply = client.read(method).unwrap();
    (reply.headers, reply.body.len())
}

fn ask_http2(port: u16, method: &str, path: &str) -> Got {
    let request = Request::builder().method(method).uri(format!("http://a{path}"));
    let answers = http2(port, vec![request.body(Full::default()).unwrap()]);
    let answer = answers.into_iter().next().unwrap();
    let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let fields = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)));
    (fields.collect(), answer.body.len())
}

/// The only line of a field, or `-`.
#[track_caller]
fn field<'a>((headers, _): &'a Got, name: &str) -> &'a str {
    let lines: Vec<_> = headers.iter().filter(|(own, _)| own == name).collect();
    assert!(lines.len() <= 1, "{name}: {headers:?}");
    lines.first().map_or("-", |(_, value)| value)
}

/// All rows by both versions, with the endpoint at `address` that speaks `protocol`.
fn check(name: &str, address: SocketAddr, protocol: UpstreamProtocol) {
    let (path, options) = log(name);
    let port = free_port();
    let mut web = service("web", &[address]);
    web.protocol = protocol;
    let snap = Snap::new(port, routes()).with(web).with(service("nobody", &[]));
    let _edge = Edge::start_with(snap, options);
    let mut expected = Vec::new();
    for (method, target, lengths) in ROWS {
        for target in [target.to_owned(), format!("/edited{target}")] {
            let one = ask_http1(port, method, &target, "");
            let last = ask_http1(port, method, &target, "connection: close\r\n");
            let two = ask_http2(port, method, &target);
            for (got, length) in [(&one, lengths[0]), (&last, lengths[0]), (&two, lengths[1])] {
                let at = format!("{name}: {method} {target}: {got:?}");
                assert_eq!(field(got, "content-length"), length.unwrap_or("-"), "{at}");
                let has_body = method != "HEAD" && !target.contains("no");
                assert!(!(method == "HEAD" && got.1 > 0), "{at}");
                assert!(
                    !has_body || length.is_none_or(|length| length == got.1.to_string()),
                    "{at}"
                );
                let is_edited = target.starts_with("/edited");
                assert_eq!(field(got, "x-op"), if is_edited { "done" } else { "-" }, "{at}");
                assert_eq!(field(got, "server"), "istio-envoy", "{at}");
                let told = FIELDS.map(|name| format!("{name}={}", field(got, name)));
                let line = format!("{method} {target} {}", told.join(" "));
                // The chunked coding belongs to the message of HTTP/1.1, not to its fields (RFC 9112 section 6.1).
                expected.push(line.replace("transfer-encoding=chunked", "transfer-encoding=-"));
            }
            assert_eq!(field(&one, "connection"), "-", "{target}");
            assert_eq!(field(&last, "connection"), "close", "{target}");
        }
    }
    let lines = || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(eventually(|| lines().len() == expected.len()));
    // Requests of different connections may be told of in another order than they were answered in.
    let mut lines = lines();
    lines.sort();
    expected.sort();
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!(line, expected, "{name}");
    }
    let _ = std::fs::remove_file(&path);
}

#[test]
fn a_line_of_the_log_has_the_head_that_the_client_gets_from_an_endpoint_of_http1() {
    check("one", endpoint(), UpstreamProtocol::Http1);
}

#[test]
fn a_line_of_the_log_has_the_head_that_the_client_gets_from_an_endpoint_of_http2() {
    check("two", endpoint_http2(), UpstreamProtocol::Http2);
}
