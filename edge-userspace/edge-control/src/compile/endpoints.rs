//! The workloads behind a service port.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use edge_config::istio::service_entry::{Resolution, ServiceEntry};
use edge_config::istio::workload_entry::WorkloadEntry;
use edge_config::k8s::endpoint_slice::{self, EndpointSlice, SERVICE_NAME_LABEL};
use edge_config::k8s::pod::Pod;
use edge_config::k8s::service::Service as KubernetesService;
use edge_model::{DnsEndpoint, Endpoint, ObjectRef, WorkloadMeta};

use super::input::{Input, Item};
use super::registry::{Origin, Port, Service};

/// Label of a workload that names its locality, with dots or slashes between the parts (istio `model.LocalityLabel`).
pub(crate) const LOCALITY_LABEL: &str = "istio-locality";

/// What Istio's metrics say where nothing is known.
const UNKNOWN: &str = "unknown";

/// An endpoint with the labels that subsets look at.
#[derive(Debug, Clone)]
pub(crate) struct Labelled<'r> {
    pub(crate) endpoint: Endpoint,
    pub(crate) labels: Option<&'r BTreeMap<String, String>>,
}

/// Whether a workload with these labels has all those of a subset.
pub(crate) fn is_in(labels: Option<&BTreeMap<String, String>>, subset: &BTreeMap<String, String>) -> bool {
    subset.is_empty() || labels.is_some_and(|labels| has_all(labels, subset))
}

/// Whether `labels` has all of `wanted`.
pub(crate) fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// EndpointSlices by Service, Pods by name and WorkloadEntries by namespace, so that no lookup walks a list.
#[derive(Debug)]
pub(crate) struct Workloads<'r> {
    slices: HashMap<(&'r str, &'r str), Vec<&'r EndpointSlice>>,
    pods: HashMap<(&'r str, &'r str), Item<'r, Pod>>,
    pods_of: HashMap<&'r str, Vec<Item<'r, Pod>>>,
    entries_of: HashMap<&'r str, Vec<Item<'r, WorkloadEntry>>>,
}

impl<'r> Workloads<'r> {
    pub(crate) fn new(input: &Input<'r>) -> Self {
        let mut workloads = Self {
            slices: HashMap::new(),
            pods: HashMap::new(),
            pods_of: HashMap::new(),
            entries_of: HashMap::new(),
        };
        for slice in &input.endpoint_slices {
            if let Some(service) = slice.meta.labels.get(SERVICE_NAME_LABEL) {
                let key = (slice.namespace(), service.as_str());
                workloads.slices.entry(key).or_default().push(slice.spec);
            }
        }
        for pod in &input.pods {
            workloads
                .pods
                .insert((pod.namespace(), &pod.meta.name), pod.clone());
            workloads
                .pods_of
                .entry(pod.namespace())
                .or_default()
                .push(pod.clone());
        }
        for entry in &input.workload_entries {
            workloads
                .entries_of
                .entry(entry.namespace())
                .or_default()
                .push(entry.clone());
        }
        workloads
    }

    /// The EndpointSlices of a Service among all of them.
    pub(crate) fn slices_of<'t>(
        &'t self,
        service: &'t Item<'_, KubernetesService>,
        all: &'t [Item<'r, EndpointSlice>],
    ) -> impl Iterator<Item = &'t Item<'r, EndpointSlice>> {
        let key = (service.namespace(), service.meta.name.as_str());
        let own = self.slices.get(&key).map_or(&[][..], Vec::as_slice);
        let is_own =
            |slice: &&Item<'r, EndpointSlice>| own.iter().any(|other| std::ptr::eq(*other, slice.spec));
        all.iter().filter(move |slice| !own.is_empty() && is_own(slice))
    }

    /// The Pods that the endpoints of a Service refer to.
    pub(crate) fn pods_of(&self, service: &Item<'_, KubernetesService>) -> Vec<ObjectRef> {
        let namespace = service.namespace();
        let slices = self.slices.get(&(namespace, service.meta.name.as_str()));
        let endpoints = slices.into_iter().flatten().flat_map(|slice| &slice.endpoints);
        let pods = endpoints.filter_map(|endpoint| self.pod(endpoint, namespace));
        pods.map(|pod| ObjectRef::clone(&pod.name)).collect()
    }

    /// The WorkloadEntries and Pods that a ServiceEntry selects.
    pub(crate) fn selected_by(&self, entry: &Item<'_, ServiceEntry>) -> Vec<ObjectRef> {
        let Some(selector) = &entry.spec.workload_selector else {
            return vec![];
        };
        let entries = self.entries_of.get(entry.namespace()).into_iter().flatten();
        let entries = entries
            .filter(|item| has_all(labels_of(item), &selector.labels))
            .map(|item| &item.name);
        let pods = self.pods_of.get(entry.namespace()).into_iter().flatten();
        let pods = pods
            .filter(|pod| has_all(&pod.meta.labels, &selector.labels))
            .map(|pod| &pod.name);
        entries.chain(pods).map(|name| ObjectRef::clone(name)).collect()
    }

    /// The Pod that an endpoint of a slice refers to.
    fn pod<'s>(
        &'s self,
        endpoint: &'s endpoint_slice::Endpoint,
        namespace: &'s str,
    ) -> Option<&'s Item<'r, Pod>> {
        let target = endpoint
            .target_ref
            .as_ref()
            .filter(|target| target.kind == "Pod")?;
        let own = Some(target.namespace.as_str()).filter(|written| !written.is_empty());
        self.pods.get(&(own.unwrap_or(namespace), target.name.as_str()))
    }

    /// Whether any EndpointSlice belongs to a Service.
    pub(crate) fn has_slice(&self, service: &Item<'_, KubernetesService>) -> bool {
        self.slices
            .contains_key(&(service.namespace(), service.meta.name.as_str()))
    }

    /// The names that the endpoints of a ServiceEntry's port are resolved from: those of its endpoints or, without any,
    /// its own host.
    pub(crate) fn names(&self, service: &Service<'r>, port: &Port) -> Vec<Named<'r>> {
        let Origin::Entry(item) = &service.origin else {
            return vec![];
        };
        let is_dns = matches!(
            item.spec.resolution,
            Resolution::Dns | Resolution::DnsRoundRobin | Resolution::DynamicDns
        );
        let inline = item.spec.endpoints.iter().map(|own| (own, &own.labels));
        let selected = item.spec.workload_selector.iter();
        let selected =
            selected.flat_map(|selector| self.selected_entries(&selector.labels, item.namespace()));
        let named = inline.chain(selected.map(|(_, own, labels)| (own, labels)));
        let named = named.filter(|(own, _)| is_dns && own.address.parse::<IpAddr>().is_err());
        let mut names: Vec<_> = named
            .filter(|(own, _)| !own.address.is_empty() && !own.address.starts_with("unix:"))
            .filter_map(|(own, labels)| {
                let number = own_port(own, port)?;
                Some(self::named(
                    &own.address,
                    number,
                    own,
                    Some(labels),
                    item.namespace(),
                ))
            })
            .collect();
        let has_endpoints = !item.spec.endpoints.is_empty() || item.spec.workload_selector.is_some();
        if is_dns && !has_endpoints && !service.host.starts_with('*') {
            let nobody = WorkloadEntry::default();
            let number = port.target.unwrap_or(port.number);
            names.push(self::named(
                &service.host,
                number,
                &nobody,
                None,
                item.namespace(),
            ));
        }
        names.sort_by(|a, b| (&a.endpoint.name, a.endpoint.port).cmp(&(&b.endpoint.name, b.endpoint.port)));
        names.dedup_by(|a, b| (&a.endpoint.name, a.endpoint.port) == (&b.endpoint.name, b.endpoint.port));
        names
    }

    /// The ready endpoints of a service port by address, no address twice.
    pub(crate) fn endpoints(&self, service: &Service<'r>, port: &Port) -> Vec<Labelled<'r>> {
        let mut endpoints = match &service.origin {
            Origin::Kubernetes(item) => self.of_kubernetes(item, port),
            Origin::Entry(item) => self.of_entry(item, port),
        };
        endpoints.sort_by_key(|labelled| labelled.endpoint.address);
        endpoints.dedup_by_key(|labelled| labelled.endpoint.address);
        endpoints
    }

    fn of_kubernetes(&self, service: &Item<'r, KubernetesService>, port: &Port) -> Vec<Labelled<'r>> {
        let key = (service.namespace(), service.meta.name.as_str());
        let slices = self.slices.get(&key).into_iter().flatten();
        let mut endpoints = vec![];
        for slice in slices {
            let named = slice
                .ports
                .iter()
                .filter(|slice_port| slice_port.name == port.name);
            let tcp = named.filter(|slice_port| slice_port.protocol.as_deref().is_none_or(|p| p == "TCP"));
            for number in tcp.filter_map(|slice_port| slice_port.port) {
                let ready = slice.endpoints.iter().filter(|endpoint| is_ready(endpoint));
                endpoints.extend(
                    ready.filter_map(|endpoint| self.of_slice(endpoint, number, service.namespace())),
                );
            }
        }
        endpoints
    }

    /// One endpoint of a slice; only its first address counts (Kubernetes API, `Endpoint.addresses`).
    fn of_slice(
        &self,
        endpoint: &'r endpoint_slice::Endpoint,
        port: u16,
        namespace: &'r str,
    ) -> Option<Labelled<'r>> {
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let target = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod");
        let pod = self.pod(endpoint, namespace);
        let name = target.map(|target| target.name.as_str());
        let labels = pod.map(|pod| &pod.meta.labels);
        Some(labelled(
            SocketAddr::new(address, port),
            1,
            name,
            namespace,
            labels,
        ))
    }

    fn of_entry(&self, entry: &Item<'r, ServiceEntry>, port: &Port) -> Vec<Labelled<'r>> {
        if entry.spec.resolution == Resolution::None {
            return vec![];
        }
        let inline = entry
            .spec
            .endpoints
            .iter()
            .map(|endpoint| (None, endpoint, &endpoint.labels));
        let mut endpoints: Vec<_> = inline
            .filter_map(|(name, endpoint, labels)| {
                of_workload(name, endpoint, labels, port, entry.namespace())
            })
            .collect();
        if let Some(selector) = &entry.spec.workload_selector {
            endpoints.extend(self.selected(&selector.labels, port, entry.namespace()));
        }
        endpoints
    }

    /// WorkloadEntries of the namespace that have the labels, with their names and labels.
    fn selected_entries(
        &self,
        selector: &'r BTreeMap<String, String>,
        namespace: &str,
    ) -> impl Iterator<Item = (&'r str, &'r WorkloadEntry, &'r BTreeMap<String, String>)> {
        let entries = self.entries_of.get(namespace).into_iter().flatten();
        entries.filter_map(move |item| {
            let labels = labels_of(item);
            has_all(labels, selector).then_some((item.meta.name.as_str(), item.spec, labels))
        })
    }

    /// WorkloadEntries and Pods of the namespace that have the labels.
    fn selected(
        &self,
        selector: &'r BTreeMap<String, String>,
        port: &Port,
        namespace: &'r str,
    ) -> impl Iterator<Item = Labelled<'r>> {
        let entries = self.selected_entries(selector, namespace);
        let entries = entries
            .filter_map(move |(name, entry, labels)| of_workload(Some(name), entry, labels, port, namespace));
        let pods = self.pods_of.get(namespace).into_iter().flatten();
        let pods = pods.filter_map(move |pod| {
            let is_running = matches!(pod.spec.status.phase.as_str(), "" | "Running");
            let address: IpAddr = pod.spec.status.pod_ip.parse().ok()?;
            let address = SocketAddr::new(address, port.target?);
            let labels = &pod.meta.labels;
            (is_running && has_all(labels, selector))
                .then(|| labelled(address, 1, Some(&pod.meta.name), namespace, Some(labels)))
        });
        entries.chain(pods)
    }
}

/// The labels of a WorkloadEntry's spec count, and without any those of its metadata (Istio WorkloadEntry.labels).
fn labels_of<'r>(item: &Item<'r, WorkloadEntry>) -> &'r BTreeMap<String, String> {
    if item.spec.labels.is_empty() {
        &item.meta.labels
    } else {
        &item.spec.labels
    }
}

/// Kubernetes takes an unknown condition for ready; a terminating endpoint gets no new requests.
fn is_ready(endpoint: &endpoint_slice::Endpoint) -> bool {
    endpoint.conditions.ready != Some(false) && endpoint.conditions.terminating != Some(true)
}

/// A workload's endpoint; its own map of ports goes before the service's target port.
fn of_workload<'r>(
    name: Option<&str>,
    workload: &WorkloadEntry,
    labels: &'r BTreeMap<String, String>,
    port: &Port,
    namespace: &str,
) -> Option<Labelled<'r>> {
    let address: IpAddr = workload.address.parse().ok()?;
    let address = SocketAddr::new(address, own_port(workload, port)?);
    let weight = workload.weight.max(1);
    let mut labelled = labelled(address, weight, name, namespace, Some(labels));
    if !workload.locality.is_empty() {
        labelled.endpoint.locality = workload.locality.as_str().into();
    }
    Some(labelled)
}

/// The port of a workload: by its own map of ports, else the service's target port.
fn own_port(workload: &WorkloadEntry, port: &Port) -> Option<u16> {
    match workload.ports.get(&port.name) {
        Some(own) => u16::try_from(*own).ok(),
        None => port.target,
    }
}

/// A name that is resolved, with the labels that subsets look at.
#[derive(Debug, Clone)]
pub(crate) struct Named<'r> {
    pub(crate) endpoint: DnsEndpoint,
    pub(crate) labels: Option<&'r BTreeMap<String, String>>,
}

fn named<'r>(
    name: &str,
    port: u16,
    workload: &WorkloadEntry,
    labels: Option<&'r BTreeMap<String, String>>,
    namespace: &str,
) -> Named<'r> {
    let locality = match workload.locality.as_str() {
        "" => locality_of(labels),
        own => own.into(),
    };
    Named {
        endpoint: DnsEndpoint {
            name: name.to_ascii_lowercase(),
            port,
            weight: workload.weight.max(1),
            locality,
            priority: 0,
            workload: Arc::new(workload_meta(None, namespace, labels)),
        },
        labels,
    }
}

/// The locality that a workload's labels name.
fn locality_of(labels: Option<&BTreeMap<String, String>>) -> Arc<str> {
    match labels.and_then(|labels| labels.get(LOCALITY_LABEL)) {
        Some(locality) => locality_text(locality).into(),
        None => Arc::default(),
    }
}

/// The value of the locality label with slashes: a label cannot have them.
pub(crate) fn locality_text(label: &str) -> String {
    if label.contains('/') {
        label.to_owned()
    } else {
        label.replace('.', "/")
    }
}

fn labelled<'r>(
    address: SocketAddr,
    weight: u32,
    name: Option<&str>,
    namespace: &str,
    labels: Option<&'r BTreeMap<String, String>>,
) -> Labelled<'r> {
    let workload = Arc::new(workload_meta(name, namespace, labels));
    Labelled {
        endpoint: Endpoint {
            weight,
            locality: locality_of(labels),
            ..Endpoint::new(address, workload)
        },
        labels,
    }
}

fn workload_meta(
    name: Option<&str>,
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
) -> WorkloadMeta {
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    let app = label("app").unwrap_or(UNKNOWN);
    let version = label("version").unwrap_or(UNKNOWN);
    let name = name.map_or(UNKNOWN, |name| workload_name(name, label("pod-template-hash")));
    WorkloadMeta {
        workload: name.to_owned(),
        namespace: namespace.to_owned(),
        app: app.to_owned(),
        version: version.to_owned(),
        canonical_service: label("service.istio.io/canonical-name").unwrap_or(app).to_owned(),
        canonical_revision: label("service.istio.io/canonical-revision")
            .unwrap_or(version)
            .to_owned(),
    }
}

/// The Deployment's name of a Pod that is called `<deployment>-<template hash>-<suffix>`, else the Pod's.
fn workload_name<'n>(pod: &'n str, template_hash: Option<&str>) -> &'n str {
    template_hash
        .and_then(|hash| pod.split_once(&format!("-{hash}-")))
        .map_or(pod, |(deployment, _)| deployment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_of_a_deployment_goes_by_the_deployments_name() {
        assert_eq!(workload_name("web-7d9f-x2x4k", Some("7d9f")), "web");
        assert_eq!(workload_name("web-0", None), "web-0");
        assert_eq!(workload_name("web-0", Some("7d9f")), "web-0");
    }
}
