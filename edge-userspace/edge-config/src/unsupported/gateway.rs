//! Gateway.

use super::{Refused, Row, refuse, report, row};
use crate::checker::Checker;
use crate::istio::gateway::{Gateway, Server, ServerTlsSettings, TlsMode, TlsProtocol};

/// Protocols of a port that the edge speaks.
const HONOURED_PROTOCOLS: [&str; 2] = ["HTTP", "HTTPS"];

#[rustfmt::skip] // A table: one field, one line.
const SERVER: &[Row<Server>] = &[
    row("bind", |server| !server.bind.is_empty(), Refused("remove it: every address is listened on")),
    row("defaultEndpoint", |server| !server.default_endpoint.is_empty(), Refused("remove it: Istio has not implemented it")),
];

const FROM_SECRETS: &str = "give serverCertificate and privateKey, the paths of files";
const NO_CLIENT_CERTIFICATES: &str = "remove it: client certificates are not checked";

#[rustfmt::skip] // A table: one field, one line.
const TLS: &[Row<ServerTlsSettings>] = &[
    row("credentialName", |tls| !tls.credential_name.is_empty(), Refused(FROM_SECRETS)),
    row("credentialNames", |tls| !tls.credential_names.is_empty(), Refused(FROM_SECRETS)),
    row("caCertCredentialName", |tls| !tls.ca_cert_credential_name.is_empty(), Refused(NO_CLIENT_CERTIFICATES)),
    row("tlsCertificates", |tls| !tls.tls_certificates.is_empty(), Refused(FROM_SECRETS)),
    row("caCertificates", |tls| !tls.ca_certificates.is_empty(), Refused(NO_CLIENT_CERTIFICATES)),
    row("caCrl", |tls| !tls.ca_crl.is_empty(), Refused(NO_CLIENT_CERTIFICATES)),
    row("subjectAltNames", |tls| !tls.subject_alt_names.is_empty(), Refused(NO_CLIENT_CERTIFICATES)),
    row("verifyCertificateSpki", |tls| !tls.verify_certificate_spki.is_empty(), Refused(NO_CLIENT_CERTIFICATES)),
    row("verifyCertificateHash", |tls| !tls.verify_certificate_hash.is_empty(), Refused(NO_CLIENT_CERTIFICATES)),
    row("insecureSkipVerify", |tls| tls.insecure_skip_verify, Refused(NO_CLIENT_CERTIFICATES)),
    row("cipherSuites", |tls| !tls.cipher_suites.is_empty(), Refused("remove it: rustls offers its safe defaults")),
    row("minProtocolVersion", |tls| is_old(tls.min_protocol_version), Refused("write TLSV1_2 or TLSV1_3")),
    row("maxProtocolVersion", |tls| is_old(tls.max_protocol_version), Refused("write TLSV1_2 or TLSV1_3")),
];

/// rustls speaks TLS 1.2 and 1.3.
fn is_old(version: TlsProtocol) -> bool {
    matches!(version, TlsProtocol::V1_0 | TlsProtocol::V1_1)
}

pub(super) fn check(check: &mut Checker<'_>, gateway: &Gateway) {
    for (index, server) in gateway.servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        report(check, &path, server, SERVER);
        let protocol = server
            .port
            .as_ref()
            .map(|port| port.protocol.to_ascii_uppercase())
            .unwrap_or_default();
        if !protocol.is_empty() && !HONOURED_PROTOCOLS.contains(&protocol.as_str()) {
            let what = format!("protocol {protocol}");
            refuse(
                check,
                &format!("{path}.port.protocol"),
                &what,
                "write HTTP or HTTPS",
            );
        }
        if let Some(tls) = &server.tls {
            report(check, &format!("{path}.tls"), tls, TLS);
            if protocol == "HTTPS" && tls.mode != TlsMode::Simple {
                let what = format!("mode {}", crate::validate::mode_name(tls.mode));
                refuse(
                    check,
                    &format!("{path}.tls.mode"),
                    &what,
                    "write mode: SIMPLE, with certificate and key",
                );
            }
        }
    }
}
