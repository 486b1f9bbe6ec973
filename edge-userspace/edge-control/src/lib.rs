//! From the user's files to the running configuration: resources in, [`Snapshot`](edge_model::Snapshot) out.
//!
//! [`compile`] is pure; [`Control`] watches a folder and publishes a new Snapshot whenever its files change for the
//! better; [`load`] does the same once.
#![forbid(unsafe_code)]

mod compile;
mod compiler;
mod control;
mod load;
mod options;
mod publish;
mod source;
mod store;

pub use compile::{Compiled, Fate, ReadFile, State, compile, fates};
pub use compiler::Compiler;
pub use control::{Control, StartError, Status};
pub use load::{Loaded, check_together, load};
pub use options::{CompileOptions, Process};
pub use publish::succeed;
pub use source::file::{BOOTSTRAP, TextFile, read_path};
