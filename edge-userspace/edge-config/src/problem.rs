//! What is wrong with the input, said so that it can be mended.

use std::fmt;

use edge_model::ObjectRef;

/// One thing that is wrong with a resource or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the object can be used nevertheless.
    pub severity: Severity,
    /// Object that it is about; `None` when the file as a whole is at fault, or no object can be made out.
    pub object: Option<ObjectName>,
    /// File, as its path was given.
    pub file: String,
    /// Line in the file, from 1; 0 when it is not known.
    pub line: usize,
    /// Path of the field, such as `spec.http[0].match[1].uri.regex`; empty for the object as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The object is used, but perhaps not as meant.
    Warning,
    /// The object is refused.
    Error,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Kind, namespace and name as they are written, whether or not the edge knows the kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Kind.
    pub kind: String,
    /// Namespace; empty for kinds without one.
    pub namespace: String,
    /// Name; empty when the object has none.
    pub name: String,
}

impl From<&ObjectRef> for ObjectName {
    fn from(object: &ObjectRef) -> Self {
        Self {
            kind: object.kind.name().to_owned(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

impl Problem {
    /// Whether the object is refused for it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The long form: the line of [`Display`](fmt::Display) with `file:line` before it.
    #[must_use]
    pub fn with_location(&self) -> String {
        match self.line {
            0 => format!("{}: {self}", self.file),
            line => format!("{}:{line}: {self}", self.file),
        }
    }
}

impl fmt::Display for Problem {
    /// `error|warning Kind/namespace/name field: message (hint)`; a problem without object names its file instead.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.severity.name())?;
        match &self.object {
            Some(object) => write!(f, "{object}")?,
            None => f.write_str(&self.file)?,
        }
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {} ({})", self.message, self.hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_object_field_message_and_hint() {
        let mut problem = Problem {
            severity: Severity::Error,
            object: Some(ObjectName {
                kind: "Gateway".into(),
                namespace: "shop".into(),
                name: "web".into(),
            }),
            file: "a.yaml".into(),
            line: 7,
            field: "spec.servers[0].hosts".into(),
            message: "at least one host is needed".into(),
            hint: "name a host or *".into(),
        };
        let line =
            "error Gateway/shop/web spec.servers[0].hosts: at least one host is needed (name a host or *)";
        assert_eq!(problem.to_string(), line);
        assert_eq!(problem.with_location(), format!("a.yaml:7: {line}"));

        problem.object = None;
        problem.field.clear();
        problem.line = 0;
        problem.severity = Severity::Warning;
        assert_eq!(
            problem.with_location(),
            "a.yaml: warning a.yaml: at least one host is needed (name a host or *)"
        );
    }
}
