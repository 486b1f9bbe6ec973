//! The labels of Istio's standard metrics.

use edge_model::{Cluster, WorkloadMeta};

/// Labels of Istio's standard metrics, in the order of [`Labels::values`].
pub(super) const LABELS: [&str; 25] = [
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
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// Istio's word for what is not known.
const UNKNOWN: &str = "unknown";

/// How this gateway calls itself as the source of requests to backends.
const SELF: &str = "edge";

/// Where requests go to, as the metrics tell it.
#[derive(Debug, Clone)]
pub(crate) struct Labels([String; 11]);

impl Labels {
    /// Of requests that got no further than this gateway.
    pub(crate) fn none() -> Self {
        Self([const { String::new() }; 11].map(|_| UNKNOWN.to_owned()))
    }

    /// Of requests to a cluster, and to the workload of one of its endpoints once that was picked.
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

    pub(super) fn values<'a>(
        &'a self,
        code: &'a str,
        flags: &'a str,
        kind: (&'a str, &'a str),
    ) -> [&'a str; 25] {
        let mut values = [UNKNOWN; 25];
        values[..9].copy_from_slice(&[
            "source", SELF, SELF, UNKNOWN, UNKNOWN, UNKNOWN, SELF, UNKNOWN, UNKNOWN,
        ]);
        for (slot, value) in values[9..20].iter_mut().zip(&self.0) {
            *slot = value;
        }
        // Whether the way to the backend is secured is for the backend's side to report (Istio's metric definition).
        values[20..].copy_from_slice(&[kind.0, code, kind.1, flags, UNKNOWN]);
        values
    }
}
