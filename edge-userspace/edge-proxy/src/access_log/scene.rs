//! Values of format commands, for lines of the log and for header operations.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant, SystemTime};

use edge_model::{ClusterName, Field, FieldRef, FormatCommand, FormatPart, FormatString, FormatValue};
use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::{AccessLogFormat, time};
use crate::connection::{Conn, Ends};
use crate::h1::Digits;
use crate::http::{Account, Flags, RequestId, forwarded_for};

/// A request at some moment of its way, from which commands take their values.
pub(crate) struct Scene<'a> {
    pub(crate) conn: &'a Conn,
    /// The client's head.
    pub(crate) client: &'a Parts,
    /// The response's headers, once there are any.
    pub(crate) response: Option<&'a HeaderMap>,
    pub(crate) account: &'a Account,
}

impl Scene<'_> {
    /// Appends what a command stands for; false, and nothing, when there is nothing.
    pub(crate) fn append(&self, command: &FormatCommand, out: &mut String) -> bool {
        match command {
            FormatCommand::Req(field) => self.field(field, out, |field, out| self.request_field(field, out)),
            FormatCommand::Resp(field) => {
                self.field(field, out, |field, out| self.response_field(field, out))
            }
            FormatCommand::Trailer(_) => false,
            FormatCommand::StartTime(format) => {
                let began = SystemTime::now().checked_sub(self.account.took());
                began.is_some_and(|began| {
                    time::append(began, format, out);
                    true
                })
            }
            FormatCommand::Value(value) => self.plain(*value, out),
        }
    }

    fn field(&self, wanted: &FieldRef, out: &mut String, of: impl Fn(&Field, &mut String) -> bool) -> bool {
        let begin = out.len();
        let is_there =
            of(&wanted.field, out) || wanted.alternative.as_ref().is_some_and(|field| of(field, out));
        if let Some(most) = wanted.max_len
            && out.len() - begin > most
        {
            let end = (begin..=begin + most)
                .rev()
                .find(|end| out.is_char_boundary(*end));
            out.truncate(end.unwrap_or(begin));
        }
        is_there
    }

    fn request_field(&self, field: &Field, out: &mut String) -> bool {
        let client = self.client;
        let text = match field {
            Field::Method => Some(client.method.as_str()),
            Field::Path => client.uri.path_and_query().map(PathAndQuery::as_str),
            Field::Authority => match client.uri.authority() {
                Some(authority) => Some(authority.as_str()),
                None => return header(&client.headers, &HOST, out),
            },
            Field::Scheme => Some(self.conn.peer().scheme),
            Field::Status => None,
            Field::Header(name) => match name.as_str() {
                "x-request-id" => {
                    let id = self.account.request_id.as_ref();
                    return push_bytes(id.map(RequestId::as_bytes), out);
                }
                "x-forwarded-for" => {
                    let list = forwarded_for(&client.headers, self.conn.peer());
                    return push_bytes(Some(list.as_bytes()), out);
                }
                // What a client says under the gateway's own names was not believed.
                text if text.starts_with("x-envoy-") => None,
                _ => return header(&client.headers, name, out),
            },
        };
        push(text, out)
    }

    fn response_field(&self, field: &Field, out: &mut String) -> bool {
        match field {
            Field::Status => push_number(Some(self.account.code), out),
            Field::Header(name) => self.response.is_some_and(|headers| header(headers, name, out)),
            Field::Method | Field::Path | Field::Authority | Field::Scheme => false,
        }
    }

    fn plain(&self, value: FormatValue, out: &mut String) -> bool {
        use FormatValue as V;
        let account = self.account;
        let ends = self.conn.known_ends();
        let (remote, local) = (ends.map(|ends| ends.remote), ends.map(|ends| ends.local));
        match value {
            V::Protocol => {
                let name = match self.client.version {
                    Version::HTTP_10 => "HTTP/1.0",
                    Version::HTTP_2 => "HTTP/2",
                    _ => "HTTP/1.1",
                };
                push(Some(name), out)
            }
            V::ResponseCode => push_number(Some(account.code), out),
            V::ResponseCodeDetails => push(Some(account.details).filter(|text| !text.is_empty()), out),
            V::ResponseFlags if account.flags == Flags::NONE => false,
            V::ResponseFlagsLong if account.flags == Flags::NONE => false,
            V::ResponseFlags => push_display(Some(account.flags), out),
            V::ResponseFlagsLong => push(Some(&account.flags.long()), out),
            V::BytesReceived => push_number(Some(account.received()), out),
            V::BytesSent => push_number(Some(account.sent), out),
            V::Duration => push_milliseconds(Some(account.took()), out),
            V::ResponseDuration => {
                let took = |first: Instant| first.duration_since(account.started);
                push_milliseconds(account.first_byte.map(took), out)
            }
            V::ResponseTxDuration => {
                let took = account.first_byte.map(|first| account.until_end(first));
                push_milliseconds(took, out)
            }
            V::UpstreamHost | V::UpstreamRemoteAddress => push(account.upstream(), out),
            V::UpstreamCluster | V::UpstreamClusterRaw => {
                push(account.cluster().map(ClusterName::as_str), out)
            }
            V::UpstreamRequestAttemptCount => push_number(Some(account.attempts), out),
            V::DownstreamLocalAddress => push(ends.map(Ends::local_text), out),
            V::DownstreamLocalAddressWithoutPort => push_display(local.map(|local| local.ip()), out),
            V::DownstreamLocalPort => push_number(local.map(|local| local.port()), out),
            V::DownstreamRemoteAddress | V::DownstreamDirectRemoteAddress => {
                push(ends.map(Ends::remote_text), out)
            }
            V::DownstreamRemoteAddressWithoutPort | V::DownstreamDirectRemoteAddressWithoutPort => {
                push_display(Some(self.conn.peer().address), out)
            }
            V::DownstreamRemotePort => push_number(remote.map(|remote| remote.port()), out),
            V::RequestedServerName => push(self.conn.server_name(), out),
            V::RouteName => push(account.route_name(), out),
            V::GrpcStatusNumber => push_number(account.grpc_status, out),
            V::GrpcStatus => match account.grpc_status {
                Some(code) => push_grpc_name(code, out),
                None => false,
            },
            V::RequestDuration
            | V::ConnectionTerminationDetails
            | V::UpstreamTransportFailureReason
            | V::DownstreamTransportFailureReason
            | V::UpstreamLocalAddress
            | V::VirtualClusterName
            | V::Hostname
            | V::DownstreamTlsVersion
            | V::DownstreamTlsCipher
            | V::DownstreamPeerSubject
            | V::DownstreamPeerIssuer
            | V::DownstreamPeerSerial
            | V::DownstreamPeerFingerprint256
            | V::DownstreamPeerUriSan
            | V::DownstreamPeerDnsSan
            | V::DownstreamPeerCert
            | V::ConnectionId
            | V::StreamId => false,
        }
    }
}

fn push(text: Option<&str>, out: &mut String) -> bool {
    out.push_str(text.unwrap_or_default());
    text.is_some()
}

fn push_bytes(text: Option<&[u8]>, out: &mut String) -> bool {
    let Some(text) = text else { return false };
    match std::str::from_utf8(text) {
        Ok(text) => *out += text,
        // Looks for places of errors, at many times the cost.
        Err(_) => *out += &String::from_utf8_lossy(text),
    }
    true
}

fn header(headers: &HeaderMap, name: &HeaderName, out: &mut String) -> bool {
    push_bytes(headers.get(name).map(HeaderValue::as_bytes), out)
}

fn push_display(value: Option<impl fmt::Display>, out: &mut String) -> bool {
    if let Some(value) = &value {
        // Writing to a String does not fail.
        let _ = write!(out, "{value}");
    }
    value.is_some()
}

fn push_number(number: Option<impl Into<u64>>, out: &mut String) -> bool {
    let number: Option<u64> = number.map(Into::into);
    push(number.map(Digits::new).as_ref().map(Digits::as_str), out)
}

fn push_milliseconds(time: Option<Duration>, out: &mut String) -> bool {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    push_number(time.map(milliseconds), out)
}

/// Names of gRPC's statuses as Envoy writes them.
fn push_grpc_name(code: u8, out: &mut String) -> bool {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    match NAMES.get(usize::from(code)) {
        Some(name) => push(Some(name), out),
        None => push_number(Some(code), out),
    }
}

/// Appends the line of a request.
pub(crate) fn line(format: &AccessLogFormat, scene: &Scene<'_>, out: &mut String) {
    match format {
        AccessLogFormat::Text(format) => text(format, scene, out),
        AccessLogFormat::Json(members) => json(members, scene, out),
    }
}

/// Text with commands replaced by their values, `-` for those without.
fn text(format: &FormatString, scene: &Scene<'_>, out: &mut String) {
    for part in &format.parts {
        match part {
            FormatPart::Text(plain) => match plain.as_bytes() {
                // Most often it is a space: no call for that.
                [byte @ ..0x80] => out.push(char::from(*byte)),
                _ => *out += plain,
            },
            FormatPart::Command(command) => {
                let begin = out.len();
                match scene.append(command, out) {
                    true if is_free(command) => escape_line(begin, out),
                    true => {}
                    false => out.push('-'),
                }
            }
        }
    }
}

/// Whether others than the gateway say what a command stands for: the client, the endpoint, or the configuration.
fn is_free(command: &FormatCommand) -> bool {
    use FormatValue as V;
    match command {
        FormatCommand::Req(_) | FormatCommand::Resp(_) | FormatCommand::Trailer(_) => true,
        FormatCommand::StartTime(format) => !format.is_empty(),
        FormatCommand::Value(value) => !matches!(
            value,
            V::Protocol
                | V::ResponseCode
                | V::ResponseCodeDetails
                | V::ResponseFlags
                | V::ResponseFlagsLong
                | V::BytesReceived
                | V::BytesSent
                | V::Duration
                | V::ResponseDuration
                | V::ResponseTxDuration
                | V::UpstreamHost
                | V::UpstreamRemoteAddress
                | V::UpstreamRequestAttemptCount
                | V::DownstreamLocalAddress
                | V::DownstreamRemoteAddress
                | V::DownstreamDirectRemoteAddress
        ),
    }
}

/// Makes one line of what stands behind `begin`, whatever a client has sent.
fn escape_line(begin: usize, out: &mut String) {
    let breaks_out = |byte: &u8| matches!(byte, b'\n' | b'\r' | b'"');
    // Without a way out in the middle the compiler compares many bytes at once.
    let is_plain = |text: &str| {
        !text
            .as_bytes()
            .iter()
            .fold(false, |bad, byte| bad | breaks_out(byte))
    };
    if !out.get(begin..).is_none_or(is_plain) {
        let value = out.split_off(begin);
        *out += &value.replace(['\n', '\r'], " ").replace('"', "\\\"");
    }
}

fn json(members: &[(String, FormatString)], scene: &Scene<'_>, out: &mut String) {
    out.push('{');
    for (number, (name, format)) in members.iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        quote(name, out);
        out.push(':');
        let begin = out.len();
        match format.parts.as_slice() {
            [FormatPart::Command(command)] => match scene.append(command, out) {
                false => *out += "null",
                true if is_number(command) => {}
                true => quote_behind(begin, out),
            },
            _ => {
                text(format, scene, out);
                quote_behind(begin, out);
            }
        }
    }
    *out += "}\n";
}

/// Makes a JSON string of what stands behind `begin`.
fn quote_behind(begin: usize, out: &mut String) {
    let needs_escape = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    let is_plain = |text: &str| {
        !text
            .as_bytes()
            .iter()
            .fold(false, |bad, byte| bad | needs_escape(byte))
    };
    if out.get(begin..).is_some_and(is_plain) {
        out.insert(begin, '"');
        return out.push('"');
    }
    let value = out.split_off(begin);
    quote(&value, out);
}

fn is_number(command: &FormatCommand) -> bool {
    matches!(
        command,
        FormatCommand::Value(
            FormatValue::ResponseCode
                | FormatValue::BytesReceived
                | FormatValue::BytesSent
                | FormatValue::Duration
                | FormatValue::ResponseDuration
                | FormatValue::ResponseTxDuration
                | FormatValue::UpstreamRequestAttemptCount
                | FormatValue::DownstreamLocalPort
                | FormatValue::DownstreamRemotePort
                | FormatValue::GrpcStatusNumber
        )
    )
}

/// A JSON string (RFC 8259 section 7).
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => *out += "\\\"",
            '\\' => *out += "\\\\",
            '\n' => *out += "\\n",
            control if u32::from(control) < 0x20 => *out += &format!("\\u{:04x}", u32::from(control)),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_leave_its_json_string() {
        let mut out = String::new();
        quote("a\"b\\c\nd\u{1}é", &mut out);
        assert_eq!(out, "\"a\\\"b\\\\c\\nd\\u0001é\"");
        for text in ["é", "", "a\"b", "a\\", "\u{1f}", "a\nb"] {
            let (mut quoted, mut behind) = (":".to_owned(), format!(":{text}"));
            quote(text, &mut quoted);
            quote_behind(1, &mut behind);
            assert_eq!(behind, quoted);
        }
    }
}
