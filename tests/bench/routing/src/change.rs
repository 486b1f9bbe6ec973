//! What it costs to change one object among those of ten thousand hosts, for each kind of object: from the object that
//! was read to the Snapshot and tables that have the change; and what the proxy does with it then.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context as _, Error, Result, ensure};
use criterion::BatchSize;
use edge_config::{Problem, Resource};
use edge_control::{CompileOptions, Compiler, compile, succeed};
use edge_model::{ObjectRef, Snapshot};
use edge_proxy::{Proxy, ProxyOptions};
use edge_routing::Table;

use crate::compile::{HOSTS, SERVICES, no_file, read, resources, tables, virtual_service};
use crate::harness::Harness;
use crate::report::{Figure, Report};

/// The cases, in the order of the report.
pub(crate) const NAMES: &[&str] = &[
    "change_one_of_10000",
    "change_destination_rule",
    "change_service",
    "change_endpoint_slice",
    "change_pod",
    "change_service_entry",
    "change_workload_entry",
    "change_gateway",
    "change_secret",
    "change_config_map",
    APPLY,
    // The first of these adds the EnvoyFilter.
    FILTER,
    BESIDE_FILTER,
];
const APPLY: &str = "apply_one_of_10000";
const FILTER: &str = "change_envoy_filter";
const BESIDE_FILTER: &str = "change_one_beside_filter";

/// Milliseconds for one change: a hundred a second then take a tenth of a core.
const GOAL: f64 = 1.0;

/// Endpoints of each Service, each of them a Pod.
const PODS: usize = 10;
/// Gateways with a host and a certificate of their own, and ServiceEntries with a workload each.
const OTHERS: usize = 100;

/// Measures the wanted cases.
pub(crate) fn measure(
    is_wanted: impl Fn(&str) -> bool,
    harness: &mut Harness,
    report: &mut Report,
) -> Result<()> {
    let wanted: Vec<_> = NAMES.iter().copied().filter(|name| is_wanted(name)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let objects = Objects::new()?;
    // Nothing else may have it; the proxy listens on it a moment later.
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let mut running = Running::new(objects.all(port)?)?;
    for case in wanted {
        let (mut round, failure) = (0, Failure::default());
        let mut next = || {
            round += 1;
            objects.changed(case, round)
        };
        let nanoseconds = if case == APPLY {
            let registry = prometheus::Registry::new();
            let first = only_port(running.snapshot.clone(), port);
            let proxy = Proxy::start(ProxyOptions::new(1), &first, |_| {}, &registry)?;
            harness.measure(case, |bencher| {
                let next = || {
                    let changed = next().map(|changed| running.change(changed));
                    failure.keep(changed.map(|snapshot| only_port(snapshot, port)))
                };
                let apply = |next: Option<Snapshot>| {
                    let applied = next.map(|next| proxy.apply(&next).context("it is not applied"));
                    applied.map(|applied| failure.keep(applied))
                };
                bencher.iter_batched(next, apply, BatchSize::PerIteration);
            })?
        } else {
            harness.measure(case, |bencher| {
                let next = || failure.keep(next());
                let change = |changed: Option<Arc<Resource>>| changed.map(|changed| running.change(changed));
                bencher.iter_batched(next, change, BatchSize::PerIteration);
            })?
        };
        failure.tell(case)?;
        running.check(case)?;
        report.add(&Figure {
            case,
            value: nanoseconds / 1e6,
            unit: "ms",
            goal: Some(GOAL),
        })?;
    }
    Ok(())
}

/// The first failure of what Criterion calls, which takes none.
#[derive(Default)]
struct Failure(OnceCell<Error>);

impl Failure {
    fn keep<T>(&self, result: Result<T>) -> Option<T> {
        // A later one follows from the first.
        result.map_err(|error| drop(self.0.set(error))).ok()
    }

    fn tell(self, case: &str) -> Result<()> {
        match self.0.into_inner() {
            Some(error) => Err(error.context(format!("{case} was not measured"))),
            None => Ok(()),
        }
    }
}

/// A Snapshot for one port alone: others may be taken on this machine.
fn only_port(mut snapshot: Snapshot, port: u16) -> Snapshot {
    snapshot.listeners.retain(|listener| listener.port == port);
    snapshot
}

/// What the objects are made of.
struct Objects {
    /// Two certificates with their keys in PEM, indented for YAML: a renewed Secret has the other one.
    certificates: [(String, String); 2],
}

impl Objects {
    fn new() -> Result<Self> {
        let indented = |text: String| text.replace('\n', "\n    ");
        let certificate = || {
            let pair = rcgen::generate_simple_self_signed(["example.com".to_owned()])?;
            let key = indented(pair.signing_key.serialize_pem());
            Ok::<_, Error>((indented(pair.cert.pem()), key))
        };
        Ok(Self {
            certificates: [certificate()?, certificate()?],
        })
    }

    fn all(&self, port: u16) -> Result<Vec<Resource>> {
        let mut all = resources(port)?;
        let mut text = String::new();
        for number in 0..SERVICES {
            write!(text, "---\n{}", slice(number, 0))?;
            for pod in 0..PODS {
                write!(text, "---\n{}", self::pod(number, pod, 0))?;
            }
        }
        for number in 0..OTHERS {
            write!(text, "---\n{}---\n{}", gateway(number, 0), self.secret(number, 0))?;
            write!(
                text,
                "---\n{}---\n{}",
                own_route(number),
                self.config_map(number, 0)
            )?;
            write!(
                text,
                "---\n{}---\n{}",
                service_entry(number, 0),
                workload_entry(number, 0)
            )?;
            write!(text, "---\n{}", destination_rule(number, 0))?;
        }
        all.extend(read(&text)?);
        Ok(all)
    }

    /// One of the objects that a case is about, different from what it was.
    fn changed(&self, case: &str, round: usize) -> Result<Arc<Resource>> {
        let (one, host) = (round * 37 % OTHERS, round * 997 % HOSTS);
        let text = match case {
            "change_destination_rule" => destination_rule(one, round),
            "change_service" => service(one, round),
            "change_endpoint_slice" => slice(one, round),
            "change_pod" => pod(one, round % PODS, round),
            "change_service_entry" => service_entry(one, round),
            "change_workload_entry" => workload_entry(one, round),
            "change_gateway" => gateway(one, round),
            "change_secret" => self.secret(one, round),
            "change_config_map" => self.config_map(one, round),
            FILTER => envoy_filter(host, round),
            _ => virtual_service(host, &format!("/changed{round}/")),
        };
        Ok(Arc::new(read(&text)?.into_iter().next().context("no object")?))
    }

    /// As it is in a round: each of the hundred objects is changed in every hundredth.
    fn certificate(&self, round: usize) -> &(String, String) {
        let [one, other] = &self.certificates;
        if round.div_ceil(OTHERS).is_multiple_of(2) {
            one
        } else {
            other
        }
    }

    fn secret(&self, number: usize, round: usize) -> String {
        let (certificate, key) = self.certificate(round);
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: tls-{number}, namespace: istio-system}}\nstringData:\n  \
             round: '{round}'\n  tls.crt: |\n    {certificate}\n  tls.key: |\n    {key}\n"
        )
    }

    fn config_map(&self, number: usize, round: usize) -> String {
        let (certificate, _) = self.certificate(round);
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca-{number}, namespace: istio-system}}\ndata:\n  \
             round: '{round}'\n  ca.crt: |\n    {certificate}\n"
        )
    }
}

/// A limit for all requests, and another for one host.
fn envoy_filter(number: usize, round: usize) -> String {
    const LIMIT: &str = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    let tokens = 1 + round % 1000;
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: limit, namespace: istio-system}}\n\
         spec:\n  configPatches:\n  \
         - applyTo: HTTP_FILTER\n    match: {{context: GATEWAY}}\n    patch:\n      operation: INSERT_BEFORE\n      \
         value: {{name: envoy.filters.http.local_ratelimit, typed_config: {{'@type': {LIMIT}, stat_prefix: all}}}}\n  \
         - applyTo: VIRTUAL_HOST\n    \
         match: {{context: GATEWAY, routeConfiguration: {{vhost: {{domainName: host-{number}.example.com}}}}}}\n    patch:\n      \
         operation: MERGE\n      value: {{typed_per_filter_config: {{envoy.filters.http.local_ratelimit: {{'@type': {LIMIT}, \
         stat_prefix: one, token_bucket: {{max_tokens: {tokens}, fill_interval: 1s}}}}}}}}\n"
    )
}

fn gateway(number: usize, round: usize) -> String {
    let more = round % 7;
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: own-{number}, namespace: default}}\n\
         spec:\n  selector: {{istio: ingressgateway}}\n  servers:\n  \
         - {{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [own-{number}.example.com, \
         more-{number}-{more}.example.com], tls: {{mode: MUTUAL, credentialName: tls-{number}, \
         caCertCredentialName: 'configmap://ca-{number}'}}}}\n"
    )
}

fn own_route(number: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: own-{number}, namespace: default}}\n\
         spec: {{hosts: [own-{number}.example.com], gateways: [own-{number}], http: [{{route: [{{destination: \
         {{host: api-{number}.example.com}}}}]}}]}}\n"
    )
}

fn service(number: usize, round: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: service-{number}, namespace: default}}\n\
         spec: {{selector: {{round: 'r{round}'}}, ports: [{{name: http, port: 80}}], clusterIP: 10.0.0.{}}}\n",
        number + 1
    )
}

fn slice(number: usize, round: usize) -> String {
    let endpoints: Vec<_> = (0..PODS)
        .map(|pod| {
            let last = (pod + round) % 250;
            format!(
                "{{addresses: [10.1.{number}.{last}], targetRef: {{kind: Pod, name: pod-{number}-{pod}}}}}"
            )
        })
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: service-{number}-a, namespace: default, \
         labels: {{kubernetes.io/service-name: service-{number}}}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 8080}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

fn pod(number: usize, pod: usize, round: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{number}-{pod}, namespace: default, labels: {{app: a, version: \
         v{round}}}}}\nstatus: {{phase: Running, podIP: 10.1.{number}.{pod}}}\n"
    )
}

fn service_entry(number: usize, round: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api-{number}, namespace: \
         outside-{number}, labels: {{round: 'r{round}'}}}}\nspec: {{hosts: [api-{number}.example.com], ports: [{{number: {}, \
         name: http, protocol: HTTP}}], resolution: STATIC, workloadSelector: {{labels: {{app: api}}}}}}\n",
        80 + round % 2
    )
}

fn workload_entry(number: usize, round: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: api, namespace: outside-{number}}}\n\
         spec: {{address: 10.2.{number}.{}, labels: {{app: api}}}}\n",
        1 + round % 250
    )
}

fn destination_rule(number: usize, round: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: service-{number}, namespace: \
         default}}\nspec: {{host: service-{number}, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {}}}}}}}}}\n",
        100 + round
    )
}

/// A configuration that changes object by object.
struct Running {
    compiler: Compiler,
    objects: HashSet<ObjectRef>,
    snapshot: Snapshot,
    tables: Vec<Table>,
    /// Since the last check.
    changes: usize,
}

impl Running {
    fn new(resources: Vec<Resource>) -> Result<Self> {
        let resources: Vec<_> = resources.into_iter().map(Arc::new).collect();
        let compiler = Compiler::new(CompileOptions::default(), resources.iter().cloned(), &no_file);
        let refused: Vec<_> = compiler
            .problems()
            .filter(|problem| Problem::is_error(problem))
            .collect();
        ensure!(refused.is_empty(), "the resources are refused: {refused:?}");
        let snapshot = compiler.snapshot().clone();
        Ok(Self {
            tables: tables(&snapshot, &[]),
            snapshot,
            compiler,
            objects: resources.iter().map(|resource| resource.object_ref()).collect(),
            changes: 0,
        })
    }

    /// From a changed object to the published Snapshot and tables that have it.
    fn change(&mut self, changed: Arc<Resource>) -> Snapshot {
        let object = changed.object_ref();
        self.compiler.change(&object, Some(changed), &no_file);
        self.changes += 1;
        self.objects.insert(object);
        if let Some(next) = succeed(self.compiler.snapshot(), &self.snapshot) {
            self.compiler.share(&next);
            self.tables = tables(&next, &self.tables);
            self.snapshot = next;
        }
        self.snapshot.clone()
    }

    /// That there were changes, and that they came to what compiling all objects comes to.
    fn check(&mut self, case: &str) -> Result<()> {
        ensure!(self.changes > 0, "{case}: nothing was changed");
        self.changes = 0;
        let current = self.objects.iter().map(|object| {
            let now = self.compiler.resource(object);
            now.map(|now| Resource::clone(now))
                .context("an object went missing")
        });
        let current = current.collect::<Result<Vec<_>>>()?;
        let whole = compile(&current, &CompileOptions::default(), &no_file);
        ensure!(
            *self.compiler.snapshot() == whole.snapshot,
            "{case}: the changes came to something else than compiling all objects"
        );
        Ok(())
    }
}
