//! TLS on both sides: from what the Snapshot says to what rustls needs for a handshake.

mod certificate;
mod client_auth;
mod handshake;
mod names;
mod server;
mod signature;
mod upstream;

pub(crate) use handshake::Handshake;
pub(crate) use names::Facts;
pub(crate) use server::server_config;
pub(crate) use upstream::ClientTls;

use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};

/// What TLS computes with: ring, but private keys are AWS-LC's, which takes less than half of ring's time for an RSA
/// signature, and that is most of a handshake.
fn crypto() -> CryptoProvider {
    let key_provider = aws_lc_rs::default_provider().key_provider;
    CryptoProvider {
        key_provider,
        ..ring::default_provider()
    }
}

/// Why a configuration of TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the certificate chain is not PEM: {0}")]
    Chain(rustls_pki_types::pem::Error),
    #[error("the private key is not PEM: {0}")]
    Key(rustls_pki_types::pem::Error),
    #[error("the CA certificates are not PEM: {0}")]
    Ca(rustls_pki_types::pem::Error),
    #[error("the revocation lists are not PEM: {0}")]
    Crl(rustls_pki_types::pem::Error),
    #[error("the verifier cannot be built: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("no CA certificate is given, and the system has none")]
    NoRoots,
    #[error("{0}")]
    Broken(String),
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
}
