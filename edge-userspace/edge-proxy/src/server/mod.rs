//! Serving a client's connection, by what is spoken on it: HTTP/1.1 by `h1`, HTTP/2 by hyper.

mod http1;
mod linger;
mod stream;
mod tasks;
mod turns;
mod watched;
mod wire;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Context;
use std::time::Instant;

use bytes::Bytes;
use hyper_util::rt::TokioIo;

use crate::connection::Conn;
use crate::http::service;
use crate::options::Http2Limits;
use crate::protocol::Protocol;
use crate::strict::Http2Guard;
use linger::{LINGER, Lingering};
pub(crate) use stream::ClientStream;
pub(crate) use tasks::{LocalExec, SendTask};
use turns::Turns;
use watched::Watched;
pub(crate) use wire::WireBody;

/// What a connection of HTTP/2 has of its streams.
#[derive(Debug)]
pub(crate) struct OpenStreams {
    guard: RefCell<Http2Guard>,
    lingering: Lingering,
    turns: Turns,
}

impl OpenStreams {
    pub(crate) fn new(limits: Http2Limits, now: Instant) -> Self {
        Self {
            guard: RefCell::new(Http2Guard::new(limits, now)),
            lingering: Lingering::default(),
            turns: Turns::default(),
        }
    }

    /// What looks over their frames; the connection's sweep asks it, too.
    pub(crate) fn guard(&self) -> &RefCell<Http2Guard> {
        &self.guard
    }

    /// Waits for a request's turn to begin.
    pub(crate) async fn turn(&self, conn: &Conn) {
        let mut ticket = None;
        poll_fn(|cx| self.turns.poll_begin(&mut ticket, cx, || conn.wake())).await;
    }

    /// Reads on a body for a little while that nobody wants any more.
    pub(crate) fn linger(&self, body: hyper::body::Incoming, conn: &Conn) {
        self.lingering.add(body, conn.worker().timers().after(LINGER));
        conn.wake();
    }

    /// Does what is to be done at each turn of the connection.
    fn next_turn(&self, cx: &mut Context<'_>) {
        self.turns.next(cx);
        self.lingering.poll(cx);
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
    let mut connection = pin!(http2.serve_connection(io, service(Rc::clone(conn))));
    let mut told = false;
    poll_fn(|cx| {
        conn.waits(cx);
        if conn.is_leaving() && !told {
            told = true;
            // Sends GOAWAY twice, so that requests that were on their way are still served.
            connection.as_mut().graceful_shutdown();
        }
        let end = connection.as_mut().poll(cx);
        if end.is_pending() {
            conn.open_streams().next_turn(cx);
        }
        end
    })
    .await
}
