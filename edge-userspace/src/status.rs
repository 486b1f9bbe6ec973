//! `edge status`: the state of a running edge as values, how it is asked for, and how it is shown.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};

use crate::cli::{StatusArgs, StatusView};
use crate::flows;

mod overview;
mod view;

/// Answer of the admin address to `/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Version of the program.
    pub(crate) version: String,
    /// Whether new connections are welcome.
    pub(crate) ready: bool,
    /// Seconds since the start.
    pub(crate) uptime_seconds: u64,
    /// The configuration in force, and what is wrong with the files if they differ from it.
    pub(crate) config: ConfigStatus,
    /// Tier 1; absent when no interface is configured.
    pub(crate) datapath: Option<DataPathStatus>,
    /// Gateway workers.
    pub(crate) workers: Vec<WorkerStatus>,
    /// Listeners.
    pub(crate) listeners: Vec<ListenerStatus>,
    /// Clusters with their endpoints.
    pub(crate) clusters: Vec<ClusterStatus>,
}

/// What is known of the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ConfigStatus {
    /// Number of the Snapshot in force.
    pub(crate) snapshot: u64,
    /// Whether the files on disk are what is in force.
    pub(crate) in_sync: bool,
    /// Problems found when the files were last read, one line each.
    pub(crate) problems: Vec<String>,
    /// Keys of edge.yaml that were changed and take effect with the next start.
    pub(crate) restart_needed: Vec<String>,
}

/// State of tier 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DataPathStatus {
    /// Interfaces that the XDP program is attached to.
    pub(crate) interfaces: Vec<InterfaceStatus>,
    /// VIPs.
    pub(crate) vips: Vec<VipStatus>,
    /// Packets that went up the stack unchanged, by reason.
    pub(crate) passed: BTreeMap<String, u64>,
    /// Packets that were turned into an answer, by what it is.
    #[serde(default)]
    pub(crate) replied: BTreeMap<String, u64>,
    /// SYNs that came by tunnels and were left to the kernel's own cookies, by reason.
    #[serde(default)]
    pub(crate) left_to_kernel: BTreeMap<String, u64>,
    /// Packets delivered to workers.
    pub(crate) delivered: u64,
    /// Packets dropped, by reason.
    pub(crate) dropped: BTreeMap<String, u64>,
    /// Packets forwarded to workers of pools, by how their worker was found.
    #[serde(default)]
    pub(crate) forwarded: BTreeMap<String, u64>,
    /// Flows that gave their place in the connection table to others, by what they were.
    #[serde(default)]
    pub(crate) evicted: BTreeMap<String, u64>,
    /// Workers of pools.
    #[serde(default)]
    pub(crate) pool_workers: Vec<PoolWorkerStatus>,
    /// Connections for which no worker had a socket.
    pub(crate) steer_misses: u64,
    /// Penalties in force.
    pub(crate) penalties: Vec<PenaltyStatus>,
}

/// One worker of a pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PoolWorkerStatus {
    /// Name of the pool.
    pub(crate) pool: String,
    /// Name of the worker.
    pub(crate) name: String,
    /// Its address.
    pub(crate) address: IpAddr,
    /// `active`, `draining` or `down`: whether it takes connections.
    pub(crate) state: String,
    /// What its probes say; absent when it is not probed.
    pub(crate) health: Option<HealthStatus>,
    /// Why packets do not get there; absent if they do.
    #[serde(default)]
    pub(crate) obstacle: Option<String>,
    /// Packets sent there.
    pub(crate) packets: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// New connections (SYN, repeated ones too) sent there.
    pub(crate) new_connections: u64,
}

/// What the probes of a worker say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HealthStatus {
    /// Whether the worker is taken for healthy.
    pub(crate) healthy: bool,
    /// Probes that passed since the start.
    pub(crate) passed: u64,
    /// Probes that failed since the start.
    pub(crate) failed: u64,
    /// Why the last probe failed; absent if it passed.
    pub(crate) error: Option<String>,
}

/// One interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct InterfaceStatus {
    /// Name.
    pub(crate) name: String,
    /// `native` or `generic`.
    pub(crate) mode: String,
    /// Devices that carry the program: the interface itself, what a VLAN stands on, or the members of a bond.
    pub(crate) devices: Vec<String>,
}

/// One VIP.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VipStatus {
    /// Address; of a prefix the first.
    pub(crate) address: IpAddr,
    /// Length of the prefix, in bits; none of an address.
    #[serde(default)]
    pub(crate) prefix_len: Option<u8>,
    /// Port.
    pub(crate) port: u16,
    /// `tcp` or `udp`.
    pub(crate) protocol: String,
    /// Port of the listeners behind it.
    pub(crate) listener_port: u16,
    /// Packets delivered.
    pub(crate) packets: u64,
    /// Bytes delivered.
    pub(crate) bytes: u64,
    /// New connections (SYN) delivered.
    pub(crate) new_connections: u64,
    /// Packets dropped, for all reasons.
    pub(crate) dropped: u64,
    /// Packets dropped, by reason; reasons without any are left out.
    pub(crate) dropped_by_reason: BTreeMap<String, u64>,
}

impl VipStatus {
    /// `192.0.2.80:443`, `[2001:db8::80]:443`; of a prefix `192.0.2.0/24:443`.
    pub(crate) fn service(&self) -> String {
        match self.prefix_len {
            Some(len) => format!("{}/{len}:{}", self.address, self.port),
            None => SocketAddr::new(self.address, self.port).to_string(),
        }
    }
}

/// A penalised source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PenaltyStatus {
    /// Source: an address, or a prefix.
    pub(crate) source: String,
    /// Seconds until it ends.
    pub(crate) remaining_seconds: f64,
    /// Why it was given.
    pub(crate) reason: String,
    /// `everything` or `newConnections`: which packets are meant.
    pub(crate) scope: String,
    /// Packets of these that pass per second; 0 if none does.
    pub(crate) per_second: u32,
    /// Packets dropped so far.
    pub(crate) dropped: u64,
}

/// One gateway worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkerStatus {
    /// Index.
    pub(crate) id: u16,
    /// Packets that tier 1 chose it for.
    pub(crate) packets: u64,
    /// New connections (SYN, repeated ones too) that tier 1 chose it for.
    pub(crate) new_connections: u64,
    /// Look-ups that `sk_lookup` answered with its socket: one for each connection, and one for each packet that comes after its
    /// connection was reset.
    pub(crate) steered: u64,
    /// Connections that it accepted.
    pub(crate) accepted: u64,
    /// Flows: connections that are open now.
    pub(crate) flows: u64,
}

/// One listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ListenerStatus {
    /// Istio's name.
    pub(crate) name: String,
    /// Port.
    pub(crate) port: u16,
    /// `http` or `https`.
    pub(crate) protocol: String,
    /// Names of the virtual hosts.
    pub(crate) virtual_hosts: Vec<String>,
}

/// One cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ClusterStatus {
    /// Istio's name.
    pub(crate) name: String,
    /// `LEAST_REQUEST`, `ROUND_ROBIN` or `RANDOM`.
    pub(crate) load_balancer: String,
    /// Endpoints.
    pub(crate) endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndpointStatus {
    /// Address.
    pub(crate) address: SocketAddr,
    /// Label `version` of the workload.
    pub(crate) version: String,
    /// Requests under way.
    pub(crate) active: u64,
    /// Requests sent since the start.
    pub(crate) requests: u64,
}

/// Asks a running edge and prints its answer.
///
/// # Errors
/// When no edge answers at the address.
pub(crate) async fn run(args: &StatusArgs) -> Result<()> {
    if let Some(limit) = args.limit {
        return list_flows(args, limit).await;
    }
    let mut before = None;
    loop {
        let body = get(args.admin, "/status").await?;
        let read = || serde_json::from_slice(&body).context("the answer is not of this program's version");
        if args.json && args.view.is_none() {
            println!("{}", String::from_utf8_lossy(&body).trim_end());
        } else if args.json {
            let part = |view| -> Result<String> { Ok(view::json(&read()?, view)?) };
            println!("{}", args.view.map(part).transpose()?.unwrap_or_default());
        } else {
            let status: Status = read()?;
            if args.watch.is_some() && std::io::stdout().is_terminal() {
                // Clears the screen and goes to its first corner (ECMA-48: ED, CUP).
                print!("\x1b[2J\x1b[H");
            }
            let since = before.as_ref().zip(args.watch);
            match args.view {
                Some(view) => print!("{}", view::table(&status, since, view)),
                None => print!("{}", overview::text(&status)),
            }
            before = Some(status);
        }
        let Some(seconds) = args.watch else { return Ok(()) };
        std::io::stdout().flush()?;
        tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
    }
}

/// Lists flows one by one.
async fn list_flows(args: &StatusArgs, limit: u32) -> Result<()> {
    if args.view != Some(StatusView::Flows) || args.watch.is_some() {
        bail!("--limit goes with `edge status flows`, without --watch");
    }
    let query = flows::Query {
        limit: limit as usize,
        vip: args.vip.clone(),
        worker: args.worker.clone(),
    };
    let body = get(args.admin, &format!("/flows?{query}")).await?;
    if args.json {
        println!("{}", String::from_utf8_lossy(&body).trim_end());
    } else {
        let listed: flows::Listing =
            serde_json::from_slice(&body).context("the answer is not of this program's version")?;
        print!("{listed}");
    }
    Ok(())
}

/// One GET to the admin address.
async fn get(admin: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let answer = tokio::time::timeout(Duration::from_secs(5), fetch(admin, path)).await;
    let hint = "is `edge run` up, and is this its key `admin`?";
    answer
        .with_context(|| format!("no answer from {admin} within 5 s ({hint})"))?
        .with_context(|| format!("cannot ask {admin} ({hint})"))
}

async fn fetch(admin: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let stream = tokio::net::TcpStream::connect(admin).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header("host", admin.to_string())
        .body(Empty::<bytes::Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        bail!("status {}", response.status());
    }
    Ok(response.into_body().collect().await?.to_bytes().to_vec())
}
