//! `edge status`: everything, for people.

use std::fmt::Write as _;

use super::{DataPathStatus, Status};

/// The status for people.
pub(super) fn text(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = render(&mut out, status);
    out
}

fn render(out: &mut String, status: &Status) -> std::fmt::Result {
    let ready = if status.ready { "ready" } else { "draining" };
    let sync = if status.config.in_sync {
        "as on disk"
    } else {
        "NOT as on disk"
    };
    writeln!(
        out,
        "edge {} {ready}, up {} s",
        status.version, status.uptime_seconds
    )?;
    writeln!(out, "configuration: snapshot {} ({sync})", status.config.snapshot)?;
    for problem in &status.config.problems {
        writeln!(out, "  {problem}")?;
    }
    if !status.config.restart_needed.is_empty() {
        writeln!(
            out,
            "  changed, in force after a restart: {}",
            status.config.restart_needed.join(", ")
        )?;
    }
    match &status.datapath {
        Some(datapath) => render_datapath(out, datapath)?,
        None => writeln!(out, "\ntier 1: off (no interface configured)")?,
    }
    writeln!(
        out,
        "\n{:<8} {:>12} {:>12} {:>12} {:>12} {:>8}",
        "worker", "packets", "SYN", "steered", "accepted", "flows"
    )?;
    for worker in &status.workers {
        writeln!(
            out,
            "{:<8} {:>12} {:>12} {:>12} {:>12} {:>8}",
            worker.id, worker.packets, worker.new_connections, worker.steered, worker.accepted, worker.flows
        )?;
    }
    writeln!(out, "\nlisteners")?;
    for listener in &status.listeners {
        writeln!(
            out,
            "  {} {}: {}",
            listener.name,
            listener.protocol,
            listener.virtual_hosts.join(", ")
        )?;
    }
    writeln!(out, "\nclusters")?;
    for cluster in &status.clusters {
        writeln!(out, "  {} {}", cluster.name, cluster.load_balancer)?;
        for endpoint in &cluster.endpoints {
            writeln!(
                out,
                "    {:<24} {:<10} active {:<6} requests {}",
                endpoint.address.to_string(),
                endpoint.version,
                endpoint.active,
                endpoint.requests
            )?;
        }
    }
    Ok(())
}

fn render_datapath(out: &mut String, datapath: &DataPathStatus) -> std::fmt::Result {
    writeln!(out)?;
    for interface in &datapath.interfaces {
        write!(out, "interface {}: XDP {}", interface.name, interface.mode)?;
        match interface.devices.as_slice() {
            [device] if *device == interface.name => writeln!(out)?,
            devices => writeln!(out, ", on {}", devices.join(", "))?,
        }
    }
    writeln!(
        out,
        "\n{:<32} {:>12} {:>14} {:>12} {:>12}",
        "VIP", "packets", "bytes", "SYN", "dropped"
    )?;
    for vip in &datapath.vips {
        let name = format!("{} {} -> {}", vip.service(), vip.protocol, vip.listener_port);
        writeln!(
            out,
            "{name:<32} {:>12} {:>14} {:>12} {:>12}",
            vip.packets, vip.bytes, vip.new_connections, vip.dropped
        )?;
        for (reason, count) in &vip.dropped_by_reason {
            writeln!(out, "  {:<30} {:>53}", format!("dropped: {reason}"), count)?;
        }
    }
    writeln!(
        out,
        "\npackets delivered {}, steering misses {}",
        datapath.delivered, datapath.steer_misses
    )?;
    for (heading, counts) in [
        ("passed", &datapath.passed),
        ("answered", &datapath.replied),
        ("left", &datapath.left_to_kernel),
        ("forwarded", &datapath.forwarded),
        ("dropped", &datapath.dropped),
    ] {
        for (reason, count) in counts.iter().filter(|(_, count)| **count > 0) {
            writeln!(out, "  {heading:<9} {reason:<24} {count:>12}")?;
        }
    }
    for (kind, count) in datapath.evicted.iter().filter(|(_, count)| **count > 0) {
        writeln!(out, "  flows given up: {kind:<18} {count:>12}")?;
    }
    pool_workers(out, datapath)?;
    writeln!(out, "\npenalties: {}", datapath.penalties.len())?;
    for penalty in &datapath.penalties {
        let kept = match penalty.per_second {
            0 => String::new(),
            rate => format!(", {rate} per second pass"),
        };
        writeln!(
            out,
            "  {:<40} {:<12} {:>7.1} s left {:>12} dropped ({}{kept})",
            penalty.source, penalty.reason, penalty.remaining_seconds, penalty.dropped, penalty.scope
        )?;
    }
    Ok(())
}

fn pool_workers(out: &mut String, datapath: &DataPathStatus) -> std::fmt::Result {
    if datapath.pool_workers.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<32} {:>12} {:>14} {:>12}",
        "worker of a pool", "packets", "bytes", "SYN"
    )?;
    for worker in &datapath.pool_workers {
        let name = format!(
            "{}/{} {}, {}",
            worker.pool, worker.name, worker.address, worker.state
        );
        writeln!(
            out,
            "{name:<32} {:>12} {:>14} {:>12}",
            worker.packets, worker.bytes, worker.new_connections
        )?;
    }
    super::view::health(out, datapath)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_balancer_counts_is_shown() {
        let shown = text(&super::super::view::tests::status(100, 50));
        let lines: Vec<_> = shown
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for line in [
            "192.0.2.1:80 tcp -> 8080 100 6000 2 50",
            "192.0.2.0/24:80 tcp -> 0 400 0 0 0",
            "192.0.2.0:80 tcp -> 0 1 0 0 0",
            "forwarded known 100",
            "dropped no_service 50",
            "flows given up: confirmed 6",
            "worker of a pool packets bytes SYN",
            "web/node-1 192.0.2.9, down 100 9 4",
            "packets do not get to web/node-1: no route",
            "web/node-1 is unhealthy; its last probe failed: refused",
        ] {
            assert!(
                lines.iter().any(|shown| shown == line),
                "{line:?} is missing in:\n{shown}"
            );
        }
        assert!(
            !shown.contains("unconfirmed"),
            "what did not happen is left out:\n{shown}"
        );
    }
}
