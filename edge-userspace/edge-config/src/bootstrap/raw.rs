//! The bootstrap file as it is written, with its defaults.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_yaml::Value;

use super::clients::{RawEscapedSlashes, RawLimits, RawPathNormalization, RawProxyProtocol, RawTimeouts};
use super::operation::{RawDns, RawDrain, RawOverload};
use crate::GoDuration;

/// The whole file. `Serialize` is there for the test that compares its keys with the reference.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawBootstrap {
    pub(super) interfaces: Vec<String>,
    pub(super) xdp_mode: XdpMode,
    pub(super) virtual_addresses: Vec<RawVirtualAddress>,
    pub(super) local_routes: bool,
    pub(super) pinning: Option<RawPinning>,
    pub(super) tunnels: Option<RawTunnels>,
    pub(super) workers: Workers,
    pub(super) hash_seed: Option<HashSeed>,
    pub(super) pools: Vec<RawPool>,
    pub(super) forwarding: RawForwarding,
    pub(super) connections: RawConnections,
    pub(super) flood: Option<RawFlood>,
    pub(super) sources: RawSources,
    pub(super) reflection_ports: Vec<u32>,
    pub(super) vip_limit: Option<RawVipLimit>,
    pub(super) syn_cookies: Option<RawSynCookies>,
    pub(super) penalties: Option<RawPenalties>,
    pub(super) gateway_labels: BTreeMap<String, String>,
    pub(super) gateway_namespace: String,
    pub(super) gateway_addresses: Vec<String>,
    pub(super) root_namespace: String,
    pub(super) domain: String,
    pub(super) resources: String,
    pub(super) admin: String,
    pub(super) drain: RawDrain,
    pub(super) overload: RawOverload,
    pub(super) dns: RawDns,
    pub(super) num_trusted_proxies: u32,
    pub(super) access_log: Option<RawAccessLog>,
    pub(super) path_normalization: RawPathNormalization,
    pub(super) path_with_escaped_slashes: RawEscapedSlashes,
    pub(super) timeouts: RawTimeouts,
    pub(super) limits: RawLimits,
    pub(super) proxy_protocol: Option<RawProxyProtocol>,
}

impl Default for RawBootstrap {
    fn default() -> Self {
        Self {
            interfaces: vec![],
            xdp_mode: XdpMode::Auto,
            virtual_addresses: vec![],
            local_routes: true,
            pinning: None,
            tunnels: None,
            workers: Workers(None),
            hash_seed: None,
            pools: vec![],
            forwarding: RawForwarding::default(),
            connections: RawConnections::default(),
            flood: None,
            sources: RawSources::default(),
            reflection_ports: vec![],
            vip_limit: None,
            syn_cookies: None,
            penalties: None,
            gateway_labels: BTreeMap::from([("istio".to_owned(), "ingressgateway".to_owned())]),
            gateway_namespace: "istio-system".to_owned(),
            gateway_addresses: vec![],
            root_namespace: "istio-system".to_owned(),
            domain: "cluster.local".to_owned(),
            resources: ".".to_owned(),
            admin: "127.0.0.1:15000".to_owned(),
            drain: RawDrain::default(),
            overload: RawOverload::default(),
            dns: RawDns::default(),
            num_trusted_proxies: 0,
            access_log: None,
            path_normalization: RawPathNormalization::Base,
            path_with_escaped_slashes: RawEscapedSlashes::KeepUnchanged,
            timeouts: RawTimeouts::default(),
            limits: RawLimits::default(),
            proxy_protocol: None,
        }
    }
}

/// Where the XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver where it can, else generic.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's stack.
    Generic,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawPinning {
    pub(super) path: String,
    pub(super) on_stop: OnStop,
}

impl Default for RawPinning {
    fn default() -> Self {
        Self {
            path: "/sys/fs/bpf/edge".to_owned(),
            on_stop: OnStop::Detach,
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawTunnels {
    pub(super) endpoints: Vec<String>,
    pub(super) relays: Vec<String>,
    pub(super) trusted: Vec<String>,
    pub(super) gue_port: u32,
    pub(super) role: RawTunnelRole,
}

impl Default for RawTunnels {
    fn default() -> Self {
        Self {
            endpoints: vec![],
            relays: vec![],
            trusted: vec![],
            gue_port: u32::from(edge_common::decap::GUE_PORT),
            role: RawTunnelRole::Gateway,
        }
    }
}

/// What takes the packets that were in tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum RawTunnelRole {
    Gateway,
    Host,
}

/// What becomes of pinned programs when edge ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// They are detached.
    Detach,
    /// They stay attached, for the next process to take over.
    Keep,
}

/// A set of workers.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(super) struct RawPool {
    pub(super) name: String,
    pub(super) workers: Vec<RawWorker>,
    pub(super) health: Option<RawHealth>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawHealth {
    pub(super) probe: RawProbe,
    pub(super) port: u32,
    pub(super) path: String,
    pub(super) host: Option<String>,
    pub(super) interval: GoDuration,
    pub(super) timeout: GoDuration,
    pub(super) unhealthy_threshold: u32,
    pub(super) healthy_threshold: u32,
    pub(super) hold: GoDuration,
}

impl Default for RawHealth {
    fn default() -> Self {
        let seconds = |seconds| GoDuration(std::time::Duration::from_secs(seconds));
        Self {
            probe: RawProbe::Tcp,
            port: 80,
            path: "/".to_owned(),
            host: None,
            interval: seconds(2),
            timeout: seconds(1),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            hold: seconds(10),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum RawProbe {
    Tcp,
    Http,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawWorker {
    pub(super) name: String,
    pub(super) number: Option<u32>,
    pub(super) address: String,
    pub(super) mode: RawMode,
    pub(super) port: u32,
    pub(super) weight: u32,
    pub(super) state: RawState,
    pub(super) next_hop: Option<String>,
}

impl Default for RawWorker {
    fn default() -> Self {
        Self {
            name: String::new(),
            number: None,
            address: String::new(),
            mode: RawMode::Ipip,
            port: 6080,
            weight: 1,
            state: RawState::Active,
            next_hop: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum RawMode {
    Local,
    Ipip,
    Gue,
    L2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum RawState {
    Active,
    Draining,
    Down,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawForwarding {
    pub(super) source4: Option<String>,
    pub(super) source6: Option<String>,
    pub(super) mtu: u32,
    pub(super) next_hop: Option<String>,
    pub(super) second_hop: bool,
}

impl Default for RawForwarding {
    fn default() -> Self {
        Self {
            source4: None,
            source6: None,
            mtu: 1500,
            next_hop: None,
            second_hop: false,
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(super) struct RawConnections {
    pub(super) flows: u32,
    pub(super) idle: GoDuration,
}

impl Default for RawConnections {
    fn default() -> Self {
        Self {
            flows: 1 << 20,
            idle: GoDuration(std::time::Duration::from_secs(300)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum RawUnserved {
    #[default]
    Drop,
    Pass,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase")]
pub(super) enum RawSpread {
    Flow,
    NoSourcePort,
    DestinationPort,
    Source,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawVirtualAddress {
    pub(super) address: String,
    pub(super) unserved_ports: RawUnserved,
    pub(super) ports: Vec<RawVirtualPort>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawVirtualPort {
    pub(super) port: u32,
    pub(super) protocol: String,
    pub(super) listener_port: Option<u32>,
    pub(super) pool: Option<String>,
    pub(super) spread: RawSpread,
    pub(super) connection_table: bool,
}

impl Default for RawVirtualPort {
    fn default() -> Self {
        Self {
            port: 0,
            protocol: "TCP".to_owned(),
            listener_port: None,
            pool: None,
            spread: RawSpread::Flow,
            connection_table: true,
        }
    }
}

/// Shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "UPPERCASE")]
pub enum AccessLogEncoding {
    /// Text.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawAccessLog {
    pub(super) path: String,
    pub(super) encoding: AccessLogEncoding,
    pub(super) format: String,
    pub(super) json_format: BTreeMap<String, String>,
    pub(super) sample_percent: f64,
}

impl Default for RawAccessLog {
    fn default() -> Self {
        Self {
            path: "/dev/stdout".to_owned(),
            encoding: AccessLogEncoding::Text,
            format: String::new(),
            json_format: BTreeMap::new(),
            sample_percent: 100.0,
        }
    }
}

/// `auto` or a number.
#[derive(Debug)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct Workers(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match (value.as_str(), value.as_u64()) {
            (Some("auto"), _) => Ok(Self(None)),
            (_, Some(number)) => Ok(Self(Some(number))),
            _ => Err(D::Error::custom("auto or a number is needed")),
        }
    }
}

/// A number, or one as text in hexadecimal.
#[derive(Debug)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct HashSeed(pub(super) u64);

impl<'de> Deserialize<'de> for HashSeed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
        let hexadecimal = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let message = "a number from 0 to 0xffffffffffffffff is needed";
        let number = value.as_u64().or(hexadecimal);
        number.map(Self).ok_or_else(|| D::Error::custom(message))
    }
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawFlood {
    pub(super) packets_per_second: u32,
    pub(super) packets_burst: u32,
    pub(super) new_connections_per_second: u32,
    pub(super) new_connections_burst: u32,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawSources {
    pub(super) allow: Vec<String>,
    pub(super) allow_files: Vec<String>,
    pub(super) deny: Vec<String>,
    pub(super) deny_files: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawVipLimit {
    pub(super) new_connections_per_second: u32,
    pub(super) new_connections_burst: u32,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawSynCookies {
    pub(super) mode: SynCookieMode,
    pub(super) unanswered_per_second: u32,
}

impl Default for RawSynCookies {
    fn default() -> Self {
        Self {
            mode: SynCookieMode::Auto,
            unanswered_per_second: 1000,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum SynCookieMode {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawPenalties {
    pub(super) refusals: u32,
    pub(super) window: GoDuration,
    pub(super) duration: GoDuration,
    pub(super) per_second: u32,
    pub(super) burst: u32,
    pub(super) new_connections_only: bool,
}
