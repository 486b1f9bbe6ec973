//! Envoy's format strings: text with commands such as `%REQ(x-user)%`, in header values and access logs.

use std::fmt;

use http::{HeaderName, HeaderValue};

/// Text and commands in turn; `%%` stands for a percent sign.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FormatString {
    /// The parts in order.
    pub parts: Vec<FormatPart>,
}

/// One part of a format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatPart {
    /// Plain text.
    Text(String),
    /// What a command stands for.
    Command(FormatCommand),
}

/// A command of a format string (Envoy "Access logging", "Command operators").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatCommand {
    /// `REQ(x?y):z`.
    Req(FieldRef),
    /// `RESP(x?y):z`.
    Resp(FieldRef),
    /// `TRAILER(x?y):z`.
    Trailer(FieldRef),
    /// `START_TIME`, or `START_TIME(format)`.
    StartTime(String),
    /// Another command, by its name.
    Value(FormatValue),
}

/// A header whose value a command stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRef {
    /// The field that is asked first.
    pub field: Field,
    /// The field that is asked when the first is not there.
    pub alternative: Option<Field>,
    /// Longest value, in bytes; the rest is cut off.
    pub max_len: Option<usize>,
}

/// A header or pseudo-header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A header.
    Header(HeaderName),
    /// `:METHOD`.
    Method,
    /// `:PATH`.
    Path,
    /// `:AUTHORITY`.
    Authority,
    /// `:SCHEME`.
    Scheme,
    /// `:STATUS`.
    Status,
}

/// Commands without arguments.
macro_rules! values {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Commands that take no arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FormatValue {
            $($(#[$doc])* $variant,)*
        }

        impl FormatValue {
            const ALL: &[(&'static str, Self)] = &[$(($name, Self::$variant),)*];
        }
    };
}

values! {
    /// HTTP/1.1, HTTP/2 and so on.
    Protocol = "PROTOCOL",
    /// Status, 0 when there is none.
    ResponseCode = "RESPONSE_CODE",
    /// Why it is that status.
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    /// Flags, joined by commas.
    ResponseFlags = "RESPONSE_FLAGS",
    /// Flags by their long names.
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    /// Why the connection ended.
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
    /// Why the upstream's TLS failed.
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    /// Why the client's TLS failed.
    DownstreamTransportFailureReason = "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    /// Bytes of the request's body.
    BytesReceived = "BYTES_RECEIVED",
    /// Bytes of the response's body.
    BytesSent = "BYTES_SENT",
    /// Milliseconds from the start to the end.
    Duration = "DURATION",
    /// Milliseconds until the request had arrived.
    RequestDuration = "REQUEST_DURATION",
    /// Milliseconds until the upstream's first byte.
    ResponseDuration = "RESPONSE_DURATION",
    /// Milliseconds from the upstream's first byte to the last sent.
    ResponseTxDuration = "RESPONSE_TX_DURATION",
    /// Endpoint's address and port.
    UpstreamHost = "UPSTREAM_HOST",
    /// Name of the cluster.
    UpstreamCluster = "UPSTREAM_CLUSTER",
    /// Name of the cluster, without the name for observability.
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    /// Own address to the endpoint.
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
    /// Endpoint's address and port.
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    /// How often the request was tried.
    UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    /// Own address to the client.
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    /// The same without port.
    DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// Its port.
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
    /// The client's address, by x-forwarded-for if that is trusted.
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    /// The same without port.
    DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Its port.
    DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT",
    /// The address at the other end of the connection.
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    /// The same without port.
    DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Server name of the handshake.
    RequestedServerName = "REQUESTED_SERVER_NAME",
    /// Name of the route.
    RouteName = "ROUTE_NAME",
    /// Name of the virtual cluster; there is none at an Istio gateway.
    VirtualClusterName = "VIRTUAL_CLUSTER_NAME",
    /// The node's name.
    Hostname = "HOSTNAME",
    /// Version of the client's TLS.
    DownstreamTlsVersion = "DOWNSTREAM_TLS_VERSION",
    /// Cipher of the client's TLS.
    DownstreamTlsCipher = "DOWNSTREAM_TLS_CIPHER",
    /// Subject of the client's certificate.
    DownstreamPeerSubject = "DOWNSTREAM_PEER_SUBJECT",
    /// Issuer of the client's certificate.
    DownstreamPeerIssuer = "DOWNSTREAM_PEER_ISSUER",
    /// Serial number of the client's certificate.
    DownstreamPeerSerial = "DOWNSTREAM_PEER_SERIAL",
    /// SHA-256 of the client's certificate, in hex.
    DownstreamPeerFingerprint256 = "DOWNSTREAM_PEER_FINGERPRINT_256",
    /// URIs in the client's certificate.
    DownstreamPeerUriSan = "DOWNSTREAM_PEER_URI_SAN",
    /// DNS names in the client's certificate.
    DownstreamPeerDnsSan = "DOWNSTREAM_PEER_DNS_SAN",
    /// The client's certificate in URL-encoded PEM.
    DownstreamPeerCert = "DOWNSTREAM_PEER_CERT",
    /// Number of the connection.
    ConnectionId = "CONNECTION_ID",
    /// Number of the request.
    StreamId = "STREAM_ID",
    /// gRPC status by name.
    GrpcStatus = "GRPC_STATUS",
    /// gRPC status by number.
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
}

impl FormatValue {
    /// The command's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, value)| *value == self);
        found.map_or("", |(name, _)| name)
    }

    /// The command of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| *value)
    }
}

/// Why a text is no format string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A percent sign begins no command and is not doubled.
    #[error("a % is neither doubled nor the beginning of a command such as %REQ(x-user)%")]
    Percent,
    /// No such command, or one that the edge has no value for.
    #[error("there is no command %{0}%")]
    Unknown(String),
    /// The arguments of a command.
    #[error("{0} is not an argument of %{1}%")]
    Argument(String, &'static str),
}

impl FormatString {
    /// Parses a format string.
    ///
    /// # Errors
    /// Says which command is unknown or malformed.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut parts = vec![];
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("%%") {
                plain.push('%');
                rest = after;
                continue;
            }
            let (command, after) = command(from.get(1..).unwrap_or_default())?;
            if !plain.is_empty() {
                parts.push(FormatPart::Text(std::mem::take(&mut plain)));
            }
            parts.push(FormatPart::Command(command));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(FormatPart::Text(plain));
        }
        Ok(Self { parts })
    }

    /// The text, when there is no command in it.
    #[must_use]
    pub fn plain(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [FormatPart::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// Parses what stands behind a percent sign: `NAME`, `NAME(argument)` or `NAME(argument):length`, up to the next one.
fn command(text: &str) -> Result<(FormatCommand, &str), FormatError> {
    let name_end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    let (name, rest) = text.split_at(name_end.ok_or(FormatError::Percent)?);
    let (argument, rest) = match rest.strip_prefix('(') {
        Some(inner) => inner
            .split_once(')')
            .map(|(argument, rest)| (Some(argument), rest))
            .ok_or(FormatError::Percent)?,
        None => (None, rest),
    };
    let (length, rest) = rest.split_once('%').ok_or(FormatError::Percent)?;
    let max_len = match length.strip_prefix(':') {
        Some(number) => Some(number.parse().map_err(|_| FormatError::Percent)?),
        None if length.is_empty() => None,
        None => return Err(FormatError::Percent),
    };
    let field = |own: &'static str| field_ref(argument.unwrap_or_default(), max_len, own);
    let command = match name {
        "" => return Err(FormatError::Percent),
        "REQ" => FormatCommand::Req(field("REQ")?),
        "RESP" => FormatCommand::Resp(field("RESP")?),
        "TRAILER" => FormatCommand::Trailer(field("TRAILER")?),
        "START_TIME" => FormatCommand::StartTime(argument.unwrap_or_default().to_owned()),
        other => match (FormatValue::from_name(other), argument) {
            (Some(value), None) => FormatCommand::Value(value),
            (Some(value), Some(argument)) => {
                return Err(FormatError::Argument(argument.to_owned(), value.name()));
            }
            (None, _) => return Err(FormatError::Unknown(other.to_owned())),
        },
    };
    Ok((command, rest))
}

fn field_ref(argument: &str, max_len: Option<usize>, command: &'static str) -> Result<FieldRef, FormatError> {
    let field = |text: &str| {
        let wrong = || FormatError::Argument(text.to_owned(), command);
        match text.to_ascii_lowercase().as_str() {
            ":method" => Ok(Field::Method),
            ":path" => Ok(Field::Path),
            ":authority" => Ok(Field::Authority),
            ":scheme" => Ok(Field::Scheme),
            ":status" => Ok(Field::Status),
            name => HeaderName::from_bytes(name.as_bytes())
                .map(Field::Header)
                .map_err(|_| wrong()),
        }
    };
    let (first, alternative) = match argument.split_once('?') {
        Some((first, second)) => (first, Some(second)),
        None => (argument, None),
    };
    Ok(FieldRef {
        field: field(first)?,
        alternative: alternative.map(field).transpose()?,
        max_len,
    })
}

/// A header value of a header operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderTemplate {
    /// Always the same.
    Plain(HeaderValue),
    /// Made for each request. Where a command has no value the text `-` stands, as in Envoy; a header whose whole value
    /// is one such command is left out.
    Format(Box<FormatString>),
}

impl HeaderTemplate {
    /// Parses a value with format commands.
    ///
    /// # Errors
    /// Says what of the text is no command or no header value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let format = FormatString::parse(text).map_err(|error| error.to_string())?;
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| NOT_A_VALUE.to_owned());
        if let Some(plain) = format.plain() {
            return value(plain).map(Self::Plain);
        }
        for part in &format.parts {
            if let FormatPart::Text(text) = part {
                value(text)?;
            }
        }
        Ok(Self::Format(Box::new(format)))
    }

    /// The value, when it is always the same.
    #[must_use]
    pub fn plain(&self) -> Option<&HeaderValue> {
        match self {
            Self::Plain(value) => Some(value),
            Self::Format(_) => None,
        }
    }
}

const NOT_A_VALUE: &str = "it has characters that no header value may have";

impl From<HeaderValue> for HeaderTemplate {
    fn from(value: HeaderValue) -> Self {
        Self::Plain(value)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header(name) => name.as_str(),
            Self::Method => ":METHOD",
            Self::Path => ":PATH",
            Self::Authority => ":AUTHORITY",
            Self::Scheme => ":SCHEME",
            Self::Status => ":STATUS",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_commands_are_told_apart() {
        let text = |text: &str| FormatPart::Text(text.to_owned());
        let req = |field, alternative, max_len| {
            FormatPart::Command(FormatCommand::Req(FieldRef {
                field,
                alternative,
                max_len,
            }))
        };
        let header = |name: &'static str| Field::Header(HeaderName::from_static(name));
        for (format, expected) in [
            ("", vec![]),
            ("100%%", vec![text("100%")]),
            (
                "%%%PROTOCOL%%%",
                vec![
                    text("%"),
                    FormatPart::Command(FormatCommand::Value(FormatValue::Protocol)),
                    text("%"),
                ],
            ),
            (
                "a%REQ(X-User)%b",
                vec![text("a"), req(header("x-user"), None, None), text("b")],
            ),
            (
                "%REQ(:PATH?X-B):9%",
                vec![req(Field::Path, Some(header("x-b")), Some(9))],
            ),
            (
                "%START_TIME(%Y)%",
                vec![FormatPart::Command(FormatCommand::StartTime("%Y".into()))],
            ),
        ] {
            assert_eq!(FormatString::parse(format).unwrap().parts, expected, "{format}");
        }
    }

    #[test]
    fn malformed_formats_are_refused_with_their_reason() {
        for (format, expected) in [
            ("50%", FormatError::Percent),
            ("%REQ(x", FormatError::Percent),
            ("%REQ(x)", FormatError::Percent),
            ("%REQ(x):a%", FormatError::Percent),
            ("% %", FormatError::Percent),
            ("%NOPE%", FormatError::Unknown("NOPE".into())),
            ("%REQ(a b)%", FormatError::Argument("a b".into(), "REQ")),
            ("%PROTOCOL(x)%", FormatError::Argument("x".into(), "PROTOCOL")),
        ] {
            assert_eq!(FormatString::parse(format), Err(expected), "{format}");
        }
    }

    #[test]
    fn a_header_value_without_commands_is_plain() {
        let plain = |text: &str| HeaderTemplate::parse(text).map(|value| value.plain().cloned());
        assert_eq!(plain("100%%"), Ok(Some(HeaderValue::from_static("100%"))));
        assert_eq!(plain("%REQ(x)%"), Ok(None));
        assert!(plain("a\nb").is_err());
        assert!(plain("a\n%REQ(x)%").is_err());
    }
}
