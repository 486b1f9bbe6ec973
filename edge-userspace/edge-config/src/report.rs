//! The verdict on each resource, as `edge validate --json` prints it.

use serde::Serialize;

use crate::{ObjectName, Parsed, Problem, Resource, unsupported, validate};

/// What was found about one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Kind; empty when the problem is the file's and no object could be made out.
    pub kind: String,
    /// Namespace; empty for kinds without one.
    pub namespace: String,
    /// Name; the file's when no object could be made out.
    pub name: String,
    /// What comes of it.
    pub verdict: Verdict,
    /// What was found.
    pub problems: Vec<ReportedProblem>,
}

/// Whether a resource can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing was found.
    Valid,
    /// It is used, but perhaps not as meant.
    Warning,
    /// It is refused.
    Invalid,
}

/// A [`Problem`] without its object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReportedProblem {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// File, as its path was given.
    pub file: String,
    /// Line in the file, from 1; 0 when it is not known.
    pub line: usize,
    /// Path of the field; empty for the object as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// What [`validate()`] and [`unsupported()`] say about a resource: errors first, each in the order of the file.
#[must_use]
pub fn check(resource: &Resource) -> Vec<Problem> {
    let mut problems = validate(resource);
    problems.extend(unsupported(resource));
    problems.sort_by_key(|problem| (!problem.is_error(), problem.line));
    problems
}

impl Parsed {
    /// Checks every resource: those with an error are taken out, all problems are kept.
    #[must_use]
    pub fn checked(self) -> Self {
        let mut checked = Self {
            resources: vec![],
            problems: self.problems,
        };
        for resource in self.resources {
            let problems = check(&resource);
            let refused = problems.iter().any(Problem::is_error);
            checked.problems.extend(problems);
            checked.resources.extend((!refused).then_some(resource));
        }
        checked
    }
}

/// One report for each object, whether it was read or is only named by a problem: the objects in order, then those of
/// the remaining problems.
#[must_use]
pub fn reports<'a>(
    objects: impl IntoIterator<Item = ObjectName>,
    problems: impl IntoIterator<Item = &'a Problem>,
) -> Vec<Report> {
    let mut reports: Vec<Report> = Vec::new();
    let mut places = std::collections::HashMap::new();
    let mut place = |reports: &mut Vec<Report>, object: ObjectName| {
        *places.entry(object.clone()).or_insert_with(|| {
            reports.push(Report::new(object));
            reports.len() - 1
        })
    };
    for object in objects {
        place(&mut reports, object);
    }
    for problem in problems {
        let of_file = || ObjectName {
            kind: String::new(),
            namespace: String::new(),
            name: problem.file.clone(),
        };
        let index = place(&mut reports, problem.object.clone().unwrap_or_else(of_file));
        if let Some(report) = reports.get_mut(index) {
            report.add(problem);
        }
    }
    reports
}

impl Report {
    fn new(object: ObjectName) -> Self {
        Self {
            kind: object.kind,
            namespace: object.namespace,
            name: object.name,
            verdict: Verdict::Valid,
            problems: vec![],
        }
    }

    fn add(&mut self, problem: &Problem) {
        let verdict = if problem.is_error() {
            Verdict::Invalid
        } else {
            Verdict::Warning
        };
        self.verdict = self.verdict.max(verdict);
        self.problems.push(ReportedProblem {
            severity: problem.severity.name(),
            file: problem.file.clone(),
            line: problem.line,
            field: problem.field.clone(),
            message: problem.message.clone(),
            hint: problem.hint.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_documents;

    #[test]
    fn every_object_gets_one_verdict_with_all_that_was_found() {
        let text = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [a], http: [{timeout: 0s, route: [{destination: {host: a}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec: {servrs: []}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
";
        let parsed = parse_documents("a.yaml", text);
        let objects: Vec<_> = parsed
            .resources
            .iter()
            .map(|r| ObjectName::from(&r.object_ref()))
            .collect();
        let checked = parsed.checked();
        assert_eq!(checked.resources.len(), 1);
        let reports = reports(objects, &checked.problems);
        let lines: Vec<_> = reports
            .iter()
            .map(|r| (r.kind.as_str(), r.verdict, r.problems.len()))
            .collect();
        assert_eq!(
            lines,
            [
                ("Service", Verdict::Valid, 0),
                ("VirtualService", Verdict::Invalid, 2),
                ("Gateway", Verdict::Invalid, 1),
                ("Deployment", Verdict::Warning, 1),
            ]
        );
        let json = serde_json::to_string(&reports[2]).expect("a report can be written");
        assert_eq!(
            json,
            "{\"kind\":\"Gateway\",\"namespace\":\"default\",\"name\":\"gw\",\"verdict\":\"invalid\",\"problems\":\
             [{\"severity\":\"error\",\"file\":\"a.yaml\",\"line\":14,\"field\":\"spec.servrs\",\"message\":\"unknown field\",\"hint\":\"did you mean \
             servers?\"}]}"
        );
    }
}
