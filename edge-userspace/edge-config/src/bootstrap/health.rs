//! Health checks of pools: checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_model::{HealthCheck, Probe};

use super::check::Check;
use super::raw::{RawHealth, RawPool, RawProbe};

/// Largest threshold: more outcomes in a row say nothing that fewer do not.
const MAX_THRESHOLD: u32 = 100;

impl Check<'_> {
    /// The checks of the pools that have one.
    pub(super) fn healths(&mut self, pools: &[RawPool]) -> BTreeMap<Arc<str>, HealthCheck> {
        let mut checks = BTreeMap::new();
        for (index, pool) in pools.iter().enumerate() {
            if let Some(health) = &pool.health {
                let check = self.health(health, &format!("pools[{index}].health"));
                checks.insert(pool.name.as_str().into(), check);
            }
        }
        checks
    }

    fn health(&mut self, raw: &RawHealth, path: &str) -> HealthCheck {
        let port = self.port(raw.port, &format!("{path}.port")).unwrap_or_default();
        let probe = match raw.probe {
            RawProbe::Tcp => Probe::Tcp { port },
            RawProbe::Http => Probe::Http {
                port,
                path: self.http_path(&raw.path, &format!("{path}.path")),
                host: self.host(raw.host.as_deref(), &format!("{path}.host")),
            },
        };
        for (key, value) in [("interval", raw.interval.0), ("timeout", raw.timeout.0)] {
            if value.is_zero() {
                self.error(
                    &format!("{path}.{key}"),
                    "must be above 0",
                    "write a time such as 2s",
                );
            }
        }
        for (key, value) in [
            ("unhealthyThreshold", raw.unhealthy_threshold),
            ("healthyThreshold", raw.healthy_threshold),
        ] {
            if !(1..=MAX_THRESHOLD).contains(&value) {
                let message = format!("is not between 1 and {MAX_THRESHOLD}");
                self.error(&format!("{path}.{key}"), &message, "3 and 2 are usual");
            }
        }
        HealthCheck {
            probe,
            interval: raw.interval.0,
            timeout: raw.timeout.0,
            unhealthy_threshold: raw.unhealthy_threshold,
            healthy_threshold: raw.healthy_threshold,
            hold: raw.hold.0,
        }
    }

    fn http_path(&mut self, text: &str, field: &str) -> String {
        let is_sound =
            text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_sound {
            self.error(field, "is no path", "write a path such as /healthz");
        }
        text.to_owned()
    }

    fn host(&mut self, text: Option<&str>, field: &str) -> Option<String> {
        let text = text?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let hint = "write a host, or leave it out for the worker's address";
            self.error(field, "is no value of a Host header", hint);
        }
        Some(text.to_owned())
    }
}
