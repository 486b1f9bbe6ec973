//! Conditions on request headers.

use std::borrow::Cow;

use edge_model::{HeaderMatch, StringMatch};
use http::HeaderValue;
use http::header::HOST;

use crate::RequestView;

/// Whether the condition holds for the request.
///
/// Each line of a repeated header is compared on its own (Envoy 1.40). An inverted condition holds when no line
/// matches, and a missing header then counts as the empty text (Istio sets `treat_missing_header_as_empty`); inverted
/// presence asks that the header be absent.
pub(crate) fn matches(condition: &HeaderMatch, request: &RequestView<'_>) -> bool {
    let mut lines = lines(condition, request).peekable();
    if !condition.invert {
        return lines.any(|line| line_matches(&condition.value, line));
    }
    match (lines.peek().is_some(), &condition.value) {
        (is_there, StringMatch::Present) => !is_there,
        (false, value) => !value.matches(""),
        (true, value) => !lines.any(|line| line_matches(value, line)),
    }
}

/// The values of the header that the condition names, as text for people.
pub(crate) fn values<'r>(
    condition: &HeaderMatch,
    request: &RequestView<'r>,
) -> impl Iterator<Item = Cow<'r, str>> + use<'r> {
    lines(condition, request).map(String::from_utf8_lossy)
}

/// The header's lines. `host` means the authority, which HTTP/2 sends without a Host.
fn lines<'r>(condition: &HeaderMatch, request: &RequestView<'r>) -> impl Iterator<Item = &'r [u8]> + use<'r> {
    let is_host = condition.name == HOST;
    let authority = is_host.then_some(request.authority.as_bytes());
    let lines = (!is_host).then(|| request.headers.get_all(&condition.name));
    authority
        .into_iter()
        .chain(lines.into_iter().flatten().map(HeaderValue::as_bytes))
}

/// Bytes that are no UTF-8 never equal what a user can write; an expression reads replacement characters for them.
fn line_matches(condition: &StringMatch, line: &[u8]) -> bool {
    match condition {
        StringMatch::Exact(value) => value.as_bytes() == line,
        StringMatch::Prefix(value) => line.starts_with(value.as_bytes()),
        StringMatch::Regex(pattern) => pattern.matches(&String::from_utf8_lossy(line)),
        StringMatch::Present => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::Pattern;
    use http::{HeaderMap, HeaderName};

    #[track_caller]
    fn check(value: StringMatch, invert: bool, rows: &[(&[&str], bool)]) {
        for (lines, expected) in rows {
            let mut headers = HeaderMap::new();
            for line in *lines {
                headers.append("x", HeaderValue::from_str(line).unwrap());
            }
            let request = RequestView {
                authority: "a.com:80",
                path_and_query: "/",
                method: "GET",
                scheme: "http",
                headers: &headers,
                claims: None,
            };
            let condition = HeaderMatch {
                name: HeaderName::from_static("x"),
                value: value.clone(),
                invert,
            };
            assert_eq!(
                matches(&condition, &request),
                *expected,
                "{condition:?} against {lines:?}"
            );
        }
    }

    #[test]
    fn presence_counts_an_empty_value() {
        check(
            StringMatch::Present,
            false,
            &[(&[""], true), (&["v"], true), (&[], false)],
        );
        check(
            StringMatch::Exact(String::new()),
            false,
            &[(&[""], true), (&["v"], false), (&[], false)],
        );
    }

    #[test]
    fn each_line_of_a_repeated_header_is_compared_on_its_own() {
        let rows: [(&str, bool); 3] = [("a", true), ("b", true), ("a,b", false)];
        for (text, expected) in rows {
            check(StringMatch::Exact(text.into()), false, &[(&["a", "b"], expected)]);
        }
    }

    #[test]
    fn an_inverted_condition_takes_a_missing_header_for_the_empty_text() {
        check(
            StringMatch::Exact("v".into()),
            true,
            &[(&[], true), (&["v"], false), (&["w"], true), (&["w", "v"], false)],
        );
        let everything = StringMatch::Regex(Pattern::new(".*").unwrap());
        check(everything, true, &[(&[], false), (&["v"], false)]);
        check(StringMatch::Present, true, &[(&[], true), (&[""], false)]);
    }

    #[test]
    fn the_host_header_is_the_authority() {
        let headers = HeaderMap::new();
        let request = RequestView {
            authority: "a.com:80",
            path_and_query: "/",
            method: "GET",
            scheme: "http",
            headers: &headers,
            claims: None,
        };
        let condition = HeaderMatch {
            name: HOST,
            value: StringMatch::Exact("a.com:80".into()),
            invert: false,
        };
        assert!(matches(&condition, &request));
    }
}
