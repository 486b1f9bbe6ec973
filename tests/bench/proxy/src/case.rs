//! What is measured, and what is aimed at.

use crate::peer::Kind;

/// A case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) what: What,
    pub(crate) goal: Goal,
}

/// How it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Processor time for a request.
    Requests(Load),
    /// Processor time for a GiB, in bodies of 1 MiB.
    Bytes(Port),
    /// The 99th percentile of response times at a rate that none of them is pressed by.
    Latency,
    /// Memory of an idle connection.
    Idle(Idle),
    /// Processor time for a request, as a share of what it is with another configuration.
    Against(Variant, Variant),
    /// Instructions in user space for a request, counted by valgrind.
    Instructions,
}

/// What makes the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// HTTP/1.1 with keep-alive.
    Http1(Port),
    /// HTTP/2.
    Http2(Port),
    /// HTTP/1.1 with a connection and a full handshake for each request.
    Handshakes(Port),
}

/// A port of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Http1,
    Http2,
    TlsEcdsa,
    TlsRsa,
    Tcp,
    Passthrough,
}

/// What idle connections have done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Idle {
    /// Nothing.
    Accepted,
    /// A request of HTTP/1.1.
    Http1,
    /// A request of HTTP/1.1 over TLS 1.3.
    Tls,
    /// A request of HTTP/2.
    Http2,
}

/// A configuration of edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Plain,
    AccessLog,
    Hosts(u32),
    Routes(u32),
}

/// What edge's figure is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// So many times the least of these proxies' figures, each with its own factor.
    Times(&'static [(Kind, f64)]),
    /// A figure.
    Most(f64),
}

use Kind::{Envoy, Floor, Haproxy, Nginx};

/// All cases, in the order in which they are measured.
pub(crate) const CASES: [Case; 18] = [
    requests("h1", Load::Http1(Port::Http1), &[(Haproxy, 0.85), (Envoy, 0.2)]),
    requests("h2c", Load::Http2(Port::Http2), &[(Haproxy, 0.85)]),
    requests("h2_tls", Load::Http2(Port::TlsEcdsa), &[(Haproxy, 0.85)]),
    requests("h1_tls", Load::Http1(Port::TlsEcdsa), &[(Haproxy, 0.85)]),
    requests(
        "handshake_ecdsa",
        Load::Handshakes(Port::TlsEcdsa),
        &[(Haproxy, 1.0), (Nginx, 1.0), (Envoy, 1.0)],
    ),
    requests(
        "handshake_rsa",
        Load::Handshakes(Port::TlsRsa),
        &[(Haproxy, 1.0), (Nginx, 1.0), (Envoy, 1.0)],
    ),
    bytes("body_1m", Port::Http1),
    bytes("tcp", Port::Tcp),
    bytes("tls_passthrough", Port::Passthrough),
    Case {
        name: "p99_fixed_rate",
        unit: "us",
        what: What::Latency,
        goal: Goal::Times(&[(Haproxy, 1.0)]),
    },
    idle("idle_accepted", Idle::Accepted, 1.5),
    idle("idle_h1", Idle::Http1, 2.5),
    idle("idle_tls", Idle::Tls, 12.0),
    idle("idle_h2", Idle::Http2, 30.0),
    against("access_log", Variant::Plain, Variant::AccessLog),
    against("hosts_10000", Variant::Hosts(1000), Variant::Hosts(10_000)),
    against("routes_1000", Variant::Routes(10), Variant::Routes(1000)),
    Case {
        name: "h1_instructions",
        unit: "instructions/request",
        what: What::Instructions,
        goal: Goal::Times(&[(Haproxy, 0.7)]),
    },
];

const fn requests(name: &'static str, load: Load, goal: &'static [(Kind, f64)]) -> Case {
    Case {
        name,
        unit: "us/request",
        what: What::Requests(load),
        goal: Goal::Times(goal),
    }
}

const fn bytes(name: &'static str, port: Port) -> Case {
    Case {
        name,
        unit: "ms/GiB",
        what: What::Bytes(port),
        goal: Goal::Times(&[(Nginx, 1.0), (Floor, 1.2)]),
    }
}

const fn idle(name: &'static str, idle: Idle, most: f64) -> Case {
    Case {
        name,
        unit: "KB/connection",
        what: What::Idle(idle),
        goal: Goal::Most(most),
    }
}

/// "No more than a tenth" is what this machine can tell from nothing.
const fn against(name: &'static str, base: Variant, other: Variant) -> Case {
    Case {
        name,
        unit: "ratio",
        what: What::Against(base, other),
        goal: Goal::Most(1.1),
    }
}
