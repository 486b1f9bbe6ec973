//! TLS on both sides: what a server shows and asks for, and how endpoints are spoken to.

use std::sync::Arc;

/// How a server ends TLS (Istio `ServerTLSSettings`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Certificates with their keys: one, or one RSA and one ECDSA. Empty when any file or Secret that the server names
    /// could not be read: handshakes for its names then fail, those for others go on.
    pub certificates: Vec<Arc<Certificate>>,
    /// Lowest version accepted.
    pub min_version: TlsVersion,
    /// Highest version accepted.
    pub max_version: TlsVersion,
    /// OpenSSL names of the cipher suites for TLS 1.2; empty for rustls' own choice. Names that rustls has no suite for
    /// are left out when compiling.
    pub cipher_suites: Vec<String>,
    /// Whether the client shows a certificate.
    pub client_auth: ClientAuth,
    /// Protocols offered (RFC 7301), the preferred one first; empty offers none.
    pub alpn: Vec<Alpn>,
}

impl ServerTls {
    /// TLS 1.2 and 1.3 with one certificate, for HTTP, without client certificates.
    #[must_use]
    pub fn simple(certificate: Option<Arc<Certificate>>) -> Self {
        Self {
            certificates: certificate.into_iter().collect(),
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            cipher_suites: vec![],
            client_auth: ClientAuth::None,
            alpn: vec![Alpn::Http2, Alpn::Http1],
        }
    }
}

/// Protocols that are negotiated by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `h2`.
    Http2,
    /// `http/1.1`.
    Http1,
}

impl Alpn {
    /// The name on the wire.
    #[must_use]
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }
}

/// Whether a client shows a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// `SIMPLE`: it is not asked for one.
    #[default]
    None,
    /// `OPTIONAL_MUTUAL`: it is asked; what it shows is verified.
    Optional(Arc<PeerVerification>),
    /// `MUTUAL` and `ISTIO_MUTUAL`: without a valid one the handshake fails.
    Required(Arc<PeerVerification>),
}

/// What a client's certificate must be. The three lists are further conditions; an empty one is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerVerification {
    /// CA certificates in PEM.
    pub ca_pem: Vec<u8>,
    /// Revocation lists in PEM; empty when there are none.
    pub crl_pem: Vec<u8>,
    /// Names of which the certificate must have one (DNS name, URI, e-mail or IP address, compared as text).
    pub subject_alt_names: Vec<String>,
    /// SHA-256 hashes of public keys (DER `SubjectPublicKeyInfo`). A certificate passes by this list or by
    /// `certificate_hashes`.
    pub spki_hashes: Vec<[u8; 32]>,
    /// SHA-256 hashes of certificates (DER).
    pub certificate_hashes: Vec<[u8; 32]>,
    /// `insecureSkipVerify`: a client whose certificate cannot be verified is let in all the same.
    pub insecure_skip_verify: bool,
}

/// TLS versions that the edge speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// Certificate chain and private key in PEM, read and checked to belong together.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Certificate {
    /// Chain, the own certificate first.
    pub chain_pem: Vec<u8>,
    /// Private key.
    pub key_pem: Vec<u8>,
    /// OCSP response in DER that is stapled (RFC 6066 section 8), `tls.ocsp-staple` of a Secret.
    pub ocsp_staple: Option<Vec<u8>>,
}

impl std::fmt::Debug for Certificate {
    /// Leaves the key out, so that no log ever shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("chain_bytes", &self.chain_pem.len())
            .finish_non_exhaustive()
    }
}

/// TLS to the endpoints of a cluster (Istio `ClientTLSSettings`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Own certificate (`MUTUAL`, `ISTIO_MUTUAL`).
    pub certificate: Option<Arc<Certificate>>,
    /// Server name that is sent; `None` sends the host that the request goes to (Envoy `auto_sni`).
    pub sni: Option<String>,
    /// What the endpoint's certificate is checked against.
    pub verify: ServerVerification,
    /// Why no connection can be made: a file or Secret is missing. Requests then get 503 (flag UF).
    pub broken: Option<String>,
}

/// What an endpoint's certificate is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerVerification {
    /// `insecureSkipVerify`: nothing.
    None,
    /// By CA and name.
    Verify {
        /// CA certificates in PEM; `None` for those of the operating system.
        ca_pem: Option<Arc<[u8]>>,
        /// Revocation lists in PEM; empty when there are none.
        crl_pem: Arc<[u8]>,
        /// Names of which the certificate must have one; empty asks for the server name that was sent (Envoy
        /// `auto_san_validation`).
        subject_alt_names: Vec<String>,
    },
}
