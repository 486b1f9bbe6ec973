//! Conditions that a route puts on a request (Istio `HTTPMatchRequest`).

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;

/// A regular expression of RE2's syntax that must match the whole text.
///
/// Two patterns are equal when their sources are.
#[derive(Clone)]
pub struct Pattern {
    source: String,
    whole: regex::Regex,
    search: regex::Regex,
}

/// Why a regular expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than [`Pattern::MAX_LEN`].
    #[error("the regular expression has {0} characters, at most 1024 are allowed")]
    TooLong(usize),
    /// Not a regular expression, or one whose compiled form is too large.
    #[error("not a valid RE2 regular expression: {0}")]
    Syntax(String),
}

impl Pattern {
    /// Longest accepted source, in characters (Istio's webhook).
    pub const MAX_LEN: usize = 1024;

    /// Compiles `source`, anchored at both ends.
    ///
    /// # Errors
    /// When it is too long, is no RE2 expression, or would need more than a mebibyte compiled.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        if source.len() > Self::MAX_LEN {
            return Err(PatternError::TooLong(source.len()));
        }
        // The source is compiled on its own first: wrapping could turn an unbalanced expression into a valid one.
        let search = compile(source)?;
        Ok(Self {
            source: source.to_owned(),
            whole: compile(&format!(r"\A(?:{source})\z"))?,
            search,
        })
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.whole.is_match(text)
    }

    /// Replaces every match in `text` (RE2 `GlobalReplace`): in the substitution `\0` stands for the match, `\1` to `\9`
    /// for its groups, `\\` for a backslash. A group that took no part in the match is empty.
    #[must_use]
    pub fn replace_all<'t>(&self, text: &'t str, substitution: &str) -> Cow<'t, str> {
        self.search.replace_all(text, |captures: &regex::Captures<'_>| {
            expand(substitution, captures)
        })
    }

    /// Number of the highest group that a substitution may refer to.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.search.captures_len() - 1
    }

    /// The expression as the user wrote it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// Fills the groups of one match into a substitution.
fn expand(substitution: &str, captures: &regex::Captures<'_>) -> String {
    let mut out = String::with_capacity(substitution.len());
    let mut rest = substitution.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next().map(|escaped| (escaped, escaped.to_digit(10))) {
            Some((_, Some(group))) => {
                out.push_str(captures.get(group as usize).map_or("", |found| found.as_str()));
            }
            Some((escaped, None)) => out.push(escaped),
            None => out.push('\\'),
        }
    }
    out
}

fn compile(source: &str) -> Result<regex::Regex, PatternError> {
    regex::RegexBuilder::new(source)
        .size_limit(1 << 20)
        .build()
        .map_err(|error| PatternError::Syntax(error.to_string()))
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_text_only() {
        let pattern = Pattern::new(r"/rf/b|/x").unwrap();
        assert!(pattern.matches("/rf/b"));
        assert!(pattern.matches("/x"));
        assert!(!pattern.matches("/rf/bc"));
        assert!(!pattern.matches("/rf/b\n"));
    }

    #[test]
    fn a_substitution_replaces_every_match_and_fills_in_groups() {
        for (source, substitution, text, expected) in [
            ("/(a+)/(b)", r"/\2/\1", "/aa/b/c", "/b/aa/c"),
            ("o", "0", "/foo/boo", "/f00/b00"),
            ("x(y)?", r"[\1]", "/x", "/[]"),
            ("b", r"\\\0", "/b", r"/\b"),
            ("z", "q", "/b", "/b"),
        ] {
            let pattern = Pattern::new(source).unwrap();
            assert_eq!(pattern.replace_all(text, substitution), expected, "{source}");
        }
    }

    #[test]
    fn expressions_outside_of_re2_or_too_large_are_refused() {
        for source in [r"(?=a)", "a)(b", "(", "(?:a{1000}){1000}"] {
            assert!(
                matches!(Pattern::new(source), Err(PatternError::Syntax(_))),
                "{source}"
            );
        }
        assert_eq!(Pattern::new(&"a".repeat(1025)), Err(PatternError::TooLong(1025)));
    }
}
