//! Messages that servers have read in two ways, so that a request was smuggled, split or answered to somebody else.
//!
//! The cases are data: `*.cases`. Each is sent over a connection of its own; then an ordinary request must find the
//! connections to the endpoint in order.

mod cases;
mod expect;
pub(crate) mod frames;
mod http1;
mod http2;
mod recorder;
mod responses;
