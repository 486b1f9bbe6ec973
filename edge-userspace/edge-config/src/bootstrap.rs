//! The bootstrap file `edge.yaml`: what an edge needs to know before it reads any resource.
//!
//! Every key stands in `config/reference/edge.yaml` with its meaning and default.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use edge_model::{
    ClientLimits, ClientTimeouts, Connections, FloodLimits, FormatString, Fraction, HealthCheck, PathPolicy,
    PenaltyPolicy, Pool, Prefix, Protocol, ProxyProtocolIn, Spread, SynCookies, TokenRate, Tunnel, Tunnels,
    Unserved,
};

use crate::yaml::{self, Style, UnknownFields};
use crate::{Problem, SourceRef};

pub use operation::{Dns, Drain, Overload};
pub use raw::{AccessLogEncoding, OnStop, XdpMode};

mod check;
mod clients;
mod health;
mod operation;
mod pools;
mod raw;
#[cfg(test)]
mod tests;
mod tunnels;

/// The bootstrap file, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// Interfaces that the XDP program is attached to; none means the proxy alone.
    pub interfaces: Vec<String>,
    /// Where the XDP program runs.
    pub xdp_mode: XdpMode,
    /// Addresses that tier 1 answers for; no address twice.
    pub virtual_addresses: Vec<VirtualAddress>,
    /// Whether a local route is added for each of them.
    pub local_routes: bool,
    /// Where links and maps are pinned, for a next process to take over.
    pub pinning: Option<Pinning>,
    /// What is taken out of tunnels that end at this node.
    pub tunnels: Option<Tunnels>,
    /// Gateway workers; `None` is one for each core.
    pub workers: Option<u16>,
    /// Key of the flow hash; `None` is a random one at each start.
    pub hash_seed: Option<u64>,
    /// Sets of workers that ports of virtual addresses name as theirs.
    pub pools: Vec<Pool>,
    /// How their workers are probed, by the pool's name.
    pub health: BTreeMap<Arc<str>, HealthCheck>,
    /// How packets get to workers elsewhere.
    pub tunnel: Tunnel,
    /// How long idle flows are remembered.
    pub connections: Connections,
    /// Flows that are remembered of IPv4 clients, and as many of IPv6 clients.
    pub flows: u32,
    /// Limits for each source address in XDP.
    pub flood: Option<FloodLimits>,
    /// The allow and the deny list of tier 1.
    pub sources: Sources,
    /// UDP ports that reflection attacks come from.
    pub reflection_ports: Vec<u16>,
    /// New connections that each VIP takes in XDP.
    pub vip_limit: Option<TokenRate>,
    /// When SYNs are answered with cookies in XDP.
    pub syn_cookies: Option<SynCookies>,
    /// When a source that is refused by a rate limit is dropped in XDP.
    pub penalties: Option<PenaltyPolicy>,
    /// Labels that the selectors of Gateways are matched against.
    pub gateway_labels: BTreeMap<String, String>,
    /// Namespace of this gateway.
    pub gateway_namespace: String,
    /// Addresses of this gateway as an endpoint of Services and ServiceEntries.
    pub gateway_addresses: Vec<IpAddr>,
    /// Istio's root namespace.
    pub root_namespace: String,
    /// Domain of the Kubernetes cluster.
    pub domain: String,
    /// Folder of the resources, relative to the folder of the file.
    pub resources: PathBuf,
    /// Address of the admin server.
    pub admin: SocketAddr,
    /// How the process comes to its end.
    pub drain: Drain,
    /// Bounds of the process.
    pub overload: Overload,
    /// How names of endpoints are resolved.
    pub dns: Dns,
    /// Proxies in front of this gateway whose x-forwarded-for is believed (Istio `numTrustedProxies`).
    pub num_trusted_proxies: u32,
    /// What is logged of each request; `None` nothing.
    pub access_log: Option<AccessLog>,
    /// What is made of paths before they are matched.
    pub paths: PathPolicy,
    /// How long clients may take.
    pub timeouts: ClientTimeouts,
    /// How much clients may send.
    pub limits: ClientLimits,
    /// Which connections begin with a header of the PROXY protocol.
    pub proxy_protocol: ProxyProtocolIn,
}

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// File that lines are appended to; `None` is the standard output.
    pub path: Option<PathBuf>,
    /// Shape of a line.
    pub encoding: AccessLogEncoding,
    /// Format of a text; `None` is Istio's.
    pub text: Option<FormatString>,
    /// Members of a JSON object; none stands for Istio's.
    pub json: Vec<(String, FormatString)>,
    /// Share of the requests that are logged.
    pub sample: Fraction,
}

/// Where links and maps are pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinning {
    /// Folder on a BPF file system.
    pub path: PathBuf,
    /// What becomes of pinned programs when edge ends in order.
    pub on_stop: OnStop,
}

/// Lists of sources; files are relative to the folder of the bootstrap file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// Prefixes that are exempt.
    pub allow: Vec<Prefix>,
    /// Files with more of them.
    pub allow_files: Vec<String>,
    /// Prefixes that are dropped.
    pub deny: Vec<Prefix>,
    /// Files with more of them.
    pub deny_files: Vec<String>,
}

/// An address that tier 1 answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualAddress {
    /// The address; of a prefix the first.
    pub address: IpAddr,
    /// Bits at its end that do not count: 0 for an address.
    pub free_bits: u8,
    /// What becomes of packets to other ports.
    pub unserved: Unserved,
    /// Ports that are answered for; none stands for those of all Gateways.
    pub ports: Vec<VirtualPort>,
}

/// A port of a virtual address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualPort {
    /// Port that clients connect to; 0 stands for all.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port that the gateway workers listen on; `None` is the one that the Gateways' port is translated to.
    pub listener_port: Option<u16>,
    /// Index of its pool; `None` is this node's gateway workers.
    pub pool: Option<u16>,
    /// What decides which worker a flow goes to.
    pub spread: Spread,
    /// Whether flows stay with their worker when the workers change.
    pub remembers: bool,
}

impl Bootstrap {
    /// Reads and checks the text of the file, and says of it all that is to be said, warnings too, each with line, key
    /// and hint. `file` is only what problems call it. `None`: there is an error among the problems.
    pub fn read(file: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let (lines, value) = match yaml::load(text, 0) {
            Ok(loaded) => loaded,
            Err(errors) => {
                problems.extend(errors.into_iter().map(|error| error.into_problem(file, None)));
                return None;
            }
        };
        let source = SourceRef::new(file.into(), Arc::new(lines), String::new());
        let style = Style {
            unknown: UnknownFields::Refused,
            envoy: false,
        };
        let (raw, findings) = yaml::read::<raw::RawBootstrap>(&value, "", style);
        let findings = findings.into_iter();
        let mut found: Vec<_> = findings
            .map(|found| source.problem(found.severity, None, found.field, found.message, found.hint))
            .collect();
        let bootstrap = raw.map(|raw| check::check(raw, &source, &mut found));
        let is_wrong = found.iter().any(Problem::is_error);
        problems.append(&mut found);
        bootstrap.filter(|_| !is_wrong)
    }
}

impl Default for Bootstrap {
    /// What an empty file means.
    fn default() -> Self {
        let source = SourceRef::new("edge.yaml".into(), Arc::default(), String::new());
        check::check(raw::RawBootstrap::default(), &source, &mut vec![])
    }
}
