//! Shapes of the Kubernetes kinds, as far as the edge reads them. The API server has checked them and they are large,
//! so further fields are let through; the fields that are read must be right.

pub mod config_map;
pub mod endpoint_slice;
pub mod meta;
pub mod namespace;
pub mod pod;
pub mod secret;
pub mod service;
