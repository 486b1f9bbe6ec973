//! TLS servers: certificates, versions, suites, client certificates and protocols.

use std::sync::Arc;

use edge_model::{ServerTls, TlsVersion};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::TlsError;
use super::certificate::certified_key;
use super::client_auth::verifier;

/// Compiles a server; `None` when it has no certificate.
///
/// # Errors
/// When a certificate, key, CA or revocation list cannot be used.
pub(crate) fn server_config(tls: &ServerTls) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    if tls.certificates.is_empty() {
        return Ok(None);
    }
    let provider = Arc::new(provider(&tls.cipher_suites));
    let keys = tls.certificates.iter().map(|certificate| {
        let key = certified_key(certificate, &provider)?;
        Ok(Arc::new(key))
    });
    let keys = keys.collect::<Result<Vec<_>, TlsError>>()?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(tls.min_version, tls.max_version))?;
    let builder = match verifier(&tls.client_auth, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates(keys)));
    config.alpn_protocols = tls.alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
    // Tickets carry the session to whichever worker the client meets next. The default store holds 256 sessions
    // behind a lock that all workers share.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(Some(Arc::new(config)))
}

/// The certificates of one server; each client gets the first that it can verify, those with the quicker keys first.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let can_verify =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let is_slow = |key: &&Arc<CertifiedKey>| key.key.algorithm() == rustls::SignatureAlgorithm::RSA;
        let usable: Vec<_> = self.0.iter().filter(can_verify).collect();
        let quick = usable.iter().find(|key| !is_slow(key));
        quick.or(usable.first()).map(|key| Arc::clone(key))
    }
}

/// The provider with the suites that are named for TLS 1.2, in that order; those of TLS 1.3 always.
fn provider(suites: &[String]) -> CryptoProvider {
    let mut provider = super::crypto();
    if suites.is_empty() {
        return provider;
    }
    let all = std::mem::take(&mut provider.cipher_suites);
    let newest = all.iter().filter(|suite| suite.tls13().is_some()).copied();
    let named = suites.iter().filter_map(|name| suite(name, &all));
    provider.cipher_suites = newest.chain(named).collect();
    provider
}

/// OpenSSL's names of the suites, those of TLS 1.2 first.
pub(super) const SUITES: [(&str, CipherSuite); 9] = [
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
];

/// A suite of TLS 1.2 by its OpenSSL name.
fn suite(name: &str, all: &[SupportedCipherSuite]) -> Option<SupportedCipherSuite> {
    let (_, wanted) = SUITES.iter().find(|(own, _)| *own == name)?;
    let mut older = all.iter().filter(|suite| suite.tls13().is_none());
    older.find(|suite| suite.suite() == *wanted).copied()
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
