//! The words of an explanation: what was decided at each step, and what came of it.

use std::sync::Arc;

use edge_model::{ClusterName, Route, RouteAction, Snapshot, TcpRoute, TlsServer, TlsService, VirtualHost};
use serde::Serialize;

use crate::predicate::Mismatch;
use crate::{Decision, RequestView, Table, explain_route};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is forwarded.
    Route,
    /// The bytes of its connection are forwarded, whatever they are.
    Forward,
    /// It is refused with 403, or its connection closed: a security policy that cannot be enforced selects the edge.
    Refused,
    /// It is answered with a route's redirect.
    Redirect,
    /// It is answered with a route's fixed response.
    DirectResponse,
    /// It is redirected to `https` because the server says `httpsRedirect`.
    TlsRedirect,
    /// No listener, or no TLS server of the listener, takes the connection.
    NoListener,
    /// No virtual host takes the request's host: 404.
    NoVirtualHost,
    /// No route of the virtual host matches, or the path is malformed: 404, or 400.
    NoRoute,
    /// Every cluster of the route is missing: 503, flag NC.
    NoCluster,
}

/// The decision about a request, and how it came about. Serialised, it is what `edge explain request --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What becomes of the request.
    pub outcome: Outcome,
    /// Name of the listener, such as `0.0.0.0_80`.
    pub listener: Option<String>,
    /// Name of the route table, such as `http.80`.
    pub route_config: Option<String>,
    /// Name of the virtual host, such as `a.com:80`.
    pub virtual_host: Option<String>,
    /// Name of the route, or `http[<rule>].match[<index>]` for one without a name.
    pub route: Option<String>,
    /// VirtualService that the route comes from.
    pub object: Option<String>,
    /// Clusters of the route with a share of its requests.
    pub clusters: Vec<ClusterShare>,
    /// What was decided at each step, in order.
    pub trace: Vec<TraceStep>,
}

/// A cluster and its share of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterShare {
    /// Name, such as `outbound|80|v1|web.shop.svc.cluster.local`.
    pub name: String,
    /// Share relative to the other clusters of the route.
    pub weight: u32,
    /// Addresses of its ready endpoints; `None` when there is no such cluster.
    pub endpoints: Option<Vec<String>>,
}

/// What a [`TraceStep`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The port.
    Listener,
    /// The TLS handshake.
    Tls,
    /// A security policy.
    Policy,
    /// The path's normalisation.
    Path,
    /// The choice of the virtual host.
    VirtualHost,
    /// A route that was looked at.
    Route,
    /// The route's rate limit.
    RateLimit,
    /// The route's policy for other origins.
    Cors,
    /// A fault that the route injects.
    Fault,
    /// What the edge answers by itself.
    Answer,
    /// What of the path and the host is replaced.
    Rewrite,
    /// Header operations.
    Headers,
    /// A copy of the request.
    Mirror,
    /// How long the request may take.
    Timeout,
    /// When it is tried again.
    Retries,
    /// A cluster of the route.
    Cluster,
}

/// One step on the way to the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TraceStep {
    /// What it is about.
    pub step: Step,
    /// Object that had a say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Index into the VirtualService's `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// Index into the rule's `match`.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_index: Option<usize>,
    /// First field of the match block that did not hold, or the field of the rule that asks for the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What that field asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What the request had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    /// The step in a sentence.
    pub message: String,
}

/// Domains that are named where none takes a request.
const NAMED_DOMAINS: usize = 20;

impl Explanation {
    /// Before any step is taken.
    pub(crate) fn nothing_yet() -> Self {
        Self {
            outcome: Outcome::NoListener,
            listener: None,
            route_config: None,
            virtual_host: None,
            route: None,
            object: None,
            clusters: vec![],
            trace: vec![],
        }
    }

    pub(crate) fn note(&mut self, step: Step, message: String) {
        self.trace.push(TraceStep::plain(step, message));
    }

    pub(crate) fn note_tls(&mut self, server: Option<&Arc<TlsServer>>, sni: Option<&str>) {
        let name = sni.map_or_else(|| "no server name".into(), |name| format!("server name {name:?}"));
        let Some(server) = server else {
            self.note(
                Step::Tls,
                format!("no TLS server takes {name}, the connection is closed"),
            );
            return;
        };
        let broken = match &server.service {
            TlsService::Passthrough { .. } => " and forwards the connection as it is",
            TlsService::Http { tls, .. } | TlsService::Tcp { tls, .. } if tls.certificates.is_empty() => {
                ", but its certificate is missing and the handshake fails"
            }
            TlsService::Tcp { .. } => " and forwards the bytes inside",
            TlsService::Http { .. } => "",
        };
        self.trace.push(TraceStep {
            object: Some(server.gateway.to_string()),
            ..TraceStep::plain(Step::Tls, format!("{} takes {name}{broken}", server.gateway))
        });
    }

    pub(crate) fn note_virtual_host(
        &mut self,
        decision: &Decision<'_>,
        table: &Table,
        request: &RequestView<'_>,
    ) {
        let (name, message) = match virtual_host(decision) {
            Some(host) => (
                Some(host.name.clone()),
                format!("{:?} belongs to the domain {}", request.authority, host.domain),
            ),
            None => {
                let hosts = table.routes().virtual_hosts.sorted().into_iter();
                let mut domains: Vec<_> = hosts.map(|host| host.domain.to_string()).collect();
                let others = domains.len().saturating_sub(NAMED_DOMAINS);
                domains.truncate(NAMED_DOMAINS);
                let domains = domains.join(", ");
                let all = match others {
                    0 => domains,
                    others => format!("{domains} and {others} other domains"),
                };
                let message = format!("{:?} belongs to none of {all}", request.authority);
                (None, message)
            }
        };
        self.virtual_host = name;
        self.note(Step::VirtualHost, message);
    }

    pub(crate) fn conclude(
        &mut self,
        snapshot: &Snapshot,
        decision: &Decision<'_>,
        request: &RequestView<'_>,
    ) {
        self.outcome = match decision {
            Decision::NoVirtualHost => Outcome::NoVirtualHost,
            Decision::RequireTls { .. } => {
                self.note(
                    Step::VirtualHost,
                    "the server has httpsRedirect: 301 to https".into(),
                );
                Outcome::TlsRedirect
            }
            Decision::NoRoute { .. } => {
                self.note(Step::Route, "no route matches: 404".into());
                Outcome::NoRoute
            }
            Decision::Route { route, .. } => self.conclude_route(snapshot, route, request),
        };
    }

    fn conclude_route(&mut self, snapshot: &Snapshot, route: &Route, request: &RequestView<'_>) -> Outcome {
        self.route = Some(name_of(route));
        self.object = Some(route.object.to_string());
        self.trace.push(TraceStep::taken(route));
        let steps = explain_route::steps(route, request).into_iter();
        self.trace.extend(steps.map(|(step, field, message)| TraceStep {
            step,
            field: Some(field.to_owned()).filter(|field| !field.is_empty()),
            ..TraceStep::of_route(route, message)
        }));
        match &route.action {
            RouteAction::Redirect(_) => Outcome::Redirect,
            RouteAction::DirectResponse(_) => Outcome::DirectResponse,
            RouteAction::Forward(forward) => {
                for destination in &forward.destinations {
                    self.add_cluster(snapshot, &destination.cluster, destination.weight);
                }
                if self.clusters.iter().all(|share| share.endpoints.is_none()) {
                    Outcome::NoCluster
                } else {
                    Outcome::Route
                }
            }
        }
    }

    /// The bytes of a connection go to the clusters of a `tcp` or `tls` rule.
    pub(crate) fn conclude_tcp(&mut self, snapshot: &Snapshot, route: &TcpRoute, kind: &str) {
        self.outcome = Outcome::Forward;
        self.route = Some(format!("{kind}[{}]", route.rule));
        self.object = Some(route.object.to_string());
        self.trace.push(TraceStep {
            object: Some(route.object.to_string()),
            rule: Some(route.rule),
            ..TraceStep::plain(
                Step::Route,
                format!("{} {kind}[{}] takes every connection", route.object, route.rule),
            )
        });
        for destination in &route.destinations {
            self.add_cluster(snapshot, &destination.cluster, destination.weight);
        }
    }

    /// Policies that cannot be enforced close the edge, whatever the routes say.
    pub(crate) fn note_policies(&mut self, snapshot: &Snapshot) {
        for object in &snapshot.unenforced {
            let message =
                format!("{object} selects this edge, which cannot enforce it: every request gets 403");
            self.trace.push(TraceStep {
                object: Some(object.to_string()),
                ..TraceStep::plain(Step::Policy, message)
            });
        }
    }

    fn add_cluster(&mut self, snapshot: &Snapshot, name: &ClusterName, weight: u32) {
        if weight == 0 {
            return;
        }
        let cluster = snapshot.clusters.get(name.as_str());
        self.note_cluster(name.as_str(), cluster.map(|cluster| cluster.endpoints.len()));
        let addresses = cluster.map(|cluster| {
            let endpoints = cluster.endpoints.iter();
            endpoints.map(|endpoint| endpoint.address.to_string()).collect()
        });
        self.clusters.push(ClusterShare {
            name: name.to_string(),
            weight,
            endpoints: addresses,
        });
    }

    fn note_cluster(&mut self, name: &str, endpoints: Option<usize>) {
        match endpoints {
            None => self.note(
                Step::Cluster,
                format!("there is no cluster {name}: its share gets 503 (NC)"),
            ),
            Some(0) => self.note(
                Step::Cluster,
                format!("{name} has no ready endpoint: its share gets 503 (UH)"),
            ),
            Some(_) => {}
        }
    }
}

impl TraceStep {
    fn plain(step: Step, message: String) -> Self {
        Self {
            step,
            object: None,
            rule: None,
            match_index: None,
            field: None,
            expected: None,
            actual: None,
            message,
        }
    }

    fn of_route(route: &Route, message: String) -> Self {
        Self {
            object: Some(route.object.to_string()),
            rule: Some(route.rule),
            match_index: route.match_index,
            ..Self::plain(Step::Route, message)
        }
    }

    fn taken(route: &Route) -> Self {
        Self::of_route(route, format!("{} matches", subject(route)))
    }

    pub(crate) fn passed_over(route: &Route, mismatch: &Mismatch<'_>, request: &RequestView<'_>) -> Self {
        let (field, expected, actual) = (mismatch.field(), mismatch.expected(), mismatch.actual(request));
        let message = format!(
            "{} does not match: {field} must be {expected}, is {actual}",
            subject(route)
        );
        Self {
            field: Some(field),
            expected: Some(expected),
            actual: Some(actual),
            ..Self::of_route(route, message)
        }
    }
}

fn virtual_host<'t>(decision: &Decision<'t>) -> Option<&'t Arc<VirtualHost>> {
    match decision {
        Decision::NoVirtualHost => None,
        Decision::RequireTls { virtual_host }
        | Decision::NoRoute { virtual_host }
        | Decision::Route { virtual_host, .. } => Some(virtual_host),
    }
}

/// The name of a route, or where it stands in its VirtualService.
fn name_of(route: &Route) -> String {
    match route.name.as_str() {
        "" => place_of(route),
        name => name.to_owned(),
    }
}

/// Where a route stands in its VirtualService.
fn place_of(route: &Route) -> String {
    match route.match_index {
        Some(index) => format!("http[{}].match[{index}]", route.rule),
        None => format!("http[{}]", route.rule),
    }
}

/// A route with its object, its place there and its name.
fn subject(route: &Route) -> String {
    let subject = format!("{} {}", route.object, place_of(route));
    match route.name.as_str() {
        "" => subject,
        name => format!("{subject} {name:?}"),
    }
}
