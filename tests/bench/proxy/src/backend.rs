//! The backend: answers GETs with as little work as can be.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Path that is answered with [`LARGE`] bytes.
pub(crate) const LARGE_PATH: &str = "/large";

/// Bytes of a large body.
pub(crate) const LARGE: usize = 1024 * 1024;

/// Bytes of a small body.
const SMALL: usize = 64;

/// Where the backend listens.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For plain text.
    #[arg(long)]
    listen: SocketAddr,
    /// For TLS.
    #[arg(long)]
    tls: SocketAddr,
    /// Certificate for TLS.
    #[arg(long)]
    certificate: PathBuf,
    /// Its key.
    #[arg(long)]
    key: PathBuf,
}

/// Serves until the process is ended.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let plain = TcpListener::bind(args.listen).await.context("cannot listen")?;
        let tls = TcpListener::bind(args.tls).await.context("cannot listen")?;
        let acceptor = TlsAcceptor::from(Arc::new(tls_config(args)?));
        loop {
            tokio::select! {
                accepted = plain.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    tokio::spawn(serve(stream));
                }
                accepted = tls.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve(stream).await;
                        }
                    });
                }
            }
        }
    })
}

fn tls_config(args: &Args) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&args.certificate)?.collect();
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates?, PrivateKeyDer::from_pem_file(&args.key)?)?)
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let [small, large] = [SMALL, LARGE].map(response);
    let mut head = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut head).await {
        while let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            let is_large = head[..end]
                .windows(LARGE_PATH.len())
                .any(|window| window == LARGE_PATH.as_bytes());
            let response = if is_large { &large } else { &small };
            if stream.write_all(response).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            head.drain(..end + 4);
        }
    }
}

fn response(length: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
    let mut response = head.into_bytes();
    response.resize(response.len() + length, b'x');
    response
}
