//! TLS settings of a Gateway's server.

use std::collections::HashSet;

use crate::checker::Checker;
use crate::istio::gateway::{ServerTlsSettings, TlsCertificate, TlsMode, TlsProtocol};

/// Most certificates of a server: one for RSA and one for ECDSA keys.
const MAX_CERTIFICATES: usize = 2;

/// OpenSSL names of the cipher suites that Envoy can be told to use for TLS 1.2 and below.
const CIPHER_SUITES: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// `protocol` is the port's, in upper case.
pub(super) fn check(check: &mut Checker<'_>, server: &str, protocol: &str, tls: Option<&ServerTlsSettings>) {
    let path = format!("{server}.tls");
    let is_tls = matches!(protocol, "HTTPS" | "TLS");
    let is_http = matches!(protocol, "HTTP" | "HTTP2" | "HTTP_PROXY" | "GRPC" | "GRPC-WEB");
    let Some(tls) = tls else {
        if is_tls {
            let hint = "add tls with mode SIMPLE, serverCertificate and privateKey";
            check.error(&path, format!("a server for {protocol} needs TLS settings"), hint);
        }
        return;
    };
    settings(check, &path, tls);
    if is_tls {
        if tls.https_redirect {
            let hint = "set it on a server for HTTP";
            check.warn(
                &format!("{path}.httpsRedirect"),
                "has no effect on a server for TLS",
                hint,
            );
        }
    } else if !is_http {
        let hint = "write protocol: TLS, or remove tls";
        check.error(
            &path,
            format!("a server for {protocol} cannot have TLS settings"),
            hint,
        );
    } else if asks_for_tls(tls) {
        let hint = "write protocol: HTTPS, or keep only httpsRedirect";
        check.error(&path, "a server for plain HTTP cannot have TLS settings", hint);
    }
}

/// Whether settings of a server for plain HTTP are more than a redirect. Istio's webhook does not look at the fields
/// that name Secrets.
fn asks_for_tls(tls: &ServerTlsSettings) -> bool {
    let passes = matches!(tls.mode, TlsMode::Passthrough | TlsMode::AutoPassthrough);
    let files = [&tls.ca_certificates, &tls.private_key, &tls.server_certificate];
    !passes || files.into_iter().any(|file| !file.is_empty())
}

fn settings(check: &mut Checker<'_>, path: &str, tls: &ServerTlsSettings) {
    versions_and_ciphers(check, path, tls);
    if tls.mode == TlsMode::IstioMutual {
        return istio_mutual(check, path, tls);
    }
    let passes = matches!(tls.mode, TlsMode::Passthrough | TlsMode::AutoPassthrough);
    if passes && (has_certificates(tls) || !tls.ca_crl.is_empty()) {
        let hint = "remove them, or set mode: SIMPLE to end TLS here";
        check.warn(
            path,
            format!("the certificates are ignored in mode {}", mode_name(tls.mode)),
            hint,
        );
    }
    if certificate_sources(tls) > 1 {
        let message = "only one of credentialName, credentialNames, serverCertificate with privateKey, and \
                       tlsCertificates can be given";
        check.error(path, message, "keep one of them");
    }
    if passes {
        revocation_without_use(check, path, tls);
    } else {
        terminated(check, path, tls);
    }
}

fn has_certificates(tls: &ServerTlsSettings) -> bool {
    let files = [&tls.ca_certificates, &tls.private_key, &tls.server_certificate];
    certificate_sources(tls) > 0 || files.into_iter().any(|file| !file.is_empty())
}

fn versions_and_ciphers(check: &mut Checker<'_>, path: &str, tls: &ServerTlsSettings) {
    let old = |version| matches!(version, TlsProtocol::V1_0 | TlsProtocol::V1_1);
    if old(tls.min_protocol_version) && tls.cipher_suites.is_empty() {
        let message = "versions below TLSV1_2 need cipherSuites that are compatible with them";
        check.warn(
            &format!("{path}.minProtocolVersion"),
            message,
            "write TLSV1_2 or TLSV1_3",
        );
    }
    let (min, max) = (tls.min_protocol_version, tls.max_protocol_version);
    if max != TlsProtocol::Auto && min > max {
        let message = "is above maxProtocolVersion, so that every handshake fails";
        check.warn(&format!("{path}.minProtocolVersion"), message, "exchange the two");
    }
    let mut seen = HashSet::new();
    for (index, suite) in tls.cipher_suites.iter().enumerate() {
        let field = format!("{path}.cipherSuites[{index}]");
        if !is_cipher_suite(suite) {
            check.warn(
                &field,
                format!("{suite:?} is not a cipher suite, ignored"),
                "use OpenSSL's names",
            );
        } else if !seen.insert(suite) {
            check.warn(
                &field,
                format!("{suite} stands twice, ignored"),
                "keep one of them",
            );
        }
    }
}

/// Whether a text names a cipher suite, or may be another part of OpenSSL's cipher lists: `ALL`, `-x`, `[a|b]`.
fn is_cipher_suite(text: &str) -> bool {
    let is_operator = !text.starts_with(char::is_alphanumeric);
    is_operator || text == "ALL" || CIPHER_SUITES.contains(&text)
}

fn istio_mutual(check: &mut Checker<'_>, path: &str, tls: &ServerTlsSettings) {
    let fields = [
        ("serverCertificate", !tls.server_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
    ];
    for (field, present) in fields {
        if present {
            let hint = "remove it: ISTIO_MUTUAL uses the mesh's certificates";
            check.error(
                &format!("{path}.{field}"),
                "cannot be used with ISTIO_MUTUAL",
                hint,
            );
        }
    }
}

/// TLS ends here, so that a certificate is needed.
fn terminated(check: &mut Checker<'_>, path: &str, tls: &ServerTlsSettings) {
    if !tls.credential_name.is_empty() || !tls.credential_names.is_empty() {
        return credentials(check, path, tls);
    }
    if !tls.ca_crl.is_empty() && tls.mode == TlsMode::Simple {
        let hint = "remove it, or set mode: MUTUAL to ask for client certificates";
        check.error(
            &format!("{path}.caCrl"),
            "cannot be used with SIMPLE, which has no client certificates",
            hint,
        );
    }
    let asks_for_client = matches!(tls.mode, TlsMode::Mutual | TlsMode::OptionalMutual);
    if asks_for_client && tls.ca_certificates.is_empty() {
        let message = format!("{} needs a client CA", mode_name(tls.mode));
        check.error(
            &format!("{path}.caCertificates"),
            message,
            "name the file with the CA certificates",
        );
    }
    if tls.tls_certificates.is_empty() {
        key_pair(check, path, &tls.server_certificate, &tls.private_key, tls.mode);
    }
    if tls.tls_certificates.len() > MAX_CERTIFICATES {
        let message = format!("{} can use up to 2 certificates", mode_name(tls.mode));
        check.warn(
            &format!("{path}.tlsCertificates"),
            message,
            "keep one RSA and one ECDSA certificate",
        );
    }
    for (index, certificate) in tls.tls_certificates.iter().enumerate() {
        let TlsCertificate {
            server_certificate,
            private_key,
            ..
        } = certificate;
        let path = format!("{path}.tlsCertificates[{index}]");
        key_pair(check, &path, server_certificate, private_key, tls.mode);
    }
}

/// Certificates from Secrets: what they hold is looked at when they are there.
fn credentials(check: &mut Checker<'_>, path: &str, tls: &ServerTlsSettings) {
    if tls.credential_names.len() > MAX_CERTIFICATES {
        check.error(
            &format!("{path}.credentialNames"),
            "at most 2 are allowed",
            "keep one RSA and one ECDSA",
        );
    }
    if !tls.ca_crl.is_empty() {
        // Istio's webhook says so only of servers where TLS does not end.
        let hint = "put the list into the credential";
        check.warn(
            &format!("{path}.caCrl"),
            "has no effect together with credentialName",
            hint,
        );
    }
}

fn revocation_without_use(check: &mut Checker<'_>, path: &str, tls: &ServerTlsSettings) {
    if !tls.ca_crl.is_empty() && !tls.credential_name.is_empty() {
        let hint = "put the list into the credential";
        check.error(
            &format!("{path}.caCrl"),
            "cannot be used together with credentialName",
            hint,
        );
    }
}

fn key_pair(check: &mut Checker<'_>, path: &str, certificate: &str, key: &str, mode: TlsMode) {
    let mode = mode_name(mode);
    if certificate.is_empty() {
        let hint = "name the file with the certificate chain";
        check.error(
            &format!("{path}.serverCertificate"),
            format!("{mode} needs a server certificate"),
            hint,
        );
    }
    if key.is_empty() {
        let hint = "name the file with the private key";
        check.error(
            &format!("{path}.privateKey"),
            format!("{mode} needs a private key"),
            hint,
        );
    }
}

/// In how many ways a certificate is given.
fn certificate_sources(tls: &ServerTlsSettings) -> usize {
    let sources = [
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.server_certificate.is_empty() && !tls.private_key.is_empty(),
        !tls.tls_certificates.is_empty(),
    ];
    sources.into_iter().filter(|present| *present).count()
}

/// The mode as it is written.
fn mode_name(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Passthrough => "PASSTHROUGH",
        TlsMode::Simple => "SIMPLE",
        TlsMode::Mutual => "MUTUAL",
        TlsMode::AutoPassthrough => "AUTO_PASSTHROUGH",
        TlsMode::IstioMutual => "ISTIO_MUTUAL",
        TlsMode::OptionalMutual => "OPTIONAL_MUTUAL",
    }
}
