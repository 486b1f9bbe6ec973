//! Values of format commands, for lines of the log and for header operations.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use edge_model::{Field, FieldRef, FormatCommand, FormatPart, FormatString, FormatValue};
use http::request::Parts;
use http::{HeaderMap, Version};

use super::{AccessLogFormat, time};
use crate::connection::Conn;
use crate::http::{Account, forwarded_for};

/// A request at some moment of its way, from which commands take their values.
pub(crate) struct Scene<'a> {
    pub(crate) conn: &'a Conn,
    /// The client's head.
    pub(crate) client: &'a Parts,
    /// The response's headers, once there are any.
    pub(crate) response: Option<&'a HeaderMap>,
    pub(crate) account: &'a Account,
}

impl<'a> Scene<'a> {
    /// What a command stands for; `None` when there is nothing.
    pub(crate) fn value(&self, command: &FormatCommand) -> Option<Cow<'a, str>> {
        match command {
            FormatCommand::Req(field) => self.field(field, |field| self.request_field(field)),
            FormatCommand::Resp(field) => self.field(field, |field| self.response_field(field)),
            FormatCommand::Trailer(_) => None,
            FormatCommand::StartTime(format) => {
                let elapsed = self.account.started.elapsed();
                let began = SystemTime::now().checked_sub(elapsed)?;
                Some(time::formatted(began, format).into())
            }
            FormatCommand::Value(value) => self.plain(*value),
        }
    }

    fn field(&self, wanted: &FieldRef, of: impl Fn(&Field) -> Option<Cow<'a, str>>) -> Option<Cow<'a, str>> {
        let value = of(&wanted.field).or_else(|| of(wanted.alternative.as_ref()?))?;
        match wanted.max_len {
            Some(max) if value.len() > max => {
                let end = (0..=max).rev().find(|end| value.is_char_boundary(*end))?;
                Some(value.get(..end)?.to_owned().into())
            }
            Some(_) | None => Some(value),
        }
    }

    fn request_field(&self, field: &Field) -> Option<Cow<'a, str>> {
        let client = self.client;
        match field {
            Field::Method => Some(client.method.as_str().into()),
            Field::Path => Some(client.uri.path_and_query()?.as_str().into()),
            Field::Authority => match client.uri.authority() {
                Some(authority) => Some(authority.as_str().into()),
                None => header(&client.headers, "host"),
            },
            Field::Scheme => Some(self.conn.peer().scheme.into()),
            Field::Status => None,
            Field::Header(name) => match name.as_str() {
                "x-request-id" => {
                    let id = self.account.request_id.as_ref()?;
                    Some(String::from_utf8_lossy(id.as_bytes()).into_owned().into())
                }
                "x-forwarded-for" => {
                    let list = forwarded_for(&client.headers, self.conn.peer());
                    Some(String::from_utf8_lossy(list.as_bytes()).into_owned().into())
                }
                // What a client says under the gateway's own names was not believed.
                name if name.starts_with("x-envoy-") => None,
                name => header(&client.headers, name),
            },
        }
    }

    fn response_field(&self, field: &Field) -> Option<Cow<'a, str>> {
        match field {
            Field::Status => Some(self.account.code.to_string().into()),
            Field::Header(name) => header(self.response?, name.as_str()),
            Field::Method | Field::Path | Field::Authority | Field::Scheme => None,
        }
    }

    fn plain(&self, value: FormatValue) -> Option<Cow<'a, str>> {
        use FormatValue as V;
        let account = self.account;
        let address = |address: Option<SocketAddr>| address.map(|address| address.to_string().into());
        let host = |address: Option<SocketAddr>| address.map(|address| address.ip().to_string().into());
        let port = |address: Option<SocketAddr>| address.map(|address| address.port().to_string().into());
        let milliseconds = |time: Duration| Some(time.as_millis().to_string().into());
        let (remote, local) = (self.conn.remote_address(), self.conn.local_address());
        match value {
            V::Protocol => Some(match self.client.version {
                Version::HTTP_10 => "HTTP/1.0".into(),
                Version::HTTP_2 => "HTTP/2".into(),
                _ => "HTTP/1.1".into(),
            }),
            V::ResponseCode => Some(account.code.to_string().into()),
            V::ResponseCodeDetails => {
                Some(account.details.into()).filter(|text: &Cow<'_, str>| !text.is_empty())
            }
            V::ResponseFlags => {
                Some(account.flags.to_string().into()).filter(|text: &Cow<'_, str>| text != "-")
            }
            V::ResponseFlagsLong => {
                Some(account.flags.long().into()).filter(|text: &Cow<'_, str>| text != "-")
            }
            V::BytesReceived => Some(account.received().to_string().into()),
            V::BytesSent => Some(account.sent.to_string().into()),
            V::Duration => milliseconds(account.started.elapsed()),
            V::ResponseDuration => milliseconds(account.first_byte?.duration_since(account.started)),
            V::ResponseTxDuration => milliseconds(Instant::now().duration_since(account.first_byte?)),
            V::UpstreamHost | V::UpstreamRemoteAddress => address(account.upstream()),
            V::UpstreamCluster | V::UpstreamClusterRaw => Some(account.cluster()?.as_str().to_owned().into()),
            V::UpstreamRequestAttemptCount => Some(account.attempts.to_string().into()),
            V::DownstreamLocalAddress => address(local),
            V::DownstreamLocalAddressWithoutPort => host(local),
            V::DownstreamLocalPort => port(local),
            V::DownstreamRemoteAddress | V::DownstreamDirectRemoteAddress => address(remote),
            V::DownstreamRemoteAddressWithoutPort | V::DownstreamDirectRemoteAddressWithoutPort => {
                Some(self.conn.peer().address.to_string().into())
            }
            V::DownstreamRemotePort => port(remote),
            V::RequestedServerName => self.conn.server_name().map(|name| name.to_owned().into()),
            V::RouteName => Some(account.route_name()?.to_owned().into()),
            V::GrpcStatusNumber => Some(account.grpc_status?.to_string().into()),
            V::GrpcStatus => Some(grpc_name(account.grpc_status?).into()),
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
            | V::StreamId => None,
        }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<Cow<'h, str>> {
    Some(String::from_utf8_lossy(headers.get(name)?.as_bytes()))
}

/// Names of gRPC's statuses as Envoy writes them.
fn grpc_name(code: u8) -> String {
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
    let name = NAMES.get(usize::from(code)).copied();
    name.map_or_else(|| code.to_string(), str::to_owned)
}

/// The line of a request.
pub(crate) fn line(format: &AccessLogFormat, scene: &Scene<'_>) -> Vec<u8> {
    match format {
        AccessLogFormat::Text(format) => text(format, scene).into_bytes(),
        AccessLogFormat::Json(members) => json(members, scene).into_bytes(),
    }
}

/// Text with commands replaced by their values, `-` for those without.
fn text(format: &FormatString, scene: &Scene<'_>) -> String {
    let mut text = String::with_capacity(512);
    for part in &format.parts {
        match part {
            FormatPart::Text(plain) => text += plain,
            // A line is one line, whatever a client sends.
            FormatPart::Command(command) => match scene.value(command) {
                Some(value) if value.contains(['\n', '\r', '"']) => {
                    text += &value.replace(['\n', '\r'], " ").replace('"', "\\\"");
                }
                Some(value) => text += &value,
                None => text.push('-'),
            },
        }
    }
    text
}

fn json(members: &[(String, FormatString)], scene: &Scene<'_>) -> String {
    let mut line = String::with_capacity(1024);
    for (name, format) in members {
        line.push(if line.is_empty() { '{' } else { ',' });
        quote(name, &mut line);
        line.push(':');
        match format.parts.as_slice() {
            [FormatPart::Command(command)] => match scene.value(command) {
                None => line += "null",
                Some(value) if is_number(command) => line += &value,
                Some(value) => quote(&value, &mut line),
            },
            _ => quote(&text(format, scene), &mut line),
        }
    }
    if line.is_empty() {
        line.push('{');
    }
    line + "}\n"
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
    }
}
