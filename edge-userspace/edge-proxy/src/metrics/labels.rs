//! The labels of Istio's standard metrics.

use edge_model::{Cluster, WorkloadMeta};

/// Labels that say where from and where to, in the order of [`Labels::values`]. All of Istio's standard metrics have them.
const PEERS: [&str; 20] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
];

/// Names of the labels of a metric that has these behind [`PEERS`].
pub(super) fn names(further: &[&'static str]) -> Vec<&'static str> {
    [&PEERS, further].concat()
}

/// Istio's word for what is not known.
pub(super) const UNKNOWN: &str = "unknown";

/// How this gateway calls itself as the source of requests to backends.
const SELF: &str = "edge";

/// Where requests and connections go to, as the metrics tell it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Labels([String; 11]);

impl Labels {
    /// Of what got no further than this gateway.
    pub(crate) fn none() -> Self {
        Self([const { String::new() }; 11].map(|_| UNKNOWN.to_owned()))
    }

    /// Of what goes to a cluster, and to the workload of one of its endpoints once that was picked.
    pub(crate) fn new(cluster: &Cluster, workload: Option<&WorkloadMeta>) -> Self {
        let of = |field: fn(&WorkloadMeta) -> &String| {
            workload.map_or(UNKNOWN, |workload| field(workload).as_str())
        };
        // `<service>.<namespace>.svc.<cluster domain>`, whatever the domain is.
        let name = match cluster.host.split_once(".svc.") {
            Some((in_cluster, _)) => in_cluster.split('.').next().unwrap_or(in_cluster),
            None => &cluster.host,
        };
        Self(
            [
                of(|workload| &workload.workload),
                of(|workload| &workload.namespace),
                UNKNOWN,
                of(|workload| &workload.app),
                of(|workload| &workload.version),
                &cluster.host,
                name,
                &cluster.namespace,
                of(|workload| &workload.canonical_service),
                of(|workload| &workload.canonical_revision),
                UNKNOWN,
            ]
            .map(str::to_owned),
        )
    }

    /// Values of [`PEERS`], and of the labels behind them.
    pub(super) fn values<'a>(&'a self, further: &[&'a str]) -> Vec<&'a str> {
        let source = [
            "source", SELF, SELF, UNKNOWN, UNKNOWN, UNKNOWN, SELF, UNKNOWN, UNKNOWN,
        ];
        let destination = self.0.iter().map(String::as_str);
        source
            .into_iter()
            .chain(destination)
            .chain(further.iter().copied())
            .collect()
    }
}
