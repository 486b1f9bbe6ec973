//! Kubernetes core ConfigMap: certificates of client CAs.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A ConfigMap without its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigMap {
    /// Texts by name, such as `ca.crt`.
    pub data: BTreeMap<String, String>,
    /// Bytes by name, in Base64.
    pub binary_data: BTreeMap<String, String>,
}

impl ConfigMap {
    /// The bytes of an entry; `None` when there is none, or when it is not Base64 (which [`crate::validate()`] reports).
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        match self.data.get(name) {
            Some(text) => Some(text.clone().into_bytes()),
            None => crate::base64::decode(self.binary_data.get(name)?),
        }
    }
}
