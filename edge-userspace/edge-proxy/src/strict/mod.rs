//! What messages must look like on the wire, byte by byte.
//!
//! A parser is asked what a message means; a gateway also has to know whether anybody could read it in another way. Line
//! ends without CR, white space before a colon, a length beside a transfer coding, chunk sizes with a tail: each of them
//! has split a request in two for some pair of servers (request smuggling). Whatever is not plain by RFC 9112 never gets
//! through as a whole message. Here are the rules for single lines of HTTP/1.1, which `h1` reads heads and bodies of both
//! sides by, and the guard that looks over the frames of HTTP/2 before hyper does.

mod chunk;
mod field;
mod http2;
mod message;
mod request;

pub(crate) use chunk::{MAX_EXTENSIONS, size as chunk_size};
pub(crate) use field::{Framing, field, is_token, places};
pub(crate) use http2::{Blocked, Code, Fault as Http2Fault, Http2Guard};
pub(crate) use message::{Body, Follows};
pub(crate) use request::{RequestLine, Wrong};
