//! A byte stream to an endpoint.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A stream to an endpoint, over TCP or TLS.
#[derive(Debug)]
pub(crate) enum EndpointStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl EndpointStream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
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

impl AsyncRead for EndpointStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for EndpointStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
