//! Serving a client's connection, by what is spoken on it.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::connection::Conn;
use crate::http::Service;
use crate::io::Watched;
use crate::protocol::Protocol;

/// Runs what hyper asks for, such as the streams of HTTP/2, as tasks of the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExec;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves requests until the client or the gateway has enough. `prefix` has been read from `stream` before.
pub(crate) async fn serve<S>(conn: Rc<Conn>, stream: S, prefix: Bytes)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let io = TokioIo::new(Watched::new(stream, Rc::clone(&conn), prefix));
    let result = match conn.protocol() {
        Protocol::Http1 => http1(&conn, io).await,
        Protocol::Http2 => http2(&conn, io).await,
    };
    if let Err(error) = result {
        tracing::debug!(client = %conn.peer().address, %error, "connection ended");
    }
}

async fn http1<S>(conn: &Rc<Conn>, io: TokioIo<Watched<S>>) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let http1 = conn.worker().http1();
    let mut connection = http1.serve_connection(io, Service(Rc::clone(conn)));
    let result = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    if result.as_ref().is_err_and(hyper::Error::is_parse) {
        conn.count_unparsed();
    }
    let tunnel = conn.take_tunnel();
    if result.is_ok() {
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner();
        match tunnel {
            Some(tunnel) => tunnel.run(stream, parts.read_buf).await,
            // The client may be gone by now, and has its answers.
            None => drop(stream.shutdown().await),
        }
    }
    result
}

async fn http2<S>(conn: &Rc<Conn>, io: TokioIo<Watched<S>>) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let http2 = conn.worker().http2();
    let mut connection = pin!(http2.serve_connection(io, Service(Rc::clone(conn))));
    let mut told = false;
    poll_fn(|cx| {
        conn.waits(cx);
        if conn.is_leaving() && !told {
            told = true;
            // Sends GOAWAY twice, so that requests that were on their way are still served.
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await
}
