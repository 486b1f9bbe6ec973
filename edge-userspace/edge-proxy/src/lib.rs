//! The L7 proxy: one thread per worker, each with its own runtime, listening sockets and upstream connections.
//!
//! A request's way: `listener` and `worker` accept, `tls` shakes hands, `connection` watches over the byte
//! stream, `server` speaks HTTP/1.1 on it by `h1`, or has hyper speak HTTP/2, `http` checks, routes (by `edge-routing`),
//! limits and forwards, `pool` holds the connections to endpoints that `edge-upstream` picks, and speaks HTTP/1.1 on
//! them by `h1`, too. `config` is a Snapshot made ready for it;
//! [`Proxy`] is all that others see.
//!
//! Workers share the configuration (read through a cache, without a lock), the active requests of endpoints and the
//! token buckets (atomics), and metrics. All else belongs to one worker and is neither locked nor atomic.
#![deny(unsafe_code)]

mod access_log;
mod client_hello;
mod config;
mod connection;
mod dns;
mod error;
mod facts;
#[doc(hidden)]
pub mod fuzzing;
mod h1;
mod http;
mod listener;
mod memory;
mod metrics;
mod options;
mod overload;
mod pool;
mod protocol;
mod proxy;
mod proxy_protocol;
mod server;
mod sniff;
mod status;
mod stream;
mod strict;
mod tcp;
mod timer;
mod tls;
mod worker;

pub use access_log::{AccessLog, AccessLogFormat};
pub use error::Error;
pub use options::{
    Bounds, DnsOptions, Http2Limits, Limits, PathPolicy, ProxyOptions, ProxyProtocolIn, Timeouts,
};
pub use proxy::{Drained, ListeningSocket, Proxy};
pub use status::{ClusterStatus, EndpointStatus, WorkerStatus};
