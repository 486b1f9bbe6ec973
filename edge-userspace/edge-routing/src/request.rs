//! The request as the matching code sees it.

use http::HeaderMap;

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

/// Splits at the first question mark, which belongs to neither part; a fragment is cut off.
pub(crate) fn split_query(path_and_query: &str) -> (&str, Option<&str>) {
    let text = path_and_query.split('#').next().unwrap_or("");
    match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    }
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
