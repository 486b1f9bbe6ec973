//! Errors of the proxy as a whole. What goes wrong with one connection or request is answered and counted there.

use std::io;

use edge_model::ListenAddress;

/// Why the proxy could not be started or given a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port could not be listened on. Nothing of the new configuration was applied.
    #[error("cannot listen on {address}: {source}{}", hint(source))]
    Listen {
        /// What was to be listened on.
        address: ListenAddress,
        /// What the kernel said.
        source: io::Error,
    },
    /// A worker thread could not be started.
    #[error("cannot start gateway worker {worker}: {source}")]
    Worker {
        /// Index of the worker.
        worker: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// The access log could not be opened.
    #[error("cannot open the access log {path}: {source} (key accessLog.path)")]
    AccessLog {
        /// Its file; `stdout` is the standard output.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread that resolves names, or that watches over memory, could not be started.
    #[error("cannot start a thread of the proxy: {source}")]
    Thread {
        /// What the kernel said.
        source: io::Error,
    },
    /// No worker was asked for.
    #[error("at least one gateway worker is needed (key workers)")]
    NoWorkers,
    /// A worker ended on its own, which only a defect of the proxy can bring about.
    #[error("gateway worker {worker} has ended unexpectedly; restart the process and report its log")]
    WorkerGone {
        /// Index of the worker.
        worker: u16,
    },
    /// A metric is registered twice.
    #[error("cannot register the proxy's metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What the operator can do about it.
fn hint(source: &io::Error) -> &'static str {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "ErrorKind is non-exhaustive, and most kinds have no cure"
    )]
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            " (another process listens there without SO_REUSEPORT; ss -ltnp names it)"
        }
        io::ErrorKind::PermissionDenied => {
            " (ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE)"
        }
        _ => "",
    }
}
