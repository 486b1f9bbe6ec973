//! The files of an edge: Istio and Kubernetes resources, and the bootstrap file `edge.yaml`.
//!
//! Text goes in, checked values and [`Problem`]s come out; nothing here reads a file, a clock or the network.
//! [`parse_documents`] reads the shape of every resource, [`validate()`] applies the rules of Istio's admission webhook
//! to one of them, [`unsupported()`] names the fields that are accepted and not enforced, and [`check`] is both. What
//! several objects mean together is `edge-control`'s to find out.
#![forbid(unsafe_code)]

pub mod base64;
pub mod istio;
pub mod k8s;

mod bootstrap;
mod checker;
mod document;
mod duration;
mod object;
mod prefix_list;
mod problem;
mod report;
mod unsupported;
mod validate;
mod yaml;

pub use bootstrap::{
    AccessLog, AccessLogEncoding, Bootstrap, Dns, Drain, OnStop, Overload, Pinning, Sources, VirtualAddress,
    VirtualPort, XdpMode,
};
pub use document::{Parsed, parse_documents};
pub use duration::GoDuration;
pub use object::{Object, Resource, SourceRef};
pub use prefix_list::parse_prefixes;
pub use problem::{ObjectName, Problem, Severity};
pub use report::{Report, ReportedProblem, Verdict, check, reports};
pub use unsupported::unsupported;
pub use validate::{CLAIM_PREFIX, has_format_command, validate};
