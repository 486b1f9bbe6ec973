//! `edge explain config`: what became of every object.

use anyhow::Context as _;
use edge_config::{Problem, Severity};
use edge_control::Fate;
use serde_json::{Value, json};

use crate::cli::ExplainConfigArgs;
use crate::config;
use crate::failure::Failure;
use crate::tree::{self, Branch};

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
    let kinds = fates.chunk_by(|a, b| a.object.kind == b.object.kind);
    let kinds = kinds.filter_map(|fates| {
        let kind = fates.first()?.object.kind;
        Some(Branch::new(kind.name(), fates.iter().map(branch).collect()))
    });
    tree::render(&kinds.collect::<Vec<_>>())
}

fn branch(fate: &Fate) -> Branch {
    let (namespace, name) = (&fate.object.namespace, &fate.object.name);
    let state = fate.state.name();
    let line = format!("{namespace}/{name}  {state}  ({}:{})", fate.file, fate.line);
    let problems = fate.problems.iter().map(in_words);
    let below = fate.places.iter().cloned().chain(problems);
    Branch::new(line, below.map(Branch::leaf).collect())
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
