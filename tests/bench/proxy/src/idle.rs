//! Connections that are opened, used once or not at all, and then held.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::case::Idle;

/// What is printed once all connections are there.
pub(crate) const READY: &str = "ready";

/// Connections to hold.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The proxy.
    #[arg(long)]
    to: SocketAddr,
    /// How many.
    #[arg(long)]
    connections: u32,
    /// What they do first.
    #[arg(long, value_enum)]
    after: Idle,
}

/// Opens them, says so, and waits to be ended.
pub(crate) fn run(args: &Args) -> Result<()> {
    raise_limit(u64::from(args.connections) + 100)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let tls = TlsConnector::from(Arc::new(tls_config()?));
        let mut held: Vec<Box<dyn Stream>> = Vec::new();
        for _ in 0..args.connections {
            let stream = TcpStream::connect(args.to).await.context("cannot connect")?;
            let mut stream: Box<dyn Stream> = match args.after {
                Idle::Tls => {
                    let name = ServerName::try_from("localhost")?;
                    Box::new(tls.connect(name, stream).await?)
                }
                Idle::Accepted | Idle::Http1 | Idle::Http2 => Box::new(stream),
            };
            match args.after {
                Idle::Accepted => {}
                Idle::Http1 | Idle::Tls => http1(&mut stream).await?,
                Idle::Http2 => http2(&mut stream).await?,
            }
            held.push(stream);
        }
        println!("{READY}");
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

/// Handshakes to make.
#[derive(Debug, clap::Args)]
pub(crate) struct HandshakeArgs {
    /// The proxy.
    #[arg(long)]
    to: SocketAddr,
    /// How many at once.
    #[arg(long)]
    connections: u32,
    /// For so many seconds.
    #[arg(long)]
    seconds: u64,
}

/// Makes full handshakes, with one request behind each, and prints how many. (wrk resumes sessions.)
pub(crate) fn handshakes(args: &HandshakeArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut config = tls_config()?;
    config.resumption = rustls::client::Resumption::disabled();
    let tls = TlsConnector::from(Arc::new(config));
    let end = tokio::time::Instant::from_std(std::time::Instant::now() + Duration::from_secs(args.seconds));
    let done = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..args.connections {
            tasks.spawn(shake_hands(args.to, tls.clone(), end));
        }
        tasks.join_all().await
    });
    let done: Result<Vec<u64>> = done.into_iter().collect();
    println!("{}", done?.into_iter().sum::<u64>());
    Ok(())
}

async fn shake_hands(to: SocketAddr, tls: TlsConnector, end: tokio::time::Instant) -> Result<u64> {
    let mut done = 0;
    while tokio::time::Instant::now() < end {
        let stream = TcpStream::connect(to).await.context("cannot connect")?;
        let mut stream = tls.connect(ServerName::try_from("localhost")?, stream).await?;
        http1(&mut stream).await?;
        done += 1;
    }
    Ok(done)
}

/// Lets this process, and what it starts, have so many descriptors, or as many as the system allows.
pub(crate) fn raise_limit(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted))),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the number of descriptors")
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

async fn http1(stream: &mut impl Stream) -> Result<()> {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    loop {
        ensure!(
            stream.read_buf(&mut answer).await? > 0,
            "the proxy closed a connection: {:?}",
            String::from_utf8_lossy(&answer)
        );
        // The backend's small body is all `x`.
        if answer.ends_with(b"xxxx") {
            return Ok(());
        }
    }
}

/// A GET in frames (RFC 9113 sections 3.4, 4.1 and 6), with its head from HPACK's static table (RFC 7541 appendix A).
async fn http2(stream: &mut Box<dyn Stream>) -> Result<()> {
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    const END_OF_ALL: u8 = 0x5;
    const ACK: u8 = 1;
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // :method GET, :scheme http, :path /, and :authority (1) with a value of its own.
    let head = [&[0x82, 0x86, 0x84, 0x41, 9][..], b"localhost"].concat();
    request.extend(frame(SETTINGS, 0, 0, &[]));
    request.extend(frame(HEADERS, END_OF_ALL, 1, &head));
    stream.write_all(&request).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        let (kind, flags, number) = (head[3], head[4], head[8]);
        if kind == SETTINGS && flags & ACK == 0 {
            stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
        }
        ensure!(
            !matches!(kind, 3 | 7),
            "the proxy reset a stream or the connection"
        );
        if number == 1 && matches!(kind, 0 | HEADERS) && flags & 1 != 0 {
            return Ok(());
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(u8::MAX);
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

fn tls_config() -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth())
}

/// The proxies' certificates are made for the run and signed by nobody.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
