//! `edge status`: everything, for people.

use std::fmt::Write as _;
use std::net::SocketAddr;

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
        let name = format!(
            "{} {} -> {}",
            SocketAddr::new(vip.address, vip.port),
            vip.protocol,
            vip.listener_port
        );
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
        ("dropped", &datapath.dropped),
    ] {
        for (reason, count) in counts.iter().filter(|(_, count)| **count > 0) {
            writeln!(out, "  {heading:<8} {reason:<24} {count:>12}")?;
        }
    }
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
