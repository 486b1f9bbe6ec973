//! HTTP/1.1 on the wire, as this proxy itself reads and writes it (RFC 9112), on both sides.
//!
//! `request` takes a client's head apart, `head` an endpoint's (by httparse, and then held to the strict rules);
//! `decode` finds the end of a body; `encode` and `answer` write messages; `spare` keeps maps of fields for the next
//! ones. All of them work on buffers: connections are those of `server` and `pool`.

mod answer;
mod buffer;
mod decode;
mod encode;
mod head;
mod request;
pub(crate) mod spare;

pub(crate) use answer::{Length, date, write_response_head};
pub(crate) use buffer::poll_read;
pub(crate) use decode::{Decoded, Decoder};
pub(crate) use encode::{Digits, Outbox, push_field, push_known, push_known_number};
pub(crate) use head::{MAX_HEAD, ResponseHead, parse_response};
pub(crate) use request::{HeadBounds, Refused, RequestHead, RequestParser};
