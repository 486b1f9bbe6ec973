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
                authority = self.authority(&field, value).or(authority);
            } else if let Some(name) = self.name(&field, key) {
                pairs.push((name, value));
            }
        }
        (pairs, authority)
    }

    /// To set Host is to rewrite it, which knows plain text alone.
    fn authority(&mut self, field: &str, value: HeaderTemplate) -> Option<HeaderValue> {
        if let HeaderTemplate::Plain(value) = value {
            return Some(value);
        }
        let message = "unsupported: a format command in the host";
        self.report
            .error(self.object, field, message, "write the host as it is");
        None
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

    fn value(&mut self, field: &str, text: &str) -> Option<HeaderTemplate> {
        HeaderTemplate::parse(text)
            .map_err(|error| {
                let message = format!("{text:?}: {error}");
                self.report
                    .error(self.object, field, message, "write %% for a percent sign")
            })
            .ok()
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(HOST.as_str()) || name.eq_ignore_ascii_case(":authority")
}
