//! The strict layer of the proxy: see `edge_proxy::fuzzing::frames`.

/// Panics if a promise is broken.
///
/// # Panics
/// If a promise is broken.
pub fn target(data: &[u8]) {
    edge_proxy::fuzzing::frames(data);
}
