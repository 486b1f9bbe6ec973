//! Host names and left-most wildcards, as Gateway and VirtualService hosts use them.

use std::fmt;

/// `*`, `*.example.com` or `www.example.com`, in lower case.
///
/// A wildcard stands for one or more labels: `*.foo.com` matches `a.foo.com` and `a.b.foo.com`, not `foo.com`
/// (istio `pkg/config/host/name.go`). VirtualServices may also have it for a part of a label: `*foo.com` and `*-foo.com`
/// (istio `ValidateWildcardDomain`; Envoy `VirtualHost.domains`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// One host name or IP address.
    Exact(String),
    /// `*` and a suffix, which is the value: most often with a leading dot (`.example.com`).
    Suffix(String),
    /// `*`: every host.
    Any,
}

/// Why a text is no host pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// The text is empty.
    #[error("host must not be empty")]
    Empty,
    /// A `*` stands somewhere else than at the beginning.
    #[error("a wildcard is allowed only at the beginning, as in *.example.com")]
    Wildcard,
    /// A label is empty, longer than 63 characters, or has a character that DNS names lack.
    #[error("not a valid DNS name")]
    Name,
}

impl HostPattern {
    /// Longest name, in bytes (RFC 1035 section 2.3.4).
    pub const MAX_LEN: usize = 253;

    /// Parses a pattern; upper case is folded.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        if text.is_empty() {
            return Err(HostPatternError::Empty);
        }
        if text == "*" {
            return Ok(Self::Any);
        }
        let lower = text.to_ascii_lowercase();
        if lower.parse::<std::net::IpAddr>().is_ok() {
            return Ok(Self::Exact(lower));
        }
        let name = match lower.strip_prefix('*') {
            Some(rest) => rest.strip_prefix(['.', '-']).unwrap_or(rest),
            None => &lower,
        };
        if name.contains('*') {
            return Err(HostPatternError::Wildcard);
        }
        // A dot at the end says that the name is complete.
        let labels = name.strip_suffix('.').unwrap_or(name);
        if name.len() > Self::MAX_LEN || !labels.split('.').all(is_label) {
            return Err(HostPatternError::Name);
        }
        Ok(match lower.strip_prefix('*') {
            Some(suffix) => Self::Suffix(suffix.to_owned()),
            None => Self::Exact(lower),
        })
    }

    /// Whether the wildcard stands for a part of a label.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Suffix(suffix) if !suffix.starts_with('.'))
    }

    /// Whether a host name (lower case, without port) is one of this pattern's.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Any => true,
        }
    }

    /// Whether every host of this pattern is one of `other`'s.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Any) => true,
            (Self::Exact(name), Self::Exact(_)) => other.matches(name),
            // Here Istio's rule is wider than Envoy's: `foo.com` is within `*foo.com`.
            (Self::Exact(name), Self::Suffix(theirs)) => name.ends_with(theirs.as_str()),
            (Self::Suffix(own), Self::Suffix(theirs)) => own.ends_with(theirs.as_str()),
            (Self::Suffix(_) | Self::Any, _) => false,
        }
    }

    /// The hosts that both patterns match: always the narrower of the two, or nothing.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.is_subset_of(other) {
            Some(self.clone())
        } else if other.is_subset_of(self) {
            Some(other.clone())
        } else {
            None
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// RFC 1123 label; an underscore is let through because real host names have it (as Istio does).
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, host: &str, expected: bool) {
        assert_eq!(
            HostPattern::parse(pattern).unwrap().matches(host),
            expected,
            "{pattern} against {host}"
        );
    }

    #[test]
    fn a_wildcard_stands_for_one_or_more_labels_and_not_for_none() {
        check("*.foo.com", "a.foo.com", true);
        check("*.foo.com", "a.b.foo.com", true);
        check("*.foo.com", "foo.com", false);
        check("*.foo.com", "afoo.com", false);
        check("*", "anything", true);
        check("*foo.com", "afoo.com", true);
        check("*foo.com", "a.foo.com", true);
        check("*foo.com", "foo.com", false);
        check("*-foo.com", "a-foo.com", true);
        check("*-foo.com", "afoo.com", false);
        check("Foo.com", "foo.com", true);
    }

    #[test]
    fn malformed_patterns_are_refused_with_their_reason() {
        for (text, expected) in [
            ("", HostPatternError::Empty),
            ("a.*.com", HostPatternError::Wildcard),
            ("*.*.com", HostPatternError::Wildcard),
            ("*--a.com", HostPatternError::Name),
            ("**", HostPatternError::Wildcard),
            ("*.", HostPatternError::Name),
            ("a..b", HostPatternError::Name),
            ("-a.com", HostPatternError::Name),
            ("a b.com", HostPatternError::Name),
        ] {
            assert_eq!(HostPattern::parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn the_intersection_is_the_narrower_pattern_or_nothing() {
        for (a, b, expected) in [
            ("*.foo.com", "a.foo.com", Some("a.foo.com")),
            ("a.foo.com", "*", Some("a.foo.com")),
            ("*.foo.com", "*.a.foo.com", Some("*.a.foo.com")),
            ("*.foo.com", "*.bar.com", None),
            ("*foo.com", "*.foo.com", Some("*.foo.com")),
            ("*foo.com", "*.com", Some("*foo.com")),
            ("*foo.com", "afoo.com", Some("afoo.com")),
            ("*foo.com", "foo.com", Some("foo.com")),
            ("a.com", "b.com", None),
        ] {
            let (a, b) = (HostPattern::parse(a).unwrap(), HostPattern::parse(b).unwrap());
            let expected = expected.map(|text| HostPattern::parse(text).unwrap());
            assert_eq!(a.intersection(&b), expected);
            assert_eq!(b.intersection(&a), expected);
        }
    }
}
