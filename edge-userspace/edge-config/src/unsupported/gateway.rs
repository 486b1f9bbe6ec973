//! Gateway.

use super::{NoEffect, NotEnforced, Row, not_enforced, report, row};
use crate::checker::Checker;
use crate::istio::gateway::{Gateway, Server, ServerTlsSettings, TlsMode, TlsProtocol};

/// The protocol of a port that the edge does not speak. Of those for databases it forwards the bytes, as of TCP.
const NOT_SPOKEN: &str = "UDP";

#[rustfmt::skip] // A table: one field, one line.
const SERVER: &[Row<Server>] = &[
    row("bind", Server::is_unix, NotEnforced("nothing is listened on: sockets of the Unix domain are not served")),
    row("defaultEndpoint", |server| !server.default_endpoint.is_empty(), NoEffect("Istio has not implemented it either")),
];

const ONLY_MUTUAL: &str = "only the modes MUTUAL and OPTIONAL_MUTUAL ask for client certificates";

#[rustfmt::skip] // A table: one field, one line.
const TLS: &[Row<ServerTlsSettings>] = &[
    row("ecdhCurves", |tls| !tls.ecdh_curves.is_empty(), NotEnforced("all that rustls has, and holds to be safe, are offered")),
    row("minProtocolVersion", |tls| is_old(tls.min_protocol_version), NotEnforced("TLS 1.2 is the oldest version that is spoken")),
    row("maxProtocolVersion", |tls| is_old(tls.max_protocol_version), NotEnforced("TLS 1.2 is the oldest version that is spoken")),
];

/// What is about client certificates: enforced with the modes that ask for them, or not at all.
#[rustfmt::skip] // A table: one field, one line.
const CLIENT_CERTIFICATES: &[Row<ServerTlsSettings>] = &[
    row("caCertCredentialName", |tls| !tls.ca_cert_credential_name.is_empty(), NoEffect(ONLY_MUTUAL)),
    row("caCertificates", |tls| !tls.ca_certificates.is_empty(), NoEffect(ONLY_MUTUAL)),
    row("caCrl", |tls| !tls.ca_crl.is_empty(), NoEffect(ONLY_MUTUAL)),
    row("subjectAltNames", |tls| !tls.subject_alt_names.is_empty(), NoEffect(ONLY_MUTUAL)),
    row("verifyCertificateSpki", |tls| !tls.verify_certificate_spki.is_empty(), NoEffect(ONLY_MUTUAL)),
    row("verifyCertificateHash", |tls| !tls.verify_certificate_hash.is_empty(), NoEffect(ONLY_MUTUAL)),
    row("insecureSkipVerify", |tls| tls.insecure_skip_verify, NoEffect(ONLY_MUTUAL)),
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
        if protocol == NOT_SPOKEN {
            let instead = "nothing listens for it: only HTTP, TLS and TCP are served";
            let what = format!("protocol {protocol}");
            not_enforced(check, &format!("{path}.port.protocol"), &what, instead);
        }
        if let Some(settings) = &server.tls {
            tls(check, &format!("{path}.tls"), settings);
        }
    }
}

fn tls(check: &mut Checker<'_>, path: &str, tls: &ServerTlsSettings) {
    report(check, path, tls, TLS);
    if !matches!(
        tls.mode,
        TlsMode::Mutual | TlsMode::OptionalMutual | TlsMode::IstioMutual
    ) {
        report(check, path, tls, CLIENT_CERTIFICATES);
    }
}
