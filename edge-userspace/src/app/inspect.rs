//! What the admin address shows of the running edge.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use edge_datapath::{
    DataPath, DropReason, Eviction, FlowReason, LeftToKernel, PassReason, ReplyReason, Stats,
};
use edge_model::{Cluster, Listener, ListenerProtocol, MemberState, RouteTable, WorkerId};
use edge_proxy::Proxy;
use prometheus::proto::MetricFamily;
use tokio::sync::broadcast::Receiver;

use super::health::Target;
use super::{App, lock};
use crate::admin::Inspect;
use crate::dump;
use crate::flows;
use crate::metrics;
use crate::status::{
    ClusterStatus, ConfigStatus, DataPathStatus, EndpointStatus, InterfaceStatus, ListenerStatus,
    PenaltyStatus, PoolWorkerStatus, Status, VipStatus, WorkerStatus,
};

impl Inspect for App {
    fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        if let Some((stats, penalties)) = self.counters() {
            families.extend(metrics::datapath(&stats, penalties.len()));
        }
        families
    }

    fn status(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.state())
    }

    fn flows(&self, query: &flows::Query) -> serde_json::Result<String> {
        let mut listed = flows::Listing::default();
        let mut next = Some(0);
        while let Some(first) = next.filter(|_| listed.flows.len() < query.limit) {
            // Part by part, so that penalties and changes need not wait for all of it.
            let page = lock(&self.datapath)
                .as_ref()
                .map(|datapath| datapath.connections(first));
            match page {
                Some(Ok(page)) => {
                    listed.add(&page.connections, query);
                    next = page.next;
                }
                Some(Err(error)) => {
                    tracing::warn!("the connection table cannot be read: {error}");
                    next = None;
                }
                None => next = None,
            }
        }
        serde_json::to_string(&listed)
    }

    fn samples(&self) -> Receiver<Arc<str>> {
        self.samples.subscribe()
    }

    fn config_dump(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&dump::snapshot(&self.snapshot.borrow()))
    }
}

impl App {
    fn state(&self) -> Status {
        let counters = self.counters();
        let stats = counters.as_ref().map(|(stats, _)| stats);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: self.ready(),
            uptime_seconds: self.started.elapsed().as_secs(),
            config: self.config(),
            workers: self.workers(stats),
            datapath: counters
                .as_ref()
                .map(|(stats, penalties)| self.datapath_status(stats, penalties)),
            listeners: self
                .snapshot
                .borrow()
                .listeners
                .iter()
                .map(|listener| listener_status(listener))
                .collect(),
            clusters: self.clusters(),
        }
    }

    fn config(&self) -> ConfigStatus {
        let control = self.control.borrow();
        let apply_error = lock(&self.apply_error).clone();
        ConfigStatus {
            snapshot: u64::try_from(self.metrics.snapshot.get()).unwrap_or(0),
            in_sync: control.is_current && apply_error.is_none(),
            problems: control
                .problems
                .iter()
                .map(edge_config::Problem::with_location)
                .chain(apply_error)
                .collect(),
            restart_needed: control.restart_needed.iter().map(ToString::to_string).collect(),
        }
    }

    /// Counters and penalties of tier 1, if it is on.
    fn counters(&self) -> Option<(Stats, Vec<edge_datapath::PenaltyStatus>)> {
        let datapath = lock(&self.datapath);
        let read =
            |datapath: &DataPath| Ok::<_, edge_datapath::Error>((datapath.stats()?, datapath.penalties()?));
        match read(datapath.as_ref()?) {
            Ok(counters) => Some(counters),
            Err(error) => {
                tracing::warn!("tier 1's counters cannot be read: {error}");
                None
            }
        }
    }

    fn datapath_status(&self, stats: &Stats, penalties: &[edge_datapath::PenaltyStatus]) -> DataPathStatus {
        let listener_port: HashMap<_, _> = self
            .snapshot
            .borrow()
            .datapath
            .vips
            .iter()
            .map(|vip| {
                (
                    (vip.address, vip.free_bits, vip.port, vip.protocol),
                    vip.listener_port,
                )
            })
            .collect();
        let vip = |vip: &edge_datapath::VipStats| VipStatus {
            address: vip.vip.address,
            prefix_len: prefix_len(vip.vip.address, vip.vip.free_bits),
            port: vip.vip.port,
            protocol: dump::protocol_name(vip.vip.protocol).to_owned(),
            listener_port: listener_port
                .get(&(vip.vip.address, vip.vip.free_bits, vip.vip.port, vip.vip.protocol))
                .copied()
                .unwrap_or(0),
            packets: vip.traffic.packets,
            bytes: vip.traffic.bytes,
            new_connections: vip.traffic.new_connections,
            dropped: vip.dropped(),
            dropped_by_reason: vip
                .dropped_by_reason()
                .map(|(reason, count)| (reason.name().to_owned(), count))
                .collect(),
        };
        let interface = |interface: &edge_datapath::InterfaceStatus| InterfaceStatus {
            name: interface.name.clone(),
            mode: interface.mode.name().to_owned(),
            devices: interface.devices.clone(),
        };
        DataPathStatus {
            interfaces: stats.interfaces.iter().map(interface).collect(),
            vips: stats.vips.iter().map(vip).collect(),
            passed: by_name(&stats.passed, PassReason::name),
            replied: by_name(&stats.replied, ReplyReason::name),
            left_to_kernel: by_name(&stats.left_to_kernel, LeftToKernel::name),
            delivered: stats.workers.iter().map(|worker| worker.traffic.packets).sum(),
            dropped: by_name(&stats.dropped, DropReason::name),
            forwarded: by_name(&stats.flows, FlowReason::name),
            evicted: by_name(&stats.evicted, Eviction::name),
            pool_workers: stats
                .members
                .iter()
                .map(|member| self.pool_worker(member))
                .collect(),
            steer_misses: stats.workers.iter().map(|worker| worker.steering.no_socket).sum(),
            penalties: penalties
                .iter()
                .filter(|penalty| !penalty.remaining.is_zero())
                .map(penalty_status)
                .collect(),
        }
    }

    fn pool_worker(&self, member: &edge_datapath::MemberStats) -> PoolWorkerStatus {
        let target = Target {
            pool: Arc::clone(&member.member.pool),
            worker: Arc::clone(&member.member.name),
            address: member.member.address,
        };
        PoolWorkerStatus {
            pool: target.pool.to_string(),
            name: target.worker.to_string(),
            address: target.address,
            state: match member.state {
                MemberState::Active => "active",
                MemberState::Draining => "draining",
                MemberState::Down => "down",
            }
            .to_owned(),
            health: lock(&self.probes).status(&target),
            obstacle: member.obstacle.clone(),
            packets: member.traffic.packets,
            bytes: member.traffic.bytes,
            new_connections: member.traffic.new_connections,
        }
    }

    fn workers(&self, stats: Option<&Stats>) -> Vec<WorkerStatus> {
        let proxy = lock(&self.proxy).as_ref().map(Proxy::workers).unwrap_or_default();
        let of =
            |id: WorkerId| stats.and_then(|stats| stats.workers.iter().find(|worker| worker.worker == id));
        proxy
            .iter()
            .map(|worker| {
                let counted = of(worker.id);
                WorkerStatus {
                    id: worker.id.0,
                    packets: counted.map_or(0, |counted| counted.traffic.packets),
                    new_connections: counted.map_or(0, |counted| counted.traffic.new_connections),
                    steered: counted.map_or(0, |counted| counted.steering.steered),
                    accepted: worker.connections_total,
                    flows: worker.connections,
                }
            })
            .collect()
    }

    fn clusters(&self) -> Vec<ClusterStatus> {
        let snapshot = self.snapshot.borrow();
        let status = lock(&self.proxy)
            .as_ref()
            .map(Proxy::clusters)
            .unwrap_or_default();
        status
            .iter()
            .map(|cluster| {
                let model = snapshot.clusters.get(&cluster.name);
                ClusterStatus {
                    name: cluster.name.to_string(),
                    load_balancer: model
                        .map_or("", |model| dump::load_balancer_name(&model.load_balancer))
                        .to_owned(),
                    endpoints: cluster
                        .endpoints
                        .iter()
                        .map(|endpoint| endpoint_status(endpoint, model))
                        .collect(),
                }
            })
            .collect()
    }
}

fn endpoint_status(endpoint: &edge_proxy::EndpointStatus, cluster: Option<&Arc<Cluster>>) -> EndpointStatus {
    let of_model = |cluster: &Arc<Cluster>| {
        let same = cluster
            .endpoints
            .iter()
            .find(|other| other.address == endpoint.address)?;
        Some(same.workload.version.clone())
    };
    EndpointStatus {
        address: endpoint.address,
        version: cluster.and_then(of_model).unwrap_or_default(),
        active: u64::from(endpoint.requests_active),
        requests: endpoint.requests_total,
    }
}

fn penalty_status(penalty: &edge_datapath::PenaltyStatus) -> PenaltyStatus {
    PenaltyStatus {
        source: penalty.source.to_string(),
        remaining_seconds: penalty.remaining.as_secs_f64(),
        reason: penalty.reason.name().to_owned(),
        scope: penalty.measure.scope.name().to_owned(),
        per_second: penalty.measure.rate.map_or(0, |rate| rate.per_second),
        dropped: penalty.dropped,
    }
}

fn listener_status(listener: &Listener) -> ListenerStatus {
    let names = |table: &RouteTable| -> Vec<String> {
        let hosts = table.virtual_hosts.sorted();
        hosts.into_iter().map(|host| host.name.clone()).collect()
    };
    let (protocol, virtual_hosts) = match &listener.protocol {
        ListenerProtocol::Http(table) => ("http", names(table)),
        ListenerProtocol::Tls(_) => ("tls", listener.tables().flat_map(|table| names(table)).collect()),
        ListenerProtocol::Tcp(_) => ("tcp", vec![]),
    };
    ListenerStatus {
        name: listener.name.clone(),
        port: listener.port,
        protocol: protocol.to_owned(),
        virtual_hosts,
    }
}

/// Length of a VIP's prefix; `None` of an address.
fn prefix_len(address: IpAddr, free_bits: u8) -> Option<u8> {
    let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
    (free_bits > 0).then(|| bits.saturating_sub(free_bits))
}

/// Counts by the names of what they count.
fn by_name<R: Copy>(counts: &[(R, u64)], name: fn(R) -> &'static str) -> BTreeMap<String, u64> {
    let counts = counts.iter();
    counts
        .map(|&(reason, count)| (name(reason).to_owned(), count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_the_bits_that_are_not_free() {
        let rows = [
            ("192.0.2.0", 8, Some(24)),
            ("192.0.2.1", 0, None),
            ("0.0.0.0", 32, Some(0)),
            ("2001:db8::", 64, Some(64)),
            ("2001:db8::1", 0, None),
        ];
        for (address, free_bits, expected) in rows {
            let address = address.parse().expect("literal");
            assert_eq!(prefix_len(address, free_bits), expected, "{address}");
        }
    }
}
