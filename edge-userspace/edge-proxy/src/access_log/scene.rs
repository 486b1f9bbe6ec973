//! Values of format commands, for lines of the log and for header operations.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use edge_model::{ClusterName, Field, FieldRef, FormatCommand, FormatValue};
use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::{Kept, time};
use crate::connection::{Conn, Ends};
use crate::h1::Digits;
use crate::http::{Account, Flags, RequestId, push_forwarded_for};
use crate::tls::{Facts, Handshake};

/// The node's name, as it was when somebody first asked for it.
static HOSTNAME: LazyLock<String> = LazyLock::new(|| {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
});

/// A request, or a connection whose bytes are forwarded as they are, at some moment of its way, from which commands take their values.
pub(crate) struct Scene<'a> {
    pub(crate) conn: &'a Conn,
    /// The client's head; `None` where its bytes are forwarded as they are.
    pub(crate) client: Option<&'a Parts>,
    pub(crate) response: Response<'a>,
    pub(crate) account: &'a Account,
}

/// What is known of a response's fields.
#[derive(Clone, Copy)]
pub(crate) enum Response<'a> {
    /// There is none yet.
    Awaited,
    Head(&'a HeaderMap),
    /// Those of head and trailers that somebody was going to ask for.
    Kept(&'a Kept, &'a Kept),
}

impl<'a> Response<'a> {
    fn field(self, name: &HeaderName) -> Option<&'a HeaderValue> {
        match self {
            Self::Awaited => None,
            Self::Head(headers) => headers.get(name),
            Self::Kept(fields, _) => fields.get(name),
        }
    }

    fn trailer(self, name: &HeaderName) -> Option<&'a HeaderValue> {
        match self {
            Self::Awaited | Self::Head(_) => None,
            Self::Kept(_, trailers) => trailers.get(name),
        }
    }
}

impl Scene<'_> {
    /// Appends what a command stands for; false, and nothing, when there is nothing.
    pub(crate) fn append(&self, command: &FormatCommand, out: &mut Vec<u8>) -> bool {
        match command {
            FormatCommand::Req(field) => self.field(field, out, |field, out| self.request_field(field, out)),
            FormatCommand::Resp(field) => {
                self.field(field, out, |field, out| self.response_field(field, out))
            }
            FormatCommand::Trailer(field) => self.field(field, out, |field, out| self.trailer(field, out)),
            FormatCommand::StartTime(format) => {
                time::append(time::on_the_clock(self.account.started), format, out);
                true
            }
            FormatCommand::Value(value) => self.plain(*value, out),
        }
    }

    fn field(&self, wanted: &FieldRef, out: &mut Vec<u8>, of: impl Fn(&Field, &mut Vec<u8>) -> bool) -> bool {
        let begin = out.len();
        let is_there =
            of(&wanted.field, out) || wanted.alternative.as_ref().is_some_and(|field| of(field, out));
        if let Some(most) = wanted.max_len
            && out.len() - begin > most
        {
            // Not within a character of UTF-8, of which all bytes but the first begin with the bits 10.
            let is_boundary = |end: &usize| out.get(*end).is_none_or(|byte| byte & 0xc0 != 0x80);
            let end = (begin..=begin + most).rev().find(is_boundary);
            out.truncate(end.unwrap_or(begin));
        }
        is_there
    }

    fn request_field(&self, field: &Field, out: &mut Vec<u8>) -> bool {
        let Some(client) = self.client else { return false };
        let text = match field {
            Field::Method => Some(client.method.as_str()),
            Field::Path => client.uri.path_and_query().map(PathAndQuery::as_str),
            Field::Authority => match client.uri.authority() {
                Some(authority) => Some(authority.as_str()),
                None => return push_value(client.headers.get(HOST), out),
            },
            Field::Scheme => Some(self.conn.peer().scheme),
            Field::Status => None,
            Field::Header(name) => match name.as_str() {
                "x-request-id" => {
                    let id = self.account.request_id.as_ref();
                    return push_bytes(id.map(RequestId::as_bytes), out);
                }
                "x-forwarded-for" => {
                    push_forwarded_for(&client.headers, self.conn.peer(), out);
                    return true;
                }
                // What a client says under the gateway's own names was not believed.
                text if text.starts_with("x-envoy-") => None,
                _ => return push_value(client.headers.get(name), out),
            },
        };
        push(text, out)
    }

    fn response_field(&self, field: &Field, out: &mut Vec<u8>) -> bool {
        match field {
            Field::Status => push_number(Some(self.account.code), out),
            Field::Header(name) => push_value(self.response.field(name), out),
            Field::Method | Field::Path | Field::Authority | Field::Scheme => false,
        }
    }

    fn trailer(&self, field: &Field, out: &mut Vec<u8>) -> bool {
        match field {
            Field::Header(name) => push_value(self.response.trailer(name), out),
            Field::Method | Field::Path | Field::Authority | Field::Scheme | Field::Status => false,
        }
    }

    fn plain(&self, value: FormatValue, out: &mut Vec<u8>) -> bool {
        use FormatValue as V;
        let account = self.account;
        let ends = self.conn.known_ends();
        let (remote, local) = (ends.map(|ends| ends.remote), ends.map(|ends| ends.local));
        match value {
            V::Protocol => {
                let name = self.client.map(|client| match client.version {
                    Version::HTTP_10 => "HTTP/1.0",
                    Version::HTTP_2 => "HTTP/2",
                    _ => "HTTP/1.1",
                });
                push(name, out)
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
            V::RequestDuration => push_milliseconds(account.until_request_end(), out),
            V::UpstreamTransportFailureReason => push(account.failure(), out),
            V::UpstreamLocalAddress => push(account.local(), out),
            V::Hostname => push(Some(&HOSTNAME), out),
            V::ConnectionId => push_number(Some(self.conn.id), out),
            V::StreamId => push_number(Some(account.id), out),
            V::DownstreamTlsVersion => push(self.handshake().and_then(Handshake::version), out),
            V::DownstreamTlsCipher => push(self.handshake().and_then(Handshake::cipher), out),
            V::DownstreamPeerSubject => self.certificate(out, |facts| Cow::from(&facts.subject)),
            V::DownstreamPeerIssuer => self.certificate(out, |facts| Cow::from(&facts.issuer)),
            V::DownstreamPeerSerial => self.certificate(out, |facts| Cow::from(&facts.serial)),
            V::DownstreamPeerFingerprint256 => self.certificate(out, |facts| Cow::from(&facts.fingerprint)),
            V::DownstreamPeerUriSan => self.certificate(out, |facts| facts.uris.join(",").into()),
            V::DownstreamPeerDnsSan => self.certificate(out, |facts| facts.dns.join(",").into()),
            V::DownstreamPeerCert => self.certificate(out, |facts| Cow::from(&facts.pem)),
            // What they tell of does not come to pass here, or only where there is no request.
            V::ConnectionTerminationDetails | V::DownstreamTransportFailureReason | V::VirtualClusterName => {
                false
            }
        }
    }

    fn handshake(&self) -> Option<&Handshake> {
        self.conn.handshake()
    }

    /// A text about the client's certificate; an empty one is none.
    fn certificate(&self, out: &mut Vec<u8>, of: impl Fn(&Facts) -> Cow<'_, str>) -> bool {
        let text = self.handshake().and_then(Handshake::certificate).map(of);
        push(text.as_deref().filter(|text| !text.is_empty()), out)
    }
}

fn push(text: Option<&str>, out: &mut Vec<u8>) -> bool {
    push_bytes(text.map(str::as_bytes), out)
}

fn push_bytes(text: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(text.unwrap_or_default());
    text.is_some()
}

fn push_value(value: Option<&HeaderValue>, out: &mut Vec<u8>) -> bool {
    push_bytes(value.map(HeaderValue::as_bytes), out)
}

fn push_display(value: Option<impl fmt::Display>, out: &mut Vec<u8>) -> bool {
    if let Some(value) = &value {
        // Writing to a Vec does not fail.
        let _ = write!(out, "{value}");
    }
    value.is_some()
}

fn push_number(number: Option<impl Into<u64>>, out: &mut Vec<u8>) -> bool {
    let digits = number.map(|number| Digits::new(number.into()));
    push_bytes(digits.as_ref().map(Digits::as_bytes), out)
}

fn push_milliseconds(time: Option<Duration>, out: &mut Vec<u8>) -> bool {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    push_number(time.map(milliseconds), out)
}

/// Names of gRPC's statuses as Envoy writes them.
fn push_grpc_name(code: u8, out: &mut Vec<u8>) -> bool {
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
