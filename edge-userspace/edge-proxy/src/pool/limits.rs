//! What a cluster allows its connections (Istio `ConnectionPoolSettings`).

use std::sync::Arc;
use std::time::Instant;

use edge_model::{Cluster, ConnectionPool};
use edge_upstream::circuit::{Circuit, Place, Resource};
use socket2::SockRef;
use tokio::net::TcpStream;

/// Limits of a cluster. Those on numbers are held for all workers together.
#[derive(Debug)]
pub(crate) struct Limits {
    pool: ConnectionPool,
    max_connections: u32,
    max_pending: u32,
    circuit: Arc<Circuit>,
}

impl Limits {
    pub(crate) fn new(cluster: &Cluster, circuit: &Arc<Circuit>) -> Self {
        Self {
            pool: cluster.pool.clone(),
            max_connections: cluster.circuit_breakers.max_connections,
            max_pending: cluster.circuit_breakers.max_pending_requests,
            circuit: Arc::clone(circuit),
        }
    }

    /// A place for one more connection (`tcp.maxConnections`).
    pub(crate) fn connection(&self) -> Option<Place> {
        self.circuit.take(Resource::Connections, self.max_connections)
    }

    /// Whether there is one, as far as can be said without taking it.
    pub(super) fn has_room(&self) -> bool {
        self.circuit.in_use(Resource::Connections) < self.max_connections
    }

    /// A place among the requests that wait for a connection (`http.http1MaxPendingRequests`).
    pub(super) fn pending(&self) -> Option<Place> {
        self.circuit.take(Resource::Pending, self.max_pending)
    }

    /// Whether a connection of that age takes a request more (`maxRequestsPerConnection`, `maxConnectionDuration`).
    pub(super) fn allows_more(&self, requests: u32, opened: Instant, now: Instant) -> bool {
        let is_spent = self
            .pool
            .max_requests_per_connection
            .is_some_and(|most| requests >= most);
        let is_old = self
            .pool
            .max_connection_duration
            .is_some_and(|longest| now.saturating_duration_since(opened) >= longest);
        !is_spent && !is_old
    }

    /// Whether a connection is to be closed that nobody has needed since then (`idleTimeout`).
    pub(super) fn is_idle_too_long(&self, since: Instant, now: Instant) -> bool {
        let longest = self.pool.idle_timeout;
        longest.is_some_and(|longest| now.saturating_duration_since(since) >= longest)
    }

    /// Requests at once on one connection of HTTP/2 (`maxConcurrentStreams`).
    pub(super) fn streams(&self) -> u32 {
        self.pool.max_concurrent_streams
    }

    /// PINGs on connections of HTTP/2 (`http2KeepAlive`).
    pub(super) fn http2_keepalive(&self) -> Option<edge_model::Http2Keepalive> {
        self.pool.http2_keepalive
    }

    /// Sets `tcpKeepalive` on a connection.
    pub(super) fn keep_alive(&self, stream: &TcpStream) -> std::io::Result<()> {
        let Some(keepalive) = &self.pool.tcp_keepalive else {
            return Ok(());
        };
        let mut params = socket2::TcpKeepalive::new();
        if let Some(time) = keepalive.time {
            params = params.with_time(time);
        }
        if let Some(interval) = keepalive.interval {
            params = params.with_interval(interval);
        }
        if let Some(probes) = keepalive.probes {
            params = params.with_retries(probes);
        }
        SockRef::from(stream).set_tcp_keepalive(&params)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use edge_model::TcpKeepalive;

    use super::*;

    fn limits(pool: ConnectionPool) -> Limits {
        let cluster = Cluster {
            pool,
            ..Cluster::new("web", "shop", 80, None)
        };
        Limits::new(&cluster, &Arc::default())
    }

    #[tokio::test]
    async fn keepalive_is_set_on_the_socket_as_far_as_it_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        limits(ConnectionPool::default()).keep_alive(&stream).unwrap();
        assert!(!SockRef::from(&stream).keepalive().unwrap());
        let pool = ConnectionPool {
            tcp_keepalive: Some(TcpKeepalive {
                probes: Some(3),
                time: Some(Duration::from_secs(77)),
                interval: None,
            }),
            ..ConnectionPool::default()
        };
        limits(pool).keep_alive(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }

    #[test]
    fn connections_end_by_requests_age_and_idleness() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let limits = limits(ConnectionPool {
            idle_timeout: Some(Duration::from_secs(5)),
            max_connection_duration: Some(Duration::from_secs(60)),
            max_requests_per_connection: Some(2),
            ..ConnectionPool::default()
        });
        for (requests, seconds, expected) in [(0, 0, true), (1, 59, true), (2, 0, false), (1, 60, false)] {
            assert_eq!(
                limits.allows_more(requests, start, after(seconds)),
                expected,
                "{requests} {seconds}"
            );
        }
        assert!(!limits.is_idle_too_long(start, after(4)) && limits.is_idle_too_long(start, after(5)));
    }
}
