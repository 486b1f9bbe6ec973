//! What the tests of the data path share: frames, configurations, and code that runs in a namespace.
#![forbid(unsafe_code)]

pub mod explained;
pub mod frame;
pub mod host;
pub mod node;
pub mod setup;
pub mod tunnel;
