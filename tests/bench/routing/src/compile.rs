//! What it costs to make the tables of ten thousand hosts, and to change one of them.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use edge_config::{Resource, parse_documents};
use edge_control::{CompileOptions, compile};
use edge_model::Snapshot;
use edge_routing::Table;

use crate::report::{Figure, Report, median};

/// The cases, in the order of the report.
pub(crate) const NAMES: &[&str] = &[COMPILE, BYTES, CHANGE];
const COMPILE: &str = "hosts_10000_compile";
const BYTES: &str = "hosts_10000_bytes_per_host";
const CHANGE: &str = "change_one_of_10000";

const HOSTS: usize = 10_000;
/// Services that the hosts' routes lead to.
const SERVICES: usize = 100;
/// Compiling takes long enough to need fewer rounds.
const MOST_ROUNDS: u32 = 9;
/// Configurations that are kept at a time, so that what each takes stands out from what the allocator keeps.
const KEPT: usize = 4;
/// Seconds for compiling all.
const COMPILE_GOAL: f64 = 0.2;
/// Bytes for each virtual host, routes included.
const BYTES_GOAL: f64 = 2048.0;
/// Milliseconds for one change: a hundred a second then take a tenth of a core.
const CHANGE_GOAL: f64 = 1.0;

/// What a process holds for a configuration: the Snapshot and its tables, ready for lookups.
struct Served {
    snapshot: Snapshot,
    tables: Vec<Table>,
}

/// Measures the wanted cases.
pub(crate) fn measure(rounds: u32, is_wanted: impl Fn(&str) -> bool, report: &mut Report) -> Result<()> {
    let mut resources = resources()?;
    let served = serve(&resources, None)?;
    check(&served)?;
    let rounds = rounds.min(MOST_ROUNDS);
    if is_wanted(COMPILE) {
        let mut seconds = (0..rounds)
            .map(|_| {
                let start = Instant::now();
                let made = serve(&resources, None)?;
                let seconds = start.elapsed().as_secs_f64();
                drop(made);
                Ok(seconds)
            })
            .collect::<Result<Vec<_>>>()?;
        report.add(&Figure {
            case: COMPILE,
            value: median(&mut seconds),
            unit: "s",
            goal: Some(COMPILE_GOAL),
        });
    }
    if is_wanted(BYTES) {
        report.add(&Figure {
            case: BYTES,
            value: bytes_per_host(&resources)?,
            unit: "bytes",
            goal: Some(BYTES_GOAL),
        });
    }
    if is_wanted(CHANGE) {
        report.add(&Figure {
            case: CHANGE,
            value: change_one(&mut resources, served, rounds)?,
            unit: "ms",
            goal: Some(CHANGE_GOAL),
        });
    }
    Ok(())
}

/// Resident memory that a configuration adds. The first ones fill what compiling leaves free in the allocator.
fn bytes_per_host(resources: &[Resource]) -> Result<f64> {
    drop(serve(resources, None)?);
    let before = resident_bytes()?;
    let kept = (0..KEPT)
        .map(|_| serve(resources, None))
        .collect::<Result<Vec<_>>>()?;
    let added = resident_bytes()?.saturating_sub(before);
    ensure!(kept.len() == KEPT, "a configuration went missing");
    Ok(added as f64 / (KEPT * HOSTS) as f64)
}

fn resident_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .context("no VmRSS")?;
    Ok(kilobytes.trim().parse::<u64>()? * 1024)
}

/// Milliseconds from a changed VirtualService to a table that has it.
fn change_one(resources: &mut [Resource], mut served: Served, rounds: u32) -> Result<f64> {
    let mut times = vec![];
    for round in 0..rounds {
        let number = usize::try_from(round)? * 997 % HOSTS;
        let changed = read(&virtual_service(number, &format!("/changed{round}/")))?;
        let changed = changed.into_iter().next().context("no VirtualService")?;
        let place = resources.iter_mut().find(|resource| {
            resource.kind() == changed.kind() && resource.meta().name == changed.meta().name
        });
        *place.context("the VirtualService is not among the resources")? = changed;
        let start = Instant::now();
        let next = serve(resources, Some(&served))?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        served = next;
    }
    check(&served)?;
    Ok(median(&mut times))
}

fn serve(resources: &[Resource], previous: Option<&Served>) -> Result<Served> {
    let compiled = compile(resources, &CompileOptions::default(), &|path| {
        Err(io::Error::other(format!("{path} is not to be read")))
    });
    let errors: Vec<_> = compiled
        .problems
        .iter()
        .filter(|problem| problem.is_error())
        .collect();
    ensure!(errors.is_empty(), "the resources are refused: {errors:?}");
    let snapshot = compiled.snapshot;
    let tables = snapshot.listeners.iter().flat_map(|listener| listener.tables());
    let tables = tables.enumerate().map(|(number, routes)| {
        let before = previous.and_then(|previous| previous.tables.get(number));
        Table::after(before, routes.clone())
    });
    Ok(Served {
        tables: tables.collect(),
        snapshot,
    })
}

/// That what is measured is what it is said to be.
fn check(served: &Served) -> Result<()> {
    let hosts: usize = served
        .tables
        .iter()
        .map(|table| table.routes().virtual_hosts.len())
        .sum();
    ensure!(hosts == HOSTS, "{hosts} virtual hosts instead of {HOSTS}");
    let clusters = served.snapshot.clusters.len();
    ensure!(
        clusters >= SERVICES,
        "{clusters} clusters for {SERVICES} services"
    );
    Ok(())
}

/// A Gateway for all hosts, a VirtualService with two rules for each, and the services.
fn resources() -> Result<Vec<Resource>> {
    let mut text =
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gateway, namespace: default}\n\
                    spec:\n  selector: {istio: ingressgateway}\n  servers:\n  \
                    - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}\n"
            .to_owned();
    for number in 0..SERVICES {
        write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: service-{number}, namespace: default}}\n\
             spec: {{ports: [{{name: http, port: 80}}], clusterIP: 10.0.0.{}}}\n",
            number + 1
        )?;
    }
    for number in 0..HOSTS {
        text.push_str("---\n");
        text.push_str(&virtual_service(number, "/api/"));
    }
    read(&text)
}

fn virtual_service(number: usize, prefix: &str) -> String {
    let service = number % SERVICES;
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: host-{number}, namespace: default}}\n\
         spec:\n  hosts: [host-{number}.example.com]\n  gateways: [gateway]\n  http:\n  \
         - match: [{{uri: {{prefix: {prefix}}}}}]\n    route: [{{destination: {{host: service-{service}}}}}]\n  \
         - route: [{{destination: {{host: service-{}}}}}]\n",
        (service + 1) % SERVICES
    )
}

fn read(text: &str) -> Result<Vec<Resource>> {
    let parsed = parse_documents("bench.yaml", text);
    ensure!(parsed.problems.is_empty(), "{:?}", parsed.problems.first());
    Ok(parsed.resources)
}
