//! Clients and servers that are not ours, through the proxy alone: edge without an interface, on the loopback.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use edge_lab::{Process, bin, wait_until};

use crate::fixture::LIMIT;

/// Ample for the programs of `clients`.
const PROGRAM_LIMIT: Duration = Duration::from_secs(150);

/// A port that is free just now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// One edge on the loopback.
struct Proxy {
    dir: tempfile::TempDir,
    edge: Process,
    port: u16,
}

impl Proxy {
    /// With a virtual host that has these rules, and endpoints by service.
    fn start(host: &str, rules: &str, services: &[(&str, &str, u16)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (port, admin) = (free_port(), free_port());
        fs::write(
            dir.path().join("edge.yaml"),
            format!("interfaces: []\nadmin: 127.0.0.1:{admin}\n"),
        )
        .expect("written");
        fs::write(
            dir.path().join("routes.yaml"),
            routes(host, port, rules, services),
        )
        .expect("written");
        let mut command = Command::new(bin("edge").expect("it is built"));
        command.arg("run").arg("--config").arg(dir.path());
        let edge = Process::spawn("edge", &mut command, dir.path()).expect("edge starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let accepts = || Ok(TcpStream::connect(address).is_ok());
        wait_until("edge listens", LIMIT, accepts).expect("edge listens");
        Self { dir, edge, port }
    }

    /// Runs a program of `clients` with arguments to its end, and answers the lines that it printed.
    fn run(&mut self, program: &str, arguments: &[String]) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let mut command = Command::new("python3");
        command.arg(folder.join(program)).args(arguments);
        command.env("PYTHONPATH", python()).env_remove("http_proxy");
        let mut process = Process::spawn(program, &mut command, self.dir.path()).expect("python3 starts");
        let status = process.wait(PROGRAM_LIMIT).expect("it ends");
        let log = process.log().expect("a log");
        assert!(status.success(), "{log}\n{}", self.edge.tail());
        log.lines().map(str::to_owned).collect()
    }
}

/// What `cargo xtask setup` installs.
fn python() -> PathBuf {
    let target = bin("edge").expect("it is built");
    let target = target.ancestors().nth(2).expect("below the target folder");
    target.join("tools/python")
}

fn routes(host: &str, port: u16, rules: &str, services: &[(&str, &str, u16)]) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: web}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['{host}']}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web}}
spec:
  hosts: ['{host}']
  gateways: [web]
  http:
{rules}"
    );
    for (name, protocol, port) in services {
        let entry = format!(
            "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{name}.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: {protocol}, protocol: {protocol}}}]
  endpoints: [{{address: 127.0.0.1, ports: {{{protocol}: {port}}}}}]
"
        );
        text.write_str(&entry).expect("to a string");
    }
    text
}

#[test]
fn calls_of_grpc_pass_in_every_form_and_fail_in_their_own_terms() {
    let backend = free_port();
    let rules = "
  - {match: [{uri: {prefix: /lab.Echo/}}], route: [{destination: {host: echo.internal}}]}
  - {match: [{uri: {prefix: /gone/}}], route: [{destination: {host: gone.internal}}]}
  - match: [{uri: {prefix: /abort/}}]
    fault: {abort: {percentage: {value: 100}, grpcStatus: RESOURCE_EXHAUSTED}}
    route: [{destination: {host: echo.internal}}]
";
    let services = [("echo", "grpc", backend), ("gone", "grpc", free_port())];
    let mut proxy = Proxy::start("grpc.example.com", rules, &services);
    let arguments = [
        format!("127.0.0.1:{}", proxy.port),
        format!("127.0.0.1:{backend}"),
    ];
    let seen = proxy.run("grpc_calls.py", &arguments);
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn websockets_pass_with_all_that_their_ends_agree_on() {
    let backend = free_port();
    let rules = "
  - {route: [{destination: {host: chat.internal}}]}
";
    let mut proxy = Proxy::start("ws.example.com", rules, &[("chat", "http", backend)]);
    let arguments = [
        "127.0.0.1".to_owned(),
        proxy.port.to_string(),
        backend.to_string(),
    ];
    let seen = proxy.run("websockets_through.py", &arguments);
    assert_eq!(seen.len(), 7, "{seen:?}");
}
