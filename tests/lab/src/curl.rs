//! Requests by curl(1), which knows TLS, source addresses and timings, and is not our own code.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::netns::NetNs;

/// How long one request may take, unless [`Curl::max_time`] says otherwise.
const MAX_TIME: Duration = Duration::from_secs(10);
/// How many requests of a [`Burst`] are under way at once.
const PARALLEL: u32 = 20;

/// A request to be sent from a namespace.
#[derive(Debug, Clone)]
pub struct Curl<'a> {
    netns: &'a NetNs,
    args: Vec<String>,
    max_time: Duration,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The status code of the last response; interim responses (1xx) are passed over.
    pub status: u16,
    /// The header fields in their order. Names are in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// From the start to the established TCP connection.
    pub time_connect: Duration,
    /// From the start to the last byte.
    pub time_total: Duration,
    /// The address that the request left from.
    pub local_ip: String,
    /// The port that the request left from.
    pub local_port: u16,
}

/// The outcome of many equal requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Burst {
    /// How many requests got which status. A request without any answer counts as status 0.
    pub by_status: BTreeMap<u16, u64>,
}

impl<'a> Curl<'a> {
    /// A GET from this namespace, without headers of its own, at most 10 s long.
    #[must_use]
    pub fn new(netns: &'a NetNs) -> Self {
        Self {
            netns,
            args: Vec::new(),
            max_time: MAX_TIME,
        }
    }

    /// Adds arguments of curl's own.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Another method than GET.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        self.args(&["--request", method])
    }

    /// Adds a header field: `header("host: shop.example.com")`.
    #[must_use]
    pub fn header(self, field: &str) -> Self {
        self.args(&["--header", field])
    }

    /// Sends a body, by POST unless [`Curl::method`] says otherwise.
    #[must_use]
    pub fn body(self, body: &str) -> Self {
        self.args(&["--data-binary", body])
    }

    /// Leaves from this address of the namespace.
    #[must_use]
    pub fn source(self, address: &str) -> Self {
        self.args(&["--interface", address])
    }

    /// Takes `host` and `port` for `address`, as DNS would.
    #[must_use]
    pub fn resolve(self, host: &str, port: u16, address: &str) -> Self {
        let bracketed = if address.contains(':') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        self.args(&["--resolve", &format!("{host}:{port}:{bracketed}")])
    }

    /// Trusts this certificate authority.
    #[must_use]
    pub fn ca(self, file: &Path) -> Self {
        self.args(&["--cacert", &file.display().to_string()])
    }

    /// Gives up after this time.
    #[must_use]
    pub fn max_time(mut self, limit: Duration) -> Self {
        self.max_time = limit;
        self
    }

    /// Sends the request.
    ///
    /// # Errors
    /// If no whole response came: no connection, TLS refused, too late. Any status is a response.
    pub fn get(&self, url: &str) -> Result<Response> {
        let mut command = self.command();
        command.args(["--include", "--write-out", "%{stderr}\n%{json}", url]);
        let out = command.output().context("cannot start curl")?;
        let stderr = String::from_utf8_lossy(&out.stderr);
        let report = last_json(&stderr).with_context(|| format!("curl {url}: {}", stderr.trim()))?;
        if !out.status.success() {
            let reason = report
                .get("errormsg")
                .and_then(Value::as_str)
                .unwrap_or("unknown error");
            bail!(
                "curl {url}: {reason} (curl's exit code {})",
                out.status.code().unwrap_or(-1)
            );
        }
        parse_response(&out.stdout, &report).with_context(|| format!("curl {url}: unreadable response"))
    }

    /// Sends the request `count` times, some at once, and counts what came back.
    ///
    /// # Errors
    /// If curl itself cannot run. Requests that fail are counted under status 0.
    pub fn burst(&self, url: &str, count: u32) -> Result<Burst> {
        ensure!(count > 0, "a burst needs a request");
        let mut command = self.command();
        command.args(["--parallel", "--parallel-max", &PARALLEL.to_string()]);
        command.args(["--output", "/dev/null", "--write-out", "%{http_code}\n"]);
        // curl repeats one address for a range; behind `#` the range is never sent.
        command.arg(format!("{url}#[1-{count}]"));
        let out = command.output().context("cannot start curl")?;
        let burst = parse_burst(&String::from_utf8_lossy(&out.stdout));
        let answered = burst.total();
        let stderr = String::from_utf8_lossy(&out.stderr);
        ensure!(
            answered == u64::from(count),
            "curl {url}: {answered} of {count} reported: {}",
            stderr.trim()
        );
        Ok(burst)
    }

    fn command(&self) -> Command {
        let mut command = self.netns.command("curl");
        // A user's own ~/.curlrc and proxy must not change what a lab measures.
        command.args(["--disable", "--noproxy", "*", "--silent", "--show-error"]);
        command
            .args(["--max-time", &self.max_time.as_secs_f64().to_string()])
            .args(&self.args);
        command
    }
}

impl Response {
    /// The first value of a header field; its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("the body is not JSON: {}", self.text()))
    }
}

impl Burst {
    /// How many requests got this status.
    #[must_use]
    pub fn count(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or(0)
    }

    /// How many requests were sent.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_status.values().sum()
    }
}

/// curl's own report: the last line that is a JSON object. Warnings may stand before it.
fn last_json(stderr: &str) -> Option<Value> {
    stderr
        .lines()
        .rev()
        .filter(|line| line.starts_with('{'))
        .find_map(|line| serde_json::from_str(line).ok())
}

/// Reads `curl --include`: one or more heads, then the body.
fn parse_response(output: &[u8], report: &Value) -> Result<Response> {
    let number = |key: &str| {
        report
            .get(key)
            .and_then(Value::as_f64)
            .with_context(|| format!("no {key}"))
    };
    let mut rest = output;
    loop {
        let end = rest
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .context("no end of the head")?;
        let (head, body) = rest.split_at(end);
        let body = body.get(4..).unwrap_or_default();
        let (status, headers) = parse_head(&String::from_utf8_lossy(head))?;
        if (100..200).contains(&status) {
            rest = body;
            continue;
        }
        return Ok(Response {
            status,
            headers,
            body: body.to_vec(),
            time_connect: Duration::from_secs_f64(number("time_connect")?),
            time_total: Duration::from_secs_f64(number("time_total")?),
            local_ip: report
                .get("local_ip")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            local_port: report
                .get("local_port")
                .and_then(Value::as_u64)
                .unwrap_or(0)
                .try_into()?,
        });
    }
}

fn parse_head(head: &str) -> Result<(u16, Vec<(String, String)>)> {
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("no status in {status_line:?}"))?;
    let fields = lines.filter_map(|line| line.split_once(':'));
    Ok((
        status,
        fields
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect(),
    ))
}

fn parse_burst(codes: &str) -> Burst {
    let mut burst = Burst::default();
    for code in codes.lines().filter_map(|line| line.trim().parse().ok()) {
        *burst.by_status.entry(code).or_default() += 1;
    }
    burst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Value {
        serde_json::json!({"time_connect": 0.001, "time_total": 0.25, "local_ip": "10.77.0.2", "local_port": 4711})
    }

    #[test]
    fn a_response_is_read_behind_interim_ones() {
        let output = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nX-Version: v1\r\na: b:c\r\n\r\nno\r\n\r\nsuch";
        let response = parse_response(output, &report()).expect("it is a response");
        assert_eq!(response.status, 404);
        assert_eq!(
            (response.header("x-version"), response.header("a")),
            (Some("v1"), Some("b:c"))
        );
        assert_eq!(response.text(), "no\r\n\r\nsuch");
        assert_eq!(response.time_total, Duration::from_millis(250));
        assert_eq!(
            (response.local_ip.as_str(), response.local_port),
            ("10.77.0.2", 4711)
        );
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for output in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ] {
            assert!(parse_response(output, &report()).is_err(), "{output:?}");
        }
    }

    #[test]
    fn a_burst_is_counted_by_status() {
        let burst = parse_burst("200\n200\n429\n000\n");
        assert_eq!(
            (
                burst.count(200),
                burst.count(429),
                burst.count(0),
                burst.count(503)
            ),
            (2, 1, 1, 0)
        );
        assert_eq!(burst.total(), 4);
    }

    #[test]
    fn curls_report_stands_behind_its_warnings() {
        let stderr = "curl: (7) Failed to connect\n{\"errormsg\":\"Failed to connect\"}";
        let report = last_json(stderr).expect("a report");
        assert_eq!(report["errormsg"], "Failed to connect");
        assert_eq!(last_json("curl: (2) no URL"), None);
    }
}
