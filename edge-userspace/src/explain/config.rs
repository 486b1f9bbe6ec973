//! `edge explain config`: what became of every object.

use std::fmt::Write as _;

use anyhow::Context as _;
use edge_config::{Problem, Severity};
use edge_control::Fate;
use serde_json::{Value, json};

use crate::cli::ExplainConfigArgs;
use crate::config;
use crate::failure::Failure;

/// Explains a folder. Errors in it are part of the answer, and make the exit code 1.
pub(crate) fn run(args: &ExplainConfigArgs) -> Result<(), Failure> {
    let loaded = edge_control::load(&args.config)
        .with_context(|| format!("cannot read the configuration folder {}", args.config.display()))
        .map_err(Failure::WrongInput)?;
    let fates = loaded.fates();
    let others: Vec<_> = loaded
        .problems
        .iter()
        .filter(|problem| problem.object.is_none())
        .cloned()
        .collect();
    config::print(&others);
    if args.json {
        for fate in &fates {
            println!("{}", to_json(fate));
        }
    } else {
        print!("{}", tree(&fates));
    }
    if loaded.has_errors() {
        let message = format!("the configuration in {} has errors", args.config.display());
        return Err(Failure::input(message));
    }
    Ok(())
}

/// Objects by kind, below each what became of it.
fn tree(fates: &[Fate]) -> String {
    let mut out = String::new();
    let mut kind = None;
    for fate in fates {
        if kind != Some(fate.object.kind) {
            kind = Some(fate.object.kind);
            let _ = writeln!(out, "{}", fate.object.kind);
        }
        let (namespace, name) = (&fate.object.namespace, &fate.object.name);
        let place = format!("{}:{}", fate.file, fate.line);
        let _ = writeln!(out, "├─ {namespace}/{name}  {}  ({place})", fate.state.name());
        let problems = fate.problems.iter().map(in_words);
        for line in fate.places.iter().cloned().chain(problems) {
            let _ = writeln!(out, "│  └─ {line}");
        }
    }
    out
}

fn in_words(problem: &Problem) -> String {
    let Problem {
        field, message, hint, ..
    } = problem;
    format!("{} {field}: {message} ({hint})", severity(problem))
}

fn severity(problem: &Problem) -> &'static str {
    match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn to_json(fate: &Fate) -> Value {
    let problems = fate.problems.iter().map(|problem| {
        json!({
            "severity": severity(problem),
            "field": problem.field,
            "message": problem.message,
            "hint": problem.hint,
            "line": problem.line,
        })
    });
    json!({
        "kind": fate.object.kind.name(),
        "namespace": fate.object.namespace,
        "name": fate.object.name,
        "file": fate.file,
        "line": fate.line,
        "state": fate.state.name(),
        "places": fate.places,
        "problems": problems.collect::<Vec<_>>(),
    })
}
