//! Kubernetes core Namespace: its labels, which are in the metadata.

use serde::Deserialize;

/// A Namespace without its metadata: nothing else of it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {}
