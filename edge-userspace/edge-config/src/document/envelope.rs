//! What stands around every object: `apiVersion`, `kind` and `metadata`.

use std::collections::BTreeMap;

use edge_model::Kind;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_yaml::Value;

use crate::k8s::meta::{Meta, Timestamp};
use crate::yaml::{Finding, distance};
use crate::{ObjectName, Severity};

/// An Istio object.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct IstioDocument<T> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub(super) metadata: RawMeta,
    pub(super) spec: T,
    /// Istio's report, not the user's wish.
    #[serde(rename = "status")]
    _status: IgnoredAny,
}

/// A Kubernetes object, of which the kind's own shape reads the rest.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct K8sDocument {
    pub(super) metadata: RawMeta,
}

/// `k8s.io/apimachinery` ObjectMeta, whole, so that unknown fields can be told.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawMeta {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    creation_timestamp: Option<Timestamp>,
    // What the API server keeps for itself.
    #[serde(rename = "uid")]
    _uid: IgnoredAny,
    #[serde(rename = "generateName")]
    _generate_name: IgnoredAny,
    #[serde(rename = "selfLink")]
    _self_link: IgnoredAny,
    #[serde(rename = "resourceVersion")]
    _resource_version: IgnoredAny,
    #[serde(rename = "generation")]
    _generation: IgnoredAny,
    #[serde(rename = "deletionTimestamp")]
    _deletion_timestamp: IgnoredAny,
    #[serde(rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: IgnoredAny,
    #[serde(rename = "ownerReferences")]
    _owner_references: IgnoredAny,
    #[serde(rename = "finalizers")]
    _finalizers: IgnoredAny,
    #[serde(rename = "managedFields")]
    _managed_fields: IgnoredAny,
    #[serde(rename = "clusterName")]
    _cluster_name: IgnoredAny,
}

impl RawMeta {
    pub(super) fn into_meta(self, kind: Kind) -> Meta {
        Meta {
            namespace: namespace_of(kind.name(), self.namespace),
            name: self.name,
            labels: self.labels,
            annotations: self.annotations,
            creation_timestamp: self.creation_timestamp,
        }
    }
}

/// Namespaces are in no namespace; what names none is in `default`, as with kubectl.
fn namespace_of(kind: &str, written: String) -> String {
    match (kind, written.is_empty()) {
        ("Namespace", _) => String::new(),
        (_, true) => "default".to_owned(),
        (_, false) => written,
    }
}

/// What to call an object in problems, right or wrong as it may be; `None` when it does not even have a kind.
pub(super) fn name_of(value: &Value) -> Option<ObjectName> {
    let kind = value
        .get("kind")
        .and_then(Value::as_str)
        .filter(|kind| !kind.is_empty())?;
    let text = |key: &str| {
        let value = value.get("metadata").and_then(|metadata| metadata.get(key));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    Some(ObjectName {
        kind: kind.to_owned(),
        namespace: namespace_of(kind, text("namespace")),
        name: text("name"),
    })
}

/// As [`name_of`], from a text that could not be read: its first `kind` and the `name` and `namespace` below its
/// `metadata`, when they stand on lines of their own.
pub(super) fn guess_name(text: &str) -> Option<ObjectName> {
    let of = |indent: &str, key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(indent)?.strip_prefix(key)?.strip_prefix(": "));
        line.unwrap_or_default()
            .trim()
            .trim_matches(['"', '\''])
            .to_owned()
    };
    let kind = of("", "kind");
    let namespace = namespace_of(&kind, of("  ", "namespace"));
    (!kind.is_empty()).then(|| ObjectName {
        kind,
        namespace,
        name: of("  ", "name"),
    })
}

/// Group and versions of the kinds that are read.
const APIS: [(Kind, &str, &[&str]); 15] = [
    (
        Kind::Gateway,
        "networking.istio.io",
        &["v1", "v1beta1", "v1alpha3"],
    ),
    (
        Kind::VirtualService,
        "networking.istio.io",
        &["v1", "v1beta1", "v1alpha3"],
    ),
    (
        Kind::DestinationRule,
        "networking.istio.io",
        &["v1", "v1beta1", "v1alpha3"],
    ),
    (
        Kind::ServiceEntry,
        "networking.istio.io",
        &["v1", "v1beta1", "v1alpha3"],
    ),
    (
        Kind::WorkloadEntry,
        "networking.istio.io",
        &["v1", "v1beta1", "v1alpha3"],
    ),
    (Kind::EnvoyFilter, "networking.istio.io", &["v1alpha3"]),
    (Kind::AuthorizationPolicy, "security.istio.io", &["v1", "v1beta1"]),
    (
        Kind::RequestAuthentication,
        "security.istio.io",
        &["v1", "v1beta1"],
    ),
    (Kind::PeerAuthentication, "security.istio.io", &["v1", "v1beta1"]),
    (Kind::Service, "", &["v1"]),
    (Kind::EndpointSlice, "discovery.k8s.io", &["v1", "v1beta1"]),
    (Kind::Pod, "", &["v1"]),
    (Kind::Namespace, "", &["v1"]),
    (Kind::Secret, "", &["v1"]),
    (Kind::ConfigMap, "", &["v1"]),
];

/// The kind of an object, or why it is not read: a warning for objects of others, an error for what must be mended.
pub(super) fn kind_of(value: &Value) -> Result<Kind, Finding> {
    if !value.is_mapping() {
        let message = "an object is needed, with apiVersion, kind and metadata";
        return Err(error("", message, "see whether the indentation is right"));
    }
    let is_object = ["apiVersion", "kind", "metadata", "spec"]
        .iter()
        .any(|key| value.get(*key).is_some());
    if !is_object {
        return Err(Finding {
            severity: Severity::Warning,
            field: String::new(),
            message: "is no Kubernetes object, ignored".to_owned(),
            hint: "an object has apiVersion, kind and metadata".to_owned(),
        });
    }
    let kind = text_of(value, "kind", "kind: Gateway or another kind")?;
    let api = APIS.iter().find(|(known, ..)| known.name() == kind);
    let usual = api.map_or_else(|| "the kind's API version".to_owned(), usual_version);
    let api_version = text_of(value, "apiVersion", &format!("apiVersion: {usual}"))?;
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    match api {
        Some((known, own, versions)) if group == *own && versions.contains(&version) => Ok(*known),
        // Few letters off: a slip of the hand and not another project's kind of the same name.
        Some((known, own, _)) if distance(group, own) <= 3 => {
            let message = format!("{api_version} is not a version of {known}");
            Err(error("apiVersion", &message, &format!("write {usual}")))
        }
        _ => Err(Finding {
            severity: Severity::Warning,
            field: "kind".to_owned(),
            message: "unknown kind, ignored".to_owned(),
            hint: format!("the edge does not read {kind} of {api_version}"),
        }),
    }
}

/// Whether an object, by its kind alone, is none that is read. A list may hold any.
pub(super) fn is_foreign(object: &ObjectName) -> bool {
    let is_known = APIS.iter().any(|(known, ..)| known.name() == object.kind);
    !is_known && !object.kind.ends_with("List")
}

fn usual_version((_, group, versions): &(Kind, &str, &[&str])) -> String {
    let version = versions.first().copied().unwrap_or_default();
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

fn text_of<'a>(value: &'a Value, key: &str, example: &str) -> Result<&'a str, Finding> {
    match value.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        None | Some(Value::Null | Value::String(_)) => Err(error(
            key,
            &format!("{key} is missing"),
            &format!("write {example}"),
        )),
        Some(_) => Err(error(key, "text is needed", &format!("write {example}"))),
    }
}

fn error(field: &str, message: &str, hint: &str) -> Finding {
    Finding {
        severity: Severity::Error,
        field: field.to_owned(),
        message: message.to_owned(),
        hint: hint.to_owned(),
    }
}
