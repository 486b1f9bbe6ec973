//! TLS on both sides of the proxy.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use edge_model::{HostPattern, Kind, ObjectRef, TlsServer, TlsService};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use super::{Client, Issued, RawBackend};

/// A client over TLS.
type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

/// A client that trusts `roots` and shows no certificate.
pub(crate) fn client_config(roots: &RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth()
}

/// Shakes hands under a server name.
pub(crate) fn connect(
    port: u16,
    name: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<(TlsClient, HandshakeKind)> {
    let mut tcp = TcpStream::connect(("127.0.0.1", port))?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let name = rustls_pki_types::ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    let kind = tls
        .handshake_kind()
        .ok_or_else(|| std::io::Error::other("no handshake"))?;
    Ok((Client::over(StreamOwned::new(tls, tcp)), kind))
}

/// A TLS server of a Gateway.
pub(crate) fn tls_server(hosts: &[&str], service: TlsService) -> TlsServer {
    TlsServer {
        gateway: ObjectRef {
            kind: Kind::Gateway,
            namespace: "shop".into(),
            name: "edge".into(),
        },
        hosts: hosts
            .iter()
            .map(|host| HostPattern::parse(host).unwrap())
            .collect(),
        service,
    }
}

/// A backend that speaks HTTP/1.1 over TLS, and answers with what it saw of the handshake and the request.
pub(crate) struct TlsBackend {
    pub(crate) backend: RawBackend,
}

/// Notes nothing and has one certificate for every name.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl TlsBackend {
    /// Starts one that calls itself `name`. With `clients` only clients with a certificate of theirs are let in.
    pub(crate) fn start(name: &'static str, issued: &Issued, clients: Option<RootCertStore>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(roots) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .unwrap(),
            ),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Always(issued.certified())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let backend = RawBackend::start(move |tcp, _| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            serve(name, Client::over(StreamOwned::new(connection, tcp)));
        });
        Self { backend }
    }
}

type Served = Client<StreamOwned<ServerConnection, TcpStream>>;

fn serve(name: &str, mut stream: Served) {
    while let Ok(head) = stream.read_request_head() {
        let connection = &stream.stream_ref().conn;
        let body = format!(
            "backend: {name}\nsni: {}\nclient-certificate: {}\nalpn: {}\nline: {}\n",
            connection.server_name().unwrap_or("-"),
            connection.peer_certificates().is_some(),
            String::from_utf8_lossy(connection.alpn_protocol().unwrap_or(b"-")),
            head.lines().next().unwrap_or(""),
        );
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        if stream.write(answer).is_err() {
            return;
        }
    }
    let _ = stream.stream_mut().flush();
}
