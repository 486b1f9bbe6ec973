//! `edge explain`: what happens to a request or a packet, and why, from the files alone.

pub(crate) mod config;
pub(crate) mod packets;
pub(crate) mod reasons;
pub(crate) mod request;
