//! `security.istio.io` RequestAuthentication.

use serde::Deserialize;

use super::Scope;
use crate::GoDuration;
use crate::istio::destination_rule::WorkloadSelector;
use crate::istio::envoy_filter::TargetRef;

/// `spec` of a RequestAuthentication: which tokens (JWT, RFC 7519) are good.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestAuthentication {
    /// Workloads that it is for; none means all of its namespace.
    pub selector: Option<WorkloadSelector>,
    /// A resource that it is for.
    pub target_ref: Option<TargetRef>,
    /// Resources that it is for.
    pub target_refs: Vec<TargetRef>,
    /// Issuers; a request with a token of none of them is refused.
    pub jwt_rules: Vec<JwtRule>,
}

impl RequestAuthentication {
    /// Whom it is for.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            selector: self.selector.as_ref(),
            target_ref: self.target_ref.as_ref(),
            target_refs: &self.target_refs,
        }
    }
}

/// An issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JwtRule {
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` that its tokens must have one of.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub jwks_uri: String,
    /// Its keys (RFC 7517).
    pub jwks: String,
    /// Headers that tokens are looked for in; `Authorization: Bearer` when no place is given.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that tokens are looked for in.
    pub from_params: Vec<String>,
    /// Cookies that tokens are looked for in.
    pub from_cookies: Vec<String>,
    /// Header in which a token's payload goes to the backend.
    pub output_payload_to_header: String,
    /// Whether the token itself goes to the backend.
    pub forward_original_token: bool,
    /// Claims that go to the backend in headers.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Time to fetch the keys.
    pub timeout: Option<GoDuration>,
    /// Claims that hold several values with spaces between.
    pub space_delimited_claims: Vec<String>,
    /// Whether requests need a token.
    pub presence: Presence,
}

/// Whether requests need a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Presence {
    /// They may come without.
    #[default]
    Optional,
    /// They are refused without.
    Required,
}

/// A header that tokens are looked for in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct JwtHeader {
    /// Its name.
    pub name: String,
    /// What stands before the token.
    pub prefix: String,
}

/// A claim that goes to the backend.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ClaimToHeader {
    /// Header.
    pub header: String,
    /// Claim; parts of a nested one are separated by dots.
    pub claim: String,
}
