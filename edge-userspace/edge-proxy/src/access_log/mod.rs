//! The access log: one line for each request, and for each connection whose bytes are forwarded, written by a thread of its own.
//!
//! A worker renders lines into a batch, and hands it over without waiting once it is full or a tenth of a second old. When
//! the file or the terminal cannot keep up, lines are dropped and counted; requests never wait.

mod line;
mod scene;
mod time;
mod writer;

use std::path::PathBuf;

use edge_model::{FormatString, Fraction};

pub(crate) use line::{Kept, Line};
pub(crate) use scene::{Response, Scene};
pub(crate) use writer::{Batch, Fill, PAUSE, Writer};

/// What is logged, and where to.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// File that lines are appended to; `None` is the standard output.
    pub path: Option<PathBuf>,
    /// What a line says.
    pub format: AccessLogFormat,
    /// Share of the requests that are logged.
    pub sample: Fraction,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// Text with commands.
    Text(FormatString),
    /// An object with a member for each name; numbers stand as numbers, what is not there as `null`.
    Json(Vec<(String, FormatString)>),
}

/// Istio's format (istio `pilot/pkg/model/telemetry_logging.go`).
const ISTIO: [(&str, &str, &str); 23] = [
    ("start_time", "[", "%START_TIME%"),
    ("method", "] \"", "%REQ(:METHOD)%"),
    ("path", " ", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", " ", "%PROTOCOL%"),
    ("response_code", "\" ", "%RESPONSE_CODE%"),
    ("response_flags", " ", "%RESPONSE_FLAGS%"),
    ("response_code_details", " ", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        " ",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    (
        "upstream_transport_failure_reason",
        " \"",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
    ("bytes_received", "\" ", "%BYTES_RECEIVED%"),
    ("bytes_sent", " ", "%BYTES_SENT%"),
    ("duration", " ", "%DURATION%"),
    (
        "upstream_service_time",
        " ",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    ),
    ("x_forwarded_for", " \"", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "\" \"", "%REQ(USER-AGENT)%"),
    ("request_id", "\" \"", "%REQ(X-REQUEST-ID)%"),
    ("authority", "\" \"", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "\" \"", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "\" ", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", " ", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", " ", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", " ", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", " ", "%REQUESTED_SERVER_NAME%"),
];

impl AccessLogFormat {
    /// Istio's default text.
    #[must_use]
    pub fn istio_text() -> Self {
        let mut text: String = ISTIO
            .iter()
            .map(|(_, before, command)| format!("{before}{command}"))
            .collect();
        text += " %ROUTE_NAME%\n";
        // The constant is parsed by a test.
        Self::Text(FormatString::parse(&text).unwrap_or_default())
    }

    /// Istio's default JSON object.
    #[must_use]
    pub fn istio_json() -> Self {
        let members = ISTIO.iter().map(|(name, _, command)| (*name, *command));
        let members = members.chain([("route_name", "%ROUTE_NAME%")]);
        let parsed = members.map(|(name, command)| {
            let format = FormatString::parse(command).unwrap_or_default();
            (name.to_owned(), format)
        });
        Self::Json(parsed.collect())
    }
}

#[cfg(test)]
mod tests {
    use edge_model::FormatPart;

    use super::*;

    #[test]
    fn the_default_formats_have_all_their_commands() {
        let AccessLogFormat::Text(text) = AccessLogFormat::istio_text() else {
            panic!("text");
        };
        let AccessLogFormat::Json(members) = AccessLogFormat::istio_json() else {
            panic!("JSON");
        };
        let is_command = |part: &&FormatPart| matches!(part, FormatPart::Command(_));
        assert_eq!(text.parts.iter().filter(is_command).count(), 24);
        assert!(members.iter().all(|(_, format)| format.parts.len() == 1) && members.len() == 24);
    }
}
