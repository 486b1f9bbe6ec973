//! `edge doctor`: whether this machine can run both tiers, and what to do where it cannot.

mod checks;
mod links;
mod xdp_features;

use std::fmt;

use serde::Serialize;

use self::links::Link;
use crate::cli::DoctorArgs;
use crate::failure::Failure;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at, such as `interface eth0: MTU`.
    pub(crate) check: String,
    /// How it is.
    pub(crate) status: Health,
    /// What was seen.
    pub(crate) detail: String,
    /// What to do about it; empty when all is well.
    pub(crate) hint: String,
}

/// How a checked thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    /// As it should be.
    Ok,
    /// It works, but less well than it could.
    Warning,
    /// The edge, or tier 1 at least, cannot run.
    Failure,
}

impl Finding {
    fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            status: Health::Ok,
            detail: detail.into(),
            hint: String::new(),
        }
    }

    fn warning(check: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            status: Health::Warning,
            detail: detail.into(),
            hint: hint.into(),
        }
    }

    fn failure(check: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            status: Health::Failure,
            detail: detail.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Failure => "FAILURE",
        };
        write!(f, "{status:<8} {:<34} {}", self.check, self.detail)?;
        if !self.hint.is_empty() {
            write!(f, "\n{:<8} {:<34} -> {}", "", "", self.hint)?;
        }
        Ok(())
    }
}

/// Runs every check and prints the findings; a failed one makes the command fail.
pub(crate) async fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let links = links::all().await.map_err(Failure::CannotBeDone)?;
    let findings = checks::all(&interfaces(args, &links)?, &links);
    for finding in &findings {
        if args.json {
            let line = serde_json::to_string(finding).map_err(|error| Failure::CannotBeDone(error.into()))?;
            println!("{line}");
        } else {
            println!("{finding}");
        }
    }
    match findings
        .iter()
        .filter(|finding| finding.status == Health::Failure)
        .count()
    {
        0 => Ok(()),
        failures => Err(Failure::CannotBeDone(anyhow::anyhow!(
            "{failures} of {} checks failed",
            findings.len()
        ))),
    }
}

/// Interfaces to check: those named, else those of the configuration, else every one that is up and no loopback.
fn interfaces(args: &DoctorArgs, links: &[Link]) -> Result<Vec<String>, Failure> {
    if !args.interface.is_empty() {
        return Ok(args.interface.clone());
    }
    if let Some(dir) = &args.config {
        return Ok(crate::config::bootstrap(dir)?.interfaces);
    }
    Ok(links
        .iter()
        .filter(|link| link.up && !link.loopback)
        .map(|link| link.name.clone())
        .collect())
}
