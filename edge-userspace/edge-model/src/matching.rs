//! Conditions that a route puts on a request (Istio `HTTPMatchRequest`).

use std::fmt;

use http::HeaderName;

use crate::Pattern;

/// Istio `StringMatch`, and the "is there at all" that an empty match stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// The whole text, case-sensitive.
    Exact(String),
    /// The beginning of the text, case-sensitive.
    Prefix(String),
    /// The whole text by regular expression.
    Regex(Pattern),
    /// Any text, the empty one too: the field only has to be there.
    Present,
}

impl StringMatch {
    /// Whether `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(value) => value == text,
            Self::Prefix(value) => text.starts_with(value.as_str()),
            Self::Regex(pattern) => pattern.matches(text),
            Self::Present => true,
        }
    }
}

impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(f, "exact {value:?}"),
            Self::Prefix(value) => write!(f, "prefix {value:?}"),
            Self::Regex(pattern) => write!(f, "regex {:?}", pattern.source()),
            Self::Present => f.write_str("present"),
        }
    }
}

/// Condition on the path, which is compared without query and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// No condition.
    Any,
    /// The whole path.
    Exact {
        /// Path to compare with.
        value: String,
        /// `ignoreUriCase`: ASCII case does not count.
        ignore_case: bool,
    },
    /// The beginning of the path, as plain text: `/foo` matches `/foobar`.
    Prefix {
        /// Beginning to compare with.
        value: String,
        /// `ignoreUriCase`: ASCII case does not count.
        ignore_case: bool,
    },
    /// The whole path by regular expression; `ignoreUriCase` has no effect on it.
    Regex(Pattern),
}

/// Condition on a request header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Name of the header.
    pub name: HeaderName,
    /// What its value must be. Each line of a repeated header is compared by itself.
    pub value: StringMatch,
    /// `withoutHeaders`: the condition must not hold. A missing header then counts as the empty text, except
    /// for [`StringMatch::Present`], which asks that it be absent.
    pub invert: bool,
}

/// Condition on a query parameter; values are compared as sent, without percent-decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatch {
    /// Name of the parameter.
    pub name: String,
    /// What the value of its first occurrence must be; `?k` counts as the empty text.
    pub value: StringMatch,
}

/// Condition on a claim of a verified JWT (`@request.auth.claims.<name>` under `headers`, or with `[a][b]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimMatch {
    /// Path of the claim, outermost name first; at least one.
    pub path: Vec<String>,
    /// What its value must be; of a list, one of its values. A request without a verified token has no claims.
    pub value: StringMatch,
    /// `withoutHeaders`: the condition must not hold; a missing claim satisfies it.
    pub invert: bool,
}

/// All conditions of one match block; every one must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// Path.
    pub path: PathMatch,
    /// Method, case-sensitive.
    pub method: Option<StringMatch>,
    /// `:scheme`.
    pub scheme: Option<StringMatch>,
    /// Host or `:authority` as sent, with its port.
    pub authority: Option<StringMatch>,
    /// Headers.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<QueryMatch>,
    /// Claims of a JWT.
    pub claims: Vec<ClaimMatch>,
}

impl RouteMatch {
    /// The match of a rule without conditions.
    #[must_use]
    pub fn any() -> Self {
        Self {
            path: PathMatch::Any,
            method: None,
            scheme: None,
            authority: None,
            headers: vec![],
            query: vec![],
            claims: vec![],
        }
    }

    /// Whether every request matches: `prefix: /`, `regex: .*` or no path condition, and no other condition.
    /// Istio moves such routes behind the others of a virtual host.
    #[must_use]
    pub fn is_catch_all(&self) -> bool {
        let any_path = match &self.path {
            PathMatch::Any => true,
            PathMatch::Prefix { value, .. } => value == "/",
            PathMatch::Regex(pattern) => pattern.source() == ".*",
            PathMatch::Exact { .. } => false,
        };
        any_path
            && self.method.is_none()
            && self.scheme.is_none()
            && self.authority.is_none()
            && self.headers.is_empty()
            && self.query.is_empty()
            && self.claims.is_empty()
    }
}
