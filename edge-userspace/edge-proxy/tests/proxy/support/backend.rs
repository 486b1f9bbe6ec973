//! Backends: a well-behaved one that tells what it got, and one that does as the test says.

use std::convert::Infallible;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::listener;

/// Answers every request with a description of it, or as its path says:
/// `/echo` gives the body back, `/status/N` answers with status N, `/sleep/N` takes N ms, `/bytes/N` sends N bytes.
/// A header `reply-x: v` comes back as `x: v`.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    hits: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    /// Starts one that calls itself `name`.
    pub(crate) fn start(name: &'static str) -> Self {
        Self::start_at(name, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts one at an address of the loopback.
    pub(crate) fn start_at(name: &'static str, address: SocketAddr) -> Self {
        let listener = listener(address);
        let address = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel();
        let counter = Arc::clone(&hits);
        let thread = std::thread::spawn(move || run(name, listener, counter, stopped));
        Self {
            address,
            hits,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Requests so far.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }

    /// Ends it as a killed process would: connections are reset or closed, the port is refused.
    pub(crate) fn kill(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(name: &'static str, listener: TcpListener, hits: Arc<AtomicU64>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let accept = async {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let hits = Arc::clone(&hits);
            tokio::task::spawn_local(async move {
                let service = service_fn(|request| {
                    hits.fetch_add(1, Ordering::SeqCst);
                    answer(name, request)
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                drop(connection);
            });
        }
    };
    LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            _ = stopped => {}
            () = accept => {}
        }
    });
}

type Body = Either<Full<Bytes>, Incoming>;

async fn answer(name: &'static str, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let mut response = Response::builder();
    for (header, value) in request.headers() {
        if let Some(header) = header.as_str().strip_prefix("reply-") {
            response = response.header(header, value);
        }
    }
    let argument = path
        .rsplit('/')
        .next()
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(0);
    let body = match path.split('/').nth(1) {
        Some("echo") => return Ok(response.body(Either::Right(request.into_body())).unwrap()),
        Some("bytes") => Bytes::from(vec![b'x'; usize::try_from(argument).unwrap()]),
        Some("status") => {
            response = response.status(u16::try_from(argument).unwrap());
            Bytes::new()
        }
        Some("sleep") => {
            tokio::time::sleep(Duration::from_millis(argument)).await;
            Bytes::from_static(b"slept")
        }
        Some(_) | None => describe(name, request).await,
    };
    Ok(response.body(Either::Left(Full::new(body))).unwrap())
}

/// The request as it arrived, one line for each part.
async fn describe(name: &str, request: Request<Incoming>) -> Bytes {
    let mut text = format!("backend: {name}\nline: {} {}\n", request.method(), request.uri());
    for (header, value) in request.headers() {
        text += &format!("{header}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let body = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    text += &format!("body-length: {}\n", body.unwrap_or_default().len());
    Bytes::from(text)
}

/// Calls a function with each connection, on a thread for each, and its number.
pub(crate) struct RawBackend {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl RawBackend {
    pub(crate) fn start(serve: impl Fn(TcpStream, u64) + Send + Sync + 'static) -> Self {
        let listener = listener(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicU64::new(0));
        let (counter, stopped, serve) = (Arc::clone(&connections), Arc::clone(&stop), Arc::new(serve));
        let done = Arc::clone(&ended);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, serve, done) = (stream.unwrap(), Arc::clone(&serve), Arc::clone(&done));
                let number = counter.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    serve(stream, number);
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            connections,
            ended,
            stop,
        }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections that are being served.
    pub(crate) fn open(&self) -> u64 {
        self.connections() - self.ended.load(Ordering::SeqCst)
    }

    /// Reads one request head; empty when the connection ended instead.
    pub(crate) fn read_head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Ok(_) | Err(_) => return String::new(),
            }
        }
        String::from_utf8(head).unwrap()
    }
}

impl Drop for RawBackend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // The last connection wakes the accepting thread.
        drop(TcpStream::connect(self.address));
    }
}
