//! An access log that tests read.

use std::path::PathBuf;

use edge_model::Fraction;
use edge_proxy::{AccessLog, AccessLogFormat, ProxyOptions};

use super::eventually;

/// A log file of the test's own, removed in the end.
pub(crate) struct Log(PathBuf);

impl Log {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("edge-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    pub(crate) fn options(&self, format: AccessLogFormat, sample: Fraction) -> ProxyOptions {
        ProxyOptions {
            access_log: Some(AccessLog {
                path: Some(self.0.clone()),
                format,
                sample,
            }),
            ..ProxyOptions::new(2)
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    #[track_caller]
    pub(crate) fn expect(&self, count: usize) -> Vec<String> {
        assert!(eventually(|| self.lines().len() == count), "{:?}", self.lines());
        self.lines()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
