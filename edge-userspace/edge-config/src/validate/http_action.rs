//! What a rule does with a request: redirect, direct response, rewrite, header operations.

use edge_model::Pattern;

use super::{names, values};
use crate::checker::Checker;
use crate::istio::virtual_service::http::{
    HeaderOperations, Headers, HttpBody, HttpDirectResponse, HttpMatchRequest, HttpRedirect, HttpRewrite,
    HttpRoute,
};

/// Largest body of a direct response, in bytes.
const MAX_BODY: usize = 1 << 20;

/// Body of a direct response from which Istio warns, in bytes.
const LARGE_BODY: usize = 100 << 10;

pub(super) fn redirect(
    check: &mut Checker<'_>,
    path: &str,
    redirect: &HttpRedirect,
    matches: &[HttpMatchRequest],
) {
    let prefix_rewrite = redirect.prefix_rewrite.as_ref().filter(|text| !text.is_empty());
    if !redirect.uri.is_empty() && prefix_rewrite.is_some() {
        check.error(
            path,
            "uri and prefixRewrite exclude each other",
            "keep one of them",
        );
    }
    let not_prefix = |block: &HttpMatchRequest| block.uri.as_ref().is_some_and(|uri| uri.prefix.is_none());
    if prefix_rewrite.is_some() && matches.iter().any(not_prefix) {
        let hint = "match the uri by prefix, or use uri in place of prefixRewrite";
        check.error(
            &format!("{path}.prefixRewrite"),
            "the rule has matches of the uri other than by prefix",
            hint,
        );
    }
    let has_port = redirect.port.is_some() || redirect.derive_port.is_some();
    let has_text = [&redirect.uri, &redirect.authority, &redirect.scheme]
        .into_iter()
        .any(|text| !text.is_empty());
    if !has_text && !has_port && prefix_rewrite.is_none() {
        let hint = "set uri, prefixRewrite, authority, scheme or port";
        check.error(path, "the redirect leads back to where it came from", hint);
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        check.error(path, "port and derivePort exclude each other", "keep one of them");
    }
    // 0 leaves the port as it is.
    if let Some(port) = redirect.port.filter(|port| *port != 0) {
        values::port(check, &format!("{path}.port"), port);
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        let message = format!("{:?} is not a scheme of redirects", redirect.scheme);
        check.error(&format!("{path}.scheme"), message, "write http or https");
    }
    if !matches!(redirect.redirect_code, 0 | 300..=399) {
        let message = format!("{} is not a redirect status", redirect.redirect_code);
        check.error(
            &format!("{path}.redirectCode"),
            message,
            "write 301, 302, 303, 307 or 308",
        );
    }
}

pub(super) fn direct_response(check: &mut Checker<'_>, path: &str, response: &HttpDirectResponse) {
    http_status(check, &format!("{path}.status"), i64::from(response.status));
    let Some(body) = &response.body else { return };
    let field = format!("{path}.body");
    let size = match body {
        HttpBody {
            string: Some(_),
            bytes: Some(_),
        } => {
            return check.error(&field, "string and bytes exclude each other", "keep one of them");
        }
        HttpBody {
            string: Some(text), ..
        } => text.len(),
        HttpBody {
            bytes: Some(text), ..
        } => match crate::base64::decode(text) {
            Some(bytes) => bytes.len(),
            None => return check.error(&format!("{field}.bytes"), "is not Base64", "use string for text"),
        },
        HttpBody { .. } => 0,
    };
    if size > MAX_BODY {
        check.error(&field, "is larger than 1 MiB", "serve it from a backend");
    } else if size > LARGE_BODY {
        check.warn(
            &field,
            "is larger than 100 KiB",
            "every worker holds it; serve it from a backend",
        );
    }
}

/// A final status of HTTP.
pub(super) fn http_status(check: &mut Checker<'_>, field: &str, status: i64) {
    if !(200..=599).contains(&status) {
        check.error(
            field,
            format!("HTTP status {status} is not from 200 to 599"),
            "correct the status",
        );
    }
}

pub(super) fn rewrite(check: &mut Checker<'_>, path: &str, rewrite: &HttpRewrite) {
    let regex = rewrite.uri_regex_rewrite.as_ref();
    if !rewrite.uri.is_empty() && regex.is_some() {
        check.error(
            path,
            "uri and uriRegexRewrite exclude each other",
            "keep one of them",
        );
    }
    if rewrite.uri.is_empty() && rewrite.authority.is_empty() && regex.is_none() {
        check.error(
            path,
            "nothing is rewritten",
            "set uri, uriRegexRewrite or authority",
        );
    }
    let Some(regex) = regex else { return };
    let path = format!("{path}.uriRegexRewrite");
    if regex.r#match.is_empty() || regex.rewrite.is_empty() {
        let hint = "set both, as match: ^/old/(.*)$ and rewrite: /new/\\1";
        check.error(&path, "match and rewrite are both needed", hint);
    }
    if !regex.r#match.is_empty() {
        values::regex(check, &format!("{path}.match"), &regex.r#match);
    }
    let groups = Pattern::new(&regex.r#match).map(|pattern| pattern.groups());
    let highest = highest_group(&regex.rewrite);
    if groups.is_ok_and(|groups| groups < highest) {
        // RE2 refuses such a replacement with each request, and Envoy then rewrites nothing.
        let message = format!("\\{highest} refers to a group that match does not have");
        let hint = "put parentheses around the part of match that is meant";
        check.error(&format!("{path}.rewrite"), message, hint);
    }
}

/// The host of a request can be rewritten in one place of a rule only.
pub(super) fn authority(check: &mut Checker<'_>, path: &str, route: &HttpRoute) {
    let request = route
        .headers
        .as_ref()
        .and_then(|headers| headers.request.as_ref());
    let named = request.into_iter().flat_map(|request| {
        let lists = [("set", &request.set), ("add", &request.add)];
        lists
            .into_iter()
            .flat_map(|(verb, headers)| headers.keys().map(move |name| (verb, name)))
    });
    let in_headers = named
        .filter(|(_, name)| is_host(name))
        .map(|(verb, name)| format!("{path}.headers.request.{verb}.{name}"));
    let in_rewrite = route
        .rewrite
        .iter()
        .filter(|rewrite| !rewrite.authority.is_empty());
    let places = in_rewrite
        .map(|_| format!("{path}.rewrite.authority"))
        .chain(in_headers);
    for place in places.skip(1) {
        let hint = "keep one of rewrite.authority, headers.request.set and headers.request.add";
        check.error(
            &place,
            "the host is rewritten in another place of the rule, too",
            hint,
        );
    }
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// The highest of the groups `\0` to `\9` in a substitution; `\\` is a backslash.
fn highest_group(substitution: &str) -> usize {
    let mut rest = substitution.chars();
    let mut highest = 0;
    while let Some(c) = rest.next() {
        let escaped = if c == '\\' { rest.next() } else { None };
        let group = escaped.and_then(|c| c.to_digit(10)).unwrap_or(0);
        highest = highest.max(group as usize);
    }
    highest
}

/// Header operations of a rule or a destination.
pub(super) fn headers(check: &mut Checker<'_>, path: &str, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    if let Some(operations) = &headers.request {
        self::operations(check, &format!("{path}.request"), operations, true);
    }
    if let Some(operations) = &headers.response {
        self::operations(check, &format!("{path}.response"), operations, false);
    }
}

fn operations(check: &mut Checker<'_>, path: &str, operations: &HeaderOperations, is_request: bool) {
    let HeaderOperations { set, add, remove } = operations;
    for (verb, headers) in [("set", set), ("add", add)] {
        for (name, value) in headers {
            let field = format!("{path}.{verb}.{name}");
            // Setting the host of a request means to rewrite it.
            if !(is_request && is_host(name)) {
                header(check, &field, name);
            }
            header_value(check, &field, value);
        }
    }
    for (index, name) in remove.iter().enumerate() {
        header(check, &format!("{path}.remove[{index}]"), name);
    }
}

fn header(check: &mut Checker<'_>, field: &str, name: &str) {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        let hint =
            "rewrite the host with headers.request.set or rewrite.authority, the path with rewrite.uri";
        return check.error(field, format!("{name} cannot be changed here"), hint);
    }
    names::header_name(check, field, name);
}

fn header_value(check: &mut Checker<'_>, field: &str, value: &str) {
    if let Err(reason) = values::has_format_command(value) {
        check.error(
            field,
            format!("the value {reason}"),
            "write %% for a percent sign",
        );
    }
    if http::HeaderValue::from_bytes(value.as_bytes()).is_err() {
        let hint = "remove the control characters, such as line ends";
        check.error(field, "is not the value of a header", hint);
    }
}
