//! HTTP/2 with prior knowledge: a client and a backend.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// A whole response.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A field of the head.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Sends all requests at once over one connection.
pub(crate) fn http2(port: u16, requests: Vec<Request<Full<Bytes>>>) -> Vec<Result<Answer, hyper::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let exchanges = requests.into_iter().map(|request| {
            let mut sender = sender.clone();
            async move {
                let (head, body) = sender.send_request(request).await?.into_parts();
                let body = body.collect().await?;
                Ok(Answer {
                    status: head.status,
                    headers: head.headers,
                    trailers: body.trailers().cloned(),
                    body: body.to_bytes(),
                })
            }
        });
        let all = futures_util::future::join_all(exchanges);
        tokio::time::timeout(std::time::Duration::from_secs(20), all)
            .await
            .unwrap()
    })
}

/// Listens, and serves in a thread with a runtime of its own.
pub(crate) fn listening(serve: impl AsyncFnOnce(TcpListener) + Send + 'static) -> SocketAddr {
    let listener = super::listener(SocketAddr::from(([127, 0, 0, 1], 0)));
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move { serve(TcpListener::from_std(listener).unwrap()).await });
    });
    address
}

/// A backend that speaks nothing but HTTP/2. It answers with the request's head, field by field, then the body it got,
/// and the trailers `grpc-status: 0` and `x-sum`, the length of the request's body.
pub(crate) struct Http2Backend {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicU64>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Http2Backend {
    pub(crate) fn start() -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let connections = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&connections);
        let address = listening(async move |listener| {
            tokio::select! {
                () = accept(listener, &counter) => {}
                _ = stopped => {}
            }
        });
        Self {
            address,
            connections,
            _stop: stop,
        }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, connections: &AtomicU64) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(
                server
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await,
            );
        });
    }
}

type Frames = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(request: Request<Incoming>) -> Result<Response<Frames>, Infallible> {
    let (head, body) = request.into_parts();
    let mut text = format!("line: {} {}\n", head.method, head.uri);
    for (name, value) in &head.headers {
        text += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    let body = body.collect().await.map(http_body_util::Collected::to_bytes);
    let length = body.unwrap_or_default().len();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("x-sum", length.to_string().parse().unwrap());
    trailers.insert("content-length", "7".parse().unwrap());
    let frames = vec![Ok(Frame::data(Bytes::from(text))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    response
        .headers_mut()
        .insert("trailer", "grpc-status, x-sum".parse().unwrap());
    Ok(response)
}
