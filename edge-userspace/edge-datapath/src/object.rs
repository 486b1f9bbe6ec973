//! The BPF objects that the build script made, as bytes in this crate.

/// Tier 1: the XDP program and the socket selection.
pub static TIER_1: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/edge-ebpf"));

/// The lab's packet generator. A program that does not name it does not carry it.
pub static PKTGEN: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/edge-pktgen"));

/// The benchmark's harness. A program that does not name it does not carry it.
pub static BENCH: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/edge-bench"));
