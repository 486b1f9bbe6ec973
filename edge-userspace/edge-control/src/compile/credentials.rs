//! Certificates, keys and CAs from files and from Secrets of the gateway's namespace.

use std::collections::HashMap;

use edge_config::k8s::config_map::ConfigMap;
use edge_config::k8s::secret::{CA_SECRET_SUFFIX, Secret};
use edge_model::Certificate;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::input::Input;
use crate::CompileOptions;

/// Reads a file that a resource names, relative to the configuration's folder.
pub type ReadFile<'f> = dyn Fn(&str) -> std::io::Result<Vec<u8>> + 'f;

/// Files of a workload's own certificate in a mesh (istio `pkg/config/constants`), used by `ISTIO_MUTUAL`.
pub(crate) const ISTIO_CERTIFICATE: &str = "/etc/certs/cert-chain.pem";
pub(crate) const ISTIO_KEY: &str = "/etc/certs/key.pem";
pub(crate) const ISTIO_ROOT: &str = "/etc/certs/root-cert.pem";

/// Prefixes that Istio lets the name of a Secret or ConfigMap have.
const SECRET_PREFIX: &str = "kubernetes://";
const CONFIG_MAP_PREFIX: &str = "configmap://";

/// What Gateways and DestinationRules take their certificates from.
pub(crate) struct Credentials<'r> {
    secrets: HashMap<&'r str, &'r Secret>,
    config_maps: HashMap<&'r str, &'r ConfigMap>,
    namespace: &'r str,
    read: &'r ReadFile<'r>,
}

/// A Secret that was found.
pub(crate) struct Found<'t, 'r> {
    name: &'t str,
    secret: &'r Secret,
}

impl<'r> Credentials<'r> {
    pub(crate) fn new(input: &Input<'r>, options: &'r CompileOptions, read: &'r ReadFile<'r>) -> Self {
        let namespace = options.gateway_namespace.as_str();
        let secrets = input.secrets.iter().filter(|item| item.namespace() == namespace);
        let config_maps = input
            .config_maps
            .iter()
            .filter(|item| item.namespace() == namespace);
        Self {
            secrets: secrets.map(|item| (item.meta.name.as_str(), item.spec)).collect(),
            config_maps: config_maps
                .map(|item| (item.meta.name.as_str(), item.spec))
                .collect(),
            namespace,
            read,
        }
    }

    /// A Secret by its `credentialName`.
    pub(crate) fn secret<'t>(&self, name: &'t str) -> Result<Found<'t, 'r>, String> {
        let name = name.strip_prefix(SECRET_PREFIX).unwrap_or(name);
        match self.secrets.get(name) {
            Some(secret) => Ok(Found { name, secret }),
            None => Err(format!("there is no Secret {}/{name}", self.namespace)),
        }
    }

    /// The CA of a credential: of the Secret with the suffix `-cacert`, else of the Secret itself.
    pub(crate) fn client_ca(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let name = name.strip_prefix(SECRET_PREFIX).unwrap_or(name);
        let separate = self.secrets.get(format!("{name}{CA_SECRET_SUFFIX}").as_str());
        let ca = separate
            .and_then(|secret| secret.ca_certificate())
            .or_else(|| self.secrets.get(name)?.ca_certificate());
        ca.map(|pem| check_ca(name, &pem).map(|()| pem)).transpose()
    }

    /// The CA that `caCertCredentialName` names: of a Secret or a ConfigMap.
    pub(crate) fn named_ca(&self, name: &str) -> Result<Vec<u8>, String> {
        let of_map = |name: &str| self.config_maps.get(name)?.bytes("ca.crt");
        let found = match name.strip_prefix(CONFIG_MAP_PREFIX) {
            Some(name) => of_map(name),
            None => {
                let name = name.strip_prefix(SECRET_PREFIX).unwrap_or(name);
                let secret = self.secrets.get(name);
                secret
                    .and_then(|secret| secret.ca_certificate())
                    .or_else(|| of_map(name))
            }
        };
        let pem = found.ok_or_else(|| {
            format!(
                "there is no Secret or ConfigMap {}/{name} with ca.crt",
                self.namespace
            )
        })?;
        check_ca(name, &pem)?;
        Ok(pem)
    }

    /// The content of a file.
    pub(crate) fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        match path {
            "" => Err("no file is named".to_owned()),
            path => (self.read)(path).map_err(|error| format!("{path} cannot be read: {error}")),
        }
    }

    /// Certificate and key from files; errors name the files that are at fault.
    pub(crate) fn certificate_files(
        &self,
        chain: &str,
        key: &str,
    ) -> Result<Certificate, Vec<(File, String)>> {
        let (chain_pem, key_pem) = match (self.file(chain), self.file(key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => {
                let chain = chain.err().map(|message| (File::Certificate, message));
                let key = key.err().map(|message| (File::Key, message));
                return Err(chain.into_iter().chain(key).collect());
            }
        };
        check(&chain_pem, &key_pem).map_err(|broken| {
            let path = if broken.file.is_key() { key } else { chain };
            vec![(broken.file, format!("{path}: {}", broken.message))]
        })?;
        Ok(Certificate {
            chain_pem,
            key_pem,
            ocsp_staple: None,
        })
    }
}

impl Found<'_, '_> {
    /// Certificate and key of the Secret.
    pub(crate) fn certificate(&self) -> Result<Certificate, String> {
        let missing = |what: &str| format!("Secret {} has no {what}", self.name);
        let chain_pem = self
            .secret
            .certificate()
            .ok_or_else(|| missing("tls.crt or cert"))?;
        let key_pem = self
            .secret
            .private_key()
            .ok_or_else(|| missing("tls.key or key"))?;
        check(&chain_pem, &key_pem).map_err(|broken| format!("Secret {}: {}", self.name, broken.message))?;
        Ok(Certificate {
            chain_pem,
            key_pem,
            ocsp_staple: self
                .secret
                .bytes("tls.ocsp-staple")
                .filter(|staple| !staple.is_empty()),
        })
    }

    /// Revocation list of the Secret.
    pub(crate) fn revocations(&self) -> Option<Vec<u8>> {
        self.secret.revocations()
    }
}

/// Which of two files is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum File {
    Certificate,
    Key,
}

impl File {
    pub(crate) fn is_key(self) -> bool {
        self == Self::Key
    }
}

#[derive(Debug)]
struct Broken {
    file: File,
    message: String,
}

/// Checks that CA certificates are PEM.
pub(crate) fn check_ca(name: &str, pem: &[u8]) -> Result<(), String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("{name}: no PEM certificate in it")),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{name}: not a PEM certificate: {error}")),
    }
}

/// Checks that certificate and key are PEM and that the key is the certificate's.
fn check(chain_pem: &[u8], key_pem: &[u8]) -> Result<(), Broken> {
    let broken = |file, message: String| Broken { file, message };
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
