//! `edge explain reasons`: what each reason to pass, drop or answer a packet means.

use anyhow::anyhow;
use edge_datapath::{DropReason, FlowReason, LeftToKernel, PassReason, ReplyReason};
use serde_json::json;

use crate::cli::ExplainReasonsArgs;
use crate::failure::Failure;

/// What becomes of a packet for the reason, its name, and what it means.
type Reason = (&'static str, &'static str, &'static str);

/// Prints the reasons that are asked for, or all.
///
/// # Errors
/// A name that no reason has.
pub(crate) fn run(args: &ExplainReasonsArgs) -> Result<(), Failure> {
    let all = all();
    for name in &args.names {
        if !all.iter().any(|(_, of, _)| of == name) {
            let error = anyhow!("there is no reason {name} (`edge explain reasons` lists them)");
            return Err(Failure::WrongInput(error));
        }
    }
    let wanted = |(_, name, _): &&Reason| args.names.is_empty() || args.names.iter().any(|of| of == name);
    for (kind, name, meaning) in all.iter().filter(wanted) {
        if args.json {
            println!("{}", json!({ "kind": kind, "reason": name, "meaning": meaning }));
        } else {
            println!("{kind:<8} {name:<24} {meaning}");
        }
    }
    Ok(())
}

fn all() -> Vec<Reason> {
    let drops = DropReason::ALL
        .iter()
        .map(|reason| ("drop", reason.name(), reason.meaning()));
    let passes = PassReason::ALL
        .iter()
        .map(|reason| ("pass", reason.name(), reason.meaning()));
    let replies = ReplyReason::ALL
        .iter()
        .map(|reason| ("reply", reason.name(), reason.meaning()));
    let left = LeftToKernel::ALL
        .iter()
        .map(|reason| ("left", reason.name(), reason.meaning()));
    let flows = FlowReason::ALL
        .iter()
        .map(|reason| ("forward", reason.name(), reason.meaning()));
    drops
        .chain(passes)
        .chain(replies)
        .chain(left)
        .chain(flows)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_meaning_in_a_sentence() {
        let all = all();
        for (_, name, meaning) in &all {
            assert!(
                meaning.ends_with('.') && !meaning.starts_with(' '),
                "{name}: {meaning}"
            );
        }
        let denied = all.iter().find(|(_, name, _)| *name == "denied").expect("there");
        assert_eq!(denied, &("drop", "denied", "The source is on the deny list."));
    }
}
