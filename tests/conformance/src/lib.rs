//! Conformance of the edge's decisions with Istio's: configuration and request in, decision out, as data.
//!
//! [`compile_text`] is what the edge does with its folder, [`ask`] what it does with a request; both call the running
//! code alone. The cases are in `data/`, see `data/README.md`.
#![forbid(unsafe_code)]

mod answer;
mod request;

pub use answer::{Answer, ask};
pub use request::Request;

use edge_control::{CompileOptions, Compiled};

/// Parses and compiles the documents of one text. Problems of parsing come before those of compiling.
#[must_use]
pub fn compile_text(config: &str, options: &CompileOptions) -> Compiled {
    let mut parsed = edge_config::parse_documents("config.yaml", config);
    let no_files = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let mut compiled = edge_control::compile(&parsed.resources, options, &no_files);
    parsed.problems.append(&mut compiled.problems);
    compiled.problems = parsed.problems;
    compiled
}

/// Whether `actual` has everything that `expected` has: of maps only the expected keys count, anything else must be
/// equal. Says where they part.
///
/// # Errors
/// Names the first place where they differ.
pub fn contains(actual: &serde_json::Value, expected: &serde_json::Value) -> Result<(), String> {
    if let (Some(actual), Some(expected)) = (actual.as_object(), expected.as_object()) {
        for (key, expected) in expected {
            let actual = actual.get(key).ok_or_else(|| format!("{key} does not exist"))?;
            contains(actual, expected).map_err(|error| format!("{key}: {error}"))?;
        }
        Ok(())
    } else if actual == expected {
        Ok(())
    } else {
        Err(format!("expected {expected}, got {actual}"))
    }
}
