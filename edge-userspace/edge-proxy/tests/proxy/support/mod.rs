//! What the tests are made of.

mod backend;
mod client;
mod config;
mod dns;
mod edge;
mod http2;
mod log;
mod pki;
mod tls;

pub(crate) use backend::{Backend, RawBackend};
pub(crate) use client::{Client, Reply, get};
pub(crate) use config::{
    Snap, cluster, destination, direct, forward, prefix, redirect, retries, route, service, service_with,
    virtual_host,
};
pub(crate) use dns::{DnsServer, Zone};
pub(crate) use edge::{Edge, eventually, free_port, listener, refusing};
pub(crate) use http2::{Http2Backend, http2, listening};
pub(crate) use log::Log;
pub(crate) use pki::{Authority, Issued};
pub(crate) use tls::{TlsBackend, client_config, connect, tls_server};
