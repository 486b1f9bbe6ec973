//! What only shows when all objects are seen together, as `istioctl analyze` finds it. All of it is worth a warning:
//! Istio accepts such objects, and they may be complete a moment later.

use std::collections::{BTreeSet, HashMap, HashSet};

use edge_config::istio::virtual_service::http::{HttpMatchRequest, HttpRoute};
use edge_config::istio::virtual_service::{L4MatchAttributes, TcpRoute, VirtualService};
use edge_model::HostPattern;

use super::Ports;
use super::context::Context;
use super::endpoints::{Workloads, has_all};
use super::gateways::{BoundServer, PortServers};
use super::input::{Input, Item};
use super::matcher;
use super::names::gateway_key;
use super::report::Report;

/// Looks for references that lead nowhere and for rules without effect.
pub(crate) fn analyze(
    input: &Input<'_>,
    ports: &Ports<'_>,
    workloads: &Workloads<'_>,
    context: &Context<'_, '_>,
    report: &mut Report,
) {
    let known: HashSet<_> = input.gateways.iter().map(Item::key).collect();
    let mut servers: HashMap<String, Vec<&BoundServer<'_>>> = HashMap::new();
    for server in ports.values().flat_map(PortServers::servers) {
        servers.entry(server.gateway_key()).or_default().push(server);
    }
    let delegates: HashSet<_> = input.virtual_services.iter().flat_map(delegates_of).collect();
    for object in &input.virtual_services {
        gateways_exist(object, &known, report);
        is_of_use(object, &delegates, report);
        hosts_are_taken(object, &servers, report);
        rules_are_reachable(object, report);
        if object
            .spec
            .http
            .iter()
            .map(|rule| rule.r#match.len())
            .sum::<usize>()
            > 1
        {
            blocks_are_effective(object, report);
        }
        tcp_rules_are_reachable(object, report);
    }
    destination_rules_have_a_service(context, report);
    services_have_slices(input, workloads, context, report);
}

/// Namespaces and names of the VirtualServices that another one leaves rules to.
fn delegates_of<'t>(object: &'t Item<'_, VirtualService>) -> impl Iterator<Item = (&'t str, &'t str)> {
    let named = object.spec.http.iter().filter_map(|rule| rule.delegate.as_ref());
    named.map(|delegate| {
        let namespace = match delegate.namespace.as_str() {
            "" => object.namespace(),
            other => other,
        };
        (namespace, delegate.name.as_str())
    })
}

/// A VirtualService has an effect at a Gateway that it names, or in the place of the rule that names it.
fn is_of_use(object: &Item<'_, VirtualService>, delegates: &HashSet<(&str, &str)>, report: &mut Report) {
    if !object.spec.gateways.iter().all(|name| name == "mesh") {
        return;
    }
    if !object.spec.hosts.is_empty() {
        let message = "the VirtualService names no Gateway and has no effect here";
        let hint = "name a Gateway, such as istio-system/public";
        report.warn(object, "spec.gateways", message, hint);
    } else if !delegates.contains(&(object.namespace(), object.meta.name.as_str())) {
        let message = "a VirtualService without hosts is for others to delegate to, and none does";
        let hint = "name it in spec.http[].delegate of another one, or give it hosts and gateways";
        report.warn(object, "spec.hosts", message, hint);
    }
}

fn gateways_exist(object: &Item<'_, VirtualService>, known: &HashSet<String>, report: &mut Report) {
    for (index, name) in object.spec.gateways.iter().enumerate() {
        let key = gateway_key(name, object.namespace());
        if name != "mesh" && !known.contains(&key) {
            let message = format!("there is no Gateway {key}");
            report.warn(
                object,
                format!("spec.gateways[{index}]"),
                message,
                "write [namespace/]name of a Gateway",
            );
        }
    }
}

fn hosts_are_taken(
    object: &Item<'_, VirtualService>,
    servers: &HashMap<String, Vec<&BoundServer<'_>>>,
    report: &mut Report,
) {
    let names = object.spec.gateways.iter();
    let keys: HashSet<_> = names.map(|name| gateway_key(name, object.namespace())).collect();
    let own: Vec<_> = keys.iter().filter_map(|key| servers.get(key)).flatten().collect();
    if own.is_empty() {
        return;
    }
    for (index, text) in object.spec.hosts.iter().enumerate() {
        let Ok(host) = HostPattern::parse(text) else {
            continue;
        };
        if !own.iter().any(|server| server.takes(&host, object.namespace())) {
            let message = format!(
                "no server of its Gateways takes {host} from namespace {}",
                object.namespace()
            );
            let hint = "compare it with spec.servers[].hosts of the Gateways";
            report.warn(object, format!("spec.hosts[{index}]"), message, hint);
        }
    }
}

/// Everything behind a rule or block that takes every request at every Gateway is never looked at.
fn rules_are_reachable(object: &Item<'_, VirtualService>, report: &mut Report) {
    let mut taken_by: Option<String> = None;
    for (index, rule) in object.spec.http.iter().enumerate() {
        let field = format!("spec.http[{index}]");
        if let Some(earlier) = &taken_by {
            let message = format!("unreachable: {earlier} takes every request before");
            report.warn(object, field, message, "put the rule before it, or remove it");
            continue;
        }
        let Some(number) = catch_all_block(object, rule) else {
            continue;
        };
        let name = if rule.r#match.is_empty() {
            field.clone()
        } else {
            format!("{field}.match[{number}]")
        };
        for later in number + 1..rule.r#match.len() {
            let message = format!("unreachable: {name} takes every request before");
            report.warn(
                object,
                format!("{field}.match[{later}]"),
                message,
                "remove one of the two",
            );
        }
        taken_by = Some(name);
    }
}

/// The first block that takes every request wherever the VirtualService applies; 0 for a rule without blocks.
fn catch_all_block(object: &Item<'_, VirtualService>, rule: &HttpRoute) -> Option<usize> {
    if rule.r#match.is_empty() {
        return Some(0);
    }
    let is_everywhere = |block: &HttpMatchRequest| {
        block.port == 0
            && block.gateways.is_empty()
            && block.source_labels.is_empty()
            && block.source_namespace.is_empty()
    };
    rule.r#match.iter().position(|block| {
        // What cannot be translated has been reported by then.
        let matcher = || matcher::route_match(object, "", block, &mut Report::default());
        is_everywhere(block) && has_any_path(block) && matcher().is_some_and(|matcher| matcher.is_catch_all())
    })
}

/// Whether the path is no reason against [`RouteMatch::is_catch_all`](edge_model::RouteMatch::is_catch_all): most
/// blocks have one, and need not be translated for it.
fn has_any_path(block: &HttpMatchRequest) -> bool {
    block.uri.as_ref().is_none_or(|uri| {
        let is_any = match (&uri.prefix, &uri.regex) {
            (Some(prefix), _) => prefix == "/",
            (None, Some(regex)) => regex == ".*",
            (None, None) => true,
        };
        uri.exact.is_none() && is_any
    })
}

/// Blocks that come after one for the same requests, or for all those whose path begins so (istioctl's
/// `VirtualServiceIneffectiveMatch`).
fn blocks_are_effective(object: &Item<'_, VirtualService>, report: &mut Report) {
    let rules = object.spec.http.iter().enumerate();
    let blocks = rules.flat_map(|(index, rule)| {
        let blocks = rule.r#match.iter().enumerate();
        blocks.map(move |(number, block)| (format!("spec.http[{index}].match[{number}]"), block))
    });
    let mut seen = Blocks::default();
    for (field, block) in blocks {
        if let Some(message) = seen.covering(block) {
            let hint = "put it before the other one, or remove it";
            report.warn(object, field.clone(), format!("unreachable: {message}"), hint);
        }
        seen.add(field, block);
    }
}

/// Most blocks with the same path that are compared with each other, and most lengths of prefixes that are looked up:
/// more are not written by hand.
const COMPARED: usize = 16;

/// Blocks that were seen, by their paths.
#[derive(Default)]
struct Blocks<'r> {
    by_path: HashMap<(&'static str, &'r str), Vec<(String, &'r HttpMatchRequest)>>,
    /// Prefixes of the blocks that have no other condition.
    bare: HashMap<&'r str, String>,
    lengths: BTreeSet<usize>,
}

impl<'r> Blocks<'r> {
    fn add(&mut self, field: String, block: &'r HttpMatchRequest) {
        if let (("prefix", prefix), true) = (path_of(block), has_only_path(block))
            && self.lengths.len() < COMPARED
        {
            self.lengths.insert(prefix.len());
            self.bare.entry(prefix).or_insert_with(|| field.clone());
        }
        let same_path = self.by_path.entry(path_of(block)).or_default();
        if same_path.len() < COMPARED {
            same_path.push((field, block));
        }
    }

    fn covering(&self, block: &HttpMatchRequest) -> Option<String> {
        let (kind, path) = path_of(block);
        let same_path = self.by_path.get(&(kind, path)).into_iter().flatten();
        let mut same = same_path.filter(|(_, other)| is_same(other, block));
        if let Some((field, _)) = same.next() {
            return Some(format!("{field} takes the same requests before"));
        }
        if !matches!(kind, "prefix" | "exact") || block.ignore_uri_case {
            return None;
        }
        let prefixes = self.lengths.iter().filter_map(|length| path.get(..*length));
        let mut found = prefixes.filter_map(|prefix| Some((prefix, self.bare.get(prefix)?)));
        let (prefix, field) = found.next()?;
        Some(format!(
            "{field} takes every path before that begins with {prefix:?}"
        ))
    }
}

/// The condition on the path and its text.
fn path_of(block: &HttpMatchRequest) -> (&'static str, &str) {
    let Some(uri) = &block.uri else {
        return ("any", "");
    };
    match (&uri.exact, &uri.prefix, &uri.regex) {
        (Some(exact), ..) => ("exact", exact),
        (None, Some(prefix), _) => ("prefix", prefix),
        (None, None, Some(regex)) => ("regex", regex),
        (None, None, None) => ("any", ""),
    }
}

fn is_same(a: &HttpMatchRequest, b: &HttpMatchRequest) -> bool {
    let conditions = |block: &HttpMatchRequest| HttpMatchRequest {
        name: String::new(),
        stat_prefix: String::new(),
        ..block.clone()
    };
    conditions(a) == conditions(b)
}

/// Whether nothing but the path counts, and that letter by letter.
fn has_only_path(block: &HttpMatchRequest) -> bool {
    let others = HttpMatchRequest {
        uri: None,
        name: String::new(),
        stat_prefix: String::new(),
        ..block.clone()
    };
    others == HttpMatchRequest::default()
}

/// A `tcp` rule behind one without conditions is never looked at.
fn tcp_rules_are_reachable(object: &Item<'_, VirtualService>, report: &mut Report) {
    let takes_all = |rule: &TcpRoute| {
        let is_bare = |block: &L4MatchAttributes| block.port.unwrap_or(0) == 0 && block.gateways.is_empty();
        rule.r#match.is_empty() || rule.r#match.iter().any(is_bare)
    };
    let Some(first) = object.spec.tcp.iter().position(takes_all) else {
        return;
    };
    for index in first + 1..object.spec.tcp.len() {
        let message = format!("unreachable: spec.tcp[{first}] takes every connection before");
        let hint = "put the rule before it, or remove it";
        report.warn(object, format!("spec.tcp[{index}]"), message, hint);
    }
}

fn destination_rules_have_a_service(context: &Context<'_, '_>, report: &mut Report) {
    let hosts: Vec<_> = context
        .registry
        .hosts()
        .map(|service| service.host.as_str())
        .collect();
    let known: HashSet<_> = hosts.iter().copied().collect();
    for rule in context.rules.all() {
        let is_known = match &rule.host {
            HostPattern::Exact(host) => known.contains(host.as_str()),
            pattern @ HostPattern::Suffix(_) => hosts.iter().any(|host| pattern.matches(host)),
            HostPattern::Any => true,
        };
        if !is_known {
            let message = format!("there is no service {}", rule.host);
            report.warn(
                &rule.first,
                "spec.host",
                message,
                "add the Service or ServiceEntry",
            );
        }
    }
}

/// The edge knows endpoints from EndpointSlices alone, so a Service with Pods needs one.
fn services_have_slices(
    input: &Input<'_>,
    workloads: &Workloads<'_>,
    context: &Context<'_, '_>,
    report: &mut Report,
) {
    for service in &input.services {
        let selector = &service.spec.selector;
        let is_own = has_all(&context.options.gateway_labels, selector);
        if !selector.is_empty() && !is_own && !workloads.has_slice(service) {
            let message = "no EndpointSlice belongs to the Service, it has no endpoints";
            let hint = "add one with the label kubernetes.io/service-name";
            report.warn(service, "spec.selector", message, hint);
        }
    }
}
