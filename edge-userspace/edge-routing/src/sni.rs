//! Which TLS server of a listener takes a handshake.

use std::sync::Arc;

use edge_model::TlsServer;

use crate::HostIndex;

/// The TLS servers of a listener, found by server name (SNI, RFC 6066).
///
/// Envoy's filter chain match: the exact name, else the longest wildcard, else the server of `*`, which also takes a
/// handshake without a name. When there is none the connection is closed and no certificate is shown.
#[derive(Debug, Clone)]
pub struct SniIndex {
    servers: Vec<Arc<TlsServer>>,
    hosts: Arc<HostIndex>,
}

impl SniIndex {
    /// Indexes the servers of one listener.
    #[must_use]
    pub fn new(servers: &[Arc<TlsServer>]) -> Self {
        let hosts = HostIndex::new(
            servers
                .iter()
                .enumerate()
                .flat_map(|(number, server)| server.hosts.iter().map(move |host| (host, number))),
        );
        Self {
            servers: servers.to_vec(),
            hosts: Arc::new(hosts),
        }
    }

    /// The same as [`new`](Self::new), but quick where the servers have the names of those before, in the same order.
    #[must_use]
    pub fn after(before: Option<&Self>, servers: &[Arc<TlsServer>]) -> Self {
        let has_same_names = |(own, other): (&Arc<TlsServer>, &Arc<TlsServer>)| {
            Arc::ptr_eq(own, other) || own.hosts == other.hosts
        };
        match before {
            Some(before)
                if before.servers.len() == servers.len()
                    && before.servers.iter().zip(servers).all(has_same_names) =>
            {
                Self {
                    servers: servers.to_vec(),
                    hosts: Arc::clone(&before.hosts),
                }
            }
            Some(_) | None => Self::new(servers),
        }
    }

    /// The server for a name, with its number in the listener; `None` stands for a handshake without a name.
    #[must_use]
    pub fn select(&self, name: Option<&str>) -> Option<(usize, &Arc<TlsServer>)> {
        let number = self.hosts.lookup(name.unwrap_or(""))?;
        self.servers.get(number).map(|server| (number, server))
    }

    /// The servers in the order of the listener.
    #[must_use]
    pub fn servers(&self) -> &[Arc<TlsServer>] {
        &self.servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::{HostPattern, Kind, ObjectRef, RouteTable, ServerTls, TlsService};

    fn server(hosts: &[&str]) -> Arc<TlsServer> {
        Arc::new(TlsServer {
            gateway: ObjectRef {
                kind: Kind::Gateway,
                namespace: "default".into(),
                name: hosts.join(","),
            },
            hosts: hosts.iter().map(|h| HostPattern::parse(h).unwrap()).collect(),
            service: TlsService::Http {
                tls: ServerTls::simple(None),
                routes: Arc::new(RouteTable::new("", [])),
            },
        })
    }

    #[track_caller]
    fn check(servers: &[&[&str]], name: Option<&str>, expected: Option<usize>) {
        let servers: Vec<_> = servers.iter().map(|hosts| server(hosts)).collect();
        let index = SniIndex::new(&servers);
        assert_eq!(index.select(name).map(|(number, _)| number), expected, "{name:?}");
    }

    #[test]
    fn the_exact_name_wins_over_the_wildcard() {
        let servers: [&[&str]; 2] = [&["*.foo.com"], &["a.foo.com", "bar.com"]];
        check(&servers, Some("a.foo.com"), Some(1));
        check(&servers, Some("b.foo.com"), Some(0));
        check(&servers, Some("BAR.com"), Some(1));
        check(&servers, Some("foo.com"), None);
    }

    #[test]
    fn a_handshake_without_a_name_reaches_only_the_server_of_every_host() {
        check(&[&["foo.com"], &["*"]], None, Some(1));
        check(&[&["foo.com"], &["*.com"]], None, None);
    }
}
