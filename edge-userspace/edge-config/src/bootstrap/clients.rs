//! The bounds on clients as they are written, with their defaults.

use edge_model::{ClientLimits, ClientTimeouts, EscapedSlashes, Http2Limits, PathNormalization, PathPolicy};
use serde::Deserialize;

use crate::GoDuration;

/// Istio's modes (`meshConfig.pathNormalization.normalization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum RawPathNormalization {
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

/// Envoy's actions (`path_with_escaped_slashes_action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum RawEscapedSlashes {
    KeepUnchanged,
    RejectRequest,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

/// What is made of paths.
pub(super) fn paths(normalization: RawPathNormalization, slashes: RawEscapedSlashes) -> PathPolicy {
    PathPolicy {
        normalization: match normalization {
            RawPathNormalization::None => PathNormalization::None,
            RawPathNormalization::Base => PathNormalization::Base,
            RawPathNormalization::MergeSlashes => PathNormalization::MergeSlashes,
            RawPathNormalization::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
        },
        escaped_slashes: match slashes {
            RawEscapedSlashes::KeepUnchanged => EscapedSlashes::Keep,
            RawEscapedSlashes::RejectRequest => EscapedSlashes::Reject,
            RawEscapedSlashes::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
            RawEscapedSlashes::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
        },
    }
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawTimeouts {
    pub(super) request_headers: GoDuration,
    pub(super) tls_handshake: GoDuration,
    pub(super) request_body: GoDuration,
    pub(super) stalled: GoDuration,
    pub(super) window: GoDuration,
    pub(super) idle: GoDuration,
    pub(super) drain_idle: GoDuration,
}

impl Default for RawTimeouts {
    fn default() -> Self {
        let default = ClientTimeouts::default();
        Self {
            request_headers: GoDuration(default.header),
            tls_handshake: GoDuration(default.handshake),
            request_body: GoDuration(default.body),
            stalled: GoDuration(default.stalled),
            window: GoDuration(default.window),
            idle: GoDuration(default.idle),
            drain_idle: GoDuration(default.drain_idle),
        }
    }
}

impl RawTimeouts {
    /// The times with their keys.
    pub(super) fn all(&self) -> [(&'static str, &GoDuration); 7] {
        [
            ("timeouts.requestHeaders", &self.request_headers),
            ("timeouts.tlsHandshake", &self.tls_handshake),
            ("timeouts.requestBody", &self.request_body),
            ("timeouts.stalled", &self.stalled),
            ("timeouts.window", &self.window),
            ("timeouts.idle", &self.idle),
            ("timeouts.drainIdle", &self.drain_idle),
        ]
    }
}

impl From<RawTimeouts> for ClientTimeouts {
    fn from(raw: RawTimeouts) -> Self {
        Self {
            header: raw.request_headers.0,
            handshake: raw.tls_handshake.0,
            idle: raw.idle.0,
            stalled: raw.stalled.0,
            window: raw.window.0,
            body: raw.request_body.0,
            drain_idle: raw.drain_idle.0,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawLimits {
    pub(super) request_headers_bytes: u32,
    pub(super) request_headers: u32,
    pub(super) request_target_bytes: u32,
    pub(super) request_body_bytes_per_second: u32,
    pub(super) response_bytes_per_second: u32,
    pub(super) http2: RawHttp2Limits,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawHttp2Limits {
    pub(super) max_concurrent_streams: u32,
    pub(super) control_frames: u32,
    pub(super) window_updates: u32,
    pub(super) resets: u32,
    pub(super) stream_errors: u32,
    pub(super) refused_streams: u32,
}

impl Default for RawLimits {
    fn default() -> Self {
        let default = ClientLimits::default();
        Self {
            request_headers_bytes: default.head,
            request_headers: default.fields,
            request_target_bytes: default.target,
            request_body_bytes_per_second: default.body_rate,
            response_bytes_per_second: default.response_rate,
            http2: RawHttp2Limits::default(),
        }
    }
}

impl Default for RawHttp2Limits {
    fn default() -> Self {
        let default = ClientLimits::default();
        Self {
            max_concurrent_streams: default.streams,
            control_frames: default.http2.control_frames,
            window_updates: default.http2.window_updates,
            resets: default.http2.resets,
            stream_errors: default.http2.errors,
            refused_streams: default.http2.refusals,
        }
    }
}

impl From<RawLimits> for ClientLimits {
    fn from(raw: RawLimits) -> Self {
        Self {
            head: raw.request_headers_bytes,
            fields: raw.request_headers,
            target: raw.request_target_bytes,
            body_rate: raw.request_body_bytes_per_second,
            response_rate: raw.response_bytes_per_second,
            streams: raw.http2.max_concurrent_streams,
            http2: Http2Limits {
                control_frames: raw.http2.control_frames,
                window_updates: raw.http2.window_updates,
                resets: raw.http2.resets,
                errors: raw.http2.stream_errors,
                refusals: raw.http2.refused_streams,
            },
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(super) struct RawProxyProtocol {
    pub(super) from: Vec<String>,
    pub(super) ports: Vec<u16>,
}
