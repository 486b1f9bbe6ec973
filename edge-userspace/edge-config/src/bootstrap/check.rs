//! From the bootstrap file as it is written to one that can be relied on.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use edge_model::{
    FloodLimits, FormatString, Fraction, Measure, PenaltyPolicy, PenaltyScope, Prefix, ProxyProtocolIn,
    SynCookies, TokenRate,
};

use super::clients::{RawLimits, RawProxyProtocol, paths};
use super::raw::{
    RawAccessLog, RawBootstrap, RawFlood, RawPenalties, RawPinning, RawSources, RawSynCookies, RawTunnelRole,
    RawTunnels, RawVipLimit, RawVirtualAddress, SynCookieMode, Workers,
};
use super::{AccessLog, AccessLogEncoding, Bootstrap, Pinning, Sources};
use crate::{Problem, Severity, SourceRef};

/// Longest name of an interface: IFNAMSIZ of the kernel less its closing zero.
const MAX_INTERFACE_NAME: usize = 15;

/// Least bound on a request's head, in bytes: what every recipient should take of a request line alone (RFC 9112 section
/// 3).
const MIN_HEAD: u32 = 8192;

/// Most gateway workers: more than any machine has cores, and few enough for each to get its share of the 65537 slots
/// of the Maglev table.
const MAX_WORKERS: u64 = 1024;

/// Checks all of it; what is wrong is pushed to `problems`, and has a stand-in in the result.
pub(super) fn check(raw: RawBootstrap, source: &SourceRef, problems: &mut Vec<Problem>) -> Bootstrap {
    let mut check = Check { source, problems };
    check.interfaces(&raw.interfaces);
    if !raw.domain.split('.').all(|label| !label.is_empty()) {
        check.error(
            "domain",
            "is not a domain name",
            "write it without dots at its ends, as cluster.local",
        );
    }
    for (key, value) in [
        ("gatewayNamespace", &raw.gateway_namespace),
        ("rootNamespace", &raw.root_namespace),
        ("resources", &raw.resources),
    ] {
        if value.is_empty() {
            check.error(key, "must not be empty", "leave the key out for its default");
        }
    }
    for (key, time) in raw.timeouts.all() {
        if time.0.is_zero() {
            check.error(key, "must not be 0", "leave the key out for its default");
        }
    }
    check.limits(&raw.limits);
    if raw.forwarding.second_hop {
        check.second_hop(&raw.pools, raw.hash_seed.is_some());
    }
    if raw
        .syn_cookies
        .as_ref()
        .is_some_and(|raw| raw.mode != SynCookieMode::Never)
    {
        check.syns_are_answered(raw.tunnels.as_ref(), &raw.virtual_addresses);
    }
    Bootstrap {
        paths: paths(raw.path_normalization, raw.path_with_escaped_slashes),
        timeouts: raw.timeouts.into(),
        limits: raw.limits.into(),
        proxy_protocol: raw
            .proxy_protocol
            .map(|raw| check.proxy_protocol(raw))
            .unwrap_or_default(),
        access_log: raw.access_log.map(|log| check.access_log(&log)),
        num_trusted_proxies: raw.num_trusted_proxies,
        virtual_addresses: check.virtual_addresses(&raw.virtual_addresses, &raw.pools),
        pools: check.pools(&raw.pools, &raw.forwarding),
        health: check.healths(&raw.pools),
        connections: check.connections(&raw.connections),
        flows: check.flows(&raw.connections),
        tunnel: check.tunnel(&raw.forwarding),
        workers: check.workers(&raw.workers),
        flood: raw.flood.map(|flood| check.flood(&flood)),
        sources: check.sources(&raw.sources),
        reflection_ports: check.reflection_ports(&raw.reflection_ports),
        vip_limit: raw.vip_limit.map(|limit| check.vip_limit(&limit)),
        syn_cookies: raw.syn_cookies.and_then(|cookies| check.syn_cookies(&cookies)),
        penalties: raw.penalties.map(|penalties| check.penalties(&penalties)),
        gateway_addresses: check.gateway_addresses(&raw.gateway_addresses),
        admin: check.admin(&raw.admin),
        interfaces: raw.interfaces,
        xdp_mode: raw.xdp_mode,
        local_routes: raw.local_routes,
        pinning: raw.pinning.map(|pinning| check.pinning(pinning)),
        tunnels: raw
            .tunnels
            .map(|tunnels| check.tunnels(&tunnels, &raw.virtual_addresses)),
        hash_seed: raw.hash_seed.map(|seed| seed.0),
        gateway_labels: raw.gateway_labels,
        gateway_namespace: raw.gateway_namespace,
        root_namespace: raw.root_namespace,
        domain: raw.domain,
        resources: raw.resources.into(),
        drain: check.drain(&raw.drain),
        overload: check.overload(&raw.overload),
        dns: check.dns(&raw.dns),
    }
}

pub(super) struct Check<'a> {
    source: &'a SourceRef,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn error(&mut self, field: &str, message: &str, hint: &str) {
        let problem = self.source.problem(Severity::Error, None, field, message, hint);
        self.problems.push(problem);
    }

    pub(super) fn warn(&mut self, field: &str, message: &str, hint: &str) {
        let problem = self.source.problem(Severity::Warning, None, field, message, hint);
        self.problems.push(problem);
    }

    fn limits(&mut self, raw: &RawLimits) {
        for (key, value, least) in [
            ("limits.requestHeadersBytes", raw.request_headers_bytes, MIN_HEAD),
            ("limits.requestHeaders", raw.request_headers, 1),
            ("limits.requestTargetBytes", raw.request_target_bytes, 1),
            (
                "limits.http2.maxConcurrentStreams",
                raw.http2.max_concurrent_streams,
                1,
            ),
        ] {
            if value < least {
                self.error(
                    key,
                    &format!("must be {least} or more"),
                    "leave the key out for its default",
                );
            }
        }
    }

    fn proxy_protocol(&mut self, raw: RawProxyProtocol) -> ProxyProtocolIn {
        if raw.from.is_empty() {
            let hint = "name the proxies in front: whoever may send the header may call itself any address";
            self.error("proxyProtocol.from", "must not be empty", hint);
        }
        if raw.ports.contains(&0) {
            self.error(
                "proxyProtocol.ports",
                "holds a 0",
                "take ports that are listened on",
            );
        }
        ProxyProtocolIn {
            from: self.prefixes(&raw.from, "proxyProtocol.from"),
            ports: raw.ports,
        }
    }

    fn interfaces(&mut self, names: &[String]) {
        let mut seen = HashSet::new();
        for (index, name) in names.iter().enumerate() {
            let field = format!("interfaces[{index}]");
            let forbidden = |c: char| c.is_whitespace() || c == '/' || c == ':';
            if name.is_empty() || name.len() > MAX_INTERFACE_NAME || name.contains(forbidden) {
                self.error(
                    &field,
                    "is not the name of an interface",
                    "take a name from `ip link`, such as eth0",
                );
            }
            if !seen.insert(name) {
                self.error(&field, "stands twice", "name each interface once");
            }
        }
    }

    fn access_log(&mut self, raw: &RawAccessLog) -> AccessLog {
        let text = match raw.format.as_str() {
            "" => None,
            format => Some(self.format("accessLog.format", format)),
        };
        let members = raw.json_format.iter().map(|(name, format)| {
            let field = format!("accessLog.jsonFormat.{name}");
            (name.clone(), self.format(&field, format))
        });
        let json: Vec<_> = members.collect();
        if !(0.0..=100.0).contains(&raw.sample_percent) {
            let hint = "write a share in percent, 100 for every request";
            self.error("accessLog.samplePercent", "is not between 0 and 100", hint);
        }
        match raw.encoding {
            AccessLogEncoding::Text if !json.is_empty() => {
                let hint = "write encoding: JSON, or take format";
                self.error("accessLog.jsonFormat", "is for the encoding JSON", hint);
            }
            AccessLogEncoding::Json if text.is_some() => {
                let hint = "write encoding: TEXT, or take jsonFormat";
                self.error("accessLog.format", "is for the encoding TEXT", hint);
            }
            AccessLogEncoding::Text | AccessLogEncoding::Json => {}
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and a million"
        )]
        let sample = (raw.sample_percent.clamp(0.0, 100.0) * 10_000.0) as u32;
        AccessLog {
            path: (raw.path != "/dev/stdout").then(|| PathBuf::from(&raw.path)),
            encoding: raw.encoding,
            text,
            json,
            sample: Fraction::per_million(sample),
        }
    }

    fn format(&mut self, field: &str, text: &str) -> FormatString {
        FormatString::parse(text).unwrap_or_else(|error| {
            let hint = "commands are Envoy's, such as %REQ(:METHOD)%; write %% for a percent sign";
            self.error(field, &error.to_string(), hint);
            FormatString::default()
        })
    }

    fn pinning(&mut self, raw: RawPinning) -> Pinning {
        let path = PathBuf::from(raw.path);
        if !path.is_absolute() {
            let hint = "write the path of a folder on a BPF file system, such as /sys/fs/bpf/edge";
            self.error("pinning.path", "is not an absolute path", hint);
        } else if path
            .components()
            .skip(1)
            .any(|part| part.as_os_str().to_string_lossy().contains('.'))
        {
            let hint = "the BPF file system allows no dots in names";
            self.error("pinning.path", "has a dot in it", hint);
        }
        Pinning {
            path,
            on_stop: raw.on_stop,
        }
    }

    pub(super) fn address(&mut self, text: &str, field: &str) -> Option<IpAddr> {
        let ip: Option<IpAddr> = text.parse().ok();
        let usable = |ip: &IpAddr| !(ip.is_unspecified() || ip.is_multicast() || *ip == Ipv4Addr::BROADCAST);
        let ip = ip.filter(usable);
        if ip.is_none() {
            let hint = "write an IPv4 or IPv6 address such as 192.0.2.10, without prefix length";
            self.error(field, "is not the address of a host", hint);
        }
        ip
    }

    pub(super) fn port(&mut self, number: u32, field: &str) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        if port.is_none() {
            self.error(field, "is not a port", "write a number from 1 to 65535");
        }
        port
    }

    fn workers(&mut self, workers: &Workers) -> Option<u16> {
        let Workers(Some(number)) = workers else {
            return None;
        };
        if !(1..=MAX_WORKERS).contains(number) {
            let message = format!("must be auto or a number from 1 to {MAX_WORKERS}");
            self.error("workers", &message, "auto is one worker for each core");
        }
        u16::try_from(*number).ok()
    }

    fn flood(&mut self, raw: &RawFlood) -> FloodLimits {
        let mut number = |key: &str, number: u32| {
            if number == 0 {
                let hint = "set all four numbers, each at least 1; see config/reference/edge.yaml";
                self.error(
                    &format!("flood.{key}"),
                    "is missing or 0, which would drop every packet",
                    hint,
                );
            }
            number
        };
        FloodLimits {
            packets: TokenRate {
                per_second: number("packetsPerSecond", raw.packets_per_second),
                burst: number("packetsBurst", raw.packets_burst),
            },
            new_connections: TokenRate {
                per_second: number("newConnectionsPerSecond", raw.new_connections_per_second),
                burst: number("newConnectionsBurst", raw.new_connections_burst),
            },
        }
    }

    fn sources(&mut self, raw: &RawSources) -> Sources {
        Sources {
            allow: self.prefixes(&raw.allow, "sources.allow"),
            allow_files: raw.allow_files.clone(),
            deny: self.prefixes(&raw.deny, "sources.deny"),
            deny_files: raw.deny_files.clone(),
        }
    }

    pub(super) fn prefixes(&mut self, raw: &[String], path: &str) -> Vec<Prefix> {
        let mut prefixes = Vec::new();
        for (index, text) in raw.iter().enumerate() {
            match text.parse() {
                Ok(prefix) => prefixes.push(prefix),
                Err(error) => {
                    let (field, message) = (format!("{path}[{index}]"), format!("{text:?} {error}"));
                    let hint = "write address and prefix length, or an address alone";
                    self.error(&field, &message, hint);
                }
            }
        }
        prefixes
    }

    fn reflection_ports(&mut self, raw: &[u32]) -> Vec<u16> {
        let ports = raw.iter().enumerate();
        ports
            .filter_map(|(index, &port)| self.port(port, &format!("reflectionPorts[{index}]")))
            .collect()
    }

    fn vip_limit(&mut self, raw: &RawVipLimit) -> TokenRate {
        for (key, number) in [
            ("newConnectionsPerSecond", raw.new_connections_per_second),
            ("newConnectionsBurst", raw.new_connections_burst),
        ] {
            if number == 0 {
                let hint = "set both numbers, each at least 1; see config/reference/edge.yaml";
                self.error(
                    &format!("vipLimit.{key}"),
                    "is missing or 0, which would drop every new connection",
                    hint,
                );
            }
        }
        TokenRate {
            per_second: raw.new_connections_per_second,
            burst: raw.new_connections_burst,
        }
    }

    fn syn_cookies(&mut self, raw: &RawSynCookies) -> Option<SynCookies> {
        if raw.unanswered_per_second == 0 {
            let hint = "set a rate, or mode: always for cookies at all times";
            self.error("synCookies.unansweredPerSecond", "must be at least 1", hint);
        }
        match raw.mode {
            SynCookieMode::Never => None,
            SynCookieMode::Always => Some(SynCookies::Always),
            // A second's worth at once is no flood yet.
            SynCookieMode::Auto => Some(SynCookies::Above(TokenRate {
                per_second: raw.unanswered_per_second,
                burst: raw.unanswered_per_second,
            })),
        }
    }

    /// Warns where XDP answers no SYN.
    fn syns_are_answered(&mut self, tunnels: Option<&RawTunnels>, addresses: &[RawVirtualAddress]) {
        let has_pools_alone = |own: &RawVirtualAddress| {
            !own.ports.is_empty() && own.ports.iter().all(|port| port.pool.is_some())
        };
        match tunnels.map(|tunnels| tunnels.role) {
            Some(RawTunnelRole::Host) => self.warn(
                "synCookies",
                "answers nothing in XDP on a host, whose ports edge does not know",
                "leave it out: the kernel's own cookies guard the host's servers",
            ),
            None if !addresses.is_empty() && addresses.iter().all(has_pools_alone) => self.warn(
                "synCookies",
                "answers nothing: every port has a pool, and SYNs are answered where their connections will be",
                "set it on the workers' nodes, where tunnels end",
            ),
            Some(RawTunnelRole::Gateway) | None => {}
        }
    }

    fn penalties(&mut self, raw: &RawPenalties) -> PenaltyPolicy {
        if (raw.per_second == 0) != (raw.burst == 0) {
            let hint = "set both for a rate that the source keeps, or neither to drop all";
            self.error(
                "penalties",
                "has one of perSecond and burst without the other",
                hint,
            );
        }
        if raw.refusals == 0 {
            let hint = "set after how many refusals a source is dropped, such as 50";
            self.error("penalties.refusals", "must be at least 1", hint);
        }
        for (key, duration) in [("window", raw.window.0), ("duration", raw.duration.0)] {
            if duration < Duration::from_millis(1) {
                let hint = "set a duration such as 10s";
                self.error(&format!("penalties.{key}"), "must be at least 1ms", hint);
            }
        }
        PenaltyPolicy {
            refusals: raw.refusals,
            window: raw.window.0,
            duration: raw.duration.0,
            measure: Measure {
                rate: (raw.per_second > 0).then_some(TokenRate {
                    per_second: raw.per_second,
                    burst: raw.burst,
                }),
                scope: if raw.new_connections_only {
                    PenaltyScope::NewConnections
                } else {
                    PenaltyScope::Everything
                },
            },
        }
    }

    fn gateway_addresses(&mut self, raw: &[String]) -> Vec<IpAddr> {
        let addresses = raw.iter().enumerate();
        addresses
            .filter_map(|(index, text)| self.address(text, &format!("gatewayAddresses[{index}]")))
            .collect()
    }

    fn admin(&mut self, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            let hint = "write address and port, such as 127.0.0.1:15000 or [::1]:15000";
            self.error("admin", "is not an address with a port", hint);
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }
}
