//! Values into shapes. Other than `serde_yaml`'s own reading, it names every unknown field at once, goes on behind a
//! value of the wrong type, reads `null` as "absent" where the shape is a struct, and knows each value's path.

use std::cell::RefCell;
use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde_yaml::Value;

use self::node::{Node, Path};
use crate::Severity;

pub(crate) use self::node::snake_case;

mod access;
mod error;
mod node;

/// What was found while reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// Path of the field from the value that was read.
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// How a kind wants to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// What becomes of fields that the shape does not have.
    pub(crate) unknown: UnknownFields,
    /// Whether the shape's fields are Envoy's (`snake_case`, also taken in camelCase, as protobuf's JSON form
    /// allows); otherwise they are camelCase, and protobuf's `snake_case` is taken with a warning.
    pub(crate) envoy: bool,
}

/// What becomes of fields that a shape does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownFields {
    /// They are errors.
    Refused,
    /// They are not looked at.
    Ignored,
}

/// Most findings of a wrong type in one value; each needs another pass.
const MAX_WRONG: usize = 20;

/// Most unknown fields, and most warnings, in one value: nobody reads more, and a hostile file could have a million.
const MAX_FINDINGS: usize = 100;

/// Reads a `T` from the value at `path`. `None` when something is wrong; the findings then have an error.
pub(crate) fn read<T: DeserializeOwned>(
    value: &Value,
    path: &str,
    style: Style,
) -> (Option<T>, Vec<Finding>) {
    let reading = Reading {
        style,
        findings: RefCell::default(),
        left_out: RefCell::default(),
    };
    let mut wrong = Vec::new();
    let root = Path::Root(path);
    loop {
        reading.findings.borrow_mut().clear();
        let result = T::deserialize(Node {
            value,
            path: &root,
            reading: &reading,
        });
        let read = match result {
            Ok(read) => Some(read),
            Err(error) => {
                let finding = error.into_finding(path);
                let is_new = reading.left_out.borrow_mut().insert(finding.field.clone());
                if is_new {
                    wrong.push(finding);
                }
                if is_new && wrong.len() < MAX_WRONG {
                    continue;
                }
                None
            }
        };
        wrong.append(&mut reading.findings.borrow_mut());
        let refused = wrong.iter().any(|finding| finding.severity == Severity::Error);
        return (read.filter(|_| !refused), wrong);
    }
}

/// State of one reading.
struct Reading {
    style: Style,
    findings: RefCell<Vec<Finding>>,
    /// Paths of values of a wrong type: the passes after the first leave them out.
    left_out: RefCell<HashSet<String>>,
}

impl Reading {
    /// Whether there is room for another finding. Warnings take no room from errors: the first error must count.
    fn has_room(&self, severity: Severity) -> bool {
        let findings = self.findings.borrow();
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
            < MAX_FINDINGS
    }

    fn leaves_out(&self, path: &Path<'_>) -> bool {
        let left_out = self.left_out.borrow();
        !left_out.is_empty() && left_out.contains(&path.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Shape {
        name: String,
        exact_count: u16,
        inner: Option<Inner>,
        list: Vec<Inner>,
        map: BTreeMap<String, Option<Inner>>,
        mode: Mode,
    }

    #[derive(Debug, PartialEq, Default, Deserialize)]
    #[serde(default)]
    struct Inner {
        flag: bool,
        #[serde(alias = "old")]
        new: i32,
    }

    #[derive(Debug, PartialEq, Default, Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    enum Mode {
        #[default]
        Simple,
        PassThrough,
    }

    const STRICT: Style = Style {
        unknown: UnknownFields::Refused,
        envoy: false,
    };

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let value = serde_yaml::from_str(text).unwrap();
        let (shape, findings) = read::<Shape>(&value, "spec", STRICT);
        let lines: Vec<_> = findings
            .iter()
            .map(|f| format!("{}: {} ({})", f.field, f.message, f.hint))
            .collect();
        assert_eq!(lines, expected, "{text}");
        assert_eq!(
            shape.is_none(),
            findings.iter().any(|f| f.severity == Severity::Error)
        );
    }

    #[test]
    fn null_means_absent_in_a_struct_and_stays_in_a_map() {
        let value = serde_yaml::from_str("{name: null, inner: ~, list: [null], map: {a: null}}").unwrap();
        let (shape, findings) = read::<Shape>(&value, "spec", STRICT);
        let map = BTreeMap::from([("a".to_owned(), None)]);
        assert_eq!(
            shape,
            Some(Shape {
                list: vec![Inner::default()],
                map,
                ..Shape::default()
            })
        );
        assert_eq!(findings, []);
    }

    #[test]
    fn every_unknown_field_is_named_with_the_nearest_that_exists() {
        check(
            "{nmae: x, list: [{flag: true}, {flga: true}], other: 1}",
            &[
                "spec.nmae: unknown field (did you mean name?)",
                "spec.list[1].flga: unknown field (did you mean flag?)",
                "spec.other: unknown field (its place has the fields exactCount, inner, list, map, mode, name)",
            ],
        );
    }

    #[test]
    fn every_value_of_the_wrong_type_is_named() {
        check(
            "{name: 1, exactCount: 70000, inner: text, list: [{flag: 'yes'}, {new: 1.5}], mode: SIMPEL}",
            &[
                "spec.name: text is needed, not the number 1 (put it in quotes)",
                "spec.exactCount: a whole number from 0 to 65535 is needed, not the number 70000 (correct the value)",
                "spec.inner: a map of fields is needed, not text (indent the fields below their name)",
                "spec.list[0].flag: true or false is needed, not text (write true or false without quotes)",
                "spec.list[1].new: a whole number from -2147483648 to 2147483647 is needed, not the number \
                 1.5 (correct the value)",
                "spec.mode: unknown value SIMPEL (did you mean SIMPLE?)",
            ],
        );
    }

    #[test]
    fn protobufs_field_names_are_taken_with_a_warning() {
        let value = serde_yaml::from_str("{exact_count: 7, inner: {old: 1}}").unwrap();
        let (shape, findings) = read::<Shape>(&value, "spec", STRICT);
        let inner = Some(Inner { new: 1, flag: false });
        assert_eq!(
            shape,
            Some(Shape {
                exact_count: 7,
                inner,
                ..Shape::default()
            })
        );
        assert_eq!(findings.len(), 1);
        assert_eq!(
            (findings[0].severity, findings[0].field.as_str()),
            (Severity::Warning, "spec.exact_count")
        );
    }
}
