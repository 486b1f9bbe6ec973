//! Which of the fields that the gateway has to look at a request has.

use http::{HeaderMap, HeaderValue};

/// Found by one walk over the fields: to look each of them up takes its hash, and most requests have none but Host.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Present<'a> {
    /// The first Host field.
    pub(super) host: Option<&'a HeaderValue>,
    /// There is a further one.
    pub(super) has_more_hosts: bool,
    pub(super) connection: bool,
    pub(super) content_type: bool,
    pub(super) expect: bool,
    pub(super) forwarded_for: bool,
    pub(super) transfer_encoding: bool,
    pub(super) upgrade: bool,
}

impl<'a> Present<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut present = Self::default();
        for (name, value) in headers {
            // A match on text is decided by its length and a comparison or two.
            match name.as_str() {
                "host" if present.host.is_some() => present.has_more_hosts = true,
                "host" => present.host = Some(value),
                "connection" => present.connection = true,
                "content-type" => present.content_type = true,
                "expect" => present.expect = true,
                "x-forwarded-for" => present.forwarded_for = true,
                "transfer-encoding" => present.transfer_encoding = true,
                "upgrade" => present.upgrade = true,
                _ => {}
            }
        }
        present
    }
}
