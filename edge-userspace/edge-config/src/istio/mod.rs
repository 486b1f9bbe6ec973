//! Shapes of Istio's kinds as they stand in the files (`networking.istio.io` v1, v1beta1 and v1alpha3 share them).
//!
//! Every field that Istio's API has is here, whether the edge enforces it or not: what it does not enforce is reported
//! by [`crate::unsupported()`]. A field that is absent or `null` takes its default; that required ones are there is
//! a matter of [`crate::validate()`].

mod common;
pub mod destination_rule;
pub mod envoy_filter;
pub mod gateway;
pub mod security;
pub mod service_entry;
pub mod virtual_service;
pub mod workload_entry;

pub use common::{Percent, PortSelector};
