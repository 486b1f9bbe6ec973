//! AuthorizationPolicy, RequestAuthentication and PeerAuthentication: none of them is enforced, and what they are to
//! keep out is kept out by refusing everything (see `Snapshot::unenforced`).

use super::not_enforced;
use crate::checker::Checker;
use crate::istio::security::authorization::Action;
use crate::istio::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use crate::k8s::meta::Meta;

/// Annotation of an AuthorizationPolicy that is tried out without effect.
pub(crate) const DRY_RUN: &str = "istio.io/dry-run";

const EVERYTHING_IS_REFUSED: &str = "while it selects this gateway, every request gets 403";

pub(super) fn authorization(check: &mut Checker<'_>, meta: &Meta, policy: &AuthorizationPolicy) {
    if policy.keeps_out(meta) {
        not_enforced(check, "kind", "AuthorizationPolicy", EVERYTHING_IS_REFUSED);
    } else {
        let instead = "it keeps nothing out, and nothing is written down about it";
        not_enforced(check, "kind", "AuthorizationPolicy", instead);
    }
}

pub(super) fn request(check: &mut Checker<'_>, policy: &RequestAuthentication) {
    if policy.keeps_out() {
        not_enforced(check, "kind", "RequestAuthentication", EVERYTHING_IS_REFUSED);
    }
}

pub(super) fn peer(check: &mut Checker<'_>, policy: &PeerAuthentication) {
    let has_labels = policy
        .selector
        .as_ref()
        .is_some_and(|selector| !selector.match_labels.is_empty());
    if policy.keeps_out() {
        not_enforced(check, "kind", "PeerAuthentication", EVERYTHING_IS_REFUSED);
    } else if policy.is_strict() && !has_labels {
        let message = "has no effect at an ingress gateway: it is about connections within the mesh";
        let hint = "the edge has no certificate of a mesh; workloads that take only mutual TLS refuse it";
        check.warn("spec.mtls.mode", message, hint);
    }
}

impl AuthorizationPolicy {
    /// Whether it refuses any request, were it enforced.
    #[must_use]
    pub fn keeps_out(&self, meta: &Meta) -> bool {
        let is_tried_out = meta
            .annotations
            .get(DRY_RUN)
            .is_some_and(|value| crate::validate::go_bool(value) == Some(true));
        let fits_nothing = self.rules.as_ref().is_none_or(Vec::is_empty);
        match self.action {
            _ if is_tried_out => false,
            Action::Allow => true,
            Action::Audit => false,
            Action::Deny | Action::Custom => !fits_nothing,
        }
    }
}

impl RequestAuthentication {
    /// Whether it refuses any request, were it enforced: those with a token that is not good.
    #[must_use]
    pub fn keeps_out(&self) -> bool {
        !self.jwt_rules.is_empty()
    }
}

impl PeerAuthentication {
    /// Whether it asks clients of the gateway itself for certificates of the mesh. Istio applies policies without a
    /// selector to sidecars alone: a gateway's own servers say whom they let in.
    #[must_use]
    pub fn keeps_out(&self) -> bool {
        let names_workloads = self
            .selector
            .as_ref()
            .is_some_and(|selector| !selector.match_labels.is_empty());
        names_workloads && self.is_strict()
    }
}
