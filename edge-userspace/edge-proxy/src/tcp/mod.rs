//! Bytes that are forwarded as they are: Istio's `tcp` and `tls` routes.

mod meter;
mod record;
mod splice;

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use edge_model::TcpRoute;
use edge_upstream::circuit::Place;
use edge_upstream::outlier::Outcome;
use edge_upstream::{ActiveRequest, Pick};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use self::meter::{Moved, Way};
use self::record::TcpRecord;
use crate::connection::Conn;
use crate::http::{Flag, Via};
use crate::pool::{EndpointStream, connect_bytes};
use crate::worker::ClusterView;

/// What is read at once. Measured: half of the processor time of 8 KiB, and little is left to gain beyond.
const BUFFER: usize = 64 * 1024;

/// Endpoints that are tried for one connection.
const TRIES: usize = 3;

/// Forwards a client's connection until both sides have ended, or nothing went either way for the idle time.
pub(crate) async fn forward<S>(conn: &Rc<Conn>, client: S, route: &TcpRoute)
where
    S: Socket + AsyncRead + AsyncWrite + Unpin,
{
    let mut record = TcpRecord::begin(conn);
    let Some(cluster) = destination(conn, route, &mut record) else {
        return;
    };
    let Some(connected) = connect(conn, &cluster, &mut record).await else {
        return;
    };
    let Connected {
        stream,
        _active,
        _place,
    } = connected;
    let meter = record.connected();
    let pool = &cluster.model().pool;
    let moving = move_bytes(client, stream, meter.moved(), pool.tcp_idle_timeout);
    match pool.max_connection_duration {
        None => moving.await,
        // The end of the time is the end of the connection, whatever is under way (Envoy
        // `max_downstream_connection_duration` of the TCP proxy).
        Some(longest) => {
            if tokio::time::timeout(longest, moving).await.is_err() {
                record.flag(Flag::DurationTimeout);
            }
        }
    }
}

/// The cluster that a connection is for, by the configuration in force; `None` where it is for none, or not taken.
fn destination(conn: &Conn, route: &TcpRoute, record: &mut TcpRecord) -> Option<Rc<ClusterView>> {
    let view = conn.worker().view();
    if view.config().is_closed {
        return None;
    }
    if conn.worker().overload().refuses_request() {
        record.flag(Flag::OverloadManager);
        return None;
    }
    let draw = conn.worker().rng().u64(..);
    let Some(name) = choose(route, draw) else {
        record.flag(Flag::NoRoute);
        return None;
    };
    let Some(cluster) = view.cluster(name) else {
        record.flag(Flag::NoCluster);
        return None;
    };
    record.reached_cluster(cluster);
    Some(Rc::clone(cluster))
}

/// The cluster whose share a draw falls into.
fn choose(route: &TcpRoute, draw: u64) -> Option<&edge_model::ClusterName> {
    let total: u64 = route.destinations.iter().map(|to| u64::from(to.weight)).sum();
    if total == 0 {
        return route.destinations.first().map(|to| &to.cluster);
    }
    let mut left = draw % total;
    let found = route.destinations.iter().find(|to| {
        let weight = u64::from(to.weight);
        let is_here = left < weight;
        left = left.saturating_sub(weight);
        is_here
    });
    found.map(|to| &to.cluster)
}

/// A connection to an endpoint, with what counts it.
struct Connected {
    stream: EndpointStream,
    _active: ActiveRequest,
    _place: Place,
}

/// A connection to an endpoint; another one is tried where one does not answer. `None` also where the cluster has as many
/// connections as it may.
async fn connect(conn: &Conn, cluster: &ClusterView, record: &mut TcpRecord) -> Option<Connected> {
    let mut tried = Vec::new();
    let Some(place) = cluster.limits().connection() else {
        record.flag(Flag::UpstreamOverflow);
        return None;
    };
    while tried.len() < TRIES {
        let pick = Pick {
            now: cluster.clock(Instant::now()),
            tried: &tried,
            ..Pick::default()
        };
        let picked = cluster.pick(pick, &mut conn.worker().rng());
        let Some((index, endpoint)) = picked.and_then(|index| Some((index, cluster.endpoint(index)?))) else {
            break;
        };
        record.reached_endpoint(endpoint);
        let active = ActiveRequest::begin(endpoint.load());
        let target = endpoint.target().on_behalf_of(conn);
        let connecting = tokio::time::timeout(
            cluster.connect_timeout(),
            connect_bytes(&target, cluster.limits()),
        );
        match connecting.await {
            Ok(Ok(stream)) => {
                // Outlier detection takes a connection for what a response is to HTTP (Envoy's TCP proxy).
                cluster.report(index, Outcome::Status(200));
                record.went_via(Via::over(stream.local()));
                return Some(Connected {
                    stream,
                    _active: active,
                    _place: place,
                });
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot connect to an endpoint");
                record.went_via(Via::failed(&error));
            }
            Err(_) => {
                tracing::debug!("connecting to an endpoint took too long");
                record.went_via(Via::default());
            }
        }
        endpoint.count(conn.worker().metrics(), Outcome::ConnectFailure);
        cluster.report(index, Outcome::ConnectFailure);
        tried.push(index);
    }
    if tried.is_empty() {
        record.flag(Flag::NoHealthyUpstream);
        record.flag(cluster.why_no_endpoint());
    } else {
        // Envoy says both once no attempt is left.
        record.flag(Flag::UpstreamConnectionFailure);
        record.flag(Flag::UpstreamRetryLimitExceeded);
    }
    None
}

/// A stream that may be a socket and nothing else.
pub(crate) trait Socket {
    /// The socket, where the stream's bytes are the socket's.
    fn socket(&self) -> Option<&TcpStream>;
}

impl Socket for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl<S> Socket for Box<TlsStream<S>> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

/// Moves bytes both ways, within the kernel where both sides are sockets.
async fn move_bytes<S>(client: S, endpoint: EndpointStream, moved: &Moved, idle: Option<Duration>)
where
    S: Socket + AsyncRead + AsyncWrite + Unpin,
{
    let (Some(a), Some(b)) = (client.socket(), endpoint.socket()) else {
        return drop(copy_counted(client, endpoint, moved, idle).await);
    };
    let both = async {
        tokio::try_join!(
            splice::one_way(a, b, &moved.from_client),
            splice::one_way(b, a, &moved.to_client)
        )
    };
    // Whether it was cut or has ended, both sockets are closed now.
    let _ = until_silent(both, moved, idle).await;
}

/// Copies both ways. The end of one side is passed on, and the other may go on sending (half-close).
///
/// # Errors
/// One of the sides was cut, or nothing went either way for the idle time.
pub(crate) async fn copy<A, B>(client: A, endpoint: B, idle: Option<Duration>) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    copy_counted(client, endpoint, &Moved::default(), idle).await
}

/// The same, with the bytes added to `moved`.
async fn copy_counted<A, B>(client: A, endpoint: B, moved: &Moved, idle: Option<Duration>) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_endpoint, mut to_endpoint) = tokio::io::split(endpoint);
    let both = async {
        tokio::try_join!(
            one_way(&mut from_client, &mut to_endpoint, &moved.from_client),
            one_way(&mut from_endpoint, &mut to_client, &moved.to_client)
        )
    };
    until_silent(both, moved, idle).await
}

/// Waits for the end, or for so long a time in which nothing is moved.
async fn until_silent(
    both: impl Future<Output = io::Result<((), ())>>,
    moved: &Moved,
    idle: Option<Duration>,
) -> io::Result<()> {
    let ended = match idle {
        None => both.await.map(|_| ()),
        Some(idle) => tokio::select! {
            ended = both => ended.map(|_| ()),
            () = silence(moved, idle) => Err(io::ErrorKind::TimedOut.into()),
        },
    };
    ended.inspect_err(|error| tracing::debug!(%error, "a forwarded connection was cut"))
}

/// Ends after so long a time in which nothing was moved.
async fn silence(moved: &Moved, idle: Duration) {
    loop {
        let before = moved.progress();
        tokio::time::sleep(idle).await;
        if moved.progress() == before {
            return;
        }
    }
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    way: &Way,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        way.took(length);
        to.write_all(&buffer[..length]).await?;
        way.gave(length);
        to.flush().await?;
    }
}
