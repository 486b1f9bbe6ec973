//! Floods, and sources that serve a penalty.

use std::net::{IpAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use edge_common::DropReason;
use edge_datapath_tests::node::{Pair, inside, listeners, sockets};
use edge_datapath_tests::setup::{LISTENER_PORT, config, limited};
use edge_model::{Measure, Penalty, PenaltyReason};

use crate::{WORKERS, connect, load, vips};

#[test]
fn a_flood_is_dropped_and_a_good_client_does_not_notice() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let listeners = listeners(WORKERS, LISTENER_PORT)?;
        let mut datapath = load()?;
        datapath.reconcile(&limited(WORKERS, 100, 50), &sockets(&listeners, LISTENER_PORT))?;
        for (kind, reason) in [
            ("syn", DropReason::FloodNewConnections),
            ("udp", DropReason::FloodPackets),
        ] {
            let before = datapath.stats()?;
            let flood = flood(&pair, kind)?;
            let good = inside(&pair.client, || {
                thread::sleep(Duration::from_millis(300));
                Ok(connect(vips()[1])?)
            });
            let output = flood.wait_with_output()?;
            ensure!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
            let sent = report["sent"].as_u64().context("sent")?;
            let after = datapath.stats()?;
            let dropped = after.dropped_for(reason) - before.dropped_for(reason);
            assert!(sent > 20_000, "{kind}: {report}");
            assert!(
                dropped * 100 >= sent * 99 && dropped <= sent,
                "{kind}: {dropped} of {report}"
            );
            good.context(kind)?;
        }
        Ok(())
    })
}

/// Starts a flood of one second from four sources.
fn flood(pair: &Pair, kind: &str) -> Result<std::process::Child> {
    let mut command = pair.client.command(env!("CARGO_BIN_EXE_edge-pktgen"));
    let port = if kind == "syn" { "80" } else { "53" };
    command.args([
        "--interface",
        "client0",
        "--kind",
        kind,
        "--dst",
        "10.77.100.1",
        "--dst-port",
        port,
    ]);
    command.args([
        "--src-base",
        "10.77.0.100",
        "--src-count",
        "4",
        "--seconds",
        "1",
        "--json",
    ]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    Ok(command.spawn()?)
}

#[test]
fn the_generator_keeps_to_its_rate_and_to_virtual_interfaces() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let mut datapath = load()?;
        datapath.reconcile(&config(1), &[])?;
        let run = |interface: &str| -> Result<std::process::Output> {
            let mut command: Command = pair.client.command(env!("CARGO_BIN_EXE_edge-pktgen"));
            command.args([
                "--interface",
                interface,
                "--kind",
                "udp",
                "--src-base",
                "198.18.0.1",
                "--dst",
            ]);
            command.args([
                "10.77.100.1",
                "--dst-port",
                "53",
                "--seconds",
                "1",
                "--pps",
                "2000",
                "--json",
            ]);
            Ok(command.output()?)
        };
        let report: serde_json::Value = serde_json::from_slice(&run("client0")?.stdout)?;
        let sent = report["sent"].as_u64().context("sent")?;
        assert!((1500..=2000).contains(&sent), "{report}");
        let stats = datapath.stats()?;
        let received: u64 = stats.vips.iter().map(|vip| vip.traffic.packets).sum();
        assert_eq!(received, sent, "every frame is a sound one to the VIP");
        let refused = run("lo")?;
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("veth"));
        Ok(())
    })
}

#[test]
fn a_penalty_stops_its_source_at_the_interface_until_it_ends() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let listeners = listeners(WORKERS, LISTENER_PORT)?;
        let mut datapath = load()?;
        datapath.reconcile(&config(WORKERS), &sockets(&listeners, LISTENER_PORT))?;
        let until = Instant::now() + Duration::from_secs(2);
        let source = IpAddr::from([10, 77, 0, 1]);
        datapath.penalise(&Penalty {
            source: source.into(),
            until,
            reason: PenaltyReason::RateLimit,
            measure: Measure::default(),
        })?;
        let short = Duration::from_millis(500);
        let refused = inside(&pair.client, || {
            Ok(TcpStream::connect_timeout(&vips()[0], short).is_err())
        })?;
        assert!(refused, "a penalised source reaches no VIP");
        inside(&pair.client, || Ok(connect(vips()[1])?)).context("by its other address it does")?;
        let penalty = datapath.penalties()?[0];
        assert!(
            penalty.source == source.into() && !penalty.remaining.is_zero() && penalty.dropped > 0,
            "{penalty:?}"
        );
        assert_eq!(
            datapath.stats()?.dropped_for(DropReason::Penalty),
            penalty.dropped
        );
        assert!(datapath.expire()?.is_empty());

        thread::sleep(until.saturating_duration_since(Instant::now()) + Duration::from_millis(20));
        inside(&pair.client, || Ok(connect(vips()[0])?)).context("the penalty is over")?;
        assert_eq!(datapath.expire()?.len(), 1);
        assert!(datapath.penalties()?.is_empty());
        Ok(())
    })
}
