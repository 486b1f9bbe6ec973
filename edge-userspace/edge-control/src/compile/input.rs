//! The resources by kind, in the order in which Istio considers them.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use edge_config::istio::destination_rule::DestinationRule;
use edge_config::istio::envoy_filter::EnvoyFilter;
use edge_config::istio::gateway::Gateway;
use edge_config::istio::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use edge_config::istio::service_entry::ServiceEntry;
use edge_config::istio::virtual_service::VirtualService;
use edge_config::istio::workload_entry::WorkloadEntry;
use edge_config::k8s::config_map::ConfigMap;
use edge_config::k8s::endpoint_slice::EndpointSlice;
use edge_config::k8s::meta::Meta;
use edge_config::k8s::pod::Pod;
use edge_config::k8s::secret::Secret;
use edge_config::k8s::service::Service;
use edge_config::{Object, Resource, SourceRef};
use edge_model::{Kind, ObjectRef};

use super::report::Report;

/// An object with its full name at hand.
#[derive(Debug, Clone)]
pub(crate) struct Item<'r, S> {
    pub(crate) name: Arc<ObjectRef>,
    pub(crate) meta: &'r Meta,
    pub(crate) spec: &'r S,
    pub(crate) source: &'r SourceRef,
}

impl<'r, S> Item<'r, S> {
    pub(crate) fn new(kind: Kind, object: &'r Object<S>) -> Self {
        let meta = &object.meta;
        Self {
            name: Arc::new(ObjectRef {
                kind,
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
            }),
            meta,
            spec: &object.spec,
            source: &object.source,
        }
    }

    pub(crate) fn namespace(&self) -> &'r str {
        &self.meta.namespace
    }

    /// `namespace/name`.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.meta.namespace, self.meta.name)
    }
}

/// All objects, each kind by creation time, then name, then namespace; the earlier one wins a conflict
/// (istio `pilot/pkg/model/config.go`, `configCompareByCreationTime`).
#[derive(Debug, Default)]
pub(crate) struct Input<'r> {
    pub(crate) gateways: Vec<Item<'r, Gateway>>,
    pub(crate) virtual_services: Vec<Item<'r, VirtualService>>,
    pub(crate) destination_rules: Vec<Item<'r, DestinationRule>>,
    pub(crate) service_entries: Vec<Item<'r, ServiceEntry>>,
    pub(crate) workload_entries: Vec<Item<'r, WorkloadEntry>>,
    pub(crate) envoy_filters: Vec<&'r Object<EnvoyFilter>>,
    pub(crate) services: Vec<Item<'r, Service>>,
    pub(crate) endpoint_slices: Vec<Item<'r, EndpointSlice>>,
    pub(crate) pods: Vec<Item<'r, Pod>>,
    pub(crate) authorization_policies: Vec<Item<'r, AuthorizationPolicy>>,
    pub(crate) request_authentications: Vec<Item<'r, RequestAuthentication>>,
    pub(crate) peer_authentications: Vec<Item<'r, PeerAuthentication>>,
    pub(crate) secrets: Vec<Item<'r, Secret>>,
    pub(crate) config_maps: Vec<Item<'r, ConfigMap>>,
}

impl<'r> Input<'r> {
    /// Sorts the resources; of two objects with the same name the second is reported and left out.
    pub(crate) fn new(resources: impl IntoIterator<Item = &'r Resource>, report: &mut Report) -> Self {
        let mut input = Self::default();
        let mut seen = HashMap::new();
        for resource in resources {
            let first = seen
                .entry(resource.object_ref())
                .or_insert_with(|| resource.source());
            if std::ptr::eq(*first, resource.source()) {
                input.add(resource);
            } else {
                report_duplicate(resource, first, report);
            }
        }
        input.sort();
        input
    }

    fn add(&mut self, resource: &'r Resource) {
        let kind = resource.kind();
        match resource {
            Resource::Gateway(object) => self.gateways.push(Item::new(kind, object)),
            Resource::VirtualService(object) => self.virtual_services.push(Item::new(kind, object)),
            Resource::DestinationRule(object) => self.destination_rules.push(Item::new(kind, object)),
            Resource::ServiceEntry(object) => self.service_entries.push(Item::new(kind, object)),
            Resource::WorkloadEntry(object) => self.workload_entries.push(Item::new(kind, object)),
            Resource::EnvoyFilter(object) => self.envoy_filters.push(object),
            Resource::Service(object) => self.services.push(Item::new(kind, object)),
            Resource::EndpointSlice(object) => self.endpoint_slices.push(Item::new(kind, object)),
            Resource::Pod(object) => self.pods.push(Item::new(kind, object)),
            Resource::AuthorizationPolicy(object) => {
                self.authorization_policies.push(Item::new(kind, object))
            }
            Resource::RequestAuthentication(object) => {
                self.request_authentications.push(Item::new(kind, object))
            }
            Resource::PeerAuthentication(object) => self.peer_authentications.push(Item::new(kind, object)),
            // Of a Namespace only labels would count, and no honoured field selects by them.
            Resource::Namespace(_) => {}
            Resource::Secret(object) => self.secrets.push(Item::new(kind, object)),
            Resource::ConfigMap(object) => self.config_maps.push(Item::new(kind, object)),
        }
    }

    fn sort(&mut self) {
        self.gateways.sort_by(by_creation);
        self.virtual_services.sort_by(by_creation);
        self.destination_rules.sort_by(by_creation);
        self.service_entries.sort_by(by_creation);
        self.workload_entries.sort_by(by_creation);
        // EnvoyFilters go by priority first (Istio `EnvoyFilter.priority`).
        self.envoy_filters.sort_by(|a, b| {
            a.spec
                .priority
                .cmp(&b.spec.priority)
                .then_with(|| by_age(&a.meta, &b.meta))
        });
        self.services.sort_by(by_creation);
        self.endpoint_slices.sort_by(by_creation);
        self.pods.sort_by(by_creation);
        self.authorization_policies.sort_by(by_creation);
        self.request_authentications.sort_by(by_creation);
        self.peer_authentications.sort_by(by_creation);
        self.secrets.sort_by(by_creation);
        self.config_maps.sort_by(by_creation);
    }
}

fn by_creation<S>(a: &Item<'_, S>, b: &Item<'_, S>) -> Ordering {
    by_age(a.meta, b.meta)
}

fn by_age(a: &Meta, b: &Meta) -> Ordering {
    (a.creation_timestamp, &a.name, &a.namespace).cmp(&(b.creation_timestamp, &b.name, &b.namespace))
}

fn report_duplicate(resource: &Resource, first: &SourceRef, report: &mut Report) {
    let item = Item {
        name: Arc::new(resource.object_ref()),
        meta: resource.meta(),
        spec: &(),
        source: resource.source(),
    };
    report.error(
        &item,
        "metadata.name",
        format!(
            "the object is already defined in {}, line {}",
            first.file, first.line
        ),
        "remove one of the two, or give it another name",
    );
}
