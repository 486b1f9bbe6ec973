//! Packets through the real program, without an interface.

use edge_datapath::{Explainer, Explanation};
use edge_model::DataPathConfig;

/// The program with a configuration.
///
/// # Panics
/// If this process is not root, the kernel has no BPF, or the configuration does not fit.
#[must_use]
pub fn explainer(config: &DataPathConfig) -> Explainer {
    let mut explainer = Explainer::load().expect("needs root and a kernel with BPF");
    explainer.configure(config).expect("the configuration fits");
    explainer
}

/// What becomes of a frame.
///
/// # Panics
/// If the kernel does not run it.
pub fn run(explainer: &mut Explainer, frame: &[u8]) -> Explanation {
    explainer.run(frame).expect("the kernel runs the frame")
}
