//! Tier 1's counters as metric families. They are read from the BPF maps when somebody scrapes, and at no other time.

use edge_datapath::Stats;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Families of what the data path counted. A family that cannot be made is left out and logged.
pub(crate) fn datapath(stats: &Stats, penalties: usize) -> Vec<MetricFamily> {
    families(stats, penalties).unwrap_or_else(|error| {
        tracing::error!(%error, "tier 1's metrics cannot be made");
        Vec::new()
    })
}

fn families(stats: &Stats, penalties: usize) -> prometheus::Result<Vec<MetricFamily>> {
    let registry = Registry::new();
    let passed = stats
        .passed
        .iter()
        .map(|(reason, count)| (vec![reason.name().to_owned()], *count));
    let help = "Packets that went up the stack untouched";
    counters(
        &registry,
        "edge_datapath_passed_packets_total",
        help,
        &["reason"],
        passed,
    )?;
    let dropped = stats
        .dropped
        .iter()
        .map(|(reason, count)| (vec![reason.name().to_owned()], *count));
    counters(
        &registry,
        "edge_datapath_dropped_packets_total",
        "Packets dropped",
        &["reason"],
        dropped,
    )?;
    let replied = stats
        .replied
        .iter()
        .map(|(reason, count)| (vec![reason.name().to_owned()], *count));
    counters(
        &registry,
        "edge_datapath_replied_packets_total",
        "Packets that were turned into an answer",
        &["reason"],
        replied,
    )?;
    let left = stats.left_to_kernel.iter();
    counters(
        &registry,
        "edge_datapath_syns_left_to_kernel_total",
        "SYNs that came by tunnels and were left to the kernel's own cookies",
        &["reason"],
        left.map(|(reason, count)| (vec![reason.name().to_owned()], *count)),
    )?;
    vips(&registry, stats)?;
    workers(&registry, stats)?;
    pools(&registry, stats)?;
    let gauge = IntGauge::new("edge_datapath_penalties", "Sources under a penalty")?;
    gauge.set(i64::try_from(penalties).unwrap_or(i64::MAX));
    registry.register(Box::new(gauge))?;
    Ok(registry.gather())
}

fn vips(registry: &Registry, stats: &Stats) -> prometheus::Result<()> {
    let of = |count: fn(&edge_datapath::VipStats) -> u64| {
        stats
            .vips
            .iter()
            .map(move |vip| (vec![vip.vip.to_string()], count(vip)))
    };
    let name = |what: &str| format!("edge_datapath_vip_{what}_total");
    let labels = &["vip"];
    counters(
        registry,
        &name("packets"),
        "Packets delivered, by VIP",
        labels,
        of(|vip| vip.traffic.packets),
    )?;
    counters(
        registry,
        &name("bytes"),
        "Bytes delivered, by VIP",
        labels,
        of(|vip| vip.traffic.bytes),
    )?;
    let help = "SYN segments delivered, repeated ones too, by VIP";
    counters(
        registry,
        &name("new_connections"),
        help,
        labels,
        of(|vip| vip.traffic.new_connections),
    )?;
    let dropped = stats.vips.iter().flat_map(|vip| {
        let name = vip.vip.to_string();
        vip.dropped_by_reason()
            .map(move |(reason, count)| (vec![name.clone(), reason.name().to_owned()], count))
    });
    counters(
        registry,
        &name("dropped_packets"),
        "Packets dropped, by VIP and reason",
        &["vip", "reason"],
        dropped,
    )
}

fn pools(registry: &Registry, stats: &Stats) -> prometheus::Result<()> {
    let flows = stats.flows.iter();
    let flows = flows.map(|(way, count)| (vec![way.name().to_owned()], *count));
    counters(
        registry,
        "edge_datapath_forwarded_packets_total",
        "Packets forwarded to workers of pools, by how the worker was found",
        &["flow"],
        flows,
    )?;
    let evicted = stats.evicted.iter();
    counters(
        registry,
        "edge_datapath_evicted_flows_total",
        "Flows that gave their place in the connection table to others, by what they were",
        &["kind"],
        evicted.map(|(kind, count)| (vec![kind.name().to_owned()], *count)),
    )?;
    let labels = &["pool", "worker"];
    let of = |count: fn(&edge_datapath::MemberStats) -> u64| {
        stats.members.iter().map(move |member| {
            let names = vec![member.member.pool.to_string(), member.member.name.to_string()];
            (names, count(member))
        })
    };
    let name = |what: &str| format!("edge_datapath_pool_worker_{what}_total");
    counters(
        registry,
        &name("packets"),
        "Packets sent to a worker of a pool",
        labels,
        of(|member| member.traffic.packets),
    )?;
    counters(
        registry,
        &name("bytes"),
        "Bytes sent to a worker of a pool",
        labels,
        of(|member| member.traffic.bytes),
    )?;
    counters(
        registry,
        &name("new_connections"),
        "SYN segments sent to a worker of a pool, repeated ones too",
        labels,
        of(|member| member.traffic.new_connections),
    )?;
    let up = IntGaugeVec::new(
        Opts::new(
            "edge_datapath_pool_worker_up",
            "1: the worker of a pool takes connections; 0: it drains or is down",
        ),
        labels,
    )?;
    for member in &stats.members {
        let names = [&*member.member.pool, &*member.member.name];
        let is_up = member.state == edge_model::MemberState::Active;
        up.get_metric_with_label_values(&names)?.set(i64::from(is_up));
    }
    registry.register(Box::new(up))
}

fn workers(registry: &Registry, stats: &Stats) -> prometheus::Result<()> {
    let of = |count: fn(&edge_datapath::WorkerStats) -> u64| {
        stats
            .workers
            .iter()
            .map(move |worker| (vec![worker.worker.0.to_string()], count(worker)))
    };
    let name = |what: &str| format!("edge_datapath_worker_{what}_total");
    let labels = &["worker"];
    counters(
        registry,
        &name("packets"),
        "Packets delivered, by worker",
        labels,
        of(|worker| worker.traffic.packets),
    )?;
    let help = "SYN segments delivered, repeated ones too, by worker";
    counters(
        registry,
        &name("new_connections"),
        help,
        labels,
        of(|worker| worker.traffic.new_connections),
    )?;
    let help = "Look-ups that socket selection answered with the worker's socket: new connections, and packets after a reset";
    counters(
        registry,
        &name("steered"),
        help,
        labels,
        of(|worker| worker.steering.steered),
    )?;
    let help = "Connections that went to another worker, for want of a socket";
    counters(
        registry,
        &name("moved"),
        help,
        labels,
        of(|worker| worker.steering.moved),
    )?;
    let help = "Connections refused, for want of a socket";
    counters(
        registry,
        &name("no_socket"),
        help,
        labels,
        of(|worker| worker.steering.no_socket),
    )
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    values: impl Iterator<Item = (Vec<String>, u64)>,
) -> prometheus::Result<()> {
    let family = IntCounterVec::new(Opts::new(name, help), labels)?;
    for (labels, value) in values {
        family.get_metric_with_label_values(&labels)?.inc_by(value);
    }
    registry.register(Box::new(family))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use edge_datapath::{
        DropReason, Eviction, FlowReason, MemberId, MemberStats, VipId, VipStats, WorkerStats,
    };
    use edge_model::{ForwardMode, MemberState, Protocol, WorkerId};
    use prometheus::TextEncoder;

    use super::*;

    fn vip(address: &str, free_bits: u8, packets: u64) -> VipStats {
        let mut stats = VipStats {
            vip: VipId {
                address: address.parse().expect("literal"),
                free_bits,
                port: 80,
                protocol: Protocol::Tcp,
            },
            traffic: Default::default(),
            drops: Default::default(),
        };
        stats.traffic.packets = packets;
        stats.traffic.bytes = 60 * packets;
        stats.traffic.new_connections = 2;
        stats.drops.by_reason[DropReason::Fragment.index() as usize] = 3;
        stats
    }

    fn worker(id: u16) -> WorkerStats {
        let mut stats = WorkerStats {
            worker: WorkerId(id),
            traffic: Default::default(),
            steering: Default::default(),
        };
        stats.traffic.packets = 10;
        stats.traffic.new_connections = 11;
        stats.steering.steered = 12;
        stats.steering.moved = 13;
        stats.steering.no_socket = 14;
        stats
    }

    fn member(name: &str, state: MemberState) -> MemberStats {
        let mut stats = MemberStats {
            worker: WorkerId(7),
            member: MemberId {
                pool: "web".into(),
                name: name.into(),
                address: IpAddr::from([192, 0, 2, 9]),
                mode: ForwardMode::Ipip,
            },
            state,
            traffic: Default::default(),
            obstacle: None,
        };
        stats.traffic.packets = 20;
        stats.traffic.bytes = 21;
        stats.traffic.new_connections = 22;
        stats
    }

    #[test]
    fn every_family_has_its_labels_and_counts() {
        let stats = Stats {
            vips: vec![
                vip("192.0.2.0", 0, 5),
                vip("192.0.2.0", 8, 6),
                vip("2001:db8::1", 0, 7),
            ],
            workers: vec![worker(0), worker(1)],
            members: vec![
                member("node 1", MemberState::Active),
                member("node-2", MemberState::Draining),
            ],
            flows: vec![(FlowReason::Known, 30), (FlowReason::New, 0)],
            evicted: vec![(Eviction::Confirmed, 31)],
            ..Stats::default()
        };
        let text = TextEncoder::new()
            .encode_to_string(&datapath(&stats, 4))
            .expect("text");
        let lines: Vec<_> = text.lines().collect();
        for line in [
            r#"vip_packets_total{vip="192.0.2.0:80/tcp"} 5"#,
            r#"vip_packets_total{vip="192.0.2.0/24:80/tcp"} 6"#,
            r#"vip_packets_total{vip="[2001:db8::1]:80/tcp"} 7"#,
            r#"vip_bytes_total{vip="192.0.2.0/24:80/tcp"} 360"#,
            r#"vip_new_connections_total{vip="192.0.2.0/24:80/tcp"} 2"#,
            r#"vip_dropped_packets_total{reason="fragment",vip="192.0.2.0/24:80/tcp"} 3"#,
            r#"worker_packets_total{worker="0"} 10"#,
            r#"worker_packets_total{worker="1"} 10"#,
            r#"worker_new_connections_total{worker="1"} 11"#,
            r#"worker_steered_total{worker="1"} 12"#,
            r#"worker_moved_total{worker="1"} 13"#,
            r#"worker_no_socket_total{worker="1"} 14"#,
            r#"pool_worker_packets_total{pool="web",worker="node 1"} 20"#,
            r#"pool_worker_bytes_total{pool="web",worker="node 1"} 21"#,
            r#"pool_worker_new_connections_total{pool="web",worker="node-2"} 22"#,
            r#"pool_worker_up{pool="web",worker="node 1"} 1"#,
            r#"pool_worker_up{pool="web",worker="node-2"} 0"#,
            r#"forwarded_packets_total{flow="known"} 30"#,
            r#"forwarded_packets_total{flow="new"} 0"#,
            r#"evicted_flows_total{kind="confirmed"} 31"#,
            "penalties 4",
        ] {
            let line = format!("edge_datapath_{line}");
            assert!(lines.contains(&&*line), "{line} is missing in:\n{text}");
        }
    }
}
