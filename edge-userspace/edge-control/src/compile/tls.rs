//! How a Gateway's servers end TLS (istio `pilot/pkg/networking/core/gateway.go`, `buildGatewayListenerTLSContext`).

use std::sync::Arc;

use edge_config::base64;
use edge_config::istio::gateway::{ServerTlsSettings, TlsMode, TlsProtocol};
use edge_model::{Alpn, Certificate, ClientAuth, PeerVerification, ServerTls, TlsVersion};

use super::credentials::{Credentials, ISTIO_CERTIFICATE, ISTIO_KEY, ISTIO_ROOT};
use super::gateways::BoundServer;
use super::report::Report;

/// OpenSSL names of the suites for TLS 1.2 that rustls has.
const CIPHER_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// The server's TLS. What is missing or wrong is a warning: handshakes for this server's hosts fail, and everything else
/// goes on.
pub(crate) fn server_tls(
    bound: &BoundServer<'_>,
    alpn: &[Alpn],
    credentials: &Credentials<'_>,
    report: &mut Report,
) -> ServerTls {
    let default = ServerTlsSettings::default();
    let tls = bound.server.tls.as_ref().unwrap_or(&default);
    let material = Material { tls, credentials };
    let read = material.certificates().and_then(|certificates| {
        let client_auth = material.client_auth().map_err(|missing| vec![missing])?;
        Ok((certificates, client_auth))
    });
    let (certificates, client_auth) = read.unwrap_or_else(|all| {
        for Missing { field, message } in all {
            let field = format!("{}.tls.{field}", bound.field());
            let hint = "handshakes for the server's hosts fail until it is right";
            report.warn(&bound.gateway, field, message, hint);
        }
        (vec![], ClientAuth::None)
    });
    let min_version = version(tls.min_protocol_version, TlsVersion::V1_2);
    let max_version = version(tls.max_protocol_version, TlsVersion::V1_3);
    ServerTls {
        // No handshake can succeed if there is no version between the two.
        certificates: if min_version > max_version {
            vec![]
        } else {
            certificates
        },
        min_version,
        max_version,
        cipher_suites: cipher_suites(bound, tls, report),
        client_auth,
        alpn: alpn.to_vec(),
    }
}

fn version(written: TlsProtocol, auto: TlsVersion) -> TlsVersion {
    match written {
        TlsProtocol::Auto => auto,
        // 1.2 is the oldest that rustls has; edge_config::unsupported says so.
        TlsProtocol::V1_0 | TlsProtocol::V1_1 | TlsProtocol::V1_2 => TlsVersion::V1_2,
        TlsProtocol::V1_3 => TlsVersion::V1_3,
    }
}

/// The suites that rustls has, each once.
fn cipher_suites(bound: &BoundServer<'_>, tls: &ServerTlsSettings, report: &mut Report) -> Vec<String> {
    let mut suites = vec![];
    let mut unknown = vec![];
    for suite in &tls.cipher_suites {
        if !CIPHER_SUITES.contains(&suite.as_str()) {
            unknown.push(suite.as_str());
        } else if !suites.contains(suite) {
            suites.push(suite.clone());
        }
    }
    if !unknown.is_empty() {
        let message = format!("the edge has no {}, they are left out", unknown.join(", "));
        let message = match suites.is_empty() {
            true => format!("{message}; as none is left, its own choice is offered"),
            false => message,
        };
        let field = format!("{}.tls.cipherSuites", bound.field());
        report.warn(
            &bound.gateway,
            field,
            message,
            "use AES-GCM or CHACHA20-POLY1305 with ECDHE",
        );
    }
    suites
}

/// What could not be read.
struct Missing {
    field: String,
    message: String,
}

/// Where a server's certificates come from.
struct Material<'t, 'r> {
    tls: &'t ServerTlsSettings,
    credentials: &'t Credentials<'r>,
}

impl Material<'_, '_> {
    /// Names of Secrets, of which the first also has the client CA.
    fn secrets(&self) -> Vec<(String, &str)> {
        let several = self.tls.credential_names.iter().enumerate();
        match self.tls.credential_name.as_str() {
            _ if self.tls.mode == TlsMode::IstioMutual => vec![],
            "" => several
                .map(|(index, name)| (format!("credentialNames[{index}]"), name.as_str()))
                .collect(),
            name => vec![("credentialName".to_owned(), name)],
        }
    }

    fn certificates(&self) -> Result<Vec<Arc<Certificate>>, Vec<Missing>> {
        let secrets = self.secrets();
        if !secrets.is_empty() {
            let of_secret = |(field, name): (String, &str)| {
                let certificate = self
                    .credentials
                    .secret(name)
                    .and_then(|found| found.certificate());
                certificate.map_err(|message| vec![Missing { field, message }])
            };
            return secrets.into_iter().map(of_secret).collect();
        }
        let files = |prefix: &str, chain: &str, key: &str| {
            let read = self.credentials.certificate_files(chain, key);
            read.map_err(|broken| {
                let missing = broken.into_iter().map(|(file, message)| {
                    let name = if file.is_key() {
                        "privateKey"
                    } else {
                        "serverCertificate"
                    };
                    let field = format!("{prefix}{name}");
                    Missing { field, message }
                });
                missing.collect::<Vec<_>>()
            })
        };
        if self.tls.mode == TlsMode::IstioMutual {
            return Ok(vec![files("", ISTIO_CERTIFICATE, ISTIO_KEY)?]);
        }
        if self.tls.tls_certificates.is_empty() {
            return Ok(vec![files(
                "",
                &self.tls.server_certificate,
                &self.tls.private_key,
            )?]);
        }
        let pairs = self.tls.tls_certificates.iter().enumerate();
        pairs
            .map(|(index, pair)| {
                let prefix = format!("tlsCertificates[{index}].");
                files(&prefix, &pair.server_certificate, &pair.private_key)
            })
            .collect()
    }

    fn client_auth(&self) -> Result<ClientAuth, Missing> {
        match self.tls.mode {
            TlsMode::Simple | TlsMode::Passthrough | TlsMode::AutoPassthrough => Ok(ClientAuth::None),
            TlsMode::OptionalMutual => Ok(ClientAuth::Optional(Arc::new(self.verification()?))),
            TlsMode::Mutual | TlsMode::IstioMutual => {
                Ok(ClientAuth::Required(Arc::new(self.verification()?)))
            }
        }
    }

    fn verification(&self) -> Result<PeerVerification, Missing> {
        let tls = self.tls;
        let (ca_pem, crl_pem) = self.client_ca()?;
        let hashes = |field: &str, texts: &[String], decode: fn(&str) -> Option<Vec<u8>>| {
            let hash = |(index, text): (usize, &String)| {
                let bytes = decode(text).and_then(|bytes| bytes.try_into().ok());
                bytes.ok_or_else(|| Missing {
                    field: format!("{field}[{index}]"),
                    message: format!("{text:?} is no SHA-256 hash"),
                })
            };
            texts
                .iter()
                .enumerate()
                .map(hash)
                .collect::<Result<Vec<[u8; 32]>, _>>()
        };
        Ok(PeerVerification {
            ca_pem,
            crl_pem,
            subject_alt_names: tls.subject_alt_names.clone(),
            spki_hashes: hashes(
                "verifyCertificateSpki",
                &tls.verify_certificate_spki,
                base64::decode,
            )?,
            certificate_hashes: hashes("verifyCertificateHash", &tls.verify_certificate_hash, hex)?,
            insecure_skip_verify: tls.insecure_skip_verify,
        })
    }

    /// The CA that client certificates are checked against, with its revocation list. `caCertCredentialName` goes before
    /// what the credential holds.
    fn client_ca(&self) -> Result<(Vec<u8>, Vec<u8>), Missing> {
        let at = |field: &str| {
            let field = field.to_owned();
            move |message| Missing { field, message }
        };
        let secrets = self.secrets();
        let revocations = secrets
            .first()
            .and_then(|(_, name)| self.credentials.secret(name).ok()?.revocations());
        if !self.tls.ca_cert_credential_name.is_empty() {
            let ca = self.credentials.named_ca(&self.tls.ca_cert_credential_name);
            let ca = ca.map_err(at("caCertCredentialName"))?;
            return Ok((ca, revocations.unwrap_or_default()));
        }
        if let Some((field, name)) = secrets.first() {
            let ca = self.credentials.client_ca(name).map_err(at(field))?;
            let none = || format!("Secret {name} has no ca.crt or cacert, nor has {name}-cacert");
            return Ok((
                ca.ok_or_else(none).map_err(at(field))?,
                revocations.unwrap_or_default(),
            ));
        }
        let from_pair = self
            .tls
            .tls_certificates
            .iter()
            .map(|pair| pair.ca_certificates.as_str());
        let mut from_pair = from_pair.filter(|path| !path.is_empty());
        let path = if self.tls.mode == TlsMode::IstioMutual {
            ISTIO_ROOT
        } else if self.tls.ca_certificates.is_empty() {
            from_pair.next().unwrap_or("")
        } else {
            &self.tls.ca_certificates
        };
        let ca = self.credentials.ca_file(path).map_err(at("caCertificates"))?;
        let crl = match self.tls.ca_crl.as_str() {
            "" => vec![],
            path => self.credentials.file(path).map_err(at("caCrl"))?,
        };
        Ok((ca, crl))
    }
}

/// Bytes in hexadecimal, with colons between them or without.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_with_colons_and_without() {
        for (text, expected) in [
            ("00:ff:1A", Some(vec![0, 255, 26])),
            ("00ff1a", Some(vec![0, 255, 26])),
            ("0", None),
            ("zz", None),
            ("ä0", None),
        ] {
            assert_eq!(hex(text), expected, "{text}");
        }
    }
}
