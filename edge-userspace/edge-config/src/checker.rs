//! Where the checks of one resource leave what they find.

use crate::{Problem, Resource, Severity};

/// Most errors that are told of one resource, and most warnings: nobody reads more, and a hostile file could have a
/// million.
const MAX_TOLD: usize = 1000;

/// Collects the problems of one resource.
pub(crate) struct Checker<'a> {
    resource: &'a Resource,
    problems: Vec<Problem>,
    errors: usize,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(resource: &'a Resource) -> Self {
        Self {
            resource,
            problems: vec![],
            errors: 0,
        }
    }

    /// Namespace of the resource.
    pub(crate) fn namespace(&self) -> &'a str {
        &self.resource.meta().namespace
    }

    pub(crate) fn error(&mut self, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        if self.errors < MAX_TOLD {
            self.errors += 1;
            let problem = self.resource.problem(Severity::Error, field, message, hint);
            self.problems.push(problem);
        }
    }

    pub(crate) fn warn(&mut self, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        if self.problems.len() - self.errors < MAX_TOLD {
            let problem = self.resource.problem(Severity::Warning, field, message, hint);
            self.problems.push(problem);
        }
    }

    pub(crate) fn extend(&mut self, problems: Vec<Problem>) {
        self.errors += problems.iter().filter(|problem| problem.is_error()).count();
        self.problems.extend(problems);
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}
