//! TLS servers: from a certificate of the Snapshot to what rustls needs for a handshake.

use std::sync::Arc;

use edge_model::{Certificate, TlsServer, TlsVersion};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The one protocol that is spoken inside TLS. A client that offers others only is refused in the handshake
/// (RFC 7301), and does not take the answer for something else.
const ALPN: &[u8] = b"http/1.1";

/// Why a TLS server cannot take handshakes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the certificate chain is not PEM: {0}")]
    Chain(rustls_pki_types::pem::Error),
    #[error("the private key is not PEM: {0}")]
    Key(rustls_pki_types::pem::Error),
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
}

/// Compiles a server; `None` when it has no certificate.
pub(crate) fn server_config(server: &TlsServer) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    let Some((tls, certificate)) = server
        .tls()
        .and_then(|tls| Some((tls, tls.certificates.first()?)))
    else {
        return Ok(None);
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = parse(certificate)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls.min_version, tls.max_version))?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Tickets carry the session to whichever worker the client meets next. The default store holds 256 sessions
    // behind a lock that all workers share.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(Some(Arc::new(config)))
}

fn parse(
    certificate: &Certificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = CertificateDer::pem_slice_iter(&certificate.chain_pem)
        .collect::<Result<_, _>>()
        .map_err(TlsError::Chain)?;
    let key = PrivateKeyDer::from_pem_slice(&certificate.key_pem).map_err(TlsError::Key)?;
    Ok((chain, key))
}

fn versions(min: TlsVersion, max: TlsVersion) -> Vec<&'static SupportedProtocolVersion> {
    let all = [
        (TlsVersion::V1_2, &rustls::version::TLS12),
        (TlsVersion::V1_3, &rustls::version::TLS13),
    ];
    let within = all
        .into_iter()
        .filter(|(version, _)| (min..=max).contains(version));
    within.map(|(_, version)| version).collect()
}

/// Whether two servers handshake alike, so that a new configuration can keep the compiled one and its tickets.
pub(crate) fn same_handshake(a: &TlsServer, b: &TlsServer) -> bool {
    a.tls() == b.tls()
}
