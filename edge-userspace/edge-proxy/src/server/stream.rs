//! A byte stream of a client.

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::stream::Stream;

/// A stream of a client, over TCP or TLS.
pub(crate) type ClientStream = Stream<TlsStream<TcpStream>>;

impl ClientStream {
    /// The socket below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}
