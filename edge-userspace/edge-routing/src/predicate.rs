//! Whether a request meets a route's conditions, and which one it fails first.

use edge_model::{ClaimMatch, HeaderMatch, PathMatch, QueryMatch, RouteMatch, StringMatch};

use crate::request::Head;
use crate::{RequestView, claim, header, query};

/// The first condition that did not hold. It only borrows, so that walking past a route costs no allocation.
#[derive(Debug, Clone, Copy)]
pub enum Mismatch<'m> {
    /// Path.
    Path(&'m PathMatch),
    /// Method.
    Method(&'m StringMatch),
    /// Scheme.
    Scheme(&'m StringMatch),
    /// Authority.
    Authority(&'m StringMatch),
    /// A header.
    Header(&'m HeaderMatch),
    /// A query parameter.
    Query(&'m QueryMatch),
    /// A claim of a JWT.
    Claim(&'m ClaimMatch),
}

/// Checks all conditions of a match block, the cheap ones first.
///
/// # Errors
/// Returns the first condition that does not hold.
pub(crate) fn check<'m>(matcher: &'m RouteMatch, head: &Head<'_>) -> Result<(), Mismatch<'m>> {
    if path_matches(&matcher.path, head.path) {
        check_behind_path(matcher, head)
    } else {
        Err(Mismatch::Path(&matcher.path))
    }
}

/// Checks all conditions but the one on the path.
///
/// # Errors
/// Returns the first condition that does not hold.
pub(crate) fn check_behind_path<'m>(matcher: &'m RouteMatch, head: &Head<'_>) -> Result<(), Mismatch<'m>> {
    let request = head.request;
    if let Some(method) = failing(matcher.method.as_ref(), request.method) {
        return Err(Mismatch::Method(method));
    }
    if let Some(scheme) = failing(matcher.scheme.as_ref(), request.scheme) {
        return Err(Mismatch::Scheme(scheme));
    }
    if let Some(authority) = failing(matcher.authority.as_ref(), request.authority) {
        return Err(Mismatch::Authority(authority));
    }
    if let Some(condition) = matcher.headers.iter().find(|c| !header::matches(c, request)) {
        return Err(Mismatch::Header(condition));
    }
    if let Some(condition) = matcher.query.iter().find(|c| !query::matches(c, head.query)) {
        return Err(Mismatch::Query(condition));
    }
    if let Some(condition) = matcher.claims.iter().find(|c| !claim::matches(c, request.claims)) {
        return Err(Mismatch::Claim(condition));
    }
    Ok(())
}

/// Whether nothing but the path counts.
pub(crate) fn has_path_only(matcher: &RouteMatch) -> bool {
    let RouteMatch {
        path: _,
        method,
        scheme,
        authority,
        headers,
        query,
        claims,
    } = matcher;
    let is_any = method.is_none() && scheme.is_none() && authority.is_none();
    is_any && headers.is_empty() && query.is_empty() && claims.is_empty()
}

/// The condition, if there is one and it does not hold.
fn failing<'m>(condition: Option<&'m StringMatch>, actual: &str) -> Option<&'m StringMatch> {
    condition.filter(|condition| !condition.matches(actual))
}

fn path_matches(condition: &PathMatch, path: &str) -> bool {
    match condition {
        PathMatch::Any => true,
        PathMatch::Exact {
            value,
            ignore_case: false,
        } => value == path,
        PathMatch::Exact {
            value,
            ignore_case: true,
        } => value.eq_ignore_ascii_case(path),
        PathMatch::Prefix {
            value,
            ignore_case: false,
        } => path.starts_with(value.as_str()),
        PathMatch::Prefix {
            value,
            ignore_case: true,
        } => path
            .get(..value.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(value)),
        PathMatch::Regex(pattern) => pattern.matches(path),
    }
}

impl Mismatch<'_> {
    /// The field of the match block, such as `uri` or `headers.x-user`.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::Path(_) => "uri".into(),
            Self::Method(_) => "method".into(),
            Self::Scheme(_) => "scheme".into(),
            Self::Authority(_) => "authority".into(),
            Self::Header(condition) if condition.invert => format!("withoutHeaders.{}", condition.name),
            Self::Header(condition) => format!("headers.{}", condition.name),
            Self::Query(condition) => format!("queryParams.{}", condition.name),
            Self::Claim(condition) if condition.invert => {
                format!("withoutHeaders.@request.auth.claims.{}", condition.path.join("."))
            }
            Self::Claim(condition) => format!("headers.@request.auth.claims.{}", condition.path.join(".")),
        }
    }

    /// What the condition asked for, in words.
    #[must_use]
    pub fn expected(&self) -> String {
        match self {
            Self::Path(condition) => describe_path(condition),
            Self::Method(condition) | Self::Scheme(condition) | Self::Authority(condition) => {
                condition.to_string()
            }
            Self::Header(condition) if condition.invert => format!("not {}", condition.value),
            Self::Claim(condition) if condition.invert => format!("not {}", condition.value),
            Self::Header(condition) => condition.value.to_string(),
            Self::Query(condition) => condition.value.to_string(),
            Self::Claim(condition) => condition.value.to_string(),
        }
    }

    /// What the request had instead, in words.
    #[must_use]
    pub fn actual(&self, request: &RequestView<'_>) -> String {
        match self {
            Self::Path(_) => format!("{:?}", request.path()),
            Self::Method(_) => format!("{:?}", request.method),
            Self::Scheme(_) => format!("{:?}", request.scheme),
            Self::Authority(_) => format!("{:?}", request.authority),
            Self::Header(condition) => {
                let values: Vec<_> = header::values(condition, request)
                    .map(|value| format!("{value:?}"))
                    .collect();
                if values.is_empty() {
                    "absent".into()
                } else {
                    values.join(" and ")
                }
            }
            Self::Query(condition) => query::first_value(request.query(), &condition.name)
                .map_or_else(|| "absent".into(), |value| format!("{value:?}")),
            Self::Claim(condition) => claim::text(condition, request.claims),
        }
    }
}

fn describe_path(condition: &PathMatch) -> String {
    let (text, ignore_case) = match condition {
        PathMatch::Any => ("any path".into(), false),
        PathMatch::Exact { value, ignore_case } => (format!("exact {value:?}"), *ignore_case),
        PathMatch::Prefix { value, ignore_case } => (format!("prefix {value:?}"), *ignore_case),
        PathMatch::Regex(pattern) => (format!("regex {:?}", pattern.source()), false),
    };
    if ignore_case {
        format!("{text} in any case")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::Pattern;
    use http::{HeaderMap, HeaderName};

    #[track_caller]
    fn check_path(condition: &PathMatch, path_and_query: &str, expected: bool) {
        let headers = HeaderMap::new();
        let request = view(path_and_query, &headers);
        let matcher = RouteMatch {
            path: condition.clone(),
            ..RouteMatch::any()
        };
        assert_eq!(
            check(&matcher, &Head::new(&request)).is_ok(),
            expected,
            "{condition:?} against {path_and_query}"
        );
    }

    fn view<'r>(path_and_query: &'r str, headers: &'r HeaderMap) -> RequestView<'r> {
        RequestView {
            authority: "a.com:99",
            path_and_query,
            method: "get",
            scheme: "http",
            headers,
            claims: None,
        }
    }

    fn prefix(value: &str, ignore_case: bool) -> PathMatch {
        PathMatch::Prefix {
            value: value.into(),
            ignore_case,
        }
    }

    #[test]
    fn a_prefix_is_plain_text() {
        check_path(&prefix("/foo", false), "/foobar", true);
        check_path(&prefix("/foo", false), "/foo?x", true);
        check_path(&prefix("/foo", false), "/FOO", false);
        check_path(&prefix("/foo", true), "/FOObar", true);
        check_path(&prefix("/foo", true), "/fo", false);
        check_path(&prefix("/\u{e4}", true), "/abc", false);
    }

    #[test]
    fn the_path_is_compared_without_the_query() {
        let exact = PathMatch::Exact {
            value: "/foo".into(),
            ignore_case: false,
        };
        check_path(&exact, "/foo?x=1", true);
        check_path(&exact, "/foo/", false);
        let regex = PathMatch::Regex(Pattern::new("/rf/b").unwrap());
        check_path(&regex, "/rf/b?x=1", true);
        check_path(&regex, "/rf/bc", false);
    }

    #[test]
    fn the_first_failing_condition_is_named_with_what_was_expected_and_found() {
        let exact = |text: &str| Some(StringMatch::Exact(text.into()));
        let any = RouteMatch::any;
        let header = |invert| HeaderMatch {
            name: HeaderName::from_static("x-user"),
            value: StringMatch::Exact("bob".into()),
            invert,
        };
        let condition = QueryMatch {
            name: "k".into(),
            value: StringMatch::Present,
        };
        let rows = [
            (
                RouteMatch {
                    method: exact("GET"),
                    ..any()
                },
                "method",
                r#"exact "GET""#,
                r#""get""#,
            ),
            (
                RouteMatch {
                    scheme: exact("https"),
                    ..any()
                },
                "scheme",
                r#"exact "https""#,
                r#""http""#,
            ),
            (
                RouteMatch {
                    authority: exact("a.com"),
                    ..any()
                },
                "authority",
                r#"exact "a.com""#,
                r#""a.com:99""#,
            ),
            (
                RouteMatch {
                    path: prefix("/b", true),
                    ..any()
                },
                "uri",
                r#"prefix "/b" in any case"#,
                r#""/a""#,
            ),
            (
                RouteMatch {
                    headers: vec![header(false)],
                    ..any()
                },
                "headers.x-user",
                r#"exact "bob""#,
                "absent",
            ),
            (
                RouteMatch {
                    query: vec![condition],
                    ..any()
                },
                "queryParams.k",
                "present",
                "absent",
            ),
        ];
        let headers = HeaderMap::new();
        let request = view("/a", &headers);
        for (matcher, field, expected, actual) in rows {
            let mismatch = check(&matcher, &Head::new(&request)).unwrap_err();
            assert_eq!(mismatch.field(), field);
            assert_eq!(mismatch.expected(), expected);
            assert_eq!(mismatch.actual(&request), actual);
        }
    }
}
