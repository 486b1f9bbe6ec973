//! What the demo saw: as a table, as JSON, and judged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use edge_lab::{Response, WrkReport};
use serde_json::{Value, json};

/// Share of the canary in config/demo: one request of ten.
const CANARY: f64 = 0.1;
/// How many standard deviations the canary's count may lie off: one run in 15,000 lies further.
const SIGMAS: f64 = 4.0;
/// Share of the flood that has to be dropped.
const DROPPED: f64 = 0.99;

/// The whole demo.
#[derive(Debug)]
pub(super) struct Report {
    /// `native` or `generic`.
    pub(super) xdp_mode: String,
    /// One request for every kind of rule.
    pub(super) routing: Vec<Check>,
    /// The load.
    pub(super) canary: Canary,
    /// The floods.
    pub(super) flood: Flood,
    /// The client that goes on past its limit.
    pub(super) abuse: Abuse,
}

/// One request, and what was to come back.
#[derive(Debug, Clone)]
pub(super) struct Check {
    /// What is shown.
    pub(super) what: &'static str,
    /// What came back.
    pub(super) seen: String,
    /// What was to come back.
    pub(super) expected: &'static str,
}

/// A load over many connections.
#[derive(Debug)]
pub(super) struct Canary {
    /// As the client saw it.
    pub(super) wrk: WrkReport,
    /// Requests that each version says it answered.
    pub(super) versions: BTreeMap<String, u64>,
    /// Shares of the gateway workers.
    pub(super) workers: Vec<Worker>,
}

/// One gateway worker.
#[derive(Debug)]
pub(super) struct Worker {
    /// Index.
    pub(super) id: u64,
    /// Connections that it had accepted when all of the load's were open.
    pub(super) connections: u64,
    /// Connections that the kernel's socket lookup program gave it.
    pub(super) steered: u64,
}

/// A SYN flood and a UDP flood.
#[derive(Debug)]
pub(super) struct Flood {
    /// Packets sent, by kind.
    pub(super) sent: BTreeMap<&'static str, u64>,
    /// Time of all floods.
    pub(super) seconds: u64,
    /// Packets dropped meanwhile, by reason.
    pub(super) dropped: BTreeMap<String, u64>,
    /// What good clients saw.
    pub(super) good: GoodClient,
}

/// Clients that behave, while a flood goes on.
#[derive(Debug, Default)]
pub(super) struct GoodClient {
    /// Requests that were answered with 200.
    answered: u64,
    /// Requests that were not.
    failed: u64,
    /// Longest time that a request on a new connection took.
    slowest: Duration,
}

/// A client that goes on past its rate limit.
#[derive(Debug)]
pub(super) struct Abuse {
    /// Requests that it sent.
    pub(super) sent: u64,
    /// Requests answered with 200.
    pub(super) allowed: u64,
    /// Requests refused with 429.
    pub(super) refused: u64,
    /// Requests that never got an answer.
    pub(super) unanswered: u64,
    /// Sources under a penalty afterwards.
    pub(super) penalties: Vec<String>,
    /// Packets that the penalty dropped.
    pub(super) dropped: u64,
    /// Status of another client's request to the same host meanwhile.
    pub(super) bystander_status: u16,
    /// Time until the abuser was answered again.
    pub(super) freed_after: Option<Duration>,
}

impl GoodClient {
    /// Adds one request on a new connection.
    pub(super) fn new_connection(&mut self, outcome: &Result<Response>) {
        match outcome {
            Ok(response) if response.status == 200 => {
                self.answered += 1;
                self.slowest = self.slowest.max(response.time_total);
            }
            Ok(_) | Err(_) => self.failed += 1,
        }
    }

    /// Adds a load on connections that were kept.
    pub(super) fn kept_connections(&mut self, wrk: WrkReport) {
        self.answered += wrk.requests - wrk.bad_status;
        self.failed += wrk.failures();
    }
}

impl Flood {
    fn total_sent(&self) -> u64 {
        self.sent.values().sum()
    }

    fn total_dropped(&self) -> u64 {
        self.dropped.values().sum()
    }
}

impl Report {
    /// What is not as it should be; empty when all is well.
    pub(super) fn shortcomings(&self) -> Vec<String> {
        let mut list = Vec::new();
        let mut demand = |holds: bool, what: String| {
            if !holds {
                list.push(what);
            }
        };
        for check in &self.routing {
            demand(
                check.seen == check.expected,
                format!("{}: {} instead of {}", check.what, check.seen, check.expected),
            );
        }
        let failed = self.canary.wrk.failures();
        demand(failed == 0, format!("{failed} requests failed"));
        for worker in &self.canary.workers {
            demand(
                worker.connections > 0,
                format!("worker {} got no connection", worker.id),
            );
            let (id, steered, accepted) = (worker.id, worker.steered, worker.connections);
            demand(
                steered == accepted,
                format!("worker {id}: {steered} connections steered, {accepted} accepted"),
            );
        }
        let (v2, expected, bound) = self.canary_bound();
        demand(
            (v2 - expected).abs() <= bound,
            format!("v2 got {v2} requests, {expected:.0} ± {bound:.0} were expected"),
        );
        let (sent, dropped) = (self.flood.total_sent(), self.flood.total_dropped());
        #[allow(clippy::cast_precision_loss, reason = "counts of packets are far below 2^52")]
        let share = dropped as f64 / sent.max(1) as f64;
        demand(
            sent > 0 && share >= DROPPED,
            format!("{dropped} of {sent} flood packets were dropped"),
        );
        demand(
            self.flood.good.failed == 0,
            format!("{} requests of good clients failed", self.flood.good.failed),
        );
        demand(
            self.flood.good.answered > 0,
            "no good client was answered during the flood".to_owned(),
        );
        demand(self.abuse.dropped > 0, "the penalty dropped nothing".to_owned());
        demand(
            self.abuse.bystander_status == 200,
            "another client suffered for the abuser".to_owned(),
        );
        demand(
            self.abuse.freed_after.is_some(),
            "the penalty did not end".to_owned(),
        );
        list
    }

    /// The canary's count, what was expected, and how far off it may lie (binomial distribution).
    #[allow(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
    fn canary_bound(&self) -> (f64, f64, f64) {
        let count = |version: &str| self.canary.versions.get(version).copied().unwrap_or(0) as f64;
        let total = count("v1") + count("v2");
        (
            count("v2"),
            total * CANARY,
            SIGMAS * (total * CANARY * (1.0 - CANARY)).sqrt(),
        )
    }

    /// One JSON object.
    pub(super) fn to_json(&self) -> Value {
        let Self {
            canary, flood, abuse, ..
        } = self;
        json!({
            "xdp_mode": self.xdp_mode,
            "routing": self.routing.iter()
                .map(|check| json!({"what": check.what, "seen": check.seen, "expected": check.expected}))
                .collect::<Vec<_>>(),
            "workers": canary.workers.iter()
                .map(|worker| json!({"id": worker.id, "connections": worker.connections, "steered": worker.steered}))
                .collect::<Vec<_>>(),
            "versions": canary.versions,
            "requests": canary.wrk.requests,
            "requests_failed": canary.wrk.failures(),
            "requests_per_second": canary.wrk.rate,
            "latency_ms": {"p50": millis(canary.wrk.p50), "p99": millis(canary.wrk.p99)},
            "flood": {
                "sent": flood.total_sent(),
                "sent_by_kind": flood.sent,
                "dropped": flood.total_dropped(),
                "dropped_by_reason": flood.dropped,
                "seconds": flood.seconds,
            },
            "good_client_requests": flood.good.answered,
            "good_client_failed": flood.good.failed,
            "good_client_slowest_new_connection_ms": millis(flood.good.slowest),
            "penalty": {
                "sources": abuse.penalties,
                "requests": abuse.sent,
                "allowed": abuse.allowed,
                "refused": abuse.refused,
                "unanswered": abuse.unanswered,
                "dropped": abuse.dropped,
                "bystander_status": abuse.bystander_status,
                "freed_after_seconds": abuse.freed_after.map(|time| time.as_secs_f64()),
            },
        })
    }

    /// A table for people.
    pub(super) fn to_table(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.render(&mut out);
        out
    }

    fn render(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nrouting (XDP {})", self.xdp_mode)?;
        for check in &self.routing {
            let mark = if check.seen == check.expected {
                "ok"
            } else {
                "NOT OK"
            };
            writeln!(out, "  {:<24} {:<44} {mark}", check.what, check.seen)?;
        }
        self.render_canary(out)?;
        self.render_flood(out)?;
        self.render_abuse(out)
    }

    fn render_canary(&self, out: &mut String) -> std::fmt::Result {
        let Canary {
            wrk,
            versions,
            workers,
        } = &self.canary;
        writeln!(
            out,
            "\nload: {} requests, {} failed, {:.0} a second, p50 {:.1} ms, p99 {:.1} ms",
            wrk.requests,
            wrk.failures(),
            wrk.rate,
            millis(wrk.p50),
            millis(wrk.p99)
        )?;
        let connections: u64 = workers.iter().map(|worker| worker.connections).sum();
        for worker in workers {
            let share = percent(worker.connections, connections);
            let name = format!("worker {}", worker.id);
            writeln!(
                out,
                "  {name:<24} {:>8} connections {share:>6.1} %  (steered by BPF: {})",
                worker.connections, worker.steered
            )?;
        }
        let requests = versions.values().sum();
        for (version, count) in versions {
            writeln!(
                out,
                "  {version:<24} {count:>8} requests    {:>6.1} %",
                percent(*count, requests)
            )?;
        }
        Ok(())
    }

    fn render_flood(&self, out: &mut String) -> std::fmt::Result {
        let flood = &self.flood;
        let (sent, dropped) = (flood.total_sent(), flood.total_dropped());
        writeln!(
            out,
            "\nflood: {sent} packets in {} s, {:.2} % dropped by XDP",
            flood.seconds,
            percent(dropped, sent)
        )?;
        for (kind, count) in &flood.sent {
            writeln!(out, "  sent {kind:<19} {count:>10}")?;
        }
        for (reason, count) in &flood.dropped {
            writeln!(out, "  dropped {reason:<24} {count:>10}")?;
        }
        writeln!(
            out,
            "  good clients meanwhile   {:>10} requests answered, {} failed, slowest new connection {:.0} ms",
            flood.good.answered,
            flood.good.failed,
            millis(flood.good.slowest)
        )
    }

    fn render_abuse(&self, out: &mut String) -> std::fmt::Result {
        let abuse = &self.abuse;
        writeln!(
            out,
            "\nabuser: {} requests past a limit of 200 and 100 a second",
            abuse.sent
        )?;
        writeln!(
            out,
            "  answered {}, refused (429) {}, then silence {}",
            abuse.allowed, abuse.refused, abuse.unanswered
        )?;
        writeln!(
            out,
            "  penalty for {}: {} packets dropped at the NIC",
            abuse.penalties.join(", "),
            abuse.dropped
        )?;
        writeln!(out, "  another client meanwhile: {}", abuse.bystander_status)?;
        match abuse.freed_after {
            Some(time) => writeln!(out, "  answered again after {:.1} s", time.as_secs_f64()),
            None => writeln!(out, "  NOT answered again"),
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}
