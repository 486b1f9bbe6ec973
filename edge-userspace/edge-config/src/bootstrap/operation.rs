//! Keys about the process itself: its end, its bounds and its name servers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_yaml::Value;

use super::check::Check;
use crate::GoDuration;

/// How the process comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long new connections are still taken after SIGTERM, for those who spread them to see that readiness is off.
    pub grace: Duration,
    /// How long all of it may take from SIGTERM on; what is under way then is cut.
    pub deadline: Duration,
}

/// Bounds of the process; `None` is worked out from what the system allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overload {
    /// Connections of clients at once.
    pub max_connections: Option<u64>,
    /// Resident memory in bytes.
    pub max_memory: Option<u64>,
}

/// How names of endpoints are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Servers that are asked; none stands for those of /etc/resolv.conf.
    pub name_servers: Vec<SocketAddr>,
    /// An answer is used for at least this long.
    pub min_ttl: Duration,
    /// An answer is asked for again after this time at the latest.
    pub max_ttl: Duration,
    /// Time for one question to one server.
    pub timeout: Duration,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(super) struct RawDrain {
    /// Unless set, [`GRACE`], or the deadline where that is shorter.
    grace: Option<GoDuration>,
    deadline: GoDuration,
}

/// How long new connections are still taken: Istio's terminationDrainDuration.
const GRACE: Duration = Duration::from_secs(5);

impl Default for RawDrain {
    fn default() -> Self {
        Self {
            grace: None,
            deadline: GoDuration(Duration::from_secs(30)),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawOverload {
    max_connections: Auto,
    max_memory: Auto,
}

/// `auto`, a number, or a quantity of Kubernetes such as `512Mi`.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(serde::Serialize))]
struct Auto(Option<u64>);

/// Suffixes of quantities with what they stand for.
const SUFFIXES: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

fn quantity(text: &str) -> Option<u64> {
    let suffix = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (digits, factor) = suffix.unwrap_or((text, 1));
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

impl<'de> Deserialize<'de> for Auto {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match (value.as_str(), value.as_u64()) {
            (Some("auto"), _) => Ok(Self(None)),
            (_, Some(number)) => Ok(Self(Some(number))),
            (Some(text), _) if quantity(text).is_some() => Ok(Self(quantity(text))),
            _ => Err(D::Error::custom(
                "auto, a number, or a quantity such as 512Mi is needed",
            )),
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawDns {
    name_servers: Vec<String>,
    min_ttl: GoDuration,
    max_ttl: GoDuration,
    timeout: GoDuration,
}

impl Default for RawDns {
    fn default() -> Self {
        Self {
            name_servers: vec![],
            // Envoy's dns_refresh_rate.
            min_ttl: GoDuration(Duration::from_secs(5)),
            max_ttl: GoDuration(Duration::from_secs(300)),
            timeout: GoDuration(Duration::from_secs(2)),
        }
    }
}

impl Check<'_> {
    pub(super) fn drain(&mut self, raw: &RawDrain) -> Drain {
        let deadline = raw.deadline.0;
        let grace = raw.grace.as_ref().map_or(GRACE.min(deadline), |grace| grace.0);
        if grace > deadline {
            let hint = "the deadline counts from SIGTERM on, the grace time is a part of it";
            self.error("drain.grace", "is longer than drain.deadline", hint);
        }
        Drain { grace, deadline }
    }

    pub(super) fn overload(&mut self, raw: &RawOverload) -> Overload {
        for (key, bound) in [
            ("maxConnections", &raw.max_connections),
            ("maxMemory", &raw.max_memory),
        ] {
            if bound.0 == Some(0) {
                let hint = "write auto for what the system allows";
                self.error(
                    &format!("overload.{key}"),
                    "is 0, which would refuse everything",
                    hint,
                );
            }
        }
        Overload {
            max_connections: raw.max_connections.0,
            max_memory: raw.max_memory.0,
        }
    }

    pub(super) fn dns(&mut self, raw: &RawDns) -> Dns {
        let servers = raw.name_servers.iter().enumerate();
        let name_servers = servers.filter_map(|(index, text)| {
            let server = name_server(text);
            if server.is_none() {
                let hint = "write an address such as 192.0.2.53, with a port behind it if it is not 53";
                self.error(&format!("dns.nameServers[{index}]"), "is no address", hint);
            }
            server
        });
        let name_servers = name_servers.collect();
        for (key, duration) in [("minTtl", raw.min_ttl), ("timeout", raw.timeout)] {
            if duration.0 < Duration::from_millis(100) {
                let hint = "a shorter time would be a flood of questions";
                self.error(&format!("dns.{key}"), "must be at least 100ms", hint);
            }
        }
        if raw.max_ttl < raw.min_ttl {
            let hint = "an answer is asked for again after maxTtl at the latest";
            self.error("dns.maxTtl", "is shorter than dns.minTtl", hint);
        }
        Dns {
            name_servers,
            min_ttl: raw.min_ttl.0,
            max_ttl: raw.max_ttl.0,
            timeout: raw.timeout.0,
        }
    }
}

/// An address, with port 53 unless another is written.
fn name_server(text: &str) -> Option<SocketAddr> {
    let with_default = || Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53));
    text.parse().ok().or_else(with_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("512", Some(512)),
            ("2Ki", Some(2048)),
            ("1Gi", Some(1 << 30)),
            ("3M", Some(3_000_000)),
            ("1.5Gi", None),
            ("Gi", None),
            ("-1", None),
            ("99999999999Ti", None),
        ] {
            assert_eq!(quantity(text), expected, "{text}");
        }
    }

    #[test]
    fn a_name_server_has_port_53_unless_it_says_another() {
        for (text, expected) in [
            ("192.0.2.53", Some("192.0.2.53:53")),
            ("192.0.2.53:5353", Some("192.0.2.53:5353")),
            ("2001:db8::1", Some("[2001:db8::1]:53")),
            ("[2001:db8::1]:54", Some("[2001:db8::1]:54")),
            ("dns.example.com", None),
        ] {
            assert_eq!(
                name_server(text).map(|server| server.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }
}
