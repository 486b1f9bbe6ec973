//! What it costs to make the tables of ten thousand hosts.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use criterion::BatchSize;
use edge_config::{Resource, parse_documents};
use edge_control::{CompileOptions, Compiled, compile};
use edge_model::Snapshot;
use edge_routing::Table;

use crate::harness::Harness;
use crate::report::{Figure, Report};

/// The cases, in the order of the report.
pub(crate) const NAMES: &[&str] = &[COMPILE, BYTES];
const COMPILE: &str = "hosts_10000_compile";
const BYTES: &str = "hosts_10000_bytes_per_host";

pub(crate) const HOSTS: usize = 10_000;
/// Services that the hosts' routes lead to.
pub(crate) const SERVICES: usize = 100;
/// Configurations that are kept at a time, so that what each takes stands out from what the allocator keeps.
const KEPT: usize = 4;
/// Seconds for compiling all.
const COMPILE_GOAL: f64 = 0.2;
/// Bytes for each virtual host, routes included.
const BYTES_GOAL: f64 = 2048.0;

/// What a process holds for a configuration: the Snapshot and its tables, ready for lookups.
struct Served {
    snapshot: Snapshot,
    tables: Vec<Table>,
}

/// Measures the wanted cases.
pub(crate) fn measure(
    is_wanted: impl Fn(&str) -> bool,
    harness: &mut Harness,
    report: &mut Report,
) -> Result<()> {
    let resources = resources(80)?;
    check(&serve(&resources)?)?;
    if is_wanted(COMPILE) {
        let nanoseconds = harness.measure(COMPILE, |bencher| {
            bencher.iter_batched(|| (), |()| serve(&resources).ok(), BatchSize::PerIteration);
        })?;
        report.add(&Figure {
            case: COMPILE,
            value: nanoseconds / 1e9,
            unit: "s",
            goal: Some(COMPILE_GOAL),
        })?;
    }
    if is_wanted(BYTES) {
        report.add(&Figure {
            case: BYTES,
            value: bytes_per_host(&resources)?,
            unit: "bytes",
            goal: Some(BYTES_GOAL),
        })?;
    }
    Ok(())
}

/// Resident memory that a configuration adds. The first ones fill what compiling leaves free in the allocator.
fn bytes_per_host(resources: &[Resource]) -> Result<f64> {
    drop(serve(resources)?);
    let before = resident_bytes()?;
    let kept = (0..KEPT).map(|_| serve(resources)).collect::<Result<Vec<_>>>()?;
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

pub(crate) fn no_file(path: &str) -> io::Result<Vec<u8>> {
    Err(io::Error::other(format!("{path} is not to be read")))
}

fn serve(resources: &[Resource]) -> Result<Served> {
    let Compiled { snapshot, problems } = compile(resources, &CompileOptions::default(), &no_file);
    let errors: Vec<_> = problems.iter().filter(|problem| problem.is_error()).collect();
    ensure!(errors.is_empty(), "the resources are refused: {errors:?}");
    Ok(Served {
        tables: tables(&snapshot, &[]),
        snapshot,
    })
}

/// The tables of a Snapshot, with what stayed the same taken over.
pub(crate) fn tables(snapshot: &Snapshot, before: &[Table]) -> Vec<Table> {
    let routes = snapshot.listeners.iter().flat_map(|listener| listener.tables());
    let numbered = routes.enumerate();
    numbered
        .map(|(number, routes)| Table::after(before.get(number), Arc::clone(routes)))
        .collect()
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

/// A Gateway for all hosts on a port, a VirtualService with two rules for each, and the services.
pub(crate) fn resources(port: u16) -> Result<Vec<Resource>> {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: gateway, namespace: default}}\n\
         spec:\n  selector: {{istio: ingressgateway}}\n  servers:\n  \
         - {{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}\n"
    );
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

pub(crate) fn virtual_service(number: usize, prefix: &str) -> String {
    let service = number % SERVICES;
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: host-{number}, namespace: default}}\n\
         spec:\n  hosts: [host-{number}.example.com]\n  gateways: [gateway]\n  http:\n  \
         - match: [{{uri: {{prefix: {prefix}}}}}]\n    route: [{{destination: {{host: service-{service}}}}}]\n  \
         - route: [{{destination: {{host: service-{}}}}}]\n",
        (service + 1) % SERVICES
    )
}

pub(crate) fn read(text: &str) -> Result<Vec<Resource>> {
    let parsed = parse_documents("bench.yaml", text);
    ensure!(parsed.problems.is_empty(), "{:?}", parsed.problems.first());
    Ok(parsed.resources)
}
