//! What a rule does: forward, redirect, or answer by itself.

use bytes::Bytes;
use edge_config::base64;
use edge_config::istio::virtual_service::http::{
    DerivePort, HttpBody, HttpDirectResponse, HttpRedirect, HttpRewrite, HttpRoute, HttpRouteDestination,
};
use edge_config::istio::virtual_service::{Destination, VirtualService};
use edge_model::{
    ClusterName, DirectResponse, Forward, Pattern, Redirect, RedirectPath, RedirectPort, Rewrite,
    RewritePath, RouteAction, WeightedDestination,
};
use http::header::HOST;
use http::{HeaderValue, StatusCode};

use super::context::Context;
use super::headers;
use super::input::Item;
use super::names::service_host;
use super::registry::Service;
use super::report::Report;
use super::route_policy;

/// A rule and where it stands.
pub(crate) struct Rule<'t, 'r> {
    pub(crate) object: &'t Item<'r, VirtualService>,
    /// `spec.http[<index>]`.
    pub(crate) field: String,
    pub(crate) spec: &'t HttpRoute,
    /// Port that the Gateway declares: the default port of destinations, and the port that clients connect to.
    pub(crate) port: u16,
}

/// What a destination is read against.
pub(crate) struct Place<'t, 'r> {
    pub(crate) object: &'t Item<'r, VirtualService>,
    /// Port that the Gateway declares.
    pub(crate) port: u16,
}

impl<'t, 'r> Rule<'t, 'r> {
    pub(crate) fn place(&self) -> Place<'t, 'r> {
        Place {
            object: self.object,
            port: self.port,
        }
    }
}

/// Translates a rule's action. `authority` is what the rule's header operations set. `None` when it cannot be done,
/// which the report then says.
pub(crate) fn action(
    rule: &Rule<'_, '_>,
    authority: Option<HeaderValue>,
    context: &Context<'_, '_>,
    report: &mut Report,
) -> Option<RouteAction> {
    if let Some(written) = &rule.spec.redirect {
        match redirect_code(written) {
            Some(code) => redirect(rule, written, code, report).map(RouteAction::Redirect),
            // Istio gives such a route no action at all (istio `ApplyRedirect`).
            None => Some(RouteAction::DirectResponse(DirectResponse {
                status: StatusCode::NOT_FOUND,
                body: Bytes::new(),
            })),
        }
    } else if let Some(written) = &rule.spec.direct_response {
        direct_response(rule, written, report).map(RouteAction::DirectResponse)
    } else {
        forward(rule, authority, context, report).map(RouteAction::Forward)
    }
}

/// The status of a redirect; `None` for one that Istio does not have.
fn redirect_code(written: &HttpRedirect) -> Option<StatusCode> {
    match written.redirect_code {
        0 | 301 => Some(StatusCode::MOVED_PERMANENTLY),
        302 => Some(StatusCode::FOUND),
        303 => Some(StatusCode::SEE_OTHER),
        307 => Some(StatusCode::TEMPORARY_REDIRECT),
        308 => Some(StatusCode::PERMANENT_REDIRECT),
        _ => None,
    }
}

fn redirect(
    rule: &Rule<'_, '_>,
    written: &HttpRedirect,
    code: StatusCode,
    report: &mut Report,
) -> Option<Redirect> {
    let field = format!("{}.redirect", rule.field);
    let text = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
    Some(Redirect {
        code,
        scheme: text(&written.scheme),
        authority: text(&written.authority),
        port: match (written.port, written.derive_port) {
            (Some(port), _) => {
                RedirectPort::Number(port_number(rule.object, &format!("{field}.port"), port, report)?)
            }
            (None, Some(DerivePort::FromProtocolDefault)) => RedirectPort::ProtocolDefault,
            (None, Some(DerivePort::FromRequestPort)) => RedirectPort::Number(rule.port),
            (None, None) => RedirectPort::Unchanged,
        },
        path: match (&written.prefix_rewrite, written.uri.is_empty()) {
            (Some(prefix), _) => RedirectPath::Prefix(prefix.clone()),
            (None, false) => RedirectPath::Whole(written.uri.clone()),
            (None, true) => RedirectPath::Unchanged,
        },
    })
}

fn direct_response(
    rule: &Rule<'_, '_>,
    written: &HttpDirectResponse,
    report: &mut Report,
) -> Option<DirectResponse> {
    let field = format!("{}.directResponse", rule.field);
    let status = u16::try_from(written.status)
        .ok()
        .filter(|status| (200..600).contains(status));
    let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) else {
        let message = format!("{} is no status of a response", written.status);
        report.error(
            rule.object,
            format!("{field}.status"),
            message,
            "use a status from 200 to 599",
        );
        return None;
    };
    let body = match &written.body {
        Some(body) => direct_body(rule, &format!("{field}.body"), body, report)?,
        None => vec![],
    };
    Some(DirectResponse {
        status,
        body: body.into(),
    })
}

/// The bytes of a body: as they are in `string`, or by Base64 in `bytes`.
fn direct_body(rule: &Rule<'_, '_>, field: &str, written: &HttpBody, report: &mut Report) -> Option<Vec<u8>> {
    let Some(encoded) = &written.bytes else {
        return Some(written.string.clone().unwrap_or_default().into_bytes());
    };
    let bytes = base64::decode(encoded);
    if bytes.is_none() {
        let hint = "use string for text";
        report.error(rule.object, format!("{field}.bytes"), "is not Base64", hint);
    }
    bytes
}

fn forward(
    rule: &Rule<'_, '_>,
    authority: Option<HeaderValue>,
    context: &Context<'_, '_>,
    report: &mut Report,
) -> Option<Forward> {
    let destinations: Option<Vec<_>> = (0..)
        .zip(&rule.spec.route)
        .map(|(index, written)| destination(rule, index, written, context, report))
        .collect();
    let destinations = destinations?;
    if destinations.iter().all(|destination| destination.weight == 0) {
        let message = if destinations.is_empty() {
            "the rule has neither route nor redirect nor directResponse"
        } else {
            "no destination has a weight, nothing can be forwarded"
        };
        report.error(
            rule.object,
            format!("{}.route", rule.field),
            message,
            "name a destination with a weight",
        );
        return None;
    }
    let mut rewrite = match &rule.spec.rewrite {
        Some(written) => rewrite(rule, written, report)?,
        None => Rewrite::default(),
    };
    rewrite.authority = rewrite.authority.or(authority);
    let is_hashed = destinations
        .iter()
        .any(|destination| context.is_hashed(&destination.cluster, rule.object.namespace()));
    Some(Forward {
        rewrite,
        retries: route_policy::retries(rule, is_hashed, context.retries, report),
        mirrors: route_policy::mirrors(rule, context, report),
        timeout: rule
            .spec
            .timeout
            .map(|timeout| timeout.0)
            .filter(|timeout| !timeout.is_zero()),
        ..Forward::to(destinations)
    })
}

fn destination(
    rule: &Rule<'_, '_>,
    index: usize,
    written: &HttpRouteDestination,
    context: &Context<'_, '_>,
    report: &mut Report,
) -> Option<WeightedDestination> {
    let field = format!("{}.route[{index}]", rule.field);
    let Some(named) = &written.destination else {
        report.error(
            rule.object,
            format!("{field}.destination"),
            "a destination is needed",
            "name a service",
        );
        return None;
    };
    let cluster = cluster_name(
        &rule.place(),
        &format!("{field}.destination"),
        named,
        context,
        report,
    )?;
    let operations = headers::operations(
        rule.object,
        &format!("{field}.headers"),
        written.headers.as_ref(),
        report,
    );
    let mut ops = operations.ops;
    ops.request
        .set
        .extend(operations.authority.map(|authority| (HOST, authority.into())));
    // A single destination takes everything, whatever its weight. One of several keeps its 0, because the number of
    // destinations decides the order of header operations.
    let is_single = rule.spec.route.len() == 1;
    let weight = if is_single {
        100
    } else {
        u32::try_from(written.weight).unwrap_or(0)
    };
    Some(WeightedDestination {
        cluster,
        weight,
        headers: ops,
    })
}

/// The cluster of a destination. The port of a service with a single one need not be written; for another service it
/// is that of the Gateway's server (istio `GetDestinationCluster`).
pub(crate) fn cluster_name(
    place: &Place<'_, '_>,
    field: &str,
    named: &Destination,
    context: &Context<'_, '_>,
    report: &mut Report,
) -> Option<ClusterName> {
    let namespace = place.object.namespace();
    let host = service_host(&named.host, namespace, &context.options.cluster_domain);
    let service = context.registry.find(&host, namespace);
    let port = match (named.port, service.map(|service| service.ports.as_slice())) {
        (Some(port), _) => port_number(place.object, &format!("{field}.port.number"), port.number, report)?,
        (None, Some([only])) => only.number,
        (None, _) => place.port,
    };
    if let Some((part, message, hint)) = why_missing(&host, port, &named.subset, service, context) {
        report.warn(
            place.object,
            format!("{field}.{part}"),
            format!("{message}: requests get 503 (NC)"),
            hint,
        );
    }
    Some(context.clusters.outbound(port, &named.subset, &host))
}

/// Why a destination has no cluster: the part of it that names something unknown, what, and what to do.
fn why_missing(
    host: &str,
    port: u16,
    subset: &str,
    service: Option<&Service<'_>>,
    context: &Context<'_, '_>,
) -> Option<(&'static str, String, &'static str)> {
    let Some(service) = service else {
        let message = format!("there is no service {host}");
        return Some(("host", message, "add the Service or ServiceEntry"));
    };
    if !service.ports.iter().any(|own| own.number == port) {
        let message = format!("service {host} has no port {port}");
        return Some(("port", message, "name one of its ports"));
    }
    let rule = context.rules.find(host, service.namespace);
    let has_subset = rule.is_some_and(|rule| rule.subsets.contains_key(subset));
    (!subset.is_empty() && !has_subset).then(|| {
        let message = format!("{host} has no subset {subset:?}");
        ("subset", message, "add it to the DestinationRule")
    })
}

fn rewrite(rule: &Rule<'_, '_>, written: &HttpRewrite, report: &mut Report) -> Option<Rewrite> {
    let field = format!("{}.rewrite", rule.field);
    let path = match (&written.uri_regex_rewrite, written.uri.is_empty()) {
        (Some(regex), _) => {
            let pattern = Pattern::new(&regex.r#match).map_err(|error| {
                let field = format!("{field}.uriRegexRewrite.match");
                report.error(rule.object, field, error.to_string(), "see RE2's syntax");
            });
            let substitution = regex.rewrite.clone();
            let pattern = pattern.ok()?;
            Some(RewritePath::Regex {
                pattern,
                substitution,
            })
        }
        (None, false) => Some(RewritePath::Uri(written.uri.clone())),
        (None, true) => None,
    };
    let authority = match written.authority.as_str() {
        "" => None,
        text => match HeaderValue::from_str(text) {
            Ok(value) => Some(value),
            Err(_) => {
                let message = format!("{text:?} is no host");
                report.error(
                    rule.object,
                    format!("{field}.authority"),
                    message,
                    "write a host, with a port if needed",
                );
                return None;
            }
        },
    };
    Some(Rewrite { path, authority })
}

fn port_number(
    object: &Item<'_, VirtualService>,
    field: &str,
    number: u32,
    report: &mut Report,
) -> Option<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    if port.is_none() {
        report.error(
            object,
            field,
            format!("{number} is no port"),
            "use a number from 1 to 65535",
        );
    }
    port
}
