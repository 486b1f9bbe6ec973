//! Serving a client's connection, by what is spoken on it.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

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

/// What became of a connection that was served.
#[derive(Debug)]
pub(crate) enum Served<S> {
    /// It is over.
    Ended,
    /// Nothing has come for a while: here is its stream, without any buffer. To be served again from the next byte on.
    Parked(S),
}

/// Serves requests until the client or the gateway has enough, or nothing comes. `prefix` has been read from `stream`
/// before.
pub(crate) async fn serve<S>(conn: Rc<Conn>, stream: S, prefix: Bytes) -> Served<S>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let watched = Watched::new(stream, Rc::clone(&conn), prefix);
    let result = match conn.protocol() {
        Protocol::Http1 => http1(&conn, watched).await,
        Protocol::Http2 => http2(&conn, TokioIo::new(watched)).await.map(|()| Served::Ended),
    };
    result.unwrap_or_else(|error| {
        tracing::debug!(client = %conn.peer().address, %error, "connection ended");
        Served::Ended
    })
}

async fn http1<S>(conn: &Rc<Conn>, mut watched: Watched<S>) -> hyper::Result<Served<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    loop {
        let io = TokioIo::new(watched);
        let mut connection = conn
            .worker()
            .http1()
            .serve_connection(io, Service(Rc::clone(conn)));
        let ended = poll_fn(|cx| match connection.poll_without_shutdown(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if conn.takes_park() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        if let Some(result) = ended.await {
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
            return result.map(|()| Served::Ended);
        }
        // hyper holds 16 KiB of buffers even where nothing goes on. No request is under way, and all was written.
        let parts = connection.into_parts();
        let (stream, unread) = parts.io.into_inner().into_parts();
        if parts.read_buf.is_empty() && unread.is_empty() {
            return Ok(Served::Parked(stream));
        }
        let prefix = [parts.read_buf, unread].concat().into();
        watched = Watched::new(stream, Rc::clone(conn), prefix);
    }
}

async fn http2<S>(conn: &Rc<Conn>, io: TokioIo<Watched<S>>) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let http2 = conn.worker().http2();
    let mut connection = pin!(http2.serve_connection(io, Service(Rc::clone(conn))));
    let mut told = false;
    let guard = conn.http2_guard();
    poll_fn(|cx| {
        conn.waits(cx);
        guard.borrow_mut().begin_turn();
        if conn.is_leaving() && !told {
            told = true;
            // Sends GOAWAY twice, so that requests that were on their way are still served.
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await
}
