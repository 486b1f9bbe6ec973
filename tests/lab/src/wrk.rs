//! Load by wrk(1): HTTP/1.1 with keep-alive.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::NetNs;

/// A load to be made from a namespace: by default one thread, 10 connections, one second.
#[derive(Debug, Clone)]
pub struct Wrk<'a> {
    netns: &'a NetNs,
    threads: u32,
    connections: u32,
    duration: Duration,
    headers: Vec<String>,
}

/// What wrk saw.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct WrkReport {
    /// Requests that were answered, whatever the status.
    pub requests: u64,
    /// Answers with another status than 2xx or 3xx.
    pub bad_status: u64,
    /// Connections that could not be made.
    pub connect_errors: u64,
    /// Connections that broke while reading or writing.
    pub io_errors: u64,
    /// Requests that took longer than wrk's limit of 2 s.
    pub timeouts: u64,
    /// Answered requests per second.
    pub rate: f64,
    /// Half of the answers came within this time.
    pub p50: Duration,
    /// 99 of 100 answers came within this time.
    pub p99: Duration,
}

impl<'a> Wrk<'a> {
    /// A load from this namespace.
    #[must_use]
    pub fn new(netns: &'a NetNs) -> Self {
        let duration = Duration::from_secs(1);
        Self {
            netns,
            threads: 1,
            connections: 10,
            duration,
            headers: Vec::new(),
        }
    }

    /// How many connections, and on how many threads (at most one a connection).
    #[must_use]
    pub fn connections(mut self, connections: u32, threads: u32) -> Self {
        (self.connections, self.threads) = (connections, threads);
        self
    }

    /// How long, in whole seconds, which is all wrk knows; at least one.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Adds a header field: `header("Host: shop.example.com")`. wrk leaves out its own Host only for this spelling.
    #[must_use]
    pub fn header(mut self, field: &str) -> Self {
        self.headers.push(field.to_owned());
        self
    }

    /// The command, for a load in the background: give it to [`crate::Process::spawn`] and its log to
    /// [`WrkReport::parse`].
    #[must_use]
    pub fn command(&self, url: &str) -> Command {
        let mut command = self.netns.command("wrk");
        command.args(["--latency", "--threads", &self.threads.to_string()]);
        command.args(["--connections", &self.connections.to_string()]);
        command.args(["--duration", &format!("{}s", self.duration.as_secs().max(1))]);
        for field in &self.headers {
            command.args(["--header", field]);
        }
        command.arg(url);
        command
    }

    /// Makes the load and waits for its end.
    ///
    /// # Errors
    /// If wrk cannot run, cannot connect at all, or writes what we cannot read.
    pub fn run(&self, url: &str) -> Result<WrkReport> {
        self.run_while(url, || Ok(())).map(|(report, ())| report)
    }

    /// The same, with something that is done meanwhile.
    ///
    /// # Errors
    /// As of [`Wrk::run`], or what is done fails; the load goes to its end all the same.
    pub fn run_while<T>(&self, url: &str, meanwhile: impl FnOnce() -> Result<T>) -> Result<(WrkReport, T)> {
        let mut command = self.command(url);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let wrk = command.spawn().context("cannot start wrk")?;
        let done = meanwhile();
        let out = wrk.wait_with_output().context("cannot wait for wrk")?;
        let (stdout, stderr) = (
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr),
        );
        ensure!(
            out.status.success(),
            "wrk {url} failed ({}): {stdout}{stderr}",
            out.status
        );
        let report = WrkReport::parse(&stdout)
            .with_context(|| format!("wrk {url}: cannot read its report: {stdout}"))?;
        Ok((report, done?))
    }
}

impl WrkReport {
    /// Everything that a client would call a failure.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.bad_status + self.connect_errors + self.io_errors + self.timeouts
    }

    /// Reads wrk's report as it prints it.
    ///
    /// # Errors
    /// If the number of requests, the rate or a percentile is missing.
    pub fn parse(report: &str) -> Result<Self> {
        let mut parsed = Self::default();
        let (mut requests, mut rate, mut p50, mut p99) = (None, None, None, None);
        for line in report.lines().map(str::trim) {
            let words: Vec<&str> = line
                .split([' ', ',', ':'])
                .filter(|word| !word.is_empty())
                .collect();
            match words.as_slice() {
                [count, "requests", "in", ..] => requests = count.parse().ok(),
                ["Requests/sec", value] => rate = value.parse().ok(),
                ["50%", time] => p50 = parse_time(time),
                ["99%", time] => p99 = parse_time(time),
                ["Non-2xx", "or", "3xx", "responses", count] => parsed.bad_status = count.parse()?,
                [
                    "Socket",
                    "errors",
                    "connect",
                    connect,
                    "read",
                    read,
                    "write",
                    write,
                    "timeout",
                    timeout,
                ] => {
                    parsed.connect_errors = connect.parse()?;
                    parsed.io_errors = read.parse::<u64>()? + write.parse::<u64>()?;
                    parsed.timeouts = timeout.parse()?;
                }
                _ => {}
            }
        }
        parsed.requests = requests.context("no number of requests")?;
        parsed.rate = rate.context("no Requests/sec")?;
        parsed.p50 = p50.context("no 50% of the latency")?;
        parsed.p99 = p99.context("no 99% of the latency")?;
        Ok(parsed)
    }
}

/// A time as wrk prints it: `812.00us`, `1.37ms`, `2.01s`, `1.50m`.
fn parse_time(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "Running 1s test @ http://10.77.100.1/
  1 threads and 10 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   812.00us    1.10ms  22.31ms   95.11%
    Req/Sec    15.21k     1.02k   16.90k    70.00%
  Latency Distribution
     50%  540.00us
     75%  801.00us
     90%    1.21ms
     99%    5.02ms
  15132 requests in 1.00s, 2.31MB read
Requests/sec:  15120.44
Transfer/sec:      2.31MB
";

    #[test]
    fn a_clean_report_has_no_failures() {
        let report = WrkReport::parse(CLEAN).expect("it is a report");
        assert_eq!((report.requests, report.failures()), (15132, 0));
        assert!((report.rate - 15120.44).abs() < 1e-6);
        assert_eq!(
            (report.p50, report.p99),
            (Duration::from_micros(540), Duration::from_micros(5020))
        );
    }

    #[test]
    fn failures_are_told_apart() {
        let errors =
            "  Socket errors: connect 1, read 20, write 3, timeout 4\n  Non-2xx or 3xx responses: 500\n";
        let report = WrkReport::parse(&format!("{CLEAN}{errors}")).expect("it is a report");
        assert_eq!(
            (report.connect_errors, report.io_errors, report.timeouts),
            (1, 23, 4)
        );
        assert_eq!((report.bad_status, report.failures()), (500, 528));
    }

    #[test]
    fn times_are_read_with_their_units() {
        let rows = [
            ("812.00us", Some(Duration::from_micros(812))),
            ("1.50ms", Some(Duration::from_micros(1500))),
            ("2.00s", Some(Duration::from_secs(2))),
            ("1.00m", Some(Duration::from_secs(60))),
            ("-nanus", None),
            ("7", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_time(text), expected, "{text}");
        }
    }

    #[test]
    fn a_report_without_a_number_of_requests_is_refused() {
        assert!(WrkReport::parse("unable to connect to 10.77.100.1:80 Connection refused\n").is_err());
    }
}
