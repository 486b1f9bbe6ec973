//! TLS servers and their certificates.

use std::sync::Arc;

use edge_config::istio::gateway::{ServerTlsSettings, TlsMode, TlsProtocol};
use edge_model::{Certificate, RouteTable, ServerTls, TlsServer, TlsService, TlsVersion};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::gateways::BoundServer;
use super::report::Report;

/// Reads a file that a resource names, relative to the configuration's folder.
pub type ReadFile<'f> = dyn Fn(&str) -> std::io::Result<Vec<u8>> + 'f;

/// The server, or `None` when its mode is one that the edge does not serve (which `edge_config::unsupported` reports).
pub(crate) fn tls_server(
    bound: &BoundServer<'_>,
    routes: Arc<RouteTable>,
    read: &ReadFile<'_>,
    report: &mut Report,
) -> Option<TlsServer> {
    let tls = bound
        .server
        .tls
        .as_ref()
        .filter(|tls| tls.mode == TlsMode::Simple)?;
    let certificate = load(bound, tls, read, report).map(Arc::new);
    let mut hosts: Vec<_> = bound.hosts.iter().map(|host| host.name.clone()).collect();
    hosts.sort();
    hosts.dedup();
    Some(TlsServer {
        gateway: bound.gateway.name.clone(),
        hosts,
        service: TlsService::Http {
            tls: ServerTls {
                min_version: version(tls.min_protocol_version, TlsVersion::V1_2),
                max_version: version(tls.max_protocol_version, TlsVersion::V1_3),
                ..ServerTls::simple(certificate)
            },
            routes,
        },
    })
}

fn version(written: TlsProtocol, auto: TlsVersion) -> TlsVersion {
    match written {
        TlsProtocol::Auto => auto,
        // 1.2 is the oldest that rustls has; edge_config::unsupported says so.
        TlsProtocol::V1_0 | TlsProtocol::V1_1 | TlsProtocol::V1_2 => TlsVersion::V1_2,
        TlsProtocol::V1_3 => TlsVersion::V1_3,
    }
}

/// Reads certificate and key. What is wrong with them is a warning: handshakes for this server's hosts fail, and
/// everything else goes on.
fn load(
    bound: &BoundServer<'_>,
    tls: &ServerTlsSettings,
    read: &ReadFile<'_>,
    report: &mut Report,
) -> Option<Certificate> {
    let mut read_file = |name: &str, path: &str| {
        let field = format!("spec.servers[{}].tls.{name}", bound.index);
        let content = match path {
            "" => Err("no file is named".to_owned()),
            path => read(path).map_err(|error| format!("{path} cannot be read: {error}")),
        };
        let hint = "handshakes for the server's hosts fail until the file is there";
        content
            .map_err(|message| report.warn(&bound.gateway, field, message, hint))
            .ok()
    };
    let chain_pem = read_file("serverCertificate", &tls.server_certificate);
    let key_pem = read_file("privateKey", &tls.private_key);
    let (chain_pem, key_pem) = (chain_pem?, key_pem?);
    match check(&chain_pem, &key_pem) {
        Ok(()) => Some(Certificate {
            chain_pem,
            key_pem,
            ocsp_staple: None,
        }),
        Err(problem) => {
            let (name, path) = match problem.file {
                File::Certificate => ("serverCertificate", &tls.server_certificate),
                File::Key => ("privateKey", &tls.private_key),
            };
            let field = format!("spec.servers[{}].tls.{name}", bound.index);
            let hint = "handshakes for the server's hosts fail until the file is right";
            report.warn(
                &bound.gateway,
                field,
                format!("{path}: {}", problem.message),
                hint,
            );
            None
        }
    }
}

/// Which of the two files is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    Certificate,
    Key,
}

#[derive(Debug)]
struct BrokenFile {
    file: File,
    message: String,
}

/// Checks that both are PEM and that the key is the certificate's.
fn check(chain_pem: &[u8], key_pem: &[u8]) -> Result<(), BrokenFile> {
    let broken = |file, message: String| BrokenFile { file, message };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| broken(File::Certificate, format!("not a PEM certificate: {error}")))?;
    if chain.is_empty() {
        return Err(broken(File::Certificate, "no PEM certificate in it".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|error| broken(File::Key, format!("not a PEM private key: {error}")))?;
    let key = any_supported_type(&key).map_err(|error| broken(File::Key, error.to_string()))?;
    CertifiedKey::new(chain, key).keys_match().map_err(|error| {
        if matches!(error, rustls::Error::InvalidCertificate(_)) {
            broken(File::Certificate, error.to_string())
        } else {
            broken(File::Key, format!("not the key of the certificate: {error}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::generate_simple_self_signed;

    /// Certificate and key in PEM.
    fn pair() -> (String, String) {
        let pair = generate_simple_self_signed(["a.com".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    #[track_caller]
    fn check_pair(chain: &str, key: &str, expected: Option<(File, &str)>) {
        match (check(chain.as_bytes(), key.as_bytes()), expected) {
            (Ok(()), None) => {}
            (Err(broken), Some((file, message))) => {
                assert_eq!(broken.file, file, "{broken:?}");
                assert!(broken.message.contains(message), "{broken:?}");
            }
            (found, expected) => panic!("expected {expected:?}, got {found:?}"),
        }
    }

    #[test]
    fn a_chain_with_its_own_key_is_taken() {
        let (chain, key) = pair();
        check_pair(&chain, &key, None);
        check_pair(&format!("{chain}{}", pair().0), &key, None);
    }

    #[test]
    fn a_broken_file_is_named_with_its_reason() {
        let ((chain, key), (_, other)) = (pair(), pair());
        let der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check_pair(
            &chain,
            &other,
            Some((File::Key, "not the key of the certificate")),
        );
        check_pair("", &key, Some((File::Certificate, "no PEM certificate")));
        check_pair(&key, &key, Some((File::Certificate, "no PEM certificate")));
        check_pair(&chain, &chain, Some((File::Key, "not a PEM private key")));
        check_pair(&chain, "", Some((File::Key, "not a PEM private key")));
        check_pair(
            &chain[..60],
            &key,
            Some((File::Certificate, "not a PEM certificate")),
        );
        check_pair(der, &key, Some((File::Certificate, "invalid peer certificate")));
    }
}
