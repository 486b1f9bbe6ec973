//! Header operations of rules and destinations.

use std::collections::BTreeMap;

use edge_config::istio::virtual_service::VirtualService;
use edge_config::istio::virtual_service::http::{HeaderOperations, Headers};
use edge_model::{HeaderEdit, HeaderOps, HeaderTemplate};
use http::header::HOST;
use http::{HeaderName, HeaderValue};

use super::input::Item;
use super::report::Report;

/// Header operations, and the authority that they set: to set Host or `:authority` is to rewrite the host.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    pub(crate) ops: HeaderOps,
    pub(crate) authority: Option<HeaderValue>,
}

/// Translates the `headers` of a rule or destination.
pub(crate) fn operations(
    object: &Item<'_, VirtualService>,
    field: &str,
    headers: Option<&Headers>,
    report: &mut Report,
) -> Operations {
    let mut translation = Translation { object, report };
    let request = headers.and_then(|headers| headers.request.as_ref());
    let response = headers.and_then(|headers| headers.response.as_ref());
    let (request, authority) = translation.edit(&format!("{field}.request"), request);
    let (response, _) = translation.edit(&format!("{field}.response"), response);
    Operations {
        ops: HeaderOps { request, response },
        authority,
    }
}

/// A header value with `%%` read as a percent sign; Envoy's format commands (`%REQ(name)%`) are not honoured.
///
/// # Errors
/// Says what is wrong with the text.
pub(crate) fn header_value(text: &str) -> Result<HeaderValue, String> {
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split("%%").peekable();
    while let Some(part) = parts.next() {
        if part.contains('%') {
            return Err(format!(
                "{text:?} has a % that is not written %%; format commands are not supported"
            ));
        }
        plain.push_str(part);
        if parts.peek().is_some() {
            plain.push('%');
        }
    }
    HeaderValue::from_str(&plain)
        .map_err(|_| format!("{text:?} has characters that no header value may have"))
}

struct Translation<'t, 'r> {
    object: &'t Item<'r, VirtualService>,
    report: &'t mut Report,
}

impl Translation<'_, '_> {
    fn edit(&mut self, field: &str, written: Option<&HeaderOperations>) -> (HeaderEdit, Option<HeaderValue>) {
        let Some(written) = written else {
            return (HeaderEdit::default(), None);
        };
        let (set, set_authority) = self.pairs(&format!("{field}.set"), &written.set);
        let (add, add_authority) = self.pairs(&format!("{field}.add"), &written.add);
        // Envoy removes neither Host nor what begins with a colon.
        let removable = written
            .remove
            .iter()
            .filter(|name| !is_authority(name) && !name.starts_with(':'));
        let remove = removable
            .filter_map(|name| self.name(&format!("{field}.remove"), name))
            .collect();
        (HeaderEdit { remove, set, add }, set_authority.or(add_authority))
    }

    fn pairs(
        &mut self,
        field: &str,
        written: &BTreeMap<String, String>,
    ) -> (Vec<(HeaderName, HeaderTemplate)>, Option<HeaderValue>) {
        let mut pairs = vec![];
        let mut authority = None;
        for (key, text) in written {
            let field = format!("{field}.{key}");
            let Some(value) = self.value(&field, text) else {
                continue;
            };
            if is_authority(key) {
                authority = Some(value);
            } else if let Some(name) = self.name(&field, key) {
                pairs.push((name, value.into()));
            }
        }
        (pairs, authority)
    }

    fn name(&mut self, field: &str, text: &str) -> Option<HeaderName> {
        HeaderName::from_bytes(text.as_bytes())
            .map_err(|_| {
                let message = format!("{text:?} is not a header name");
                self.report
                    .error(self.object, field, message, "use letters, digits and hyphens");
            })
            .ok()
    }

    fn value(&mut self, field: &str, text: &str) -> Option<HeaderValue> {
        // Format commands are left out, which edge_config::unsupported reports.
        if edge_config::has_format_command(text) == Ok(true) {
            return None;
        }
        header_value(text)
            .map_err(|message| {
                self.report
                    .error(self.object, field, message, "write %% for a percent sign")
            })
            .ok()
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(HOST.as_str()) || name.eq_ignore_ascii_case(":authority")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_percent_sign_is_one_and_a_single_one_is_refused() {
        for (text, expected) in [
            ("plain", Some("plain")),
            ("100%%", Some("100%")),
            ("%%%%", Some("%%")),
            ("%%a%%", Some("%a%")),
            ("50%", None),
            ("%REQ(x)%", None),
            ("a\nb", None),
        ] {
            let value = header_value(text).ok();
            assert_eq!(value.as_ref().map(|v| v.to_str().unwrap()), expected, "{text:?}");
        }
    }
}
