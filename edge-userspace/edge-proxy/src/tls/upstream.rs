//! TLS to endpoints.

use std::sync::Arc;

use edge_model::{ServerVerification, UpstreamTls};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::TlsError;
use super::certificate::{certified_key, crls, roots};
use super::names::has_one_of;
use super::signature::Signatures;
use crate::protocol::Protocol;

/// Where systems keep the CA certificates that they trust: Debian, Alpine and others; Fedora and RHEL; SUSE.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// How the endpoints of a cluster are spoken to.
#[derive(Debug, Clone)]
pub(crate) struct ClientTls {
    /// Offers `http/1.1`, so that a server that could do more does not.
    http1: Arc<ClientConfig>,
    /// Offers `h2`.
    http2: Arc<ClientConfig>,
    /// Offers nothing: bytes that are forwarded may be of any protocol.
    bytes: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// No server name is set: it is that of each request (Envoy `auto_sni`).
    follows_requests: bool,
}

impl ClientTls {
    /// Compiles what the Snapshot says; where it sets no server name, `host` is the one of bytes that are forwarded, and of
    /// requests whose Host is none.
    ///
    /// # Errors
    /// When a certificate, key, CA or revocation list cannot be used.
    pub(crate) fn new(tls: &UpstreamTls, host: &str) -> Result<Self, TlsError> {
        if let Some(reason) = &tls.broken {
            return Err(TlsError::Broken(reason.clone()));
        }
        let name = tls.sni.as_deref().unwrap_or(host).to_owned();
        let has_name = tls.sni.is_some() || host.parse::<std::net::IpAddr>().is_err();
        let name = ServerName::try_from(name).map_err(|error| TlsError::Broken(error.to_string()))?;
        let bytes = config(tls, has_name)?;
        let offering = |alpn: &[u8]| {
            let mut config = bytes.clone();
            config.alpn_protocols = vec![alpn.to_vec()];
            Arc::new(config)
        };
        Ok(Self {
            http1: offering(b"http/1.1"),
            http2: offering(b"h2"),
            name,
            follows_requests: tls.sni.is_none(),
            bytes: Arc::new(bytes),
        })
    }

    /// The same for a request of this host, if its name is to be sent and another one.
    pub(crate) fn for_host(&self, host: &str) -> Option<Self> {
        if !self.follows_requests {
            return None;
        }
        let name = ServerName::try_from(host.to_owned()).ok()?;
        let is_other = matches!(name, ServerName::DnsName(_)) && name != self.name;
        is_other.then(|| Self { name, ..self.clone() })
    }

    /// Whether the server name may be another one for each request.
    pub(crate) fn follows_requests(&self) -> bool {
        self.follows_requests
    }

    /// For a version of HTTP, or for bytes that are forwarded.
    pub(crate) fn config(&self, protocol: Option<Protocol>) -> Arc<ClientConfig> {
        Arc::clone(match protocol {
            Some(Protocol::Http1) => &self.http1,
            Some(Protocol::Http2) => &self.http2,
            None => &self.bytes,
        })
    }

    /// The server name that is sent.
    pub(crate) fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }
}

fn config(tls: &UpstreamTls, has_name: bool) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(super::crypto());
    let verifier = Arc::new(Verifier::new(&tls.verify, &provider)?);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let key = certified_key(certificate, &provider)?;
            let resolver = rustls::sign::SingleCertAndKey::from(key);
            builder.with_client_cert_resolver(Arc::new(resolver))
        }
    };
    config.enable_sni = has_name;
    Ok(config)
}

/// The chain and name by rustls, or the names that the DestinationRule lists in place of the one that was sent.
#[derive(Debug)]
struct Verifier {
    /// `None` with `insecureSkipVerify`.
    chain: Option<Arc<WebPkiServerVerifier>>,
    names: Vec<String>,
    signatures: Signatures,
}

impl Verifier {
    fn new(verify: &ServerVerification, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let (chain, names) = match verify {
            ServerVerification::None => (None, vec![]),
            ServerVerification::Verify {
                ca_pem,
                crl_pem,
                subject_alt_names,
            } => {
                let roots = match ca_pem {
                    Some(pem) => roots(pem)?,
                    None => roots(&system_roots().ok_or(TlsError::NoRoots)?)?,
                };
                let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
                    .with_crls(crls(crl_pem)?)
                    // A CA without a list revokes nothing.
                    .allow_unknown_revocation_status();
                (Some(builder.build()?), subject_alt_names.clone())
            }
        };
        Ok(Self {
            chain,
            names,
            signatures: Signatures::new(provider),
        })
    }
}

fn system_roots() -> Option<Vec<u8>> {
    SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let verdict = chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if self.names.is_empty() {
            return verdict;
        }
        match verdict {
            // The name is looked at last, so that with such an error the chain is good.
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => match has_one_of(end_entity, &self.names) {
                true => Ok(ServerCertVerified::assertion()),
                false => Err(CertificateError::NotValidForName.into()),
            },
            Err(error) => Err(error),
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
