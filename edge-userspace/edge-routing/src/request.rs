//! The request as the matching code sees it.

use http::HeaderMap;

use crate::Claims;

/// A borrowed view of a request's head.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'r> {
    /// Host or `:authority` as the client sent it, with its port if it had one.
    pub authority: &'r str,
    /// Path and query, already passed through [`normalize_path`](crate::normalize_path).
    pub path_and_query: &'r str,
    /// Method as sent; case counts.
    pub method: &'r str,
    /// `http` or `https`.
    pub scheme: &'r str,
    /// Headers.
    pub headers: &'r HeaderMap,
    /// Claims of the request's token; `None` unless one was verified.
    pub claims: Option<&'r Claims>,
}

impl<'r> RequestView<'r> {
    /// The path without query and fragment.
    #[must_use]
    pub fn path(&self) -> &'r str {
        split_query(self.path_and_query).0
    }

    /// The query without its question mark; empty when there is none.
    #[must_use]
    pub fn query(&self) -> &'r str {
        split_query(self.path_and_query).1.unwrap_or("")
    }
}

/// A view with its path and query found once, for the many conditions that look at them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'r> {
    pub(crate) request: &'r RequestView<'r>,
    /// [`RequestView::path`].
    pub(crate) path: &'r str,
    /// [`RequestView::query`].
    pub(crate) query: &'r str,
}

impl<'r> Head<'r> {
    pub(crate) fn new(request: &'r RequestView<'r>) -> Self {
        let (path, query) = split_query(request.path_and_query);
        Self {
            request,
            path,
            query: query.unwrap_or(""),
        }
    }
}

/// Splits at the first question mark, which belongs to neither part; a fragment is cut off.
pub(crate) fn split_query(path_and_query: &str) -> (&str, Option<&str>) {
    let Some(end) = memchr::memchr2(b'?', b'#', path_and_query.as_bytes()) else {
        return (path_and_query, None);
    };
    let (path, rest) = path_and_query.split_at(end);
    let query = rest.strip_prefix('?').map(|query| {
        let end = memchr::memchr(b'#', query.as_bytes());
        end.and_then(|end| query.get(..end)).unwrap_or(query)
    });
    (path, query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_part_at_the_first_question_mark_and_lose_the_fragment() {
        for (text, path, query) in [
            ("/a?b=c", "/a", Some("b=c")),
            ("/a?b?c", "/a", Some("b?c")),
            ("/a", "/a", None),
            ("/a?", "/a", Some("")),
            ("/a#b?c", "/a", None),
            ("/a?b#c", "/a", Some("b")),
        ] {
            assert_eq!(split_query(text), (path, query), "{text}");
        }
    }
}
