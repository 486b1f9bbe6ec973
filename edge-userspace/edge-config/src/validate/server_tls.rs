//! TLS settings of a Gateway's server.

use std::collections::HashSet;

use crate::checker::Checker;
use crate::istio::gateway::{ServerTlsSettings, TlsCertificate, TlsMode, TlsProtocol};

/// Most certificates of a server: one for RSA and one for ECDSA keys.
const MAX_CERTIFICATES: usize = 2;

/// OpenSSL names of the cipher suites that Envoy can be told to use for TLS 1.2 and below.
const CIPHER_SUITES: [&str; 20] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "PSK-AES128-CBC-SHA",
    "PSK-AES256-CBC-SHA",
    "DES-CBC3-SHA",
];

/// `protocol` is the port's, in upper case.
pub(super) fn check(check: &mut Checker<'_>, server: &str, protocol: &str, tls: Option<&ServerTlsSettings>) {
    let path = format!("{server}.tls");
    let is_tls = matches!(protocol, "HTTPS" | "TLS" | "GRPC-WEB-TLS");
    let is_http = matches!(protocol, "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB");
    match tls {
        None if is_tls => {
            let hint = "add tls with mode SIMPLE, serverCertificate and privateKey";
            check.error(&path, format!("a server for {protocol} needs TLS settings"), hint);
        }
        None => {}
        Some(tls) if is_tls => {
            if tls.https_redirect {
                let hint = "set it on a server for HTTP";
                check.warn(
                    &format!("{path}.httpsRedirect"),
                    "has no effect on a server for TLS",
                    hint,
                );
            }
            settings(check, &path, tls);
        }
        Some(tls) if is_http && !asks_for_tls(tls) => {}
        Some(_) if is_http => {
            let hint = "write protocol: HTTPS, or keep only httpsRedirect";
            check.error(&path, "a server for plain HTTP cannot have TLS settings", hint);
        }
        Some(_) => {
            let hint = "write protocol: TLS, or remove tls";
            check.error(
                &path,
                format!("a server for {protocol} cannot have TLS settings"),
                hint,
            );
        }
    }
}

fn asks_for_tls(tls: &ServerTlsSettings) -> bool {
    tls.mode != TlsMode::Passthrough || has_certificates(tls)
}

fn has_certificates(tls: &ServerTlsSettings) -> bool {
    certificate_sources(tls) > 0 || !tls.ca_certificates.is_empty()
}

fn settings(check: &mut Checker<'_>, path: &str, tls: &ServerTlsSettings) {
    versions_and_ciphers(check, path, tls);
    match tls.mode {
        TlsMode::Passthrough | TlsMode::AutoPassthrough => {
            if has_certificates(tls) {
                let hint = "remove them, or set mode: SIMPLE to end TLS here";
                check.warn(
                    path,
                    format!("the certificates are ignored in mode {}", mode_name(tls.mode)),
                    hint,
                );
            }
        }
        TlsMode::IstioMutual => istio_mutual(check, path, tls),
        TlsMode::Simple | TlsMode::Mutual | TlsMode::OptionalMutual => terminated(check, path, tls),
    }
}

fn versions_and_ciphers(check: &mut Checker<'_>, path: &str, tls: &ServerTlsSettings) {
    let old = |version| matches!(version, TlsProtocol::V1_0 | TlsProtocol::V1_1);
    for (field, version) in [
        ("minProtocolVersion", tls.min_protocol_version),
        ("maxProtocolVersion", tls.max_protocol_version),
    ] {
        if old(version) {
            let message = "versions below TLSV1_2 need cipherSuites that are compatible with them";
            check.warn(&format!("{path}.{field}"), message, "write TLSV1_2 or TLSV1_3");
        }
    }
    let (min, max) = (tls.min_protocol_version, tls.max_protocol_version);
    if max != TlsProtocol::Auto && min > max {
        let hint = "exchange the two";
        check.error(
            &format!("{path}.minProtocolVersion"),
            "is above maxProtocolVersion",
            hint,
        );
    }
    let mut seen = HashSet::new();
    for (index, suite) in tls.cipher_suites.iter().enumerate() {
        let field = format!("{path}.cipherSuites[{index}]");
        if !CIPHER_SUITES.contains(&suite.as_str()) {
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
    if certificate_sources(tls) > 1 {
        let message = "only one of credentialName, credentialNames, serverCertificate with privateKey, and \
                       tlsCertificates can be given";
        return check.error(path, message, "keep one of them");
    }
    revocation(check, path, tls);
    if !tls.credential_name.is_empty() || !tls.credential_names.is_empty() {
        if tls.credential_names.len() > MAX_CERTIFICATES {
            check.error(
                &format!("{path}.credentialNames"),
                "at most 2 are allowed",
                "keep one RSA and one ECDSA",
            );
        }
        return;
    }
    client_ca(check, path, tls);
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
    for (
        index,
        TlsCertificate {
            server_certificate,
            private_key,
            ..
        },
    ) in tls.tls_certificates.iter().enumerate()
    {
        let path = format!("{path}.tlsCertificates[{index}]");
        key_pair(check, &path, server_certificate, private_key, tls.mode);
    }
}

fn revocation(check: &mut Checker<'_>, path: &str, tls: &ServerTlsSettings) {
    let field = format!("{path}.caCrl");
    let has_credential = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    if tls.ca_crl.is_empty() {
        return;
    }
    if has_credential {
        let hint = "put the list into the credential";
        check.warn(&field, "has no effect together with credentialName", hint);
    } else if tls.mode == TlsMode::Simple {
        let hint = "remove it, or set mode: MUTUAL to ask for client certificates";
        check.error(
            &field,
            "cannot be used with SIMPLE, which has no client certificates",
            hint,
        );
    }
}

fn client_ca(check: &mut Checker<'_>, path: &str, tls: &ServerTlsSettings) {
    let asks_for_client = matches!(tls.mode, TlsMode::Mutual | TlsMode::OptionalMutual);
    let of_each = !tls.tls_certificates.is_empty()
        && tls
            .tls_certificates
            .iter()
            .all(|certificate| !certificate.ca_certificates.is_empty());
    let has_ca = !tls.ca_certificates.is_empty() || !tls.ca_cert_credential_name.is_empty() || of_each;
    if asks_for_client && !has_ca {
        let message = format!("{} needs a client CA", mode_name(tls.mode));
        check.error(
            &format!("{path}.caCertificates"),
            message,
            "name the file with the CA certificates",
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
        !tls.server_certificate.is_empty(),
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
