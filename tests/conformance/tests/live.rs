//! Rules that only show on the wire: a proxy serves the configuration, a client sends bytes, and both its response and
//! what the endpoint got are looked at. One file for each rule, in `data/live/`.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use edge_conformance::compile_text;
use edge_control::CompileOptions;
use edge_proxy::{Proxy, ProxyOptions};
use serde::Deserialize;

/// Rules that must have a file.
const RULES: [&str; 3] = ["40", "41", "42"];

/// Longest that a client waits for bytes; only a proxy that is broken makes it wait so long.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Number of the rule; the file's name begins with it.
    rule: String,
    /// The rule in a sentence.
    says: String,
    /// With `$PORT` for the listener's port and `$ENDPOINT` for the endpoint's.
    config: String,
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    /// Lines of a request's head; the connection closes after it.
    send: Vec<String>,
    /// Status of the response.
    status: u16,
    /// Lines of the response's head, names in lower case; one that ends with `*` need only begin so.
    #[serde(default)]
    response: Vec<String>,
    /// Lines of the head that the endpoint got, likewise.
    #[serde(default)]
    endpoint: Vec<String>,
    /// Beginnings of lines that the endpoint must not get.
    #[serde(default)]
    endpoint_lacks: Vec<String>,
}

#[test]
fn every_rule_holds_on_the_wire() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/live");
    let files = fs::read_dir(folder).expect("the data is there");
    let mut paths: Vec<_> = files
        .map(|file| file.expect("the data can be read").path())
        .collect();
    paths.sort();
    let (mut failures, mut seen) = (vec![], BTreeSet::new());
    for path in paths {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path).expect("the data can be read");
        let case: Case = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            name.starts_with(&format!("{}-", case.rule)),
            "{name} is about rule {}",
            case.rule
        );
        assert!(
            case.says.ends_with('.'),
            "{name}: a sentence ends with a full stop"
        );
        failures.extend(
            check(&case)
                .into_iter()
                .map(|failure| format!("{name}: {failure}")),
        );
        seen.insert(case.rule);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(seen, RULES.map(str::to_owned).into(), "rules and files differ");
}

fn check(case: &Case) -> Vec<String> {
    let endpoint = Endpoint::start();
    let port = free_port();
    let config = case.config.replace("$PORT", &port.to_string());
    let config = config.replace("$ENDPOINT", &endpoint.address.port().to_string());
    let compiled = compile_text(&config, &CompileOptions::default());
    let errors: Vec<_> = compiled
        .problems
        .iter()
        .filter(|problem| problem.is_error())
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let registry = prometheus::Registry::new();
    let proxy = Proxy::start(ProxyOptions::new(1), &compiled.snapshot, |_| {}, &registry);
    let _proxy = proxy.expect("the proxy starts");
    let exchanges = case.exchanges.iter();
    exchanges
        .flat_map(|exchange| exchange.check(port, &endpoint))
        .collect()
}

impl Exchange {
    fn check(&self, port: u16, endpoint: &Endpoint) -> Vec<String> {
        endpoint.forget();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the proxy listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time-out can be set");
        let head = format!("{}\r\n\r\n", self.send.join("\r\n"));
        stream
            .write_all(head.as_bytes())
            .expect("the request can be sent");
        let response = read_head(&mut stream);
        let got = endpoint.head();
        let what = self.send.join(" | ");
        let mut failures = vec![];
        let status = response.first().and_then(|line| line.split(' ').nth(1));
        if status != Some(&self.status.to_string()) {
            failures.push(format!("{what}: not {} but {response:?}", self.status));
        }
        for (lines, wanted) in [(&response, &self.response), (&got, &self.endpoint)] {
            let missing = wanted
                .iter()
                .filter(|wanted| !lines.iter().any(|line| is_like(line, wanted)));
            failures.extend(missing.map(|missing| format!("{what}: no line {missing:?} in {lines:?}")));
        }
        let unwanted = got.iter().filter(|line| {
            self.endpoint_lacks
                .iter()
                .any(|beginning| line.starts_with(beginning))
        });
        failures.extend(unwanted.map(|line| format!("{what}: the endpoint got {line:?}")));
        failures
    }
}

fn is_like(line: &str, wanted: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(beginning) => line.starts_with(beginning),
        None => line == wanted,
    }
}

/// The lines of a head, names of fields in lower case.
fn read_head(stream: &mut TcpStream) -> Vec<String> {
    let mut lines = vec![];
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        if line.is_empty() {
            break;
        }
        let line = match line.split_once(": ") {
            Some((name, value)) if !lines.is_empty() => format!("{}: {value}", name.to_ascii_lowercase()),
            _ => line,
        };
        lines.push(line);
    }
    lines
}

/// A server that keeps the head of its last request and answers 200.
struct Endpoint {
    address: SocketAddr,
    last: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let last = Arc::new(Mutex::new(vec![]));
        let kept = Arc::clone(&last);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let head = read_head(&mut stream);
                *kept.lock().expect("no other user panics") = head;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer);
                // What the client still sends is read, so that closing does not reset what was answered.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.read(&mut [0; 1024]);
            }
        });
        Self { address, last }
    }

    fn forget(&self) {
        self.last.lock().expect("no other user panics").clear();
    }

    fn head(&self) -> Vec<String> {
        self.last.lock().expect("no other user panics").clone()
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("[::]:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}
