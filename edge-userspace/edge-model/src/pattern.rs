//! Regular expressions of RE2's syntax, checked when they are made and compiled when they are first used.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use regex::Regex;

mod syntax;

use syntax::Parsed;

/// A regular expression of RE2's syntax that must match the whole text.
///
/// Making one costs its parsing alone: the automaton is built by the first match, so that a configuration with
/// thousands of expressions is read quickly, and those whose requests never come take no memory. A clone shares what
/// is built. Two patterns are equal when their sources are.
#[derive(Clone)]
pub struct Pattern(Arc<Inner>);

struct Inner {
    source: Box<str>,
    parsed: Parsed,
    whole: OnceLock<Option<Regex>>,
    search: OnceLock<Option<Regex>>,
}

/// Why a regular expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than [`Pattern::MAX_LEN`].
    #[error("the regular expression has {0} bytes, at most 1024 are allowed")]
    TooLong(usize),
    /// Not a regular expression of RE2.
    #[error("not a valid RE2 regular expression: {0}")]
    Syntax(String),
    /// Its automaton would be too large, because of counted repetitions or many Unicode classes.
    #[error("the regular expression needs too large an automaton: repeat less, or use fewer Unicode classes")]
    TooLarge,
}

impl Pattern {
    /// Longest accepted source, in bytes (Istio's webhook).
    pub const MAX_LEN: usize = 1024;
    /// Largest accepted [`size`](Self::size): a counted repetition of a thousand (the most that RE2 has) of 64 steps.
    pub const MAX_SIZE: u32 = 1 << 16;

    /// Checks `source`.
    ///
    /// # Errors
    /// When it is too long, is no RE2 expression, or its automaton would be too large.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        if source.len() > Self::MAX_LEN {
            return Err(PatternError::TooLong(source.len()));
        }
        let parsed = syntax::parse(source)?;
        Ok(Self(Arc::new(Inner {
            source: source.into(),
            parsed,
            whole: OnceLock::new(),
            search: OnceLock::new(),
        })))
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let build = || compile(&format!(r"\A(?:{})\z", self.rust_source()));
        let whole = self.0.whole.get_or_init(build).as_ref();
        whole.is_some_and(|regex| regex.is_match(text))
    }

    /// Replaces every match in `text` (RE2 `GlobalReplace`): in the substitution `\0` stands for the match, `\1` to `\9`
    /// for its groups, `\\` for a backslash. A group that took no part in the match is empty.
    #[must_use]
    pub fn replace_all<'t>(&self, text: &'t str, substitution: &str) -> Cow<'t, str> {
        let search = self.0.search.get_or_init(|| compile(self.rust_source()));
        let Some(search) = search else {
            return Cow::Borrowed(text);
        };
        search.replace_all(text, |captures: &regex::Captures<'_>| {
            expand(substitution, captures)
        })
    }

    /// Number of the highest group that a substitution may refer to.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.0.parsed.groups
    }

    /// The expression as the user wrote it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The same expression as the crates `regex` and `regex-automata` read it: RE2's `\d`, `\s`, `\w` and `\b` mean
    /// ASCII characters, which has to be said there.
    #[must_use]
    pub fn rust_source(&self) -> &str {
        self.0.parsed.rust.as_deref().unwrap_or(&self.0.source)
    }

    /// Bytes that every matching text begins with; possibly none.
    #[must_use]
    pub fn literal_prefix(&self) -> &[u8] {
        &self.0.parsed.prefix
    }

    /// The length of the literal text at the beginning, and an expression (as [`Self::rust_source`] is one) for what
    /// follows: a text matches when it begins with that many bytes of [`Self::literal_prefix`] and all behind them
    /// matches the expression. Patterns that go on alike have the same one.
    ///
    /// `None` when an assertion such as `\b` looks at what stands before it.
    #[must_use]
    pub fn rest(&self) -> Option<(usize, &str)> {
        let rest = self.0.parsed.rest.as_ref()?;
        Some((rest.offset, &rest.source))
    }

    /// About how many states the automaton has (an upper bound for expressions in ASCII).
    #[must_use]
    pub fn size(&self) -> u32 {
        self.0.parsed.size
    }
}

/// Compiles what was parsed before. The limit is above what [`Pattern::MAX_SIZE`] lets through, so that this does not
/// fail.
fn compile(source: &str) -> Option<Regex> {
    const SIZE_LIMIT: usize = 64 << 20;
    /// A lazy automaton grows with the texts that it sees, once a thread; beyond this it begins anew.
    const LAZY_LIMIT: usize = 1 << 19;
    let mut builder = regex::RegexBuilder::new(source);
    builder.size_limit(SIZE_LIMIT).dfa_size_limit(LAZY_LIMIT);
    builder.build().ok()
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

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.source == other.0.source
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.0.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, matching: &[&str], others: &[&str]) {
        let pattern = Pattern::new(source).unwrap();
        for text in matching {
            assert!(pattern.matches(text), "{source} must match {text:?}");
        }
        for text in others {
            assert!(!pattern.matches(text), "{source} must not match {text:?}");
        }
    }

    #[test]
    fn a_pattern_matches_the_whole_text_only() {
        check(r"/rf/b|/x", &["/rf/b", "/x"], &["/rf/bc", "/rf/b\n", "y/x"]);
        check(r"\d+$", &["123"], &["a123", "123\n"]);
        check(".*", &["", "/a", "ä"], &["a\nb"]);
    }

    #[test]
    fn classes_and_word_boundaries_are_those_of_ascii_as_in_re2() {
        check(r"\d\D", &["1x", "1٣"], &["٣x", "12"]);
        check(r"[\w-]+", &["a-b_9"], &["ä", "a b"]);
        check(r"[^\w]", &["ä", "-"], &["a"]);
        check(r"[\D]x", &["ax", "٣x"], &["1x"]);
        check(r"a\sb\S", &["a bc", "a\tbc"], &["a\u{a0}bc", "a b "]);
        check(r".*\bfoo", &["a foo", "äfoo"], &["afoo"]);
        check(r".*\Boo", &["afoo"], &["a oo", "äoo"]);
        check(r"[[:alpha:]]+", &["ab"], &["ä"]);
        check(r".[^/]", &["äö"], &["ä/"]);
        check(r"(?i)/STRASSE", &["/strasse"], &["/straße"]);
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
    fn expressions_outside_of_re2_are_refused() {
        for source in [
            r"(?=a)", "a)(b", "(", "(?x) a", "[a&&b]", "[[a]b]", r"\<a", r"(a)\1",
        ] {
            assert!(
                matches!(Pattern::new(source), Err(PatternError::Syntax(_))),
                "{source}"
            );
        }
    }

    #[test]
    fn expressions_that_are_too_long_or_too_large_are_refused() {
        assert_eq!(Pattern::new(&"a".repeat(1025)), Err(PatternError::TooLong(1025)));
        assert!(Pattern::new(&"ä".repeat(512)).is_ok());
        for source in [
            "(?:a{1000}){1000}".to_owned(),
            "(?:(?:(?:a{99}){99}){99}){99}".to_owned(),
            r"(?:\pL\pN){40}".to_owned(),
            r"\pL".repeat(9),
            format!("(?i){}", r"\pL".repeat(3)),
            "(?i)[\u{1}-\u{ffff}]".to_owned(),
        ] {
            assert_eq!(Pattern::new(&source), Err(PatternError::TooLarge), "{source}");
        }
        check("(?:[^/]{1,60}/){1,60}", &["a/b/"], &["a"]);
        check("(?:(?:(?:(?:(?:){99}){99}){99}){99}){99}", &[""], &["a"]);
        check(r"\pL{3}(?i)[a-zà-ÿ]", &["äöüÄ"], &["1äöü"]);
    }

    #[test]
    fn the_literal_prefix_is_what_every_match_begins_with() {
        for (source, expected) in [
            ("/api/v[0-9]+/x", "/api/v"),
            ("^/a$", "/a"),
            (r"/a\.b/.*", "/a.b/"),
            ("/(foo|fob)/x", "/fo"),
            ("(/a)(/b)+c", "/a/b"),
            ("(/a)?/b", ""),
            ("(?i)/a", "/"),
            (".*", ""),
            ("/a|b", ""),
            ("(ab){2}c", "ababc"),
            ("(ab){2,}c", "abab"),
            ("/ä|/ö", "/"),
            ("", ""),
        ] {
            let pattern = Pattern::new(source).unwrap();
            let prefix = String::from_utf8_lossy(pattern.literal_prefix()).into_owned();
            assert_eq!(prefix.trim_end_matches('\u{fffd}'), expected, "{source}");
        }
    }

    #[test]
    fn patterns_that_go_on_alike_have_the_same_rest() {
        for (source, offset, like) in [
            ("/svc1/v[0-9]+/x", 7, "[0-9]+/x"),
            ("^/service2/v[0-9]+/x$", 11, "[0-9]+/x"),
            (r"/a\.b", 4, ""),
            ("/ä(b|c)", 3, "([bc])"),
            ("a|b", 0, "[ab]"),
            ("", 0, ""),
        ] {
            let (pattern, like) = (Pattern::new(source).unwrap(), Pattern::new(like).unwrap());
            let (found, rest) = pattern.rest().unwrap();
            assert_eq!((found, rest), (offset, like.rest().unwrap().1), "{source}");
        }
        for source in [r"/a\b", "/a(^b|c)", r"\Ba"] {
            assert_eq!(Pattern::new(source).unwrap().rest(), None, "{source}");
        }
    }
}
