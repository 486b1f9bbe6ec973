//! From the text of a file to its resources.

use std::sync::Arc;

use edge_model::Kind;
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use self::envelope::{IstioDocument, K8sDocument};
use crate::yaml::{self, Finding, LineIndex, Style, UnknownFields};
use crate::{Object, ObjectName, Problem, Resource, Severity, SourceRef};

mod envelope;
#[cfg(test)]
mod tests;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// Objects whose shape is right, in the order of the file.
    pub resources: Vec<Resource>,
    /// What is wrong with the others, and warnings about any.
    pub problems: Vec<Problem>,
}

/// Reads the documents of a file: YAML or JSON, any number of them, each an object or a List of objects.
///
/// Each object is judged by itself: a mistake in one does not hide another, except that wrong syntax hides the rest
/// of its own document. `file` is only what problems call the file. The text may come from anyone: time and memory are
/// bounded by its length, and nothing in it can cause a panic.
#[must_use]
pub fn parse_documents(file: &str, text: &str) -> Parsed {
    let mut reader = Reader {
        file: file.into(),
        parsed: Parsed::default(),
    };
    for document in yaml::split(text) {
        reader.document(&document);
    }
    reader.parsed
}

struct Reader {
    file: Arc<str>,
    parsed: Parsed,
}

impl Reader {
    fn document(&mut self, document: &yaml::Document<'_>) {
        let (lines, value) = match yaml::load(document.text, document.lines_before) {
            Ok((lines, value)) => (Arc::new(lines), value),
            Err(errors) => {
                let object = envelope::guess_name(document.text);
                // What would be passed over is no reason to refuse the rest.
                let severity = if object.as_ref().is_some_and(envelope::is_foreign) {
                    Severity::Warning
                } else {
                    Severity::Error
                };
                let problems = errors.into_iter().map(|error| Problem {
                    severity,
                    ..error.into_problem(&self.file, object.clone())
                });
                let problems: Vec<_> = problems.collect();
                return self.parsed.problems.extend(problems);
            }
        };
        let source = SourceRef::new(self.file.clone(), lines.clone(), String::new());
        self.value(&value, &lines, &source);
    }

    /// An object, or a List of them. Lists within Lists do not exist.
    fn value(&mut self, value: &Value, lines: &Arc<LineIndex>, source: &SourceRef) {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        let items = value.get("items").filter(|_| kind.ends_with("List"));
        match items {
            Some(Value::Sequence(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let base = format!("items[{index}]");
                    self.object(item, SourceRef::new(self.file.clone(), lines.clone(), base));
                }
            }
            Some(Value::Null) => {}
            Some(_) => {
                let hint = "begin each object on its own line with a dash";
                let problem = source.problem(
                    Severity::Error,
                    None,
                    "items",
                    "a list of objects is needed",
                    hint,
                );
                self.parsed.problems.push(problem);
            }
            None if value.is_null() => {}
            None => self.object(value, source.clone()),
        }
    }

    fn object(&mut self, value: &Value, source: SourceRef) {
        let name = envelope::name_of(value);
        let kind = match envelope::kind_of(value) {
            Ok(kind) => kind,
            Err(finding) => return self.add(&source, name.as_ref(), vec![finding]),
        };
        let mut reading = Reading {
            value,
            kind,
            findings: vec![],
        };
        let resource = reading.resource(&source);
        self.add(&source, name.as_ref(), reading.findings);
        self.parsed.resources.extend(resource);
    }

    fn add(&mut self, source: &SourceRef, name: Option<&ObjectName>, findings: Vec<Finding>) {
        let problem = |found: Finding| {
            source.problem(
                found.severity,
                name.cloned(),
                found.field,
                found.message,
                found.hint,
            )
        };
        self.parsed.problems.extend(findings.into_iter().map(problem));
    }
}

/// One object on its way to a [`Resource`].
struct Reading<'a> {
    value: &'a Value,
    kind: Kind,
    findings: Vec<Finding>,
}

impl Reading<'_> {
    fn resource(&mut self, source: &SourceRef) -> Option<Resource> {
        match self.kind {
            Kind::Gateway => self.istio(source).map(Resource::Gateway),
            Kind::VirtualService => self.istio(source).map(Resource::VirtualService),
            Kind::DestinationRule => self.istio(source).map(Box::new).map(Resource::DestinationRule),
            Kind::ServiceEntry => self.istio(source).map(Resource::ServiceEntry),
            Kind::WorkloadEntry => self.istio(source).map(Resource::WorkloadEntry),
            Kind::EnvoyFilter => self.istio(source).map(Resource::EnvoyFilter),
            Kind::AuthorizationPolicy => self.istio(source).map(Resource::AuthorizationPolicy),
            Kind::RequestAuthentication => self.istio(source).map(Resource::RequestAuthentication),
            Kind::PeerAuthentication => self.istio(source).map(Resource::PeerAuthentication),
            Kind::Service => self.k8s("spec", source).map(Resource::Service),
            Kind::EndpointSlice => self.k8s("", source).map(Resource::EndpointSlice),
            Kind::Pod => self.k8s("", source).map(Resource::Pod),
            Kind::Namespace => self.k8s("", source).map(Resource::Namespace),
            Kind::Secret => self.k8s("", source).map(Resource::Secret),
            Kind::ConfigMap => self.k8s("", source).map(Resource::ConfigMap),
        }
    }

    fn istio<T: DeserializeOwned + Default>(&mut self, source: &SourceRef) -> Option<Object<T>> {
        let document: Option<IstioDocument<T>> = self.read(self.value, "", UnknownFields::Refused);
        let name_is_there = self.require_name();
        let document = document.filter(|_| name_is_there)?;
        Some(Object {
            meta: document.metadata.into_meta(self.kind),
            spec: document.spec,
            source: source.clone(),
        })
    }

    /// `body` is the field that holds what is read; empty for kinds that hold it at their top.
    fn k8s<T: DeserializeOwned>(&mut self, body: &str, source: &SourceRef) -> Option<Object<T>> {
        let value = self.value;
        let document: Option<K8sDocument> = self.read(value, "", UnknownFields::Ignored);
        let spec = if body.is_empty() {
            Some(value)
        } else {
            value.get(body)
        };
        let spec = self.read(spec.unwrap_or(&Value::Null), body, UnknownFields::Ignored);
        let name_is_there = self.require_name();
        let (document, spec) = document.zip(spec).filter(|_| name_is_there)?;
        Some(Object {
            meta: document.metadata.into_meta(self.kind),
            spec,
            source: source.clone(),
        })
    }

    fn read<T: DeserializeOwned>(&mut self, value: &Value, path: &str, unknown: UnknownFields) -> Option<T> {
        let (read, mut findings) = yaml::read(
            value,
            path,
            Style {
                unknown,
                envoy: false,
            },
        );
        self.findings.append(&mut findings);
        read
    }

    fn require_name(&mut self) -> bool {
        let name = self
            .value
            .get("metadata")
            .and_then(|metadata| metadata.get("name"));
        let missing = name.is_none_or(|name| name.is_null() || name.as_str() == Some(""));
        if missing {
            self.findings.push(Finding {
                severity: Severity::Error,
                field: "metadata.name".to_owned(),
                message: "the object has no name".to_owned(),
                hint: "add metadata.name".to_owned(),
            });
        }
        !missing
    }
}
