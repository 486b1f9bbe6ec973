//! What it costs to change one object among those of ten thousand hosts, for each kind of object: from the object that
//! was read to the Snapshot and tables that have the change; and what the proxy does with it then.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use criterion::BatchSize;
use edge_config::{Problem, Resource};
use edge_control::{CompileOptions, Compiler, compile, succeed};
use edge_model::Snapshot;
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
];
const APPLY: &str = "apply_one_of_10000";

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
        let mut round = 0;
        let nanoseconds = if case == APPLY {
            let registry = prometheus::Registry::new();
            let first = only_port(running.snapshot.clone(), port);
            let proxy = Proxy::start(ProxyOptions::new(1), &first, |_| {}, &registry)?;
            harness.measure(case, |bencher| {
                let next = || {
                    round += 1;
                    let changed = objects.changed("change_one_of_10000", round).ok();
                    changed.map(|changed| only_port(running.change(changed), port))
                };
                let apply = |next: Option<Snapshot>| next.map(|next| proxy.apply(&next).is_ok());
                bencher.iter_batched(next, apply, BatchSize::PerIteration);
            })?
        } else {
            harness.measure(case, |bencher| {
                let next = || {
                    round += 1;
                    objects.changed(case, round).ok()
                };
                let change = |changed: Option<Arc<Resource>>| changed.map(|changed| running.change(changed));
                bencher.iter_batched(next, change, BatchSize::PerIteration);
            })?
        };
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

/// A Snapshot for one port alone: others may be taken on this machine.
fn only_port(mut snapshot: Snapshot, port: u16) -> Snapshot {
    snapshot.listeners.retain(|listener| listener.port == port);
    snapshot
}

/// What the objects are made of.
struct Objects {
    /// A certificate and its key in PEM, indented for YAML.
    certificate: String,
    key: String,
}

impl Objects {
    fn new() -> Result<Self> {
        let pair = rcgen::generate_simple_self_signed(["example.com".to_owned()])?;
        let indented = |text: String| text.replace('\n', "\n    ");
        Ok(Self {
            certificate: indented(pair.cert.pem()),
            key: indented(pair.signing_key.serialize_pem()),
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
            _ => virtual_service(host, &format!("/changed{round}/")),
        };
        Ok(Arc::new(read(&text)?.into_iter().next().context("no object")?))
    }

    fn secret(&self, number: usize, round: usize) -> String {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: tls-{number}, namespace: istio-system}}\nstringData:\n  \
             round: '{round}'\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
            self.certificate, self.key
        )
    }

    fn config_map(&self, number: usize, round: usize) -> String {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca-{number}, namespace: istio-system}}\ndata:\n  \
             round: '{round}'\n  ca.crt: |\n    {}\n",
            self.certificate
        )
    }
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
    resources: Vec<Arc<Resource>>,
    snapshot: Snapshot,
    tables: Vec<Table>,
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
            resources,
        })
    }

    /// From a changed object to the published Snapshot and tables that have it.
    fn change(&mut self, changed: Arc<Resource>) -> Snapshot {
        self.compiler
            .change(&changed.object_ref(), Some(changed), &no_file);
        if let Some(next) = succeed(self.compiler.snapshot(), &self.snapshot) {
            self.compiler.share(&next);
            self.tables = tables(&next, &self.tables);
            self.snapshot = next;
        }
        self.snapshot.clone()
    }

    /// That the changes came to what compiling all objects comes to.
    fn check(&self, case: &str) -> Result<()> {
        let current = self.resources.iter().map(|resource| {
            let now = self.compiler.resource(&resource.object_ref());
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
