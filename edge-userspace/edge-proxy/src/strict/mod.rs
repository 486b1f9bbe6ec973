//! What HTTP/1.1 must look like on the wire, checked byte by byte before hyper parses it.
//!
//! A parser is asked what a message means; a gateway also has to know whether anybody could read it in another way. Line
//! ends without CR, white space before a colon, a length beside a transfer coding, chunk sizes with a tail: each of them
//! has split a request in two for some pair of servers (request smuggling). hyper reads some of them leniently and
//! drops the traces, so the stream is looked at here, and whatever is not plain by RFC 9112 never gets through as a
//! whole message. It is a pass over each head, and a counter over each body. Responses of endpoints are read by `h1`, by
//! the same rules for fields and chunks.

mod chunk;
mod field;
mod guard;
mod http2;
mod line;
mod message;
mod request;

pub(crate) use chunk::size as chunk_size;
pub(crate) use field::{Framing, field};
pub(crate) use guard::Guard;
pub(crate) use http2::{Blocked, Code, Fault as Http2Fault, Http2Guard};
pub(crate) use message::{Body, Follows, Place};
pub(crate) use request::Requests;
