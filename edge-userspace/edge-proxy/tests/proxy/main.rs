//! The proxy over real sockets: backends and clients of the test's own on the loopback, no privileges needed.
//!
//! One program, so that it is linked once. `support` has the backends, the client and the configurations.
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "where a test's own backend or client fails, the test has failed"
)]

mod actions;
mod apply;
mod back_off;
mod bodies;
mod client_certificates;
mod connections;
mod desync;
mod details;
mod detection;
mod dns;
mod drain;
mod endpoint_http1;
mod failure;
mod flags;
mod floods;
mod frames;
mod grpc_messages;
mod heads;
mod http2;
mod least_request;
mod limits;
mod log_values;
mod logged_heads;
mod malformed;
mod observe;
mod overload;
mod policies;
mod preferences;
mod proxy_protocol;
mod proxy_protocol_out;
mod routing;
mod series;
mod slow_streams;
mod stalled_log;
mod support;
mod tcp;
mod tcp_metrics;
mod tls;
mod upgrades;
mod upstream_tls;
mod upstreams;
