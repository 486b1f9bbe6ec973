//! Load by wrk(1) and h2load(1), on the load's core.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use edge_lab::{WrkReport, output};

use crate::backend::LARGE_PATH;
use crate::case::{Load, Port};
use crate::site::{Site, on_core};

/// Connections of HTTP/1.1.
const CONNECTIONS: u32 = 64;

/// Connections that large bodies come over.
const LARGE_CONNECTIONS: u32 = 8;

/// Connections that make handshakes.
const HANDSHAKES: u32 = 16;

/// Connections of HTTP/2, and streams on each.
const HTTP2: (u32, u32) = (8, 32);

/// Requests a second of each connection where the rate is fixed: all together a fifth of what one core can do.
const RATE: u32 = 80;

/// Requests that were answered with 200.
pub(crate) fn requests(site: &Site, load: Load, port: u16, seconds: u32) -> Result<u64> {
    match load {
        Load::Http1(kind) => wrk(site, &url(kind, port, "/"), CONNECTIONS, seconds),
        Load::Handshakes(_) => {
            let mut own = on_core(site.load_core, std::env::current_exe()?);
            own.args(["handshakes", "--to", &format!("127.0.0.1:{port}")]);
            own.args([
                "--connections",
                &HANDSHAKES.to_string(),
                "--seconds",
                &seconds.to_string(),
            ]);
            let done = output(&mut own)?;
            done.trim().parse().context("no number of handshakes")
        }
        Load::Http2(kind) => {
            let (connections, streams) = HTTP2;
            let mut h2load = on_core(site.load_core, "h2load");
            h2load.args([
                "-t",
                "1",
                "-c",
                &connections.to_string(),
                "-m",
                &streams.to_string(),
            ]);
            h2load.args(["-D", &seconds.to_string(), &url(kind, port, "/")]);
            succeeded(&output(&mut h2load)?)
        }
    }
}

/// Large bodies that came whole.
pub(crate) fn bodies(site: &Site, kind: Port, port: u16, seconds: u32) -> Result<u64> {
    wrk(site, &url(kind, port, LARGE_PATH), LARGE_CONNECTIONS, seconds)
}

/// So many requests over as many connections as HTTP/2 has, of one stream each where it is HTTP/1.1.
pub(crate) fn count(site: &Site, load: Load, port: u16, requests: u32) -> Result<()> {
    let mut h2load = on_core(site.load_core, "h2load");
    let (connections, streams) = HTTP2;
    h2load.args([
        "-t",
        "1",
        "-c",
        &connections.to_string(),
        "-n",
        &requests.to_string(),
    ]);
    let kind = match load {
        Load::Http1(kind) | Load::Handshakes(kind) => {
            h2load.arg("--h1");
            kind
        }
        Load::Http2(kind) => {
            h2load.args(["-m", &streams.to_string()]);
            kind
        }
    };
    let done = succeeded(&output(h2load.arg(url(kind, port, "/")))?)?;
    ensure!(
        done == u64::from(requests),
        "{done} of {requests} requests were answered"
    );
    Ok(())
}

/// Microseconds within which 99 of 100 responses came, at a rate that is held whatever the proxy does.
pub(crate) fn latency(site: &Site, folder: &Path, port: u16, seconds: u32) -> Result<f64> {
    let log = folder.join("latency.log");
    // h2load appends to it.
    let _ = std::fs::remove_file(&log);
    let mut h2load = on_core(site.load_core, "h2load");
    h2load.args([
        "--h1",
        "-t",
        "1",
        "-c",
        &CONNECTIONS.to_string(),
        "--rps",
        &RATE.to_string(),
    ]);
    h2load.args(["-D", &seconds.to_string()]);
    h2load.arg("--log-file").arg(&log);
    succeeded(&output(h2load.arg(url(Port::Http1, port, "/")))?)?;
    let text = std::fs::read_to_string(&log).context("h2load wrote no log")?;
    percentile_99(&text).context("h2load's log has no response")
}

/// The log has a line for each response: when it began, its status, and how long it took, in microseconds.
fn percentile_99(log: &str) -> Option<f64> {
    let times = log
        .lines()
        .filter_map(|line| line.split('\t').nth(2)?.parse::<f64>().ok());
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() * 99 / 100).copied()
}

fn url(kind: Port, port: u16, path: &str) -> String {
    let scheme = match kind {
        Port::Http1 | Port::Http2 | Port::Tcp => "http",
        Port::TlsEcdsa | Port::TlsRsa | Port::Passthrough => "https",
    };
    format!("{scheme}://localhost:{port}{path}")
}

fn wrk(site: &Site, url: &str, connections: u32, seconds: u32) -> Result<u64> {
    let mut wrk: Command = on_core(site.load_core, "wrk");
    wrk.args([
        "-t",
        "1",
        "-c",
        &connections.to_string(),
        "-d",
        &seconds.to_string(),
        "--latency",
    ]);
    let report = WrkReport::parse(&output(wrk.arg(url))?)?;
    ensure!(
        report.bad_status == 0 && report.requests > 0,
        "{url}: {} of {} answers were no success",
        report.bad_status,
        report.requests
    );
    Ok(report.requests)
}

/// `requests: 10 total, 10 started, 10 done, 10 succeeded, 0 failed, 0 errored, 0 timeout`.
fn succeeded(report: &str) -> Result<u64> {
    let line = report.lines().find_map(|line| line.strip_prefix("requests: "));
    let counts = line.into_iter().flat_map(|line| line.split(", "));
    let mut counts = counts.filter_map(|count| count.split_once(' '));
    let number = |name: &str| {
        counts
            .find(|(_, what)| *what == name)
            .and_then(|(count, _)| count.parse().ok())
    };
    let mut number = number;
    let (succeeded, failed): (Option<u64>, Option<u64>) = (number("succeeded"), number("failed"));
    let succeeded = succeeded.with_context(|| format!("h2load told no number of requests:\n{report}"))?;
    ensure!(
        succeeded > 0 && failed == Some(0),
        "h2load: {succeeded} requests went well, {failed:?} failed:\n{report}"
    );
    Ok(succeeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_h2load_count_when_none_failed() {
        let line = |failed: u32| {
            format!(
                "finished\n\nrequests: 12 total, 12 started, 10 done, 9 succeeded, {failed} failed, 0 errored, 0 timeout\n"
            )
        };
        assert_eq!(succeeded(&line(0)).expect("a number"), 9);
        assert!(succeeded(&line(1)).is_err());
        assert!(succeeded("").is_err());
    }

    #[test]
    fn the_percentile_is_taken_over_all_responses() {
        let lines: String = (1..=200).rev().map(|time| format!("17\t200\t{time}\n")).collect();
        assert_eq!(percentile_99(&lines), Some(199.0));
        assert_eq!(percentile_99(""), None);
    }
}
