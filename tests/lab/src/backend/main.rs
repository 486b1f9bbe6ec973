//! edge-backend: a sample HTTP/1.1 backend that says which version it is and what it was asked.
#![forbid(unsafe_code)]

mod answer;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// Connections that may wait to be accepted. A gateway opens hundreds at once when load begins; of those that find no place
/// the first request waits a second, until the handshake is repeated.
const BACKLOG: u32 = 4096;

/// How long requests under way may take after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);

/// Answers every request with JSON: version, method, path, header fields, remote address, length of the body.
///
/// GET /slow?ms=N answers after N milliseconds; /crash ends the process with exit code 70, unanswered; /count tells how
/// many requests were answered, its own kind not counted.
#[derive(Debug, Clone, Parser)]
#[command(after_help = "Example:\n  edge-backend --listen 127.0.0.1:8080 --version v1 --delay-ms 5")]
struct Args {
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The version to tell, in the field `version` and in the header field `x-version`.
    #[arg(long)]
    version: String,
    /// How long every answer waits, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay_ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let listener = listen(args.listen).with_context(|| {
        format!(
            "cannot listen on {}; is the address there and the port free?",
            args.listen
        )
    })?;
    println!(
        "edge-backend {} listens on {}",
        args.version,
        listener.local_addr()?
    );
    serve(&listener, &args).await
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until SIGTERM, then lets the requests under way end.
async fn serve(listener: &TcpListener, args: &Args) -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => answer_connection(stream, remote, args, &connections),
                // The peer has gone, or files have run out: neither is a reason to end.
                Err(error) => eprintln!("accept: {error}"),
            },
            _ = term.recv() => break,
        }
    }
    tokio::select! {
        () = connections.shutdown() => Ok(()),
        () = tokio::time::sleep(DRAIN) => anyhow::bail!("requests still under way after {} s", DRAIN.as_secs()),
    }
}

fn answer_connection(stream: TcpStream, remote: SocketAddr, args: &Args, connections: &GracefulShutdown) {
    let (version, delay) = (args.version.clone(), Duration::from_millis(args.delay_ms));
    let service = service_fn(move |request| answer::answer(request, version.clone(), remote, delay));
    // Answers are one small segment each: Nagle would only hold them back.
    let _ = stream.set_nodelay(true);
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        // A client that goes away in the middle is its own business.
        let _ = connection.await;
    });
}
