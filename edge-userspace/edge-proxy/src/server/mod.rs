//! Serving a client's connection, by what is spoken on it: HTTP/1.1 by `h1`, HTTP/2 by hyper.

mod http1;
mod stream;
mod watched;
mod wire;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use hyper_util::rt::TokioIo;

use crate::connection::Conn;
use crate::http::Service;
use crate::protocol::Protocol;
pub(crate) use stream::ClientStream;
use watched::Watched;
pub(crate) use wire::WireBody;

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
pub(crate) enum Served {
    /// It is over.
    Ended,
    /// Nothing has come for a while: here is its stream, without any buffer. To be served again from the next byte on.
    Parked(ClientStream),
}

/// Serves requests until the client or the gateway has enough, or nothing comes. `prefix` has been read from `stream`
/// before.
pub(crate) async fn serve(conn: Rc<Conn>, stream: ClientStream, prefix: Bytes) -> Served {
    match conn.protocol() {
        Protocol::Http1 => http1::serve(&conn, stream, prefix).await,
        Protocol::Http2 => {
            let watched = Watched::new(stream, Rc::clone(&conn), prefix);
            if let Err(error) = Box::pin(http2(&conn, TokioIo::new(watched))).await {
                tracing::debug!(client = %conn.peer().address, %error, "connection ended");
            }
            Served::Ended
        }
    }
}

async fn http2(conn: &Rc<Conn>, io: TokioIo<Watched>) -> hyper::Result<()> {
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
