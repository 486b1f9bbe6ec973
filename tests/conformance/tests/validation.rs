//! Documents of Istio's own tests, samples and documentation get the verdict that Istio's webhook gives them.
//!
//! `data/validation/istio.jsonl` holds the documents with their origin, `data/validation/exceptions.jsonl` those on
//! which we differ, each with the reason. A document that is listed and agrees after all is an error too.

use std::collections::BTreeMap;

use edge_config::{Problem, check, parse_documents};
use serde::Deserialize;

#[derive(Deserialize)]
struct Document {
    id: String,
    path: String,
    validity: Validity,
    reason: String,
    yaml: String,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Validity {
    Valid,
    Invalid,
    /// Nothing is known of Istio's verdict.
    Unknown,
}

#[derive(Deserialize)]
struct Exception {
    id: String,
    reason: String,
}

fn lines<T: for<'a> Deserialize<'a>>(text: &str) -> Vec<T> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line of the data is one JSON object"))
        .collect()
}

fn documents() -> Vec<Document> {
    lines(include_str!("../data/validation/istio.jsonl"))
}

fn exceptions() -> BTreeMap<String, String> {
    let list: Vec<Exception> = lines(include_str!("../data/validation/exceptions.jsonl"));
    list.into_iter()
        .map(|exception| (exception.id, exception.reason))
        .collect()
}

/// All errors: what is accepted and not enforced brings warnings alone.
fn errors(document: &Document) -> Vec<Problem> {
    let parsed = parse_documents(&document.path, &document.yaml);
    let checked = parsed.resources.iter().flat_map(check);
    checked.chain(parsed.problems).filter(Problem::is_error).collect()
}

/// Every document of the given validity is refused or let through as Istio does, or is listed.
#[track_caller]
fn compare(validity: Validity) {
    let mut exceptions = exceptions();
    let mut differing = Vec::new();
    let mut seen = 0;
    for document in documents() {
        if document.validity != validity {
            continue;
        }
        seen += 1;
        let errors = errors(&document);
        let agrees = errors.is_empty() == (validity == Validity::Valid);
        let listed = exceptions.remove(&document.id).is_some();
        if agrees == listed {
            let verdict = if listed {
                "is listed, yet agrees"
            } else {
                "differs"
            };
            let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
            differing.push(format!(
                "{} {verdict}: {}\n  {}",
                document.id,
                document.reason,
                found.join("\n  ")
            ));
        }
    }
    assert!(seen > 50, "the documents are there");
    assert!(
        differing.is_empty(),
        "{} of {seen}:\n{}",
        differing.len(),
        differing.join("\n")
    );
}

#[test]
fn what_istio_accepts_is_accepted() {
    compare(Validity::Valid);
}

#[test]
fn what_istio_refuses_is_refused() {
    compare(Validity::Invalid);
}

#[test]
fn documents_of_unknown_verdict_are_read_without_a_panic() {
    let mut unknown = documents();
    unknown.retain(|document| document.validity == Validity::Unknown);
    assert!(unknown.len() > 50);
    for document in unknown {
        errors(&document);
    }
}

#[test]
fn at_most_one_document_in_a_hundred_is_an_exception() {
    let exceptions = exceptions();
    for validity in [Validity::Valid, Validity::Invalid] {
        let read = documents()
            .into_iter()
            .filter(|document| document.validity == validity);
        let (listed, others): (Vec<_>, Vec<_>) =
            read.partition(|document| exceptions.contains_key(&document.id));
        assert!(
            listed.len() * 100 <= listed.len() + others.len(),
            "{} exceptions",
            listed.len()
        );
    }
}

#[test]
fn every_exception_has_a_reason_and_a_document() {
    let documents = documents();
    for (id, reason) in exceptions() {
        assert!(!reason.is_empty(), "{id} has no reason");
        assert!(
            documents.iter().any(|document| document.id == id),
            "{id} is no document"
        );
    }
}

#[test]
fn every_problem_names_object_message_and_hint() {
    for document in documents() {
        for problem in errors(&document) {
            assert!(
                !problem.message.is_empty() && !problem.hint.is_empty(),
                "{problem:?}"
            );
            assert!(problem.object.is_some() && problem.line > 0, "{problem:?}");
        }
    }
}
