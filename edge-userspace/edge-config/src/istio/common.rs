//! Messages that several kinds use.

use serde::Deserialize;

/// Istio `Percent`: 0 to 100, fractions allowed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Percent {
    /// The share in percent.
    pub value: f64,
}

/// Istio `PortSelector`: a port by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct PortSelector {
    /// Port number, 1 to 65535.
    pub number: u32,
}
