//! Why a request goes where it goes: the decision of the running code, with its reasons kept.

use std::sync::Arc;

use edge_model::{Listener, ListenerProtocol, Snapshot, TlsService};
use http::HeaderMap;

use crate::explanation::{Explanation, Outcome, Step, TraceStep};
use crate::{Claims, RequestView, SniIndex, Table, normalize_path};

/// A request that is asked about.
#[derive(Debug, Clone)]
pub struct Probe<'r> {
    /// Port that the client connects to: that of a listener, or else that of a virtual address.
    pub port: u16,
    /// Whether the client speaks TLS.
    pub tls: bool,
    /// Server name in the TLS handshake.
    pub sni: Option<&'r str>,
    /// Host or `:authority`, with its port if it has one.
    pub authority: &'r str,
    /// Path and query as the client sends them.
    pub path_and_query: &'r str,
    /// Method.
    pub method: &'r str,
    /// Headers.
    pub headers: &'r HeaderMap,
    /// Claims of its token, taken as verified.
    pub claims: Option<&'r Claims>,
}

/// Says what the Snapshot does with a request, and why.
#[must_use]
pub fn explain(snapshot: &Snapshot, probe: &Probe<'_>) -> Explanation {
    let mut explanation = Explanation::nothing_yet();
    let Some(listener) = find_listener(snapshot, probe, &mut explanation) else {
        return explanation;
    };
    explanation.note_policies(snapshot);
    if let Some(table) = find_table(snapshot, listener, probe, &mut explanation) {
        explain_table(snapshot, &table, probe, &mut explanation);
    }
    if !snapshot.unenforced.is_empty() {
        explanation.outcome = Outcome::Refused;
    }
    explanation
}

/// The listener of the port; a port of a virtual address counts as the listener's that it leads to.
fn find_listener<'s>(
    snapshot: &'s Snapshot,
    probe: &Probe<'_>,
    explanation: &mut Explanation,
) -> Option<&'s Arc<Listener>> {
    let vips = &snapshot.datapath.vips;
    let translated = || {
        vips.iter()
            .find(|vip| vip.port == probe.port)
            .map(|vip| vip.listener_port)
    };
    let listener = snapshot
        .listener(probe.port)
        .or_else(|| snapshot.listener(translated()?));
    let message = match listener {
        Some(listener) => format!("port {} is served by listener {}", probe.port, listener.name),
        None => format!("no Gateway server listens on port {}", probe.port),
    };
    explanation.listener = listener.map(|listener| listener.name.clone());
    explanation.note(Step::Listener, message);
    listener
}

/// The route table that the connection leads to. Of a connection that is forwarded as it is, this is all that there is
/// to explain.
fn find_table(
    snapshot: &Snapshot,
    listener: &Listener,
    probe: &Probe<'_>,
    explanation: &mut Explanation,
) -> Option<Table> {
    match (&listener.protocol, probe.tls) {
        (ListenerProtocol::Http(routes), false) => Some(Table::new(Arc::clone(routes))),
        (ListenerProtocol::Tls(servers), true) => {
            let index = SniIndex::new(servers);
            let selected = index.select(probe.sni).map(|(_, server)| server);
            explanation.note_tls(selected, probe.sni);
            match &selected?.service {
                TlsService::Http { routes, .. } => return Some(Table::new(Arc::clone(routes))),
                TlsService::Tcp { route, .. } => explanation.conclude_tcp(snapshot, route, "tcp"),
                TlsService::Passthrough { route } => explanation.conclude_tcp(snapshot, route, "tls"),
            }
            None
        }
        (ListenerProtocol::Http(_), true) => {
            explanation.note(
                Step::Tls,
                "the listener speaks plain HTTP, the handshake fails".into(),
            );
            None
        }
        (ListenerProtocol::Tcp(route), _) => {
            explanation.conclude_tcp(snapshot, route, "tcp");
            None
        }
        (ListenerProtocol::Tls(_), false) => {
            explanation.note(Step::Tls, "the listener speaks TLS, a plain request fails".into());
            None
        }
    }
}

fn explain_table(snapshot: &Snapshot, table: &Table, probe: &Probe<'_>, explanation: &mut Explanation) {
    explanation.route_config = Some(table.routes().name.clone());
    let path_and_query = match normalize_path(probe.path_and_query) {
        Ok(path) => path,
        Err(error) => {
            explanation.outcome = Outcome::NoRoute;
            explanation.note(Step::Path, format!("{error}: 400"));
            return;
        }
    };
    if path_and_query != probe.path_and_query {
        explanation.note(
            Step::Path,
            format!("the path is normalised to {path_and_query:?}"),
        );
    }
    let request = RequestView {
        authority: probe.authority,
        path_and_query: &path_and_query,
        method: probe.method,
        scheme: if probe.tls { "https" } else { "http" },
        headers: probe.headers,
        claims: probe.claims,
    };
    let mut passed_over = vec![];
    let decision = table.walk(&request, |route, mismatch| {
        passed_over.push(TraceStep::passed_over(route, &mismatch, &request));
    });
    explanation.note_virtual_host(&decision, table, &request);
    explanation.trace.append(&mut passed_over);
    explanation.conclude(snapshot, &decision, &request);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{forward_to, prefix, route, table};
    use edge_model::{
        Cluster, ClusterName, HostPattern, Kind, ObjectRef, Protocol, RouteMatch, StringMatch, TcpRoute,
        TlsServer, Vip, WeightedCluster,
    };

    fn snapshot() -> Snapshot {
        let post_only = RouteMatch {
            method: Some(StringMatch::Exact("POST".into())),
            ..prefix("/a")
        };
        let table = table(&[(
            "a.com",
            vec![
                route("", post_only, forward_to(&[("web", 1)])),
                route(
                    "all",
                    prefix("/a"),
                    forward_to(&[("web", 90), ("gone", 10), ("off", 0)]),
                ),
                route("lost", prefix("/lost"), forward_to(&[("gone", 1)])),
            ],
        )]);
        let name = ClusterName::outbound(80, "", "web");
        let cluster = Cluster::new("web", "default", 80, None);
        let mut snapshot = Snapshot::default();
        let protocol = ListenerProtocol::Http(Arc::clone(table.routes()));
        snapshot.listeners.push(Arc::new(Listener::new(8080, protocol)));
        snapshot.clusters.insert(name, Arc::new(cluster));
        let vip = Vip::local([192, 0, 2, 1].into(), 80, Protocol::Tcp, 8080);
        snapshot.datapath.vips.push(vip);
        snapshot
    }

    fn ask(port: u16, tls: bool, authority: &str, path_and_query: &str) -> Explanation {
        let headers = HeaderMap::new();
        explain(
            &snapshot(),
            &Probe {
                port,
                tls,
                sni: None,
                authority,
                path_and_query,
                method: "GET",
                headers: &headers,
                claims: None,
            },
        )
    }

    #[test]
    fn every_route_above_the_one_taken_says_why_it_did_not_match() {
        let explanation = ask(80, false, "a.com", "/b/../a");
        assert_eq!(explanation.outcome, Outcome::Route);
        assert_eq!(explanation.listener.as_deref(), Some("0.0.0.0_8080"));
        assert_eq!(explanation.virtual_host.as_deref(), Some("a.com:80"));
        assert_eq!(explanation.route.as_deref(), Some("all"));
        let messages: Vec<_> = explanation
            .trace
            .iter()
            .map(|step| step.message.as_str())
            .collect();
        assert_eq!(
            messages,
            [
                "port 80 is served by listener 0.0.0.0_8080",
                r#"the path is normalised to "/a""#,
                r#""a.com" belongs to the domain a.com"#,
                r#"VirtualService/default/vs http[0].match[0] does not match: method must be exact "POST", is "GET""#,
                r#"VirtualService/default/vs http[0].match[0] "all" matches"#,
                "it may take as long as it takes: no timeout is set",
                "up to 2 more tries on connect-failure, refused-stream, retriable-status-codes, cancelled, unavailable",
                "outbound|80||web has no ready endpoint: its share gets 503 (UH)",
                "there is no cluster outbound|80||gone: its share gets 503 (NC)",
            ]
        );
    }

    #[test]
    fn of_many_domains_a_few_are_named() {
        let names: Vec<_> = (10..40).map(|number| format!("h{number}.com")).collect();
        let hosts: Vec<_> = names.iter().map(|name| (name.as_str(), vec![])).collect();
        let table = table(&hosts);
        let mut snapshot = Snapshot::default();
        let protocol = ListenerProtocol::Http(Arc::clone(table.routes()));
        snapshot.listeners.push(Arc::new(Listener::new(80, protocol)));
        let headers = HeaderMap::new();
        let probe = Probe {
            port: 80,
            tls: false,
            sni: None,
            authority: "nowhere",
            path_and_query: "/",
            method: "GET",
            headers: &headers,
            claims: None,
        };
        let explanation = explain(&snapshot, &probe);
        let message = &explanation.trace.last().unwrap().message;
        assert!(message.contains("h29.com and 10 other domains"), "{message}");
    }

    #[test]
    fn the_outcome_names_what_is_missing() {
        for (port, tls, host, path, expected) in [
            (81, false, "a.com", "/a", Outcome::NoListener),
            (8080, true, "a.com", "/a", Outcome::NoListener),
            (8080, false, "b.com", "/a", Outcome::NoVirtualHost),
            (8080, false, "a.com", "/c", Outcome::NoRoute),
            (8080, false, "a.com", "/a%00", Outcome::NoRoute),
            (8080, false, "a.com", "/lost", Outcome::NoCluster),
        ] {
            assert_eq!(
                ask(port, tls, host, path).outcome,
                expected,
                "{port} {host}{path}"
            );
        }
    }

    fn tcp_route() -> Arc<TcpRoute> {
        let object = ObjectRef {
            kind: Kind::VirtualService,
            namespace: "default".into(),
            name: "db".into(),
        };
        Arc::new(TcpRoute {
            object: Arc::new(object),
            rule: 1,
            destinations: vec![WeightedCluster {
                cluster: ClusterName::outbound(80, "", "web"),
                weight: 1,
            }],
        })
    }

    #[test]
    fn connections_that_are_forwarded_have_their_rule_and_its_clusters() {
        let mut snapshot = snapshot();
        let tcp = Listener::new(3306, ListenerProtocol::Tcp(tcp_route()));
        let server = TlsServer {
            gateway: ObjectRef {
                kind: Kind::Gateway,
                namespace: "default".into(),
                name: "gw".into(),
            },
            hosts: vec![HostPattern::parse("a.com").unwrap()],
            service: TlsService::Passthrough { route: tcp_route() },
        };
        let tls = Listener::new(443, ListenerProtocol::Tls(vec![Arc::new(server)]));
        snapshot.listeners.extend([Arc::new(tcp), Arc::new(tls)]);
        let headers = HeaderMap::new();
        for (port, sni, outcome, route) in [
            (3306, None, Outcome::Forward, Some("tcp[1]")),
            (443, Some("a.com"), Outcome::Forward, Some("tls[1]")),
            (443, Some("b.com"), Outcome::NoListener, None),
        ] {
            let probe = Probe {
                port,
                tls: port == 443,
                sni,
                authority: "a.com",
                path_and_query: "/",
                method: "GET",
                headers: &headers,
                claims: None,
            };
            let explanation = explain(&snapshot, &probe);
            let clusters: Vec<_> = explanation
                .clusters
                .iter()
                .map(|share| share.name.as_str())
                .collect();
            assert_eq!(explanation.outcome, outcome, "{sni:?}");
            assert_eq!(explanation.route.as_deref(), route, "{sni:?}");
            assert_eq!(clusters.contains(&"outbound|80||web"), route.is_some(), "{sni:?}");
        }
    }

    #[test]
    fn a_policy_that_closes_the_edge_goes_before_everything_and_the_route_is_told_all_the_same() {
        let mut snapshot = snapshot();
        snapshot.unenforced.push(ObjectRef {
            kind: Kind::AuthorizationPolicy,
            namespace: "istio-system".into(),
            name: "deny".into(),
        });
        let headers = HeaderMap::new();
        let probe = Probe {
            port: 80,
            tls: false,
            sni: None,
            authority: "a.com",
            path_and_query: "/a",
            method: "GET",
            headers: &headers,
            claims: None,
        };
        let explanation = explain(&snapshot, &probe);
        assert_eq!(explanation.outcome, Outcome::Refused);
        assert_eq!(explanation.route.as_deref(), Some("all"));
        let policy = explanation
            .trace
            .iter()
            .find(|step| step.step == Step::Policy)
            .unwrap();
        assert_eq!(
            policy.object.as_deref(),
            Some("AuthorizationPolicy/istio-system/deny")
        );
    }

    #[test]
    fn destinations_without_weight_have_no_share() {
        let explanation = ask(8080, false, "a.com", "/a");
        let shares: Vec<_> = explanation
            .clusters
            .iter()
            .map(|c| (c.name.as_str(), c.weight))
            .collect();
        assert_eq!(shares, [("outbound|80||web", 90), ("outbound|80||gone", 10)]);
        assert_eq!(explanation.clusters[0].endpoints, Some(vec![]));
        assert_eq!(explanation.clusters[1].endpoints, None);
    }
}
