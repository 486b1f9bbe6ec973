//! VirtualServices whose rules stand in other ones (istio `pilot/pkg/model/virtualservice.go`,
//! `mergeVirtualServicesIfNeeded`).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use edge_config::istio::virtual_service::http::{HttpMatchRequest, HttpRoute, StringMatch};
use edge_config::istio::virtual_service::{Destination, VirtualService};

use super::input::{Input, Item};
use super::names::{gateway_key, is_visible, service_host};
use super::report::Report;

/// VirtualServices without hosts, by namespace and name.
#[derive(Debug, Default)]
pub(crate) struct Delegates<'r> {
    by_name: HashMap<&'r str, HashMap<&'r str, Item<'r, VirtualService>>>,
    cluster_domain: &'r str,
}

/// A rule as it is in force: one of the VirtualService's own, or one of a delegate's with what it inherits.
#[derive(Debug)]
pub(crate) struct EffectiveRule<'t, 'r> {
    /// Where the rule is written; its namespace resolves short names.
    pub(crate) object: Cow<'t, Item<'r, VirtualService>>,
    /// Index into that object's `http`.
    pub(crate) index: usize,
    pub(crate) spec: Cow<'r, HttpRoute>,
    /// For each match block of `spec` the index that it has in the object, if it is written there.
    pub(crate) match_indexes: Vec<Option<usize>>,
}

impl<'r> Delegates<'r> {
    pub(crate) fn new(input: &Input<'r>, cluster_domain: &'r str) -> Self {
        let delegates = input.virtual_services.iter();
        let delegates = delegates.filter(|item| item.spec.hosts.is_empty());
        let mut by_name: HashMap<_, HashMap<_, _>> = HashMap::new();
        for item in delegates {
            let of_namespace = by_name.entry(item.namespace()).or_default();
            of_namespace.insert(item.meta.name.as_str(), item.clone());
        }
        Self {
            by_name,
            cluster_domain,
        }
    }

    /// The rules of a VirtualService in their order, each delegate's in the place of the rule that names it.
    pub(crate) fn rules<'t>(
        &self,
        root: &'t Item<'r, VirtualService>,
        report: &mut Report,
    ) -> Vec<EffectiveRule<'t, 'r>> {
        let mut rules = vec![];
        for (index, spec) in root.spec.http.iter().enumerate() {
            if spec.delegate.is_none() {
                rules.push(EffectiveRule {
                    object: Cow::Borrowed(root),
                    index,
                    spec: Cow::Borrowed(spec),
                    match_indexes: (0..spec.r#match.len()).map(Some).collect(),
                });
            } else if let Some(delegate) = self.find(root, index, spec, report) {
                for (own, rule) in delegate.spec.http.iter().enumerate() {
                    rules.extend(self.merge(root, (index, spec), delegate, (own, rule), report));
                }
            }
        }
        rules
    }

    /// The delegate that a rule names; without it only this rule is left out.
    fn find<'s>(
        &'s self,
        root: &Item<'r, VirtualService>,
        index: usize,
        spec: &HttpRoute,
        report: &mut Report,
    ) -> Option<&'s Item<'r, VirtualService>> {
        let named = spec.delegate.as_ref()?;
        let namespace = match named.namespace.as_str() {
            "" => root.namespace(),
            other => other,
        };
        let field = format!("spec.http[{index}].delegate");
        let found = self
            .by_name
            .get(namespace)
            .and_then(|all| all.get(named.name.as_str()));
        let Some(delegate) = found else {
            let message = format!(
                "there is no VirtualService {namespace}/{} without hosts",
                named.name
            );
            let hint = "a delegate has neither hosts nor gateways";
            report.warn(root, field, format!("{message}, the rule is left out"), hint);
            return None;
        };
        if !is_visible(&delegate.spec.export_to, delegate.namespace(), root.namespace()) {
            let message = format!(
                "{} does not export to this namespace, the rule is left out",
                delegate.name
            );
            report.warn(root, field, message, "change exportTo of the delegate");
            return None;
        }
        Some(delegate)
    }

    /// A delegate's rule with what it inherits; `None` when their conditions contradict each other.
    fn merge<'t>(
        &self,
        root: &Item<'r, VirtualService>,
        (root_index, outer): (usize, &HttpRoute),
        delegate: &Item<'r, VirtualService>,
        (index, inner): (usize, &HttpRoute),
        report: &mut Report,
    ) -> Option<EffectiveRule<'t, 'r>> {
        if inner.delegate.is_some() {
            let message = "a delegate cannot delegate, the rule is left out";
            let field = format!("spec.http[{index}].delegate");
            report.warn(delegate, field, message, "name it in the root VirtualService");
            return None;
        }
        let outer_matches: Vec<_> = outer
            .r#match
            .iter()
            .map(|block| absolute_gateways(block, root.namespace()))
            .collect();
        let Some(matches) = merge_matches(&outer_matches, &inner.r#match) else {
            let message = format!(
                "no match block fits http[{root_index}] of {}, the rule is left out",
                root.name
            );
            let hint = "each condition must be as narrow as one of the root's";
            report.warn(delegate, format!("spec.http[{index}].match"), message, hint);
            return None;
        };
        let (match_indexes, blocks) = matches.into_iter().unzip();
        let mut spec = inherit(outer, inner, |mirror| self.absolute(mirror, root.namespace()));
        spec.r#match = blocks;
        Some(EffectiveRule {
            object: Cow::Owned(delegate.clone()),
            index,
            spec: Cow::Owned(spec),
            match_indexes,
        })
    }

    /// A destination of the root under its full name, since the delegate's namespace resolves short ones.
    fn absolute(&self, destination: &Destination, namespace: &str) -> Destination {
        Destination {
            host: service_host(&destination.host, namespace, self.cluster_domain),
            ..destination.clone()
        }
    }
}

/// What the delegate's rule leaves unset comes from the root's; names are joined.
fn inherit(
    outer: &HttpRoute,
    inner: &HttpRoute,
    absolute: impl Fn(&Destination) -> Destination,
) -> HttpRoute {
    let mut rule = inner.clone();
    rule.name = joined(&outer.name, &inner.name);
    rule.timeout = rule.timeout.or(outer.timeout);
    rule.rewrite = rule.rewrite.or_else(|| outer.rewrite.clone());
    rule.direct_response = rule.direct_response.or_else(|| outer.direct_response.clone());
    rule.retries = rule.retries.or_else(|| outer.retries.clone());
    rule.fault = rule.fault.or_else(|| outer.fault.clone());
    rule.mirror = rule.mirror.or_else(|| outer.mirror.as_ref().map(&absolute));
    rule.mirror_percent = rule.mirror_percent.or(outer.mirror_percent);
    rule.mirror_percentage = rule.mirror_percentage.or(outer.mirror_percentage);
    rule.cors_policy = rule.cors_policy.or_else(|| outer.cors_policy.clone());
    rule.headers = rule.headers.or_else(|| outer.headers.clone());
    if rule.mirrors.is_empty() {
        rule.mirrors = outer.mirrors.clone();
        for mirror in &mut rule.mirrors {
            mirror.destination = mirror.destination.as_ref().map(&absolute);
        }
    }
    rule
}

fn joined(outer: &str, inner: &str) -> String {
    match (outer, inner) {
        (outer, "") => outer.to_owned(),
        ("", inner) => inner.to_owned(),
        (outer, inner) => format!("{outer}-{inner}"),
    }
}

/// The root's block with its gateways as `namespace/name`.
fn absolute_gateways(block: &HttpMatchRequest, namespace: &str) -> HttpMatchRequest {
    HttpMatchRequest {
        gateways: block
            .gateways
            .iter()
            .map(|name| match name.as_str() {
                "mesh" => name.clone(),
                name => gateway_key(name, namespace),
            })
            .collect(),
        ..block.clone()
    }
}

/// Every block of the delegate with each of the root's that it is within. `None` when one is within none.
fn merge_matches(
    root: &[HttpMatchRequest],
    delegate: &[HttpMatchRequest],
) -> Option<Vec<(Option<usize>, HttpMatchRequest)>> {
    if root.is_empty() {
        return Some((0..).map(Some).zip(delegate.iter().cloned()).collect());
    }
    if delegate.is_empty() {
        return Some(root.iter().map(|block| (None, block.clone())).collect());
    }
    let mut merged = vec![];
    for (index, inner) in delegate.iter().enumerate() {
        let fitting = root.iter().filter(|outer| !is_conflict(outer, inner));
        let before = merged.len();
        merged.extend(fitting.map(|outer| (Some(index), merge_block(outer, inner))));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

type Conditions = BTreeMap<String, Option<StringMatch>>;

fn merge_block(outer: &HttpMatchRequest, inner: &HttpMatchRequest) -> HttpMatchRequest {
    let or = |own: &Option<StringMatch>, root: &Option<StringMatch>| own.clone().or_else(|| root.clone());
    let union = |root: &Conditions, own: &Conditions| -> Conditions {
        let all = root.iter().chain(own);
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let text = |own: &String, root: &String| if own.is_empty() { root.clone() } else { own.clone() };
    let mut source_labels = outer.source_labels.clone();
    source_labels.extend(inner.source_labels.clone());
    HttpMatchRequest {
        name: joined(&outer.name, &inner.name),
        uri: or(&inner.uri, &outer.uri),
        scheme: or(&inner.scheme, &outer.scheme),
        method: or(&inner.method, &outer.method),
        authority: or(&inner.authority, &outer.authority),
        headers: union(&outer.headers, &inner.headers),
        without_headers: union(&outer.without_headers, &inner.without_headers),
        query_params: union(&outer.query_params, &inner.query_params),
        port: if inner.port == 0 { outer.port } else { inner.port },
        source_labels,
        source_namespace: text(&inner.source_namespace, &outer.source_namespace),
        gateways: if inner.gateways.is_empty() {
            outer.gateways.clone()
        } else {
            inner.gateways.clone()
        },
        stat_prefix: text(&inner.stat_prefix, &outer.stat_prefix),
        ignore_uri_case: inner.ignore_uri_case,
    }
}

/// Whether the inner block can match what the outer one does not (istio `hasConflict`).
fn is_conflict(outer: &HttpMatchRequest, inner: &HttpMatchRequest) -> bool {
    let texts = [
        (&outer.uri, &inner.uri),
        (&outer.scheme, &inner.scheme),
        (&outer.method, &inner.method),
        (&outer.authority, &inner.authority),
    ];
    let maps = [
        (&outer.headers, &inner.headers),
        (&outer.without_headers, &inner.without_headers),
        (&outer.query_params, &inner.query_params),
    ];
    let is_text_conflict = |(outer, inner): &(&Option<StringMatch>, &Option<StringMatch>)| {
        is_wider(outer.as_ref(), inner.as_ref())
    };
    let is_map_conflict = |(outer, inner): &(&Conditions, &Conditions)| {
        let shared = inner.iter().filter_map(|(key, own)| Some((outer.get(key)?, own)));
        let mut shared = shared.into_iter();
        shared.any(|(outer, inner)| is_wider(outer.as_ref(), inner.as_ref()))
    };
    let is_label_conflict = inner.source_labels.iter().any(|(key, value)| {
        let outer = outer.source_labels.get(key);
        outer.is_some_and(|outer| outer != value)
    });
    let is_gateway_conflict = !outer.gateways.is_empty()
        && !inner.gateways.is_empty()
        && inner.gateways.iter().any(|name| !outer.gateways.contains(name));
    texts.iter().any(is_text_conflict)
        || maps.iter().any(is_map_conflict)
        || outer.ignore_uri_case != inner.ignore_uri_case
        || (outer.port != 0 && inner.port != 0 && outer.port != inner.port)
        || (!outer.source_namespace.is_empty() && outer.source_namespace != inner.source_namespace)
        || is_label_conflict
        || is_gateway_conflict
}

/// Whether the inner condition lets something through that the outer one does not (istio `stringMatchConflict`). Of
/// regular expressions nobody can tell.
fn is_wider(outer: Option<&StringMatch>, inner: Option<&StringMatch>) -> bool {
    let (Some(outer), Some(inner)) = (outer, inner) else {
        return false;
    };
    let of = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (outer_exact, outer_prefix) = (of(&outer.exact), of(&outer.prefix));
    let (inner_exact, inner_prefix) = (of(&inner.exact), of(&inner.prefix));
    match (outer_exact, outer_prefix) {
        (Some(exact), _) => inner_exact != Some(exact),
        (None, Some(prefix)) => !inner_prefix
            .or(inner_exact)
            .is_some_and(|own| own.starts_with(&prefix)),
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> StringMatch {
        StringMatch {
            exact: Some(text.into()),
            ..StringMatch::default()
        }
    }

    fn prefix(text: &str) -> StringMatch {
        StringMatch {
            prefix: Some(text.into()),
            ..StringMatch::default()
        }
    }

    fn regex(text: &str) -> StringMatch {
        StringMatch {
            regex: Some(text.into()),
            ..StringMatch::default()
        }
    }

    #[test]
    fn an_inner_condition_must_be_within_the_outer_one() {
        for (outer, inner, expected) in [
            (Some(prefix("/a")), Some(prefix("/a/b")), false),
            (Some(prefix("/a/b")), Some(prefix("/a")), true),
            (Some(prefix("/a")), Some(exact("/a/b")), false),
            (Some(prefix("/a")), Some(exact("/b")), true),
            (Some(exact("/a")), Some(exact("/a")), false),
            (Some(exact("/a")), Some(exact("/b")), true),
            (Some(exact("/a")), Some(prefix("/a")), true),
            (Some(regex("a")), Some(exact("a")), true),
            (Some(prefix("/a")), Some(regex("/a.*")), true),
            (None, Some(regex("a")), false),
            (Some(exact("/a")), None, false),
        ] {
            assert_eq!(
                is_wider(outer.as_ref(), inner.as_ref()),
                expected,
                "{outer:?} {inner:?}"
            );
        }
    }

    #[test]
    fn blocks_of_root_and_delegate_are_combined() {
        let block = |uri: Option<StringMatch>, method: Option<StringMatch>| HttpMatchRequest {
            uri,
            method,
            ..HttpMatchRequest::default()
        };
        let root = [block(Some(prefix("/a")), None), block(Some(prefix("/b")), None)];
        let own = [block(Some(prefix("/a/x")), None), block(None, Some(exact("GET")))];
        let merged = merge_matches(&root, &own).unwrap();
        let indexes: Vec<_> = merged.iter().map(|(index, _)| *index).collect();
        assert_eq!(indexes, [Some(0), Some(1), Some(1)]);
        assert_eq!(merged[2].1.uri, Some(prefix("/b")));
        assert!(merge_matches(&root, &[block(Some(prefix("/c")), None)]).is_none());
    }
}
