//! HTTP/1.1 on the wire, as this proxy itself reads and writes it (RFC 9112).
//!
//! `head` takes a response's head apart with httparse and holds it to the strict rules; `decode` finds the end of a body;
//! `encode` writes a message. All of them work on buffers: the connection is `pool`'s.

mod buffer;
mod decode;
mod encode;
mod head;

pub(crate) use buffer::poll_read;
pub(crate) use decode::{Decoded, Decoder};
pub(crate) use encode::{Outbox, push_field, push_number_field};
pub(crate) use head::{MAX_HEAD, ResponseHead, parse_response};
