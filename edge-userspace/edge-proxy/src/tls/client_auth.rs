//! What a client's certificate must be.

use std::sync::Arc;

use edge_model::{ClientAuth, PeerVerification};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::TlsError;
use super::certificate::{crls, roots};
use super::names::{has_one_of, public_key_info};
use super::signature::Signatures;

/// The verifier of a server; `None` when clients are not asked for a certificate.
pub(super) fn verifier(
    auth: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let (verification, mandatory) = match auth {
        ClientAuth::None => return Ok(None),
        ClientAuth::Optional(verification) => (verification, false),
        ClientAuth::Required(verification) => (verification, true),
    };
    let chain = match verification.insecure_skip_verify {
        true => None,
        false => {
            let roots = roots(&verification.ca_pem)?;
            let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
                .with_crls(crls(&verification.crl_pem)?)
                // A CA without a list revokes nothing.
                .allow_unknown_revocation_status();
            Some(builder.build()?)
        }
    };
    Ok(Some(Arc::new(Verifier {
        chain,
        mandatory,
        verification: Arc::clone(verification),
        signatures: Signatures::new(provider),
    })))
}

/// The chain by rustls, and the further conditions that Istio's API has.
#[derive(Debug)]
struct Verifier {
    /// `None` with `insecureSkipVerify`.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    mandatory: bool,
    verification: Arc<PeerVerification>,
    signatures: Signatures,
}

impl Verifier {
    /// Names, and one of the lists of hashes where there is one.
    fn passes(&self, certificate: &CertificateDer<'_>) -> bool {
        let wanted = &*self.verification;
        let has_name =
            wanted.subject_alt_names.is_empty() || has_one_of(certificate, &wanted.subject_alt_names);
        let no_hash = wanted.spki_hashes.is_empty() && wanted.certificate_hashes.is_empty();
        let is_listed =
            |hash: Option<[u8; 32]>, list: &[[u8; 32]]| hash.is_some_and(|hash| list.contains(&hash));
        let key = || public_key_info(certificate).and_then(|key| sha256(&key));
        has_name
            && (no_hash
                || is_listed(key(), &wanted.spki_hashes)
                || is_listed(sha256(certificate), &wanted.certificate_hashes))
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain
            .as_ref()
            .map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_client_cert(end_entity, intermediates, now)?;
        }
        match self.chain.is_none() || self.passes(end_entity) {
            true => Ok(ClientCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}

/// SHA-256 by the provider of TLS.
pub(super) fn sha256(data: &[u8]) -> Option<[u8; 32]> {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13()?;
    let hash = suite.common.hash_provider.hash(data);
    hash.as_ref().try_into().ok()
}
