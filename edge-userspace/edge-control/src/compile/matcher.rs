//! Match blocks of a VirtualService as conditions of a route (istio `TranslateRouteMatch`).

use std::collections::BTreeMap;

use edge_config::istio::virtual_service::VirtualService;
use edge_config::istio::virtual_service::http::{HttpMatchRequest, StringMatch as Written};
use edge_model::{ClaimMatch, HeaderMatch, PathMatch, Pattern, QueryMatch, RouteMatch, StringMatch};
use http::HeaderName;

use super::input::Item;
use super::report::Report;

/// Keys under `headers` that have fields of their own and are ignored there (Istio `HTTPMatchRequest.headers`).
const IGNORED_HEADERS: [&str; 4] = ["uri", "scheme", "method", "authority"];

/// Beginning of a key under `headers` that stands for a claim (istio `constant.HeaderJWTClaim`).
const CLAIM_PREFIX: &str = "@request.auth.claims";

/// Translates one block. `None` when it cannot be, which the report then says.
pub(crate) fn route_match(
    object: &Item<'_, VirtualService>,
    field: &str,
    block: &HttpMatchRequest,
    report: &mut Report,
) -> Option<RouteMatch> {
    let mut translation = Translation { object, report };
    let path = translation.path(field, block);
    let mut text = |name: &str, written: &Option<Written>| match written {
        None => Some(None),
        Some(written) => translation
            .text(&format!("{field}.{name}"), Some(written))
            .map(Some),
    };
    let (method, scheme, authority) = (
        text("method", &block.method),
        text("scheme", &block.scheme),
        text("authority", &block.authority),
    );
    let headers = translation.headers(&format!("{field}.headers"), &block.headers, false);
    let without = translation.headers(&format!("{field}.withoutHeaders"), &block.without_headers, true);
    let query = translation.query(&format!("{field}.queryParams"), &block.query_params);
    let claims = translation.claims(field, block);
    let mut headers = headers?;
    headers.append(&mut without?);
    Some(RouteMatch {
        path: path?,
        method: method?,
        scheme: scheme?,
        authority: authority?,
        headers,
        query: query?,
        claims: claims?,
    })
}

struct Translation<'t, 'r> {
    object: &'t Item<'r, VirtualService>,
    report: &'t mut Report,
}

impl Translation<'_, '_> {
    fn path(&mut self, field: &str, block: &HttpMatchRequest) -> Option<PathMatch> {
        let ignore_case = block.ignore_uri_case;
        let Some(uri) = &block.uri else {
            return Some(PathMatch::Any);
        };
        if let Some(value) = uri.exact.clone() {
            Some(PathMatch::Exact { value, ignore_case })
        } else if let Some(value) = uri.prefix.clone() {
            Some(PathMatch::Prefix { value, ignore_case })
        } else if let Some(source) = &uri.regex {
            self.pattern(&format!("{field}.uri.regex"), source)
                .map(PathMatch::Regex)
        } else {
            Some(PathMatch::Any)
        }
    }

    /// An empty match, and the regex `*` (which is no RE2 expression but Istio's sign for it), ask only for presence.
    fn text(&mut self, field: &str, written: Option<&Written>) -> Option<StringMatch> {
        let Some(written) = written else {
            return Some(StringMatch::Present);
        };
        if let Some(value) = written.exact.clone() {
            Some(StringMatch::Exact(value))
        } else if let Some(value) = written.prefix.clone() {
            Some(StringMatch::Prefix(value))
        } else {
            match written.regex.as_deref() {
                None | Some("*") => Some(StringMatch::Present),
                Some(source) => self
                    .pattern(&format!("{field}.regex"), source)
                    .map(StringMatch::Regex),
            }
        }
    }

    fn pattern(&mut self, field: &str, source: &str) -> Option<Pattern> {
        Pattern::new(source)
            .map_err(|error| {
                self.report
                    .error(self.object, field, error.to_string(), "see RE2's syntax")
            })
            .ok()
    }

    fn headers(
        &mut self,
        field: &str,
        written: &BTreeMap<String, Option<Written>>,
        invert: bool,
    ) -> Option<Vec<HeaderMatch>> {
        let conditions = written
            .iter()
            .filter(|(key, _)| !IGNORED_HEADERS.contains(&key.as_str()) && !key.starts_with(CLAIM_PREFIX));
        conditions
            .map(|(key, value)| {
                let field = format!("{field}.{key}");
                let Ok(name) = HeaderName::from_bytes(key.as_bytes()) else {
                    let message = format!("{key:?} is no header name that the edge can match");
                    self.report
                        .error(self.object, field, message, "use letters, digits and hyphens");
                    return None;
                };
                let value = self.text(&field, value.as_ref())?;
                Some(HeaderMatch { name, value, invert })
            })
            .collect()
    }

    fn claims(&mut self, field: &str, block: &HttpMatchRequest) -> Option<Vec<ClaimMatch>> {
        let wanted = block.headers.iter().map(|pair| (pair, false, "headers"));
        let unwanted = block.without_headers.iter();
        let unwanted = unwanted.map(|pair| (pair, true, "withoutHeaders"));
        let all = wanted.chain(unwanted);
        all.filter(|((key, _), ..)| key.starts_with(CLAIM_PREFIX))
            .map(|((key, value), invert, name)| {
                let field = format!("{field}.{name}.{key}");
                let Some(path) = claim_path(key) else {
                    let message = format!("{key:?} names no claim");
                    let hint = "write @request.auth.claims.name or @request.auth.claims[outer][inner]";
                    self.report.error(self.object, field, message, hint);
                    return None;
                };
                let value = self.text(&field, value.as_ref())?;
                Some(ClaimMatch { path, value, invert })
            })
            .collect()
    }

    fn query(&mut self, field: &str, written: &BTreeMap<String, Option<Written>>) -> Option<Vec<QueryMatch>> {
        written
            .iter()
            .map(|(name, value)| {
                let value = self.text(&format!("{field}.{name}"), value.as_ref())?;
                Some(QueryMatch {
                    name: name.clone(),
                    value,
                })
            })
            .collect()
    }
}

/// `.a.b` or `[a][b]` behind the prefix; in brackets a name may have dots (istio `pkg/jwt`, `ToRoutingClaim`).
fn claim_path(key: &str) -> Option<Vec<String>> {
    let rest = key.strip_prefix(CLAIM_PREFIX)?;
    let names: Vec<_> = match rest.strip_prefix('.') {
        Some(names) => names.split('.').collect(),
        None => rest.strip_prefix('[')?.strip_suffix(']')?.split("][").collect(),
    };
    let is_name = |name: &&str| !name.is_empty() && !name.contains(['[', ']']);
    names
        .iter()
        .all(is_name)
        .then(|| names.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_named_with_dots_or_in_brackets() {
        for (key, expected) in [
            ("@request.auth.claims.sub", Some(vec!["sub"])),
            ("@request.auth.claims.a.b", Some(vec!["a", "b"])),
            ("@request.auth.claims[a.b][c]", Some(vec!["a.b", "c"])),
            ("@request.auth.claims", None),
            ("@request.auth.claims.", None),
            ("@request.auth.claims[a", None),
            ("@request.auth.claims[]", None),
        ] {
            let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect());
            assert_eq!(claim_path(key), expected, "{key}");
        }
    }
}
