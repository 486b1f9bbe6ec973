//! What it costs to make the tables of ten thousand hosts, and to change one of them.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use criterion::BatchSize;
use edge_config::{Problem, Resource, parse_documents};
use edge_control::{CompileOptions, Compiled, Compiler, compile, succeed};
use edge_model::Snapshot;
use edge_routing::Table;

use crate::harness::Harness;
use crate::report::{Figure, Report};

/// The cases, in the order of the report.
pub(crate) const NAMES: &[&str] = &[COMPILE, BYTES, CHANGE];
const COMPILE: &str = "hosts_10000_compile";
const BYTES: &str = "hosts_10000_bytes_per_host";
const CHANGE: &str = "change_one_of_10000";

const HOSTS: usize = 10_000;
/// Services that the hosts' routes lead to.
const SERVICES: usize = 100;
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
pub(crate) fn measure(
    is_wanted: impl Fn(&str) -> bool,
    harness: &mut Harness,
    report: &mut Report,
) -> Result<()> {
    let resources = resources()?;
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
    if is_wanted(CHANGE) {
        let mut running = Running::new(resources)?;
        let mut round = 0;
        let nanoseconds = harness.measure(CHANGE, |bencher| {
            let next = || {
                round += 1;
                changed(round).ok()
            };
            let change = |changed| running.change(changed);
            bencher.iter_batched(next, change, BatchSize::PerIteration);
        })?;
        running.check()?;
        report.add(&Figure {
            case: CHANGE,
            value: nanoseconds / 1e6,
            unit: "ms",
            goal: Some(CHANGE_GOAL),
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

/// The VirtualService of one of the hosts with another path, a different one each time.
fn changed(round: usize) -> Result<Arc<Resource>> {
    let read = read(&virtual_service(
        round * 997 % HOSTS,
        &format!("/changed{round}/"),
    ))?;
    Ok(Arc::new(read.into_iter().next().context("no VirtualService")?))
}

/// A configuration that changes object by object.
struct Running {
    compiler: Compiler,
    snapshot: Snapshot,
    tables: Vec<Table>,
}

impl Running {
    fn new(resources: Vec<Resource>) -> Result<Self> {
        let compiler = Compiler::new(
            CompileOptions::default(),
            resources.into_iter().map(Arc::new),
            &no_file,
        );
        ensure!(
            !compiler.problems().any(Problem::is_error),
            "the resources are refused"
        );
        let snapshot = compiler.snapshot().clone();
        Ok(Self {
            tables: tables(&snapshot, &[]),
            snapshot,
            compiler,
        })
    }

    /// From a changed object to the published Snapshot and tables that have it.
    fn change(&mut self, changed: Option<Arc<Resource>>) {
        if let Some(changed) = changed {
            self.compiler
                .change(&changed.object_ref(), Some(changed), &no_file);
            if let Some(next) = succeed(self.compiler.snapshot(), &self.snapshot) {
                self.compiler.share(&next);
                self.tables = tables(&next, &self.tables);
                self.snapshot = next;
            }
        }
    }

    fn check(self) -> Result<()> {
        check(&Served {
            snapshot: self.snapshot,
            tables: self.tables,
        })
    }
}

fn no_file(path: &str) -> io::Result<Vec<u8>> {
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
fn tables(snapshot: &Snapshot, before: &[Table]) -> Vec<Table> {
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
