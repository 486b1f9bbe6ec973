//! Where the checks of one resource leave what they find.

use crate::{Problem, Resource, Severity};

/// Collects the problems of one resource.
pub(crate) struct Checker<'a> {
    resource: &'a Resource,
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(resource: &'a Resource) -> Self {
        Self {
            resource,
            problems: vec![],
        }
    }

    pub(crate) fn error(&mut self, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        let problem = self.resource.problem(Severity::Error, field, message, hint);
        self.problems.push(problem);
    }

    pub(crate) fn warn(&mut self, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        let problem = self.resource.problem(Severity::Warning, field, message, hint);
        self.problems.push(problem);
    }

    pub(crate) fn extend(&mut self, problems: Vec<Problem>) {
        self.problems.extend(problems);
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}
