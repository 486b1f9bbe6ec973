//! Fuzz targets: functions from any bytes to nothing that panic when a promise is broken.
//!
//! Each target is run in two ways by the same function. `cargo test -p edge-fuzz` gives it its seeds and mutations of
//! them, drawn with a fixed seed, so that every run is the same; `cargo xtask fuzz NAME` gives it to libFuzzer, which
//! looks for inputs that reach new code. An input that libFuzzer finds belongs into `seeds/NAME/` once its cause is
//! mended: from then on the ordinary tests hold it.
//!
//! A new target `x` is `src/x.rs` with its `target`, a line in [`TARGETS`], `fuzz_targets/x.rs` with its `[[bin]]`, and,
//! where they help, `seeds/x/*` and `dictionaries/x.dict`. A test says what of it is missing.
#![forbid(unsafe_code)]

mod draws;
pub mod frames;
pub mod hosts;
pub mod lookup;
pub mod mutate;
pub mod packet;
pub mod proxy_header;
pub mod requests;
pub mod responses;
pub mod yaml;

pub use draws::Draws;

/// A function to be fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of its module, its program and its seeds' folder.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
    /// Inputs that the ordinary test draws: as many as take about a second in a debug build.
    pub cases: usize,
    /// Folders of more seeds, from the workspace's root.
    pub more_seeds: &'static [&'static str],
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "hosts",
        run: hosts::target,
        cases: 20_000,
        more_seeds: &[],
    },
    Target {
        name: "lookup",
        run: lookup::target,
        cases: 3_000,
        more_seeds: &[],
    },
    Target {
        name: "packet",
        run: packet::target,
        cases: 60_000,
        more_seeds: &[],
    },
    Target {
        name: "yaml",
        run: yaml::target,
        cases: 1_500,
        more_seeds: &["config"],
    },
    Target {
        name: "frames",
        run: frames::target,
        cases: 20_000,
        more_seeds: &[],
    },
    Target {
        name: "proxy_header",
        run: proxy_header::target,
        cases: 20_000,
        more_seeds: &[],
    },
    Target {
        name: "requests",
        run: requests::target,
        cases: 10_000,
        more_seeds: &[],
    },
    Target {
        name: "responses",
        run: responses::target,
        cases: 20_000,
        more_seeds: &[],
    },
];
