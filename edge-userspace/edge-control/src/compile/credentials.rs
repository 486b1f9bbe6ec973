//! Certificates, keys and CAs from files and from Secrets of the gateway's namespace.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use edge_config::k8s::config_map::ConfigMap;
use edge_config::k8s::secret::{CA_SECRET_SUFFIX, Secret};
use edge_model::{Certificate, Kind};
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
    checked: &'r Checked,
}

/// A Secret that was found.
pub(crate) struct Found<'t, 'r> {
    name: &'t str,
    secret: &'r Secret,
    checked: Arc<CheckedObject>,
}

/// What Secrets, ConfigMaps and files of certificates were found to hold. To check a certificate and its key takes longer
/// than to compile most changes, so it is done once for each content: whoever keeps this from one compilation to the next
/// [forgets](Self::forget) the objects that change in between, and files that are [no longer used](Self::forget_unused).
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// By the kind and name of objects in the gateway's namespace.
    objects: RefCell<HashMap<(Kind, String), Arc<CheckedObject>>>,
    /// Certificates from files, by the paths of chain and key. The files are read each time; only when they hold what
    /// they held is it not checked again.
    files: RefCell<HashMap<(String, String), Arc<Certificate>>>,
}

/// What was found in a Secret or ConfigMap, as far as somebody asked.
#[derive(Debug, Default)]
struct CheckedObject {
    certificate: OnceLock<Result<Arc<Certificate>, String>>,
    /// `None` when there is no CA in it.
    ca: OnceLock<Option<Result<Vec<u8>, String>>>,
}

impl Checked {
    /// Forgets what was found in a Secret or ConfigMap of the gateway's namespace.
    pub(crate) fn forget(&mut self, kind: Kind, name: &str) {
        self.objects.get_mut().remove(&(kind, name.to_owned()));
    }

    /// Forgets certificates from files that nothing uses any more: their keys need not stay in memory.
    pub(crate) fn forget_unused(&mut self) {
        self.files
            .get_mut()
            .retain(|_, certificate| Arc::strong_count(certificate) > 1);
    }

    fn object(&self, kind: Kind, name: &str) -> Arc<CheckedObject> {
        let mut objects = self.objects.borrow_mut();
        Arc::clone(objects.entry((kind, name.to_owned())).or_default())
    }
}

impl<'r> Credentials<'r> {
    pub(crate) fn new(
        input: &Input<'r>,
        options: &'r CompileOptions,
        read: &'r ReadFile<'r>,
        checked: &'r Checked,
    ) -> Self {
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
            checked,
        }
    }

    /// A Secret by its `credentialName`.
    pub(crate) fn secret<'t>(&self, name: &'t str) -> Result<Found<'t, 'r>, String> {
        let name = name.strip_prefix(SECRET_PREFIX).unwrap_or(name);
        match self.secrets.get(name) {
            Some(secret) => Ok(Found {
                name,
                secret,
                checked: self.checked.object(Kind::Secret, name),
            }),
            None => Err(format!("there is no Secret {}/{name}", self.namespace)),
        }
    }

    /// The CA of a credential: of the Secret with the suffix `-cacert`, else of the Secret itself.
    pub(crate) fn client_ca(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let name = name.strip_prefix(SECRET_PREFIX).unwrap_or(name);
        let separate = self.ca_of_secret(&format!("{name}{CA_SECRET_SUFFIX}"));
        let ca = separate.or_else(|| self.ca_of_secret(name));
        let ca = ca.map(|found| found.map_err(|reason| format!("{name}: {reason}")));
        ca.transpose()
    }

    /// The CA in a Secret; `None` when there is none.
    fn ca_of_secret(&self, name: &str) -> Option<Result<Vec<u8>, String>> {
        let secret = self.secrets.get(name)?;
        let checked = self.checked.object(Kind::Secret, name);
        let read = || secret.ca_certificate().map(checked_ca);
        checked.ca.get_or_init(read).clone()
    }

    /// The same of a ConfigMap.
    fn ca_of_config_map(&self, name: &str) -> Option<Result<Vec<u8>, String>> {
        let map = self.config_maps.get(name)?;
        let checked = self.checked.object(Kind::ConfigMap, name);
        let read = || map.bytes("ca.crt").map(checked_ca);
        checked.ca.get_or_init(read).clone()
    }

    /// The CA that `caCertCredentialName` names: of a Secret or a ConfigMap.
    pub(crate) fn named_ca(&self, name: &str) -> Result<Vec<u8>, String> {
        let found = match name.strip_prefix(CONFIG_MAP_PREFIX) {
            Some(name) => self.ca_of_config_map(name),
            None => {
                let name = name.strip_prefix(SECRET_PREFIX).unwrap_or(name);
                self.ca_of_secret(name).or_else(|| self.ca_of_config_map(name))
            }
        };
        let found = found.ok_or_else(|| {
            format!(
                "there is no Secret or ConfigMap {}/{name} with ca.crt",
                self.namespace
            )
        })?;
        found.map_err(|reason| format!("{name}: {reason}"))
    }

    /// The content of a file.
    pub(crate) fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        match path {
            "" => Err("no file is named".to_owned()),
            path => (self.read)(path).map_err(|error| format!("{path} cannot be read: {error}")),
        }
    }

    /// CA certificates of a file.
    pub(crate) fn ca_file(&self, path: &str) -> Result<Vec<u8>, String> {
        checked_ca(self.file(path)?).map_err(|reason| format!("{path}: {reason}"))
    }

    /// Certificate and key from files; errors name the files that are at fault.
    pub(crate) fn certificate_files(
        &self,
        chain: &str,
        key: &str,
    ) -> Result<Arc<Certificate>, Vec<(File, String)>> {
        let (chain_pem, key_pem) = match (self.file(chain), self.file(key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => {
                let chain = chain.err().map(|message| (File::Certificate, message));
                let key = key.err().map(|message| (File::Key, message));
                return Err(chain.into_iter().chain(key).collect());
            }
        };
        let read = Certificate {
            chain_pem,
            key_pem,
            ocsp_staple: None,
        };
        let paths = (chain.to_owned(), key.to_owned());
        let mut files = self.checked.files.borrow_mut();
        if let Some(known) = files.get(&paths).filter(|known| ***known == read) {
            return Ok(Arc::clone(known));
        }
        check(&read.chain_pem, &read.key_pem).map_err(|broken| {
            let path = if broken.file.is_key() { key } else { chain };
            vec![(broken.file, format!("{path}: {}", broken.message))]
        })?;
        let read = Arc::new(read);
        files.insert(paths, Arc::clone(&read));
        Ok(read)
    }
}

impl Found<'_, '_> {
    /// Certificate and key of the Secret.
    pub(crate) fn certificate(&self) -> Result<Arc<Certificate>, String> {
        let certificate = self.checked.certificate.get_or_init(|| self.read().map(Arc::new));
        certificate.clone()
    }

    fn read(&self) -> Result<Certificate, String> {
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

/// CA certificates that are PEM, or why they are not.
fn checked_ca(pem: Vec<u8>) -> Result<Vec<u8>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err("no PEM certificate in it".to_owned()),
        Ok(_) => Ok(pem),
        Err(error) => Err(format!("not a PEM certificate: {error}")),
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
    use edge_config::Resource;
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

    fn secret((chain, key): &(String, String)) -> Resource {
        let block = |text: &str| text.replace('\n', "\n    ");
        let text = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: c, namespace: istio-system}}\nstringData:\n  \
             tls.crt: |\n    {0}\n  tls.key: |\n    {1}\n  ca.crt: |\n    {0}\n",
            block(chain),
            block(key)
        );
        let mut parsed = edge_config::parse_documents("secret.yaml", &text);
        parsed.resources.remove(0)
    }

    /// What a compilation finds in the Secret, and in the files.
    fn found(resource: &Resource, checked: &Checked, files: &(String, String)) -> [Arc<Certificate>; 2] {
        let input = Input::new([resource], &mut super::super::report::Report::default());
        let options = CompileOptions::default();
        let read = |path: &str| {
            let text = if path == "chain" { &files.0 } else { &files.1 };
            Ok(text.clone().into_bytes())
        };
        let credentials = Credentials::new(&input, &options, &read, checked);
        let found = credentials.secret("c").unwrap();
        let ca = credentials.client_ca("kubernetes://c").unwrap().unwrap();
        let certificate = found.certificate().unwrap();
        assert_eq!(ca, certificate.chain_pem, "the CA is that of the same content");
        [
            certificate,
            credentials.certificate_files("chain", "key").unwrap(),
        ]
    }

    #[test]
    fn what_was_checked_is_kept_until_the_content_is_another() {
        let (one, other) = (pair(), pair());
        let mut checked = Checked::default();
        let [of_secret, of_files] = found(&secret(&one), &checked, &one);
        let again = found(&secret(&one), &checked, &one);
        assert!(Arc::ptr_eq(&of_secret, &again[0]) && Arc::ptr_eq(&of_files, &again[1]));
        checked.forget(Kind::ConfigMap, "c");
        let again = found(&secret(&one), &checked, &one);
        assert!(Arc::ptr_eq(&of_secret, &again[0]), "another object changed");
        checked.forget(Kind::Secret, "c");
        let [of_secret, of_files] = found(&secret(&other), &checked, &other);
        assert_eq!(of_secret.key_pem.trim_ascii(), other.1.trim().as_bytes());
        assert_eq!(of_files.key_pem, other.1.as_bytes());
        checked.forget_unused();
        assert_eq!(checked.files.borrow().len(), 1, "somebody uses it");
        drop(of_files);
        checked.forget_unused();
        assert!(checked.files.borrow().is_empty());
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
