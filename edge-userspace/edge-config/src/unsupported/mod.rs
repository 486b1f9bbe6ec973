//! What the edge does not honour: no field that a user sets is ever ignored in silence.
//!
//! One table for each message says so, field by field. A row goes when the edge has learnt what it names; the other
//! fields of the message are honoured.

mod destination_rule;
mod gateway;
mod service_entry;
mod virtual_service;

use crate::checker::Checker;
use crate::istio::envoy_filter::rate_limit::rate_limits;
use crate::{Problem, Resource};

/// The fields of a resource that the edge does not honour: an error for each that would change where requests go or
/// what becomes of them, a warning for each that has no meaning at an ingress gateway.
#[must_use]
pub fn unsupported(resource: &Resource) -> Vec<Problem> {
    let mut check = Checker::new(resource);
    match resource {
        Resource::Gateway(object) => gateway::check(&mut check, &object.spec),
        Resource::VirtualService(object) => virtual_service::check(&mut check, &object.spec),
        Resource::DestinationRule(object) => destination_rule::check(&mut check, &object.spec),
        Resource::ServiceEntry(object) => service_entry::check(&mut check, &object.spec),
        Resource::WorkloadEntry(object) => service_entry::check_workload(&mut check, "spec", &object.spec),
        Resource::EnvoyFilter(object) => check.extend(rate_limits(object).unsupported),
        // The edge reads some fields of these and is not asked to act on the others.
        Resource::Service(_) | Resource::EndpointSlice(_) | Resource::Pod(_) | Resource::Namespace(_) => {}
    }
    check.into_problems()
}

/// One row of a table: a field of a message `T` that is not honoured.
struct Row<T> {
    /// Its name in the file.
    field: &'static str,
    /// Whether the user has set it to something that matters.
    is_set: fn(&T) -> bool,
    /// What becomes of it.
    fate: Fate,
}

/// What becomes of a field that is not honoured.
enum Fate {
    /// The object is refused; the text says what to do.
    Refused(&'static str),
    /// It has no meaning at an ingress gateway; the text says why.
    NoEffect(&'static str),
}

use Fate::{NoEffect, Refused};

const fn row<T>(field: &'static str, is_set: fn(&T) -> bool, fate: Fate) -> Row<T> {
    Row { field, is_set, fate }
}

/// Reports the rows of a table that are set in `message`, which stands at `path`.
fn report<T>(check: &mut Checker<'_>, path: &str, message: &T, table: &[Row<T>]) {
    for row in table.iter().filter(|row| (row.is_set)(message)) {
        let field = format!("{path}.{}", row.field);
        match row.fate {
            Refused(hint) => refuse(check, &field, row.field, hint),
            NoEffect(why) => check.warn(&field, "has no effect at an ingress gateway", why),
        }
    }
}

/// Reports one thing by name.
fn refuse(check: &mut Checker<'_>, field: &str, what: &str, hint: &str) {
    check.error(field, format!("unsupported: {what}"), hint);
}

#[cfg(test)]
mod tests;
