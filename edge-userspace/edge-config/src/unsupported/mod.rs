//! What the edge does not do of what a resource asks for: no field that a user sets is ever ignored in silence.
//!
//! One table for each message says so, field by field: every other field is read, compiled and enforced. A row goes
//! when the proxy has learnt what it names.

mod destination_rule;
mod gateway;
mod security;
mod service_entry;
mod virtual_service;

pub(crate) use security::DRY_RUN;

use crate::checker::Checker;
use crate::istio::envoy_filter::rate_limit::rate_limits;
use crate::{Problem, Resource};

/// The fields of a resource that are accepted and do not do what they say: a warning for each, with what becomes of the
/// traffic instead.
#[must_use]
pub fn unsupported(resource: &Resource) -> Vec<Problem> {
    let mut check = Checker::new(resource);
    let meta = resource.meta();
    match resource {
        Resource::Gateway(object) => gateway::check(&mut check, &object.spec),
        Resource::VirtualService(object) => virtual_service::check(&mut check, &object.spec),
        Resource::DestinationRule(object) => destination_rule::check(&mut check, &object.spec),
        Resource::ServiceEntry(object) => service_entry::check(&mut check, &object.spec),
        Resource::WorkloadEntry(object) => service_entry::check_workload(&mut check, "spec", &object.spec),
        Resource::EnvoyFilter(object) => check.extend(rate_limits(object).unsupported),
        Resource::AuthorizationPolicy(object) => security::authorization(&mut check, meta, &object.spec),
        Resource::RequestAuthentication(object) => security::request(&mut check, &object.spec),
        Resource::PeerAuthentication(object) => security::peer(&mut check, &object.spec),
        // The edge reads some fields of these and is not asked to act on the others.
        Resource::Service(_)
        | Resource::EndpointSlice(_)
        | Resource::Pod(_)
        | Resource::Namespace(_)
        | Resource::Secret(_)
        | Resource::ConfigMap(_) => {}
    }
    check.into_problems()
}

/// One row of a table: a field of a message `T` that does not do what it says.
struct Row<T> {
    /// Its name in the file.
    field: &'static str,
    /// Whether the user has set it to something that matters.
    is_set: fn(&T) -> bool,
    /// What becomes of it.
    fate: Fate,
}

/// What becomes of a field that does not do what it says.
enum Fate {
    /// It has a meaning at an ingress gateway, which the edge does not give it; the text says what happens instead.
    NotEnforced(&'static str),
    /// It has no meaning at an ingress gateway; the text says why.
    NoEffect(&'static str),
}

use Fate::{NoEffect, NotEnforced};

const fn row<T>(field: &'static str, is_set: fn(&T) -> bool, fate: Fate) -> Row<T> {
    Row { field, is_set, fate }
}

/// Reports the rows of a table that are set in `message`, which stands at `path`.
fn report<T>(check: &mut Checker<'_>, path: &str, message: &T, table: &[Row<T>]) {
    for row in table.iter().filter(|row| (row.is_set)(message)) {
        let field = format!("{path}.{}", row.field);
        match row.fate {
            NotEnforced(instead) => not_enforced(check, &field, row.field, instead),
            NoEffect(why) => check.warn(&field, "has no effect at an ingress gateway", why),
        }
    }
}

/// Reports one thing by name.
fn not_enforced(check: &mut Checker<'_>, field: &str, what: &str, instead: &str) {
    check.warn(field, format!("not enforced: {what}"), instead);
}

#[cfg(test)]
mod tests;
