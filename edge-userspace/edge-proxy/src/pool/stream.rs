//! A byte stream to an endpoint.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use tokio::io::{AsyncRead as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::stream::Stream;

/// A stream to an endpoint, over TCP or TLS.
pub(crate) type EndpointStream = Stream<TlsStream<TcpStream>>;

impl EndpointStream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The gateway's own address on it, as text: the access log asks for it with each request.
    pub(crate) fn local(&self) -> Option<Rc<str>> {
        let address = self.tcp().local_addr().ok()?;
        Some(address.to_string().into())
    }

    /// The socket, where the stream's bytes are the socket's.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }

    /// Whether the endpoint has sent nothing and not closed, as far as the runtime has heard. Costs no system call then.
    pub(crate) fn seems_quiet(&mut self) -> bool {
        let peeked = self.tcp().try_io(Interest::READABLE, || peek(self.tcp()));
        self.is_quiet_after(peeked)
    }

    /// The same by asking the kernel.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let peeked = peek(self.tcp());
        self.is_quiet_after(peeked)
    }

    fn is_quiet_after(&mut self, peeked: io::Result<usize>) -> bool {
        match (peeked, self) {
            (Err(error), _) => error.kind() == io::ErrorKind::WouldBlock,
            (Ok(0), _) | (Ok(_), Self::Plain(_)) => false,
            // Records of TLS need not hold data: tickets come at any time.
            (Ok(_), Self::Tls(stream)) => {
                let mut byte = [0];
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(stream)
                    .poll_read(&mut cx, &mut ReadBuf::new(&mut byte))
                    .is_pending()
            }
        }
    }
}

fn peek(stream: &TcpStream) -> io::Result<usize> {
    rustix::net::recv(stream, &mut [0; 1][..], rustix::net::RecvFlags::PEEK)
        .map(|(length, _)| length)
        .map_err(io::Error::from)
}
