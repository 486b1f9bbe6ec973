//! What a client of HTTP/2 may send, looked at frame by frame before hyper's parser does.
//!
//! The parser behind keeps most rules of RFC 9113. Here stand those that it leaves out (streams that come out of order,
//! pseudo-headers in trailers, schemes), and what a gateway owes on top: a client that makes much work by few bytes
//! (CVE-2023-44487 and its kin) is told ENHANCE_YOUR_CALM and cut. Frames are looked at where they lie, and field
//! blocks are walked without decoding a string, so that an honest request pays some tens of instructions.

mod budget;
mod frame;
mod guard;
mod hpack;
mod huffman;
mod outgoing;
mod streams;

pub(crate) use frame::{Code, Fault};
pub(crate) use guard::Http2Guard;
pub(crate) use streams::Blocked;
