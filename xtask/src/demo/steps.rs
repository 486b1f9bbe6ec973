//! The demo's steps: each makes traffic and says what came of it, as clients, backends and edge itself counted it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use edge_lab::{Curl, Process, Response, Site, Wrk, WrkReport, address};
use serde_json::Value;

use super::report::{Abuse, Canary, Check, Flood, GoodClient, Worker};
use crate::sh::say;

/// Host of the shop.
const SHOP: &str = "Host: shop.example.com";
/// Host with a rate limit for each client.
const LIMITED: &str = "Host: limited.example.com";
/// Connections of the load: enough that every worker gets its share.
const CONNECTIONS: u32 = 200;
/// Time of the load.
const LOAD: Duration = Duration::from_secs(3);
/// Time of each flood.
const FLOOD: Duration = Duration::from_secs(3);
/// Sources of the flood: few, so that each is far above its limit.
const FLOOD_SOURCES: u32 = 4;
/// Requests of the abuser: its limit lets some 200 through, and 50 refusals bring the penalty.
const ABUSE: u32 = 400;
/// The penalty of config/demo/edge.yaml, and a little more.
const PENALTY: Duration = Duration::from_secs(7);

/// `native` or `generic`.
pub(super) fn xdp_mode(site: &Site) -> Result<String> {
    let status = site.status()?;
    let mode = status
        .pointer("/datapath/interfaces/0/mode")
        .and_then(Value::as_str);
    Ok(mode.context("the status names no interface")?.to_owned())
}

/// One request for every kind of rule.
pub(super) fn routing(site: &Site) -> Result<Vec<Check>> {
    say("demo: one request for every rule of config/demo");
    let http = format!("http://{}", address::VIP);
    let curl = || Curl::new(site.lab().client());
    let rows = [
        (
            "HTTP, header x-tester",
            curl().header(SHOP).header("x-tester: yes").get(&http)?,
            "200 from v2",
        ),
        (
            "HTTP, prefix rewritten",
            curl().header(SHOP).get(&format!("{http}/api/v3/items"))?,
            "200 from v3 at /items",
        ),
        (
            "HTTP over IPv6",
            curl()
                .header(SHOP)
                .get(&format!("http://[{}]/api/v3/six", address::VIP_V6))?,
            "200 from v3 at /six",
        ),
        (
            "HTTPS by SNI",
            curl()
                .resolve("shop.example.com", 443, address::VIP)
                .ca(&site.certificate())
                .get("https://shop.example.com/api/v3/tls")?,
            "200 from v3 at /tls",
        ),
        (
            "redirect",
            curl().header(SHOP).get(&format!("{http}/old"))?,
            "308 to http://shop.example.com/new",
        ),
        (
            "HTTPS redirect",
            curl()
                .header("host: secure.example.com")
                .get(&format!("{http}/x"))?,
            "301 to https://secure.example.com/x",
        ),
        (
            "unknown host",
            curl().header("host: nobody.example.com").get(&http)?,
            "404",
        ),
    ];
    Ok(rows
        .map(|(what, response, expected)| check(what, &response, expected))
        .to_vec())
}

fn check(what: &'static str, response: &Response, expected: &'static str) -> Check {
    let mut seen = response.status.to_string();
    if let Some(location) = response.header("location") {
        seen = format!("{seen} to {location}");
    }
    if let (Some(version), Ok(body)) = (response.header("x-version"), response.json()) {
        seen = format!("{seen} from {version}");
        let path = body.get("path").and_then(Value::as_str).unwrap_or_default();
        if path != "/" {
            seen = format!("{seen} at {path}");
        }
    }
    Check { what, seen, expected }
}

/// A load over many connections: shares of workers and versions.
pub(super) fn canary(site: &Site) -> Result<Canary> {
    say(format!(
        "demo: {CONNECTIONS} connections for {} s, canary 90/10",
        LOAD.as_secs()
    ));
    let (before, answered) = (site.status()?, site.answered()?);
    let load = Wrk::new(site.lab().client())
        .connections(CONNECTIONS, 2)
        .duration(LOAD)
        .header(SHOP);
    let (wrk, under_load) = load.run_while(&format!("http://{}/", address::VIP), || {
        site.status_with_open(CONNECTIONS.into())
    })?;
    let versions = (1..)
        .zip(site.answered()?.into_iter().zip(answered))
        .map(|(version, (now, then))| (format!("v{version}"), now - then))
        .filter(|(_, requests)| *requests > 0)
        .collect();
    Ok(Canary {
        wrk,
        versions,
        workers: workers(&before, &under_load)?,
    })
}

fn workers(before: &Value, after: &Value) -> Result<Vec<Worker>> {
    let list = |status: &Value| {
        status
            .get("workers")
            .and_then(Value::as_array)
            .cloned()
            .context("no workers")
    };
    let number = |worker: &Value, key: &str| worker.get(key).and_then(Value::as_u64).unwrap_or(0);
    Ok(list(after)?
        .iter()
        .zip(list(before)?)
        .map(|(now, then)| Worker {
            id: number(now, "id"),
            connections: number(now, "accepted") - number(&then, "accepted"),
            steered: number(now, "steered") - number(&then, "steered"),
        })
        .collect())
}

/// A SYN flood and a UDP flood, and what good clients saw meanwhile.
pub(super) fn flood(site: &Site) -> Result<Flood> {
    let before = drops(site)?;
    let mut sent = BTreeMap::new();
    let mut good = GoodClient::default();
    for kind in ["syn", "udp"] {
        say(format!(
            "demo: {kind} flood for {} s, while good clients go on",
            FLOOD.as_secs()
        ));
        sent.insert(kind, one_flood(site, kind, &mut good)?);
    }
    let dropped = difference(&drops(site)?, &before);
    Ok(Flood {
        sent,
        seconds: 2 * FLOOD.as_secs(),
        dropped,
        good,
    })
}

/// Runs one flood to its end; answers with the number of packets sent.
fn one_flood(site: &Site, kind: &str, good: &mut GoodClient) -> Result<u64> {
    let mut command = site.flood_command(kind, FLOOD_SOURCES, FLOOD)?;
    let dir = site.lab().dir();
    let mut flood = Process::spawn(&format!("flood-{kind}"), &mut command, dir)?;
    // One client holds its connections, the other makes a new one for every request.
    let wrk = Wrk::new(site.lab().client())
        .connections(4, 1)
        .duration(FLOOD)
        .header(SHOP);
    let mut wrk = Process::spawn(
        "good-client",
        &mut wrk.command(&format!("http://{}/", address::VIP)),
        dir,
    )?;
    while flood.is_running()? {
        good.new_connection(
            &Curl::new(site.lab().client())
                .header(SHOP)
                .get(&format!("http://{}/", address::VIP)),
        );
    }
    ensure!(flood.wait(FLOOD)?.success(), "the flood failed:{}", flood.tail());
    wrk.wait(FLOOD + Duration::from_secs(10))?;
    good.kept_connections(WrkReport::parse(&wrk.log()?).context("the good client's wrk")?);
    let log = flood.log()?;
    let report: Value = log
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
        .with_context(|| format!("the flood said nothing readable: {log}"))?;
    report
        .get("sent")
        .and_then(Value::as_u64)
        .context("the flood did not say how much it sent")
}

/// Packets dropped so far, by reason.
fn drops(site: &Site) -> Result<BTreeMap<String, u64>> {
    let status = site.status()?;
    let dropped = status
        .pointer("/datapath/dropped")
        .cloned()
        .context("no drop counters")?;
    Ok(serde_json::from_value(dropped)?)
}

fn difference(now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    now.iter()
        .map(|(reason, count)| (reason.clone(), count - then.get(reason).unwrap_or(&0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// A client that goes on past its rate limit, until it is dropped at the NIC, and after its penalty.
pub(super) fn abuse(site: &Site) -> Result<Abuse> {
    say("demo: a client goes on past its rate limit");
    let url = format!("http://{}/", address::VIP);
    let before = drops(site)?;
    let abuser = Curl::new(site.lab().client())
        .header(LIMITED)
        .source(address::ABUSER);
    // Once the penalty is in force nothing comes back: each request then waits for this time.
    let burst = abuser
        .clone()
        .max_time(Duration::from_millis(300))
        .burst(&url, ABUSE)?;
    let penalties = penalties(&site.status()?);
    let bystander = Curl::new(site.lab().client()).header(LIMITED).get(&url);
    let freed_after = wait_for_freedom(&abuser, &url)?;
    let after = drops(site)?;
    let dropped = difference(&after, &before).get("penalty").copied().unwrap_or(0);
    Ok(Abuse {
        sent: u64::from(ABUSE),
        allowed: burst.count(200),
        refused: burst.count(429),
        unanswered: burst.count(0),
        penalties,
        dropped,
        bystander_status: bystander.map_or(0, |response| response.status),
        freed_after,
    })
}

fn penalties(status: &Value) -> Vec<String> {
    let list = status.pointer("/datapath/penalties").and_then(Value::as_array);
    let source = |penalty: &Value| {
        penalty
            .get("source")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned)
    };
    list.into_iter().flatten().filter_map(source).collect()
}

/// Waits until the abuser is answered again.
fn wait_for_freedom(abuser: &Curl<'_>, url: &str) -> Result<Option<Duration>> {
    let start = Instant::now();
    while start.elapsed() < PENALTY {
        if abuser
            .clone()
            .max_time(Duration::from_millis(500))
            .get(url)
            .is_ok_and(|answer| answer.status == 200)
        {
            return Ok(Some(start.elapsed()));
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(None)
}
