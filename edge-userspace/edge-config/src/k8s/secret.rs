//! Kubernetes core Secret: certificates and keys, under Kubernetes' names and under Istio's.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// A Secret without its metadata. No part of the edge prints what is in it.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Secret {
    /// What it holds by name, in Base64.
    pub data: BTreeMap<String, String>,
    /// What it holds by name, in plain text; it wins over `data` (Kubernetes API, `Secret.stringData`).
    pub string_data: BTreeMap<String, String>,
    /// `kubernetes.io/tls`, `Opaque` or another.
    pub r#type: String,
}

/// Suffix of the name of the Secret that holds the client CA of another one
/// (istio `pilot/pkg/credentials/kube/secrets.go`, `GatewaySdsCaSuffix`).
pub const CA_SECRET_SUFFIX: &str = "-cacert";

/// Names of the entries of a Secret: Kubernetes' own, then Istio's generic ones.
const CERTIFICATE: [&str; 2] = ["tls.crt", "cert"];
const PRIVATE_KEY: [&str; 2] = ["tls.key", "key"];
const CA_CERTIFICATE: [&str; 2] = ["ca.crt", "cacert"];
const REVOCATIONS: [&str; 2] = ["ca.crl", "crl"];

impl Secret {
    /// The bytes of an entry; `None` when there is none, or when it is not Base64 (which [`crate::validate()`] reports).
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        match self.string_data.get(name) {
            Some(text) => Some(text.clone().into_bytes()),
            None => crate::base64::decode(self.data.get(name)?),
        }
    }

    /// Certificate chain in PEM: `tls.crt`, or Istio's `cert`.
    #[must_use]
    pub fn certificate(&self) -> Option<Vec<u8>> {
        self.first(CERTIFICATE)
    }

    /// Private key in PEM: `tls.key`, or Istio's `key`.
    #[must_use]
    pub fn private_key(&self) -> Option<Vec<u8>> {
        self.first(PRIVATE_KEY)
    }

    /// CA certificates in PEM: `ca.crt`, or Istio's `cacert`.
    #[must_use]
    pub fn ca_certificate(&self) -> Option<Vec<u8>> {
        self.first(CA_CERTIFICATE)
    }

    /// Certificate revocation list in PEM: `ca.crl`, or Istio's `crl`.
    #[must_use]
    pub fn revocations(&self) -> Option<Vec<u8>> {
        self.first(REVOCATIONS)
    }

    /// The first entry that is there and not empty.
    fn first(&self, names: [&str; 2]) -> Option<Vec<u8>> {
        names
            .into_iter()
            .filter_map(|name| self.bytes(name))
            .find(|bytes| !bytes.is_empty())
    }
}

impl fmt::Debug for Secret {
    /// Names the entries and leaves out what they hold, so that no log ever shows a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.data.keys().chain(self.string_data.keys()).collect();
        f.debug_struct("Secret")
            .field("type", &self.r#type)
            .field("entries", &names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(data: &[(&str, &str)], string_data: &[(&str, &str)]) -> Secret {
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            pairs.collect()
        };
        Secret {
            data: map(data),
            string_data: map(string_data),
            r#type: String::new(),
        }
    }

    #[test]
    fn kubernetes_names_go_before_istios_and_empty_entries_count_as_absent() {
        let both = secret(
            &[("tls.crt", "YQ=="), ("cert", "Yg=="), ("tls.key", "")],
            &[("key", "k")],
        );
        assert_eq!(both.certificate(), Some(b"a".to_vec()));
        assert_eq!(both.private_key(), Some(b"k".to_vec()));
        assert_eq!(both.ca_certificate(), None);
    }

    #[test]
    fn plain_text_wins_over_base64_and_broken_base64_counts_as_absent() {
        let mixed = secret(&[("cacert", "YQ=="), ("crl", "?")], &[("cacert", "b")]);
        assert_eq!(mixed.ca_certificate(), Some(b"b".to_vec()));
        assert_eq!(mixed.revocations(), None);
    }

    #[test]
    fn what_a_secret_holds_is_not_shown_when_it_is_printed() {
        let shown = format!("{:?}", secret(&[("tls.key", "c2VjcmV0")], &[("key", "secret")]));
        assert!(
            shown.contains("tls.key") && !shown.contains("c2VjcmV0"),
            "{shown}"
        );
        assert!(!shown.contains("\"secret\""), "{shown}");
    }
}
