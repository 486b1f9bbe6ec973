//! What compiling finds to say about the objects.

use std::collections::HashSet;

use edge_config::{ObjectName, Problem, Severity};

use super::input::Item;

/// Collects problems; a finding that comes up again, for another port or gateway, is kept once.
#[derive(Debug, Default)]
pub(crate) struct Report {
    problems: Vec<Problem>,
    seen: HashSet<(ObjectName, String, String)>,
    is_cut: bool,
}

impl Report {
    /// The object is used, but perhaps not as meant.
    pub(crate) fn warn<S>(
        &mut self,
        item: &Item<'_, S>,
        field: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Warning, item, field.into(), message.into(), hint.into());
    }

    /// The object cannot be used as it is.
    pub(crate) fn error<S>(
        &mut self,
        item: &Item<'_, S>,
        field: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Error, item, field.into(), message.into(), hint.into());
    }

    /// The object asks for more than there is room for: what it comes to is left out, or a part of it.
    pub(crate) fn cut<S>(
        &mut self,
        item: &Item<'_, S>,
        field: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.is_cut = true;
        self.error(item, field, message, hint);
    }

    /// Whether anything was left out for want of room.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    fn add<S>(
        &mut self,
        severity: Severity,
        item: &Item<'_, S>,
        field: String,
        message: String,
        hint: String,
    ) {
        let object = ObjectName::from(&*item.name);
        if self.seen.insert((object.clone(), field.clone(), message.clone())) {
            let problem = item.source.problem(severity, Some(object), field, message, hint);
            self.problems.push(problem);
        }
    }

    /// The problems in the order in which they were found.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}
