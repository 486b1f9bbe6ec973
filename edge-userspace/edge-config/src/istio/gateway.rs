//! `networking.istio.io` Gateway.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `spec` of a Gateway: the ports that are opened, and for which hosts.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// Labels of the gateway workloads that it applies to; none means all of them.
    pub selector: BTreeMap<String, String>,
    /// Ports with their hosts.
    pub servers: Vec<Server>,
}

/// One port with its hosts.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Server {
    /// Port that is opened.
    pub port: Option<Port>,
    /// IP address, or `unix:` path, that is listened on; empty means every address.
    pub bind: String,
    /// Hosts as `[namespace/]name`, where the namespace restricts which VirtualServices may bind.
    pub hosts: Vec<String>,
    /// TLS settings; required for HTTPS and TLS.
    pub tls: Option<ServerTlsSettings>,
    /// Not implemented by Istio.
    pub default_endpoint: String,
    /// Name in statistics, unique in its Gateway.
    pub name: String,
}

impl Server {
    /// Whether it is to listen on a socket of the Unix domain.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.bind.starts_with("unix:")
    }
}

/// A port of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    /// Port number, 1 to 65535.
    pub number: u32,
    /// Protocol: HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, REDIS, MYSQL, TCP or TLS.
    pub protocol: String,
    /// Name of the port, part of the route configuration's name.
    pub name: String,
    /// Has no effect on a Gateway; refused.
    pub target_port: Option<u32>,
}

/// TLS settings of a server.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServerTlsSettings {
    /// Answer every plain-text request with a redirect to https.
    pub https_redirect: bool,
    /// What is done with the TLS connection.
    pub mode: TlsMode,
    /// File with the certificate chain.
    pub server_certificate: String,
    /// File with the private key.
    pub private_key: String,
    /// File with the CA certificates that client certificates are checked against.
    pub ca_certificates: String,
    /// File with the certificate revocation list.
    pub ca_crl: String,
    /// Secret in the gateway's namespace that holds certificate and key.
    pub credential_name: String,
    /// Secrets, at most two (RSA and ECDSA).
    pub credential_names: Vec<String>,
    /// Secret or ConfigMap with the client CA.
    pub ca_cert_credential_name: String,
    /// Pairs of files, at most two (RSA and ECDSA).
    pub tls_certificates: Vec<TlsCertificate>,
    /// Names of which the client's certificate must have one.
    pub subject_alt_names: Vec<String>,
    /// Base64 SHA-256 hashes of accepted public keys.
    pub verify_certificate_spki: Vec<String>,
    /// Hex SHA-256 hashes of accepted certificates.
    pub verify_certificate_hash: Vec<String>,
    /// Lowest version accepted.
    pub min_protocol_version: TlsProtocol,
    /// Highest version accepted.
    pub max_protocol_version: TlsProtocol,
    /// OpenSSL names of cipher suites for TLS 1.2.
    pub cipher_suites: Vec<String>,
    /// Names of curves for the key exchange.
    pub ecdh_curves: Vec<String>,
    /// Let clients in whose certificate cannot be verified.
    pub insecure_skip_verify: bool,
}

/// Files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsCertificate {
    /// File with the certificate chain.
    pub server_certificate: String,
    /// File with the private key.
    pub private_key: String,
    /// File with the client CA.
    pub ca_certificates: String,
}

/// `ServerTLSSettings.TLSmode`; the default is PASSTHROUGH because it is value 0 in Istio's enum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    /// The connection goes on as it is, chosen by SNI.
    #[default]
    Passthrough,
    /// TLS ends here.
    Simple,
    /// TLS ends here, and the client must show a certificate.
    Mutual,
    /// Passthrough for multi-cluster meshes, the cluster being named by the SNI.
    AutoPassthrough,
    /// As `Mutual`, with the mesh's own certificates.
    IstioMutual,
    /// The client may show a certificate, which is then checked.
    OptionalMutual,
}

/// TLS protocol versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
pub enum TlsProtocol {
    /// Up to the edge: 1.2 as the lowest, 1.3 as the highest.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// TLS 1.0.
    #[serde(rename = "TLSV1_0")]
    V1_0,
    /// TLS 1.1.
    #[serde(rename = "TLSV1_1")]
    V1_1,
    /// TLS 1.2.
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
