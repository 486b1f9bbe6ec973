//! Certificates, keys and trust from PEM.

use std::sync::Arc;

use edge_model::Certificate;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::TlsError;

/// A chain with its key, ready to sign.
pub(super) fn certified_key(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&certificate.chain_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(TlsError::Chain)?;
    let key = PrivateKeyDer::from_pem_slice(&certificate.key_pem).map_err(TlsError::Key)?;
    let mut certified = CertifiedKey::from_der(chain, key, provider)?;
    certified.ocsp.clone_from(&certificate.ocsp_staple);
    Ok(certified)
}

/// The trust in the given CA certificates.
pub(super) fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(TlsError::Ca)?)?;
    }
    match roots.is_empty() {
        true => Err(TlsError::NoRoots),
        false => Ok(Arc::new(roots)),
    }
}

/// The revocation lists in a PEM text.
pub(super) fn crls(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    CertificateRevocationListDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(TlsError::Crl)
}
