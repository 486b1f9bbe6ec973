//! Messages of the BPF programs on their way to `tracing`.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};

/// Reads the programs' messages.
pub(crate) type BpfLog = EbpfLogger<Bridge>;

/// Opens the ring buffer of the programs' messages. An object without messages has none.
pub(crate) fn open(ebpf: &mut Ebpf) -> Option<BpfLog> {
    match EbpfLogger::init_with_logger(ebpf, Bridge) {
        Ok(log) => Some(log),
        Err(error) => {
            tracing::warn!("messages of the BPF programs cannot be read: {error}");
            None
        }
    }
}

/// Gives each record to `tracing` under the target `edge_ebpf`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bridge;

impl Log for Bridge {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let message = record.args();
        match record.level() {
            Level::Error => tracing::error!(target: "edge_ebpf", "{message}"),
            Level::Warn => tracing::warn!(target: "edge_ebpf", "{message}"),
            Level::Info => tracing::info!(target: "edge_ebpf", "{message}"),
            Level::Debug => tracing::debug!(target: "edge_ebpf", "{message}"),
            Level::Trace => tracing::trace!(target: "edge_ebpf", "{message}"),
        }
    }

    fn flush(&self) {}
}
