//! Which route a request takes, why, and what becomes of the request: pure functions over `edge-model`.
//!
//! A request passes the modules in this order: [`SniIndex`] picks the TLS server, [`normalize_path`] makes the path
//! canonical, [`Table`] picks the virtual host and the first route whose conditions hold, and the functions of `action`
//! and `edit` say what is sent on or answered. [`explain`] walks the same code and keeps the reasons.
//!
//! Nothing here does IO, reads a clock or draws a random number: a draw is an argument.
#![forbid(unsafe_code)]

mod action;
mod claim;
mod edit;
mod explain;
mod explain_route;
mod explanation;
#[cfg(test)]
mod fixture;
mod header;
mod host;
mod index;
mod path;
mod predicate;
mod query;
mod request;
mod sni;
mod table;

pub use action::{Rewritten, choose_destination, redirect_location, rewrite, tls_redirect_location};
pub use claim::Claims;
pub use edit::{FormatValues, apply_request_ops, apply_response_ops};
pub use explain::{Probe, explain};
pub use explanation::{ClusterShare, Explanation, Outcome, Step, TraceStep};
pub use host::{HostIndex, without_port};
pub use path::{InvalidPath, NormalPath, normalize_path, normalize_path_by};
pub use predicate::Mismatch;
pub use request::RequestView;
pub use sni::SniIndex;
pub use table::{Decision, Table};
