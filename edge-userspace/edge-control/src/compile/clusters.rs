//! Clusters: every port of every known service, as a whole and by subset.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use edge_config::istio::destination_rule::Subset;
use edge_config::istio::service_entry::Resolution;
use edge_model::{Cluster, ClusterName, Discovery, SharedMap, UpstreamProtocol};

use super::credentials::Credentials;
use super::destination_rules::{DestinationRules, Merged};
use super::endpoints::{LOCALITY_LABEL, Labelled, Named, Workloads, locality_text};
use super::locality::{self, Own, Places};
use super::registry::{Origin, Port, Registry, Service};
use super::report::Report;
use super::traffic_policy::Blocks;
use super::upstream_tls;
use crate::CompileOptions;

/// Most endpoints of all clusters together, a cluster itself counting as ten. Subsets, ports and endpoints multiply, so
/// that a small text could ask for more than any memory holds; a thousand services with a hundred subsets of ten endpoints
/// each are two millions.
pub(crate) const MAX_PLACES: usize = 4_000_000;

/// What a cluster takes beside its endpoints, in the memory of an endpoint.
const PLACES_OF_CLUSTER: usize = 10;

/// What clusters are made of.
pub(crate) struct Clusters<'c, 'r> {
    pub(crate) registry: &'c Registry<'r>,
    pub(crate) rules: &'c DestinationRules<'r>,
    pub(crate) workloads: &'c Workloads<'r>,
    pub(crate) credentials: &'c Credentials<'r>,
    pub(crate) options: &'c CompileOptions,
}

/// One port of a service with what is behind it.
struct PortOf<'t, 'r> {
    service: &'t Service<'r>,
    port: &'t Port,
    rule: Option<&'t Merged<'r>>,
    endpoints: Vec<Labelled<'r>>,
    names: Vec<Named<'r>>,
}

impl<'r> Clusters<'_, 'r> {
    /// Builds the clusters of the `wanted` hosts, or of all, and counts the places that those of each host take. A
    /// destination that names none of them finds no cluster, which is answered with 503 and the flag NC.
    pub(crate) fn build(
        &self,
        wanted: Option<&BTreeSet<String>>,
        report: &mut Report,
    ) -> (SharedMap<ClusterName, Arc<Cluster>>, HashMap<String, usize>) {
        let mut clusters = vec![];
        let mut places = 0_usize;
        let mut of_hosts: HashMap<String, usize> = HashMap::new();
        let is_wanted = |service: &&Service<'r>| wanted.is_none_or(|hosts| hosts.contains(&service.host));
        for service in self.registry.hosts().filter(is_wanted) {
            let rule = self.rules.find(&service.host, service.namespace);
            let before = places;
            for port in &service.ports {
                let of = PortOf {
                    service,
                    port,
                    rule,
                    endpoints: self.workloads.endpoints(service, port),
                    names: self.workloads.names(service, port),
                };
                let subsets = rule
                    .into_iter()
                    .flat_map(|rule| rule.subsets.values().copied().map(Some));
                for subset in std::iter::once(None).chain(subsets) {
                    places = places.saturating_add(PLACES_OF_CLUSTER + of.endpoints.len());
                    if places > MAX_PLACES {
                        report_too_many(service, report);
                        return (clusters.into_iter().collect(), of_hosts);
                    }
                    let cluster = self.cluster(&of, subset, report);
                    clusters.push((cluster.name.clone(), Arc::new(cluster)));
                }
            }
            of_hosts.insert(service.host.clone(), places - before);
        }
        (clusters.into_iter().collect(), of_hosts)
    }

    fn cluster(&self, of: &PortOf<'_, 'r>, subset: Option<&'r Subset>, report: &mut Report) -> Cluster {
        let (service, port) = (of.service, of.port);
        let name = subset.map(|subset| subset.name.as_str());
        let mut cluster = Cluster::new(&service.host, service.namespace, port.number, name);
        if port.is_http2 {
            cluster.protocol = UpstreamProtocol::Http2;
        }
        let blocks = match of.rule {
            Some(rule) => rule.blocks(port.number, subset),
            None => Blocks::default(),
        };
        blocks.apply(&mut cluster);
        if let (Some(rule), Some(tls)) = (of.rule, blocks.tls) {
            let names = subject_alt_names(service);
            cluster.tls =
                upstream_tls::upstream_tls(rule, tls, names, self.credentials, report).map(Arc::new);
        }
        self.place(&mut cluster, of, subset, &blocks);
        cluster
    }

    /// Fills in the endpoints.
    fn place(
        &self,
        cluster: &mut Cluster,
        of: &PortOf<'_, 'r>,
        subset: Option<&Subset>,
        blocks: &Blocks<'_>,
    ) {
        let is_in = |subset: &Subset, labels| super::endpoints::is_in(labels, &subset.labels);
        let endpoints = of.endpoints.iter();
        let endpoints = endpoints.filter(|own| subset.is_none_or(|subset| is_in(subset, own.labels)));
        let names = of.names.iter();
        let names = names.filter(|own| subset.is_none_or(|subset| is_in(subset, own.labels)));
        let mut places = Places {
            endpoints: endpoints.map(|own| (own.endpoint.clone(), own.labels)).collect(),
            names: names.map(|own| (own.endpoint.clone(), own.labels)).collect(),
        };
        let label = self.options.gateway_labels.get(LOCALITY_LABEL);
        let place = label.map(|label| locality_text(label)).unwrap_or_default();
        let own = Own {
            locality: &place,
            labels: &self.options.gateway_labels,
        };
        let has_outliers = cluster.outlier_detection.is_some();
        cluster.locality = locality::apply(&mut places, has_outliers, blocks.locality().as_ref(), own);
        cluster.endpoints = places
            .endpoints
            .into_iter()
            .map(|(endpoint, _)| endpoint)
            .collect();
        let names = places.names.into_iter().map(|(name, _)| name).collect();
        cluster.discovery = match &of.service.origin {
            _ if blocks.is_original_dst() => Discovery::OriginalDst,
            Origin::Kubernetes(_) => Discovery::Static,
            Origin::Entry(item) => match item.spec.resolution {
                Resolution::Static => Discovery::Static,
                Resolution::None => Discovery::OriginalDst,
                Resolution::Dns => Discovery::StrictDns(names),
                Resolution::DnsRoundRobin | Resolution::DynamicDns => Discovery::LogicalDns(names),
            },
        };
    }
}

fn report_too_many(service: &Service<'_>, report: &mut Report) {
    let message = format!("with it, services come to more than {MAX_PLACES} clusters and endpoints");
    let hint = "spare subsets, ports or endpoints";
    match &service.origin {
        Origin::Kubernetes(item) => report.cut(item, "spec", message, hint),
        Origin::Entry(item) => report.cut(item, "spec", message, hint),
    }
}

/// `subjectAltNames` of a ServiceEntry, for DestinationRules that give none.
fn subject_alt_names<'t>(service: &'t Service<'_>) -> &'t [String] {
    match &service.origin {
        Origin::Entry(item) => &item.spec.subject_alt_names,
        Origin::Kubernetes(_) => &[],
    }
}
