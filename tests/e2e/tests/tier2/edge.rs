//! One edge without an interface, its endpoints and its clients, on the loopback of a network namespace of their own, so
//! that every port is free.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use edge_lab::{Curl, NetNs, Process, bin, wait_until};

/// Ample for anything that takes milliseconds, on a machine that compiles at the same time.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Ample for the programs of `clients`.
const PROGRAM_LIMIT: Duration = Duration::from_secs(150);

/// Port of the Gateway.
pub(crate) const PORT: u16 = 8080;

/// A port that nobody listens on.
pub(crate) const NOBODY: u16 = 9999;

const ADMIN: &str = "127.0.0.1:15000";

/// A line for each request: what was asked, and how it ended.
const LOG_FORMAT: &str =
    "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\\n";

/// One edge, and what runs beside it.
pub(crate) struct Edge {
    process: Process,
    netns: NetNs,
    dir: tempfile::TempDir,
}

/// What edge runs with.
pub(crate) struct Setup {
    netns: NetNs,
    dir: tempfile::TempDir,
    prefix: Vec<String>,
    bootstrap: String,
}

impl Setup {
    /// The files of Istio's API by this text, in the folder that edge watches.
    pub(crate) fn new(resources: &str) -> Self {
        let netns = NetNs::new("proxy").expect("root may make namespaces");
        let dir = tempfile::tempdir().expect("a folder");
        let log = dir.path().join("access.log");
        let bootstrap = format!(
            "interfaces: []
admin: {ADMIN}
workers: 1
resources: resources
accessLog: {{path: {}, format: \"{LOG_FORMAT}\"}}
",
            log.display()
        );
        let setup = Self {
            netns,
            dir,
            prefix: Vec::new(),
            bootstrap,
        };
        fs::create_dir(setup.dir.path().join("resources")).expect("a folder");
        fs::write(setup.dir.path().join("resources/all.yaml"), resources).expect("written");
        setup
    }

    /// More keys of edge.yaml.
    pub(crate) fn bootstrap(mut self, keys: &str) -> Self {
        self.bootstrap += keys;
        self
    }

    /// A program that starts edge, with its arguments: `["prlimit", "--nofile=64"]`.
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        self.prefix = words.iter().map(ToString::to_string).collect();
        self
    }

    /// The namespace, before edge runs in it.
    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Folder of everything.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts edge, and waits until it is ready.
    pub(crate) fn start(self) -> Edge {
        let Self {
            netns,
            dir,
            prefix,
            bootstrap,
        } = self;
        fs::write(dir.path().join("edge.yaml"), bootstrap).expect("written");
        let program = bin("edge").expect("it is built");
        let mut words = prefix.iter().map(PathBuf::from).chain([program]);
        let mut command = netns.command(words.next().expect("edge at least"));
        command.args(words).args(["run", "--config"]).arg(dir.path());
        let process = Process::spawn("edge", &mut command, dir.path()).expect("edge starts");
        let edge = Edge { process, netns, dir };
        let ready = || Ok(edge.admin("/healthz/ready")?.0 == 200);
        wait_until("edge to be ready", LIMIT, ready)
            .unwrap_or_else(|error| panic!("{error:#}{}", edge.process.tail()));
        edge
    }
}

impl Edge {
    /// Edge with these files of Istio's API, and nothing special.
    pub(crate) fn start(resources: &str) -> Self {
        Setup::new(resources).start()
    }

    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What edge wrote last.
    pub(crate) fn tail(&self) -> String {
        self.process.tail()
    }

    /// A program of `clients`, to be run in the namespace.
    pub(crate) fn program(&self, name: &str) -> Command {
        program(&self.netns, name)
    }

    /// Runs a program of `clients` to its end, and answers the lines that it printed.
    pub(crate) fn run(&self, name: &str, arguments: &[&str]) -> Vec<String> {
        let mut command = self.program(name);
        command.args(arguments);
        let mut process = Process::spawn(name, &mut command, self.dir()).expect("python3 starts");
        let status = process.wait(PROGRAM_LIMIT).expect("it ends");
        let log = process.log().expect("a log");
        assert!(status.success(), "{log}\n{}", self.tail());
        log.lines().map(str::to_owned).collect()
    }

    /// Starts an endpoint of `clients/endpoint.py` on a port.
    pub(crate) fn endpoint(&self, name: &str, port: u16) -> Process {
        let mut command = self.program("endpoint.py");
        command.args(["127.0.0.1", &port.to_string(), name]);
        let process = Process::spawn(name, &mut command, self.dir()).expect("python3 starts");
        let url = format!("http://127.0.0.1:{port}/");
        let answers = || Ok(self.curl().get(&url)?.status == 200);
        wait_until("the endpoint", LIMIT, answers)
            .unwrap_or_else(|error| panic!("{error:#}{}", process.tail()));
        process
    }

    /// A request by curl(1).
    pub(crate) fn curl(&self) -> Curl<'_> {
        Curl::new(&self.netns)
    }

    /// Status code and body of a page of the admin address.
    pub(crate) fn admin(&self, path: &str) -> Result<(u16, String)> {
        let answer = self.curl().get(&format!("http://{ADMIN}{path}"))?;
        Ok((answer.status, answer.text()))
    }

    /// Sum of the samples of a metric whose lines have all of these parts.
    pub(crate) fn metric(&self, name: &str, parts: &[&str]) -> Result<f64> {
        let (_, page) = self.admin("/stats/prometheus")?;
        let is_meant = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && parts.iter().all(|part| line.contains(part))
        };
        let values = page.lines().filter(is_meant).map(|line| {
            let value = line.rsplit(' ').next().unwrap_or_default();
            value.parse::<f64>().with_context(|| line.to_owned())
        });
        values.sum()
    }

    /// Waits until a metric has come to a value, which may be after the client has its answer.
    #[track_caller]
    pub(crate) fn expect_metric(&self, name: &str, parts: &[&str], expected: f64) {
        let what = format!("{name} {parts:?} to be {expected}");
        // Values are whole numbers.
        let is_there = || Ok((self.metric(name, parts)? - expected).abs() < 0.5);
        wait_until(&what, LIMIT, is_there).unwrap_or_else(|error| panic!("{error:#}{}", self.tail()));
    }

    /// Waits until a metric has reached a value.
    #[track_caller]
    pub(crate) fn expect_at_least(&self, name: &str, parts: &[&str], least: f64) {
        let what = format!("{name} {parts:?} to reach {least}");
        let is_there = || Ok(self.metric(name, parts)? >= least);
        wait_until(&what, LIMIT, is_there).unwrap_or_else(|error| panic!("{error:#}{}", self.tail()));
    }

    /// Waits until so many requests of a status are counted under these response flags.
    #[track_caller]
    pub(crate) fn expect_counted(&self, status: u16, flags: &str, expected: u32) {
        let parts = [
            format!("response_code=\"{status}\""),
            format!("response_flags=\"{flags}\""),
        ];
        let parts = [parts[0].as_str(), parts[1].as_str()];
        self.expect_metric("istio_requests_total", &parts, f64::from(expected));
    }

    /// Waits until the access log has this line.
    #[track_caller]
    pub(crate) fn expect_logged(&self, line: &str) {
        let path = self.dir().join("access.log");
        let read = || fs::read_to_string(&path).unwrap_or_default();
        let is_there = || Ok(read().lines().any(|own| own == line));
        let found = wait_until(&format!("the line {line:?}"), LIMIT, is_there);
        found.unwrap_or_else(|error| panic!("{error:#}: {}", read()));
    }
}

/// A program of `clients`, to be run in a namespace, with what `cargo xtask setup` installs for it.
pub(crate) fn program(netns: &NetNs, name: &str) -> Command {
    let target = bin("edge").expect("it is built");
    let target = target.ancestors().nth(2).expect("below the target folder");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut command = netns.command("python3");
    command.arg(folder.join(name));
    command
        .env("PYTHONPATH", target.join("tools/python"))
        .env_remove("http_proxy");
    command
}

/// URL of a path on the Gateway.
pub(crate) fn url(path: &str) -> String {
    format!("http://127.0.0.1:{PORT}{path}")
}

/// A Gateway that takes these hosts, and a VirtualService with these rules for all of them.
pub(crate) fn gateway(hosts: &str, rules: &str) -> String {
    let server = format!("{{port: {{number: {PORT}, name: http, protocol: HTTP}}, hosts: ['{hosts}']}}");
    gateway_of("web", &server, hosts, rules)
}

/// A Gateway of a name with one server, and a VirtualService of the same name with these rules for its hosts.
pub(crate) fn gateway_of(name: &str, server: &str, hosts: &str, rules: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{server}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: ['{hosts}']
  gateways: [{name}]
  http:
{rules}
"
    )
}

/// A ServiceEntry `NAME.internal` with endpoints on these ports of the loopback.
pub(crate) fn service(name: &str, protocol: &str, ports: &[u16]) -> String {
    let mut text = format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{name}.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: {protocol}, protocol: {protocol}}}]
  endpoints:
"
    );
    for port in ports {
        let endpoint = format!("  - {{address: 127.0.0.1, ports: {{{protocol}: {port}}}}}\n");
        text.write_str(&endpoint).expect("to a string");
    }
    text
}
