//! Path normalisation, in Istio's four modes, which gateways apply before they match and forward.

use std::borrow::Cow;

use edge_model::{EscapedSlashes, PathNormalization, PathPolicy};

use crate::request::split_query;

/// Why a path was refused; the request is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// It does not begin with a slash and is not the `*` of OPTIONS.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// It has a NUL byte, as such or as `%00`.
    #[error("the path contains a NUL byte")]
    Nul,
    /// A percent sign that began no escape would begin one once its neighbours are decoded, as in `%%36%31`. Whoever
    /// decodes the path next would see another path than the one that was matched.
    #[error("the path contains an escape within an escape")]
    NestedEscape,
    /// It has an escaped slash or backslash, which the policy refuses.
    #[error("the path contains an escaped slash")]
    EscapedSlash,
}

/// What was made of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath<'a> {
    /// The path with its query.
    pub text: Cow<'a, str>,
    /// Whether the client is to be sent to it, because the policy asks for that where escaped slashes were decoded.
    pub redirects: bool,
}

/// Normalises a path as RFC 3986 section 6.2.2 says, and keeps the query as it is.
///
/// Escapes of unreserved characters are decoded (`%66oo` is `foo`), dot segments removed (`/a/../b` is `/b`),
/// backslashes become slashes and characters outside of ASCII are escaped, as Envoy does it. Repeated slashes and
/// other escapes, `%2f` among them, stay. The result is the path that is matched and that is sent upstream; a path
/// that is normal already is borrowed.
///
/// # Errors
/// Says which rule the path breaks.
pub fn normalize_path(path_and_query: &str) -> Result<Cow<'_, str>, InvalidPath> {
    normalize_path_by(path_and_query, PathPolicy::default()).map(|path| path.text)
}

/// The same by a policy other than Istio's default: see [`PathNormalization`] and [`EscapedSlashes`]. Escaped slashes are
/// decoded first and repeated ones merged last, as Envoy does it.
///
/// # Errors
/// Says which rule the path breaks.
pub fn normalize_path_by(path_and_query: &str, policy: PathPolicy) -> Result<NormalPath<'_>, InvalidPath> {
    let kept = |text| NormalPath {
        text: Cow::Borrowed(text),
        redirects: false,
    };
    let (path, query) = split_query(path_and_query);
    if path == "*" {
        return Ok(kept(path_and_query));
    }
    if !path.starts_with('/') {
        return Err(InvalidPath::NotAbsolute);
    }
    let merges = matches!(
        policy.normalization,
        PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes
    );
    if is_normal(path) && !(merges && path.contains("//")) {
        // A fragment is never sent in a request (RFC 9110 section 4.1); what came of one is cut off.
        let end = path.len() + query.map_or(0, |query| query.len() + 1);
        return Ok(kept(path_and_query.get(..end).unwrap_or(path)));
    }
    let slashes = match policy.normalization {
        PathNormalization::DecodeAndMergeSlashes => EscapedSlashes::UnescapeAndForward,
        PathNormalization::None | PathNormalization::Base | PathNormalization::MergeSlashes => {
            policy.escaped_slashes
        }
    };
    let (path, redirects) = match slashes {
        EscapedSlashes::Keep => (Cow::Borrowed(path), false),
        EscapedSlashes::Reject if has_escaped_slash(path) => return Err(InvalidPath::EscapedSlash),
        EscapedSlashes::Reject => (Cow::Borrowed(path), false),
        EscapedSlashes::UnescapeAndRedirect => (unescape_slashes(path), has_escaped_slash(path)),
        EscapedSlashes::UnescapeAndForward => (unescape_slashes(path), false),
    };
    let mut result = match policy.normalization {
        PathNormalization::None if is_unsafe(&path) => return Err(InvalidPath::Nul),
        PathNormalization::None => path.into_owned(),
        PathNormalization::Base
        | PathNormalization::MergeSlashes
        | PathNormalization::DecodeAndMergeSlashes => remove_dot_segments(&decode_unreserved(&path)?),
    };
    if merges {
        merge_slashes(&mut result);
    }
    if let Some(query) = query {
        result.push('?');
        result.push_str(query);
    }
    Ok(NormalPath {
        text: Cow::Owned(result),
        redirects,
    })
}

/// Whether nothing in the path can be up for change: the common case, told in one pass.
fn is_normal(path: &str) -> bool {
    !path.contains("/.")
        && path
            .bytes()
            .all(|byte| byte.is_ascii() && !matches!(byte, b'%' | b'\\' | 0))
}

/// Bytes that no mode lets through.
fn is_unsafe(path: &str) -> bool {
    path.contains('\0') || path.contains("%00")
}

fn has_escaped_slash(path: &str) -> bool {
    let bytes = path.as_bytes();
    let at = |at: usize| matches!(escape_at(bytes, at + 1), Some(b'/' | b'\\'));
    (0..bytes.len()).any(|begin| bytes.get(begin) == Some(&b'%') && at(begin))
}

/// Decodes escaped slashes and backslashes, and nothing else.
fn unescape_slashes(path: &str) -> Cow<'_, str> {
    if !has_escaped_slash(path) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let decoded = match escape_at(escape.as_bytes(), 1) {
            Some(b'/') => Some('/'),
            Some(b'\\') => Some('\\'),
            Some(_) | None => None,
        };
        out.push(decoded.unwrap_or('%'));
        rest = escape.get(if decoded.is_some() { 3 } else { 1 }..).unwrap_or("");
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Repeated slashes become one.
fn merge_slashes(path: &mut String) {
    let mut before = ' ';
    path.retain(|c| {
        let again = c == '/' && before == '/';
        before = c;
        !again
    });
}

/// Decodes escapes of unreserved characters, and writes every other byte in the one way it may stand in a path.
fn decode_unreserved(path: &str) -> Result<String, InvalidPath> {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut strays = vec![];
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            0 => return Err(InvalidPath::Nul),
            b'%' => match escape_at(bytes, at) {
                Some(0) => return Err(InvalidPath::Nul),
                Some(decoded) if is_unreserved(decoded) => {
                    out.push(char::from(decoded));
                    at += 2;
                }
                Some(_) => {
                    out.push_str(path.get(at - 1..at + 2).unwrap_or("%"));
                    at += 2;
                }
                // Envoy lets a percent sign that begins no escape through, and so do we.
                None => {
                    strays.push(out.len());
                    out.push('%');
                }
            },
            b'\\' => out.push('/'),
            _ if byte.is_ascii() => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    if strays
        .iter()
        .any(|&stray| escape_at(out.as_bytes(), stray + 1).is_some())
    {
        return Err(InvalidPath::NestedEscape);
    }
    Ok(out)
}

/// The byte that the two hex digits at `at` stand for.
fn escape_at(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |offset: usize| char::from(*bytes.get(at + offset)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 section 5.2.4 for a path that begins with a slash.
fn remove_dot_segments(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.truncate(out.rfind('/').unwrap_or(0));
                }
                if is_last {
                    out.push('/');
                }
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(rows: &[(&str, Result<&str, InvalidPath>)]) {
        for (path, expected) in rows {
            assert_eq!(normalize_path(path).as_deref(), expected.as_deref(), "{path}");
        }
    }

    #[test]
    fn dot_segments_are_removed_and_repeated_slashes_kept() {
        check(&[
            ("/a/../foo", Ok("/foo")),
            ("/a/./b", Ok("/a/b")),
            ("/a/b/..", Ok("/a/")),
            ("/a/.", Ok("/a/")),
            ("/../..", Ok("/")),
            ("/..", Ok("/")),
            ("//foo", Ok("//foo")),
            ("/a//../b", Ok("/a/b")),
            ("/a/...", Ok("/a/...")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("/", Ok("/")),
            ("*", Ok("*")),
        ]);
    }

    #[test]
    fn escapes_of_unreserved_characters_are_decoded_and_others_kept() {
        check(&[
            ("/%66oo", Ok("/foo")),
            ("/a%2fb", Ok("/a%2fb")),
            ("/a%2Fb", Ok("/a%2Fb")),
            ("/a%20b", Ok("/a%20b")),
            ("/a/%2e%2E/b", Ok("/b")),
            ("/a%2525", Ok("/a%2525")),
            ("/50%", Ok("/50%")),
            ("/50%zz", Ok("/50%zz")),
            (r"/a\..\b", Ok("/b")),
            ("/ä", Ok("/%C3%A4")),
        ]);
    }

    #[test]
    fn the_query_is_left_alone_and_a_fragment_is_cut() {
        check(&[
            ("/a/../b?x=/../%66", Ok("/b?x=/../%66")),
            ("/a?x=/../%66", Ok("/a?x=/../%66")),
            ("/a?", Ok("/a?")),
            ("/a?b#c", Ok("/a?b")),
        ]);
    }

    #[test]
    fn paths_that_two_readers_could_take_differently_are_refused() {
        check(&[
            ("/a%00b", Err(InvalidPath::Nul)),
            ("/a\0b", Err(InvalidPath::Nul)),
            ("/%%36%31", Err(InvalidPath::NestedEscape)),
            ("/%2%35", Err(InvalidPath::NestedEscape)),
            ("", Err(InvalidPath::NotAbsolute)),
            ("a/b", Err(InvalidPath::NotAbsolute)),
        ]);
    }

    #[test]
    fn istios_modes_differ_in_slashes_and_escapes() {
        use EscapedSlashes::{Keep, Reject, UnescapeAndForward, UnescapeAndRedirect};
        use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};
        for (normalization, escaped_slashes, path, expected) in [
            (None, Keep, "/a/../b//c%2f%61", Ok("/a/../b//c%2f%61")),
            (None, Keep, "/a%00", Err(InvalidPath::Nul)),
            (Base, Keep, "/a/../b//c%2f%61", Ok("/b//c%2fa")),
            (MergeSlashes, Keep, "/a/../b//c///%61?x//y", Ok("/b/c/a?x//y")),
            (MergeSlashes, Keep, "//a", Ok("/a")),
            (DecodeAndMergeSlashes, Keep, "/a%2F%2fb%5Cc", Ok("/a/b/c")),
            (DecodeAndMergeSlashes, Keep, "/a/b%2f..%2fc", Ok("/a/c")),
            (Base, Reject, "/a%2Fb", Err(InvalidPath::EscapedSlash)),
            (Base, Reject, "/a%5cb", Err(InvalidPath::EscapedSlash)),
            (Base, Reject, "/a%20b?%2f", Ok("/a%20b?%2f")),
            (Base, UnescapeAndForward, "/a%2Fb%20", Ok("/a/b%20")),
            (Base, UnescapeAndForward, "/a%252Fb", Ok("/a%252Fb")),
            (Base, UnescapeAndRedirect, "/a%2Fb", Ok("-> /a/b")),
            (Base, UnescapeAndRedirect, "/a/../b", Ok("/b")),
        ] {
            let policy = PathPolicy {
                normalization,
                escaped_slashes,
            };
            let outcome = normalize_path_by(path, policy);
            let text = outcome.map(|path| match path.redirects {
                true => format!("-> {}", path.text),
                false => path.text.into_owned(),
            });
            assert_eq!(text.as_deref(), expected.as_deref(), "{path} by {policy:?}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_is_normalised_to_itself(path in r"/(.|[%/.\\]|%2[eEfF5]|%[0-9a-f]{2}|[?#]){0,20}") {
            if let Ok(once) = normalize_path(&path) {
                prop_assert_eq!(normalize_path(&once), Ok(Cow::Borrowed(&*once)));
            }
        }

        #[test]
        fn no_text_makes_it_panic(path in r"\PC{0,60}") {
            let _ = normalize_path(&path);
        }
    }
}
