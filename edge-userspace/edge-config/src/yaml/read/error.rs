//! The error of a reading: one wrong value.

use std::fmt;

use serde::de;

use super::Finding;
use crate::Severity;
use crate::yaml::nearest;

/// A value that its shape does not take.
#[derive(Debug)]
pub(super) struct ReadError {
    field: Option<String>,
    message: String,
    hint: String,
}

impl ReadError {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            field: None,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Adds the path, unless a value further in has done so.
    pub(super) fn at(mut self, path: impl fmt::Display) -> Self {
        self.field.get_or_insert_with(|| path.to_string());
        self
    }

    pub(super) fn into_finding(self, root: &str) -> Finding {
        Finding {
            severity: Severity::Error,
            field: self.field.unwrap_or_else(|| root.to_owned()),
            message: self.message,
            hint: self.hint,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.hint)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), "correct the value")
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = match nearest(variant, expected.iter().copied()) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("one of {}", expected.join(", ")),
        };
        Self::new(format!("unknown value {variant}"), hint)
    }
}
