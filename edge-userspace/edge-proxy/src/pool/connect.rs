//! New connections to an endpoint, by what is spoken on them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use edge_model::ProxyProtocolVersion;
use edge_upstream::circuit::Place;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::link::Link;
use super::{EndpointStream, Limits, Sender, shared};
use crate::connection::Conn;
use crate::protocol::Protocol;
use crate::proxy_protocol;
use crate::tls::ClientTls;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("connecting failed: {0}")]
    Io(#[from] io::Error),
    #[error("connecting took longer than the cluster's connectTimeout")]
    Timeout,
    #[error("the cluster has as many connections, and requests waiting for one, as it may")]
    Overflow,
    #[error("TLS to the cluster's endpoints cannot be had, see the log of the configuration")]
    NoTls,
    #[error("the connection was lost as it was opened: {0}")]
    Http(#[from] hyper::Error),
}

impl ConnectError {
    /// What the transport says of it, as Envoy writes it in one word (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`); `None` where no
    /// transport has failed.
    pub(crate) fn transport_failure(&self) -> Option<String> {
        let Self::Io(error) = self else { return None };
        let source = error.get_ref();
        let text = match source.and_then(|source| source.downcast_ref::<rustls::Error>()) {
            Some(error) => format!("TLS_error:|{error}"),
            None => {
                let text = error.to_string();
                let reason = text
                    .split_once(" (os error")
                    .map_or(text.as_str(), |(reason, _)| reason);
                format!("delayed_connect_error:_{reason}")
            }
        };
        Some(text.replace(char::is_whitespace, "_"))
    }
}

/// Where a connection leads to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// `Some(None)` when TLS is asked for and cannot be had.
    pub(crate) tls: Option<Option<Arc<ClientTls>>>,
    /// Header of the PROXY protocol that its connections begin with.
    pub(crate) announced: Option<Announced>,
}

/// Whose connection an endpoint is told that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) version: ProxyProtocolVersion,
    /// The client, and where it connected to; `None` for a connection of the gateway's own.
    pub(crate) ends: Option<(SocketAddr, SocketAddr)>,
}

impl Target {
    /// The same for connections that each belong to one client, where endpoints are told whose they are.
    pub(crate) fn on_behalf_of(&self, conn: &Conn) -> Self {
        let announced = self.announced.map(|announced| Announced {
            ends: Some(conn.ends()),
            ..announced
        });
        Self {
            announced,
            ..self.clone()
        }
    }
}

/// Opens a connection.
/// `place` is held until it is closed.
pub(super) async fn connect(
    target: &Target,
    protocol: Protocol,
    limits: &Limits,
    place: Place,
) -> Result<Sender, ConnectError> {
    let stream = open(target, Some(protocol), limits).await?;
    match protocol {
        Protocol::Http1 => Ok(Sender::Http1(Link::new(stream, place))),
        Protocol::Http2 => {
            let shared = shared::begin(target.address, stream, limits, place).await?;
            Ok(Sender::Http2(shared))
        }
    }
}

/// Opens a connection for bytes that are forwarded as they are.
pub(crate) async fn connect_bytes(target: &Target, limits: &Limits) -> Result<EndpointStream, ConnectError> {
    open(target, None, limits).await
}

async fn open(
    target: &Target,
    protocol: Option<Protocol>,
    limits: &Limits,
) -> Result<EndpointStream, ConnectError> {
    let mut stream = tcp(target.address).await?;
    limits.keep_alive(&stream)?;
    if let Some(announced) = target.announced {
        announce(announced, &mut stream).await?;
    }
    Ok(match &target.tls {
        None => EndpointStream::Plain(stream),
        Some(tls) => EndpointStream::Tls(Box::new(shake_hands(tls.as_deref(), stream, protocol).await?)),
    })
}

/// Tells whose connection it is, in front of everything else: a handshake of TLS comes behind it (Envoy wraps the
/// transport socket of TLS into that of the PROXY protocol, too).
async fn announce(announced: Announced, stream: &mut TcpStream) -> io::Result<()> {
    let header = match announced.ends {
        Some((client, local)) => proxy_protocol::header(announced.version, client, local),
        None => proxy_protocol::header_of_own(announced.version, stream.local_addr()?, stream.peer_addr()?),
    };
    stream.write_all(&header).await
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn shake_hands(
    tls: Option<&ClientTls>,
    stream: TcpStream,
    protocol: Option<Protocol>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let tls = tls.ok_or(ConnectError::NoTls)?;
    let connector = TlsConnector::from(tls.config(protocol));
    Ok(connector.connect(tls.name(), stream).await?)
}
