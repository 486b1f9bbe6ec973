//! Resources as they were read, with the place they came from.

use std::fmt;
use std::sync::Arc;

use edge_model::{Kind, ObjectRef};

use crate::istio::destination_rule::DestinationRule;
use crate::istio::envoy_filter::EnvoyFilter;
use crate::istio::gateway::Gateway;
use crate::istio::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use crate::istio::service_entry::ServiceEntry;
use crate::istio::virtual_service::VirtualService;
use crate::istio::workload_entry::WorkloadEntry;
use crate::k8s::config_map::ConfigMap;
use crate::k8s::endpoint_slice::EndpointSlice;
use crate::k8s::meta::Meta;
use crate::k8s::namespace::Namespace;
use crate::k8s::pod::Pod;
use crate::k8s::secret::Secret;
use crate::k8s::service::Service;
use crate::yaml::LineIndex;
use crate::{ObjectName, Problem, Severity};

/// One object: what it is called, what it says, and where it stands.
///
/// Two objects are equal when they say the same; where they stand does not count.
#[derive(Debug, Clone)]
pub struct Object<Spec> {
    /// Name, namespace and labels.
    pub meta: Meta,
    /// What it says: `spec`, or the whole object for kinds without one.
    pub spec: Spec,
    /// Where it stands.
    pub source: SourceRef,
}

impl<Spec: PartialEq> PartialEq for Object<Spec> {
    fn eq(&self, other: &Self) -> bool {
        self.meta == other.meta && self.spec == other.spec
    }
}

/// Where an object stands, down to the lines of its fields.
#[derive(Clone)]
pub struct SourceRef {
    /// File, as its path was given.
    pub file: Arc<str>,
    /// Line of the object's first field, from 1.
    pub line: usize,
    lines: Arc<LineIndex>,
    /// Path of the object within its document: empty, or `items[3]` and so on within a List.
    base: String,
}

impl SourceRef {
    pub(crate) fn new(file: Arc<str>, lines: Arc<LineIndex>, base: String) -> Self {
        let line = lines.line_of(&base);
        Self {
            file,
            line,
            lines,
            base,
        }
    }

    /// Line of a field such as `spec.http[0].route`, or of the nearest field around it that is there.
    #[must_use]
    pub fn line_of(&self, field: &str) -> usize {
        match (self.base.is_empty(), field.is_empty()) {
            (true, _) => self.lines.line_of(field),
            (false, true) => self.line,
            (false, false) => self.lines.line_of(&format!("{}.{field}", self.base)),
        }
    }

    /// Makes a problem of this place.
    pub fn problem(
        &self,
        severity: Severity,
        object: Option<ObjectName>,
        field: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Problem {
        let field = field.into();
        Problem {
            severity,
            object,
            file: self.file.to_string(),
            line: self.line_of(&field),
            field,
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Debug for SourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// An object of a kind that the edge reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// `networking.istio.io` Gateway.
    Gateway(Object<Gateway>),
    /// `networking.istio.io` VirtualService.
    VirtualService(Object<VirtualService>),
    /// `networking.istio.io` DestinationRule.
    DestinationRule(Box<Object<DestinationRule>>),
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry(Object<ServiceEntry>),
    /// `networking.istio.io` WorkloadEntry.
    WorkloadEntry(Object<WorkloadEntry>),
    /// `networking.istio.io` EnvoyFilter.
    EnvoyFilter(Object<EnvoyFilter>),
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy(Object<AuthorizationPolicy>),
    /// `security.istio.io` RequestAuthentication.
    RequestAuthentication(Object<RequestAuthentication>),
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication(Object<PeerAuthentication>),
    /// Kubernetes core Service.
    Service(Object<Service>),
    /// Kubernetes `discovery.k8s.io` EndpointSlice.
    EndpointSlice(Object<EndpointSlice>),
    /// Kubernetes core Pod.
    Pod(Object<Pod>),
    /// Kubernetes core Namespace.
    Namespace(Object<Namespace>),
    /// Kubernetes core Secret.
    Secret(Object<Secret>),
    /// Kubernetes core ConfigMap.
    ConfigMap(Object<ConfigMap>),
}

impl Resource {
    /// Kind of the object.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Gateway(_) => Kind::Gateway,
            Self::VirtualService(_) => Kind::VirtualService,
            Self::DestinationRule(_) => Kind::DestinationRule,
            Self::ServiceEntry(_) => Kind::ServiceEntry,
            Self::WorkloadEntry(_) => Kind::WorkloadEntry,
            Self::EnvoyFilter(_) => Kind::EnvoyFilter,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::RequestAuthentication(_) => Kind::RequestAuthentication,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Pod(_) => Kind::Pod,
            Self::Namespace(_) => Kind::Namespace,
            Self::Secret(_) => Kind::Secret,
            Self::ConfigMap(_) => Kind::ConfigMap,
        }
    }

    /// Name, namespace and labels.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        self.head().0
    }

    /// Where the object stands.
    #[must_use]
    pub fn source(&self) -> &SourceRef {
        self.head().1
    }

    /// The object's name for errors and explanations.
    #[must_use]
    pub fn object_ref(&self) -> ObjectRef {
        let meta = self.meta();
        ObjectRef {
            kind: self.kind(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        }
    }

    /// Makes a problem of this object; its line is that of the field.
    pub fn problem(
        &self,
        severity: Severity,
        field: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Problem {
        let object = ObjectName::from(&self.object_ref());
        self.source()
            .problem(severity, Some(object), field, message, hint)
    }

    fn head(&self) -> (&Meta, &SourceRef) {
        match self {
            Self::Gateway(object) => (&object.meta, &object.source),
            Self::VirtualService(object) => (&object.meta, &object.source),
            Self::DestinationRule(object) => (&object.meta, &object.source),
            Self::ServiceEntry(object) => (&object.meta, &object.source),
            Self::WorkloadEntry(object) => (&object.meta, &object.source),
            Self::EnvoyFilter(object) => (&object.meta, &object.source),
            Self::AuthorizationPolicy(object) => (&object.meta, &object.source),
            Self::RequestAuthentication(object) => (&object.meta, &object.source),
            Self::PeerAuthentication(object) => (&object.meta, &object.source),
            Self::Service(object) => (&object.meta, &object.source),
            Self::EndpointSlice(object) => (&object.meta, &object.source),
            Self::Pod(object) => (&object.meta, &object.source),
            Self::Namespace(object) => (&object.meta, &object.source),
            Self::Secret(object) => (&object.meta, &object.source),
            Self::ConfigMap(object) => (&object.meta, &object.source),
        }
    }
}
