//! The signals that end `edge run`.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// SIGTERM or SIGINT.
pub(super) struct Terminate {
    terminate: Signal,
    interrupt: Signal,
}

impl Terminate {
    pub(super) fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::CannotBeDone(error.into()));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for a signal that is meant as a second one: timeout(1), for one, sends its signal to the process and to
    /// the process's group, at the same moment.
    pub(super) async fn wait_again(&mut self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        while tokio::time::timeout(Duration::ZERO, self.wait()).await.is_ok() {}
        self.wait().await;
    }
}
