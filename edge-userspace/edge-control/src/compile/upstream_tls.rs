//! TLS to the endpoints of a cluster (Istio `ClientTLSSettings`).

use std::sync::Arc;

use edge_config::istio::destination_rule::policy::{ClientTlsMode, ClientTlsSettings};
use edge_model::{Certificate, ServerVerification, UpstreamTls};

use super::credentials::{Credentials, ISTIO_CERTIFICATE, ISTIO_KEY, ISTIO_ROOT};
use super::destination_rules::Merged;
use super::report::Report;

/// `caCertificates` that stands for the operating system's.
const SYSTEM: &str = "system";

/// What a cluster's TLS settings come to; `None` is plain text. A file or Secret that is missing breaks the cluster and
/// nothing else: nothing ever goes in plain text where TLS was asked for.
pub(crate) fn upstream_tls(
    rule: &Merged<'_>,
    settings: &ClientTlsSettings,
    service_names: &[String],
    credentials: &Credentials<'_>,
    report: &mut Report,
) -> Option<UpstreamTls> {
    if settings.mode == ClientTlsMode::Disable {
        return None;
    }
    let read = read(settings, credentials);
    if let Err(Missing { field, message }) = &read {
        let hint = "requests to the service get 503 until it is there";
        report.warn(
            &rule.first,
            format!("spec.trafficPolicy.tls.{field}"),
            message,
            hint,
        );
    }
    let names = if settings.subject_alt_names.is_empty() {
        service_names
    } else {
        &settings.subject_alt_names
    };
    let broken = read.as_ref().err().map(|missing| missing.message.clone());
    let material = read.unwrap_or_default();
    Some(UpstreamTls {
        certificate: material.certificate,
        sni: Some(settings.sni.clone()).filter(|sni| !sni.is_empty()),
        verify: if settings.insecure_skip_verify == Some(true) {
            ServerVerification::None
        } else {
            ServerVerification::Verify {
                ca_pem: material.ca.map(Into::into),
                crl_pem: material.crl.unwrap_or_default().into(),
                subject_alt_names: names.to_vec(),
            }
        },
        broken,
    })
}

#[derive(Default)]
struct Material {
    certificate: Option<Arc<Certificate>>,
    ca: Option<Vec<u8>>,
    crl: Option<Vec<u8>>,
}

/// What could not be read.
struct Missing {
    field: &'static str,
    message: String,
}

fn read(settings: &ClientTlsSettings, credentials: &Credentials<'_>) -> Result<Material, Missing> {
    let missing = |field| move |message| Missing { field, message };
    let is_mutual = settings.mode == ClientTlsMode::Mutual;
    if settings.mode != ClientTlsMode::IstioMutual && !settings.credential_name.is_empty() {
        let secret = credentials
            .secret(&settings.credential_name)
            .map_err(missing("credentialName"))?;
        let certificate = match is_mutual {
            true => Some(secret.certificate().map_err(missing("credentialName"))?),
            false => None,
        };
        let ca = credentials.client_ca(&settings.credential_name);
        return Ok(Material {
            certificate,
            ca: ca.map_err(missing("credentialName"))?,
            crl: secret.revocations(),
        });
    }
    let files = match settings.mode {
        ClientTlsMode::IstioMutual => [ISTIO_CERTIFICATE, ISTIO_KEY, ISTIO_ROOT],
        ClientTlsMode::Disable | ClientTlsMode::Simple | ClientTlsMode::Mutual => [
            settings.client_certificate.as_str(),
            settings.private_key.as_str(),
            settings.ca_certificates.as_str(),
        ],
    };
    let [chain, key, ca] = files;
    let has_certificate = is_mutual || settings.mode == ClientTlsMode::IstioMutual;
    let certificate = has_certificate.then(|| credentials.certificate_files(chain, key));
    let certificate = certificate.transpose().map_err(|broken| {
        let is_key = broken.iter().all(|(file, _)| file.is_key());
        let messages: Vec<_> = broken.into_iter().map(|(_, message)| message).collect();
        Missing {
            field: if is_key { "privateKey" } else { "clientCertificate" },
            message: messages.join("; "),
        }
    })?;
    let ca = match ca {
        "" | SYSTEM => None,
        path => Some(credentials.ca_file(path).map_err(missing("caCertificates"))?),
    };
    let crl = match settings.ca_crl.as_str() {
        "" => None,
        path => Some(credentials.file(path).map_err(missing("caCrl"))?),
    };
    Ok(Material { certificate, ca, crl })
}
